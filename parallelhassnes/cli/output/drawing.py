"""Consoles of rich, for what is drawn: on a terminal, or where a variable asks for colours or a width."""

import os
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from parallelhassnes.cli.output.terminal import Terminal
from parallelhassnes.harmless import plain

PLAIN_WIDTH = 100_000
"""Columns of output that goes into a file or a pipe: nothing is cut or broken there, unless COLUMNS says how wide it is to be."""


def console(stream: IO[str] | None = None, *, wide: bool = False) -> Console:
    """Return a console on the stream, stdout unless said otherwise."""
    stream = stream or sys.stdout
    # A pipe has no width of its own, and a table cut at 80 columns is worth nothing in a file.
    width = None if not wide and (stream.isatty() or os.environ.get("COLUMNS")) else PLAIN_WIDTH
    drawn: Any = _Drawn(stream) if isinstance(stream, Terminal) else stream
    return _Console(file=drawn, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


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
