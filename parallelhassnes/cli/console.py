"""Consoles for people: as wide as the terminal, plain where there is none or NO_COLOR is set."""

import io
import os
import sys
from typing import IO

from rich.console import Console, RenderableType
from rich.text import Text

PLAIN_WIDTH = 160
"""Columns of output that goes into a file or a pipe."""


def console(stream: IO[str] | None = None) -> Console:
    """A console on the stream, stdout unless said otherwise."""
    stream = stream or sys.stdout
    # A pipe has no width of its own, and a table cut at 80 columns is worth nothing in a file.
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PLAIN_WIDTH
    return Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def show(renderable: RenderableType, stream: IO[str] | None = None) -> None:
    """Print it; tables fit the width, whole lines (``line``) may be longer than that."""
    console(stream).print(renderable, crop=False)


def text_of(renderable: RenderableType) -> str:
    """What it looks like in a file: plain, wide."""
    stream = io.StringIO()
    Console(file=stream, width=PLAIN_WIDTH, color_system=None, highlight=False, markup=False).print(
        renderable, crop=False
    )
    return stream.getvalue()


def line(text: str | Text, style: str = "") -> Text:
    """A line that is never broken: a path that is to be copied."""
    whole = text if isinstance(text, Text) else Text(text, style=style)
    whole.no_wrap, whole.overflow = True, "ignore"
    return whole
