"""Consoles for people: as wide as the terminal, plain where there is none or NO_COLOR is set."""

import io
import os
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from parallelhassnes.cli.output.terminal import Terminal
from parallelhassnes.harmless import plain

PLAIN_WIDTH = 100_000
"""Columns of output that goes into a file or a pipe: nothing is cut or broken there, unless COLUMNS says how wide it is to be."""


def widen(*, wide: bool) -> None:
    """Draw tables on standard output as in a file from now on: all columns, however wide the terminal is."""
    global _wide  # noqa: PLW0603 - as the streams, it is this process's
    _wide = wide


_wide = False


def console(stream: IO[str] | None = None) -> Console:
    """Return a console on the stream, stdout unless said otherwise."""
    wide = _wide and stream is None
    stream = stream or sys.stdout
    # A pipe has no width of its own, and a table cut at 80 columns is worth nothing in a file.
    width = None if not wide and (stream.isatty() or os.environ.get("COLUMNS")) else PLAIN_WIDTH
    drawn: Any = _Drawn(stream) if isinstance(stream, Terminal) else stream
    return _Console(file=drawn, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def at_most(count: int) -> int:
    """Return how many rows of a long list are printed: so many on a terminal, all of them elsewhere."""
    return count if sys.stdout.isatty() else sys.maxsize


def show(renderable: RenderableType, stream: IO[str] | None = None) -> None:
    """Print it; tables fit the width, whole lines (``line``) may be longer than that."""
    console(stream).print(renderable, crop=False)


def text_of(renderable: RenderableType) -> str:
    """Tell what it looks like in a file: plain, wide."""
    stream = io.StringIO()
    _Console(file=stream, width=PLAIN_WIDTH, color_system=None, highlight=False, markup=False).print(
        renderable, crop=False
    )
    return stream.getvalue()


class _Console(Console):
    """A console that lets no text command the terminal, only its own styles and drawing."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Make the pieces of a renderable."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)


class _Drawn:
    """A terminal's stream for a console, which says itself what commands it."""

    def __init__(self, stream: Terminal) -> None:
        self._stream = stream
        self.write = stream.draw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def line(text: str | Text, style: str = "") -> Text:
    """Return a line that is never broken: a path that is to be copied."""
    whole = text if isinstance(text, Text) else Text(text, style=style)
    whole.no_wrap, whole.overflow = True, "ignore"
    return whole
