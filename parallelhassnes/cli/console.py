"""Consoles for people: as wide as the terminal, plain where there is none or NO_COLOR is set."""

import io
import os
import sys
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
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
    console(stream).print(_Harmless(renderable), crop=False)


def text_of(renderable: RenderableType) -> str:
    """What it looks like in a file: plain, wide."""
    stream = io.StringIO()
    Console(file=stream, width=PLAIN_WIDTH, color_system=None, highlight=False, markup=False).print(
        _Harmless(renderable), crop=False
    )
    return stream.getvalue()


_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(32), *range(127, 160))
    if chr(code) not in "\n\t"
}


def harmless(text: str) -> str:
    """The text without characters that command a terminal: what a worker said may hold any."""
    return text if text.isprintable() else text.translate(_CONTROLS)


class _Harmless:
    """A renderable whose text commands no terminal; its styles do."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self._inner, options):
            yield Segment(text if control else harmless(text), style, control)


def line(text: str | Text, style: str = "") -> Text:
    """A line that is never broken: a path that is to be copied."""
    whole = text if isinstance(text, Text) else Text(text, style=style)
    whole.no_wrap, whole.overflow = True, "ignore"
    return whole
