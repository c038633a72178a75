"""What people read: drawn on a terminal, in plain lines elsewhere or where NO_COLOR is set.

Into a file or a pipe go the texts of the lines, without rich's console, which takes longer to load than they take to make.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.harmless import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

type Part = Text | Grid
"""What a page is made of, each on lines of its own."""
_DRAWS = ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which what is no terminal is drawn on as if it were one."""
_UNBOUND = 1 << 30
"""Columns of a file."""


class Page:
    """Texts and tables below each other."""

    def __init__(self, *parts: Part) -> None:
        self.parts = parts

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield the parts."""
        yield from self.parts

    def lines(self) -> Iterator[str]:
        """Yield the lines as they stand in a file."""
        for part in self.parts:
            for text in (part,) if isinstance(part, Text) else part.lines(_UNBOUND):
                yield plain(text.plain.expandtabs())


def widen(*, wide: bool) -> None:
    """Draw tables on standard output as in a file from now on: all columns, however wide the terminal is."""
    global _wide  # noqa: PLW0603 - as the streams, it is this process's
    _wide = wide


_wide = False


def at_most(count: int) -> int:
    """Return how many rows of a long list are printed: so many on a terminal, all of them elsewhere."""
    return count if sys.stdout.isatty() else sys.maxsize


def show(page: Page) -> None:
    """Print it; tables fit the width, whole lines (``line``) may be longer than that."""
    if sys.stdout.isatty() or any(os.environ.get(name) for name in _DRAWS):
        from parallelhassnes.cli.output import drawing

        drawing.console(wide=_wide).print(page, crop=False)
    else:
        sys.stdout.write(text_of(page))


def text_of(page: Page) -> str:
    """Tell what it looks like in a file: plain, wide."""
    return "".join(f"{text}\n" for text in page.lines())


def line(text: str | Text, style: str = "") -> Text:
    """Return a line that is never broken: a path that is to be copied."""
    whole = text if isinstance(text, Text) else Text(text, style=style)
    whole.no_wrap, whole.overflow = True, "ignore"
    return whole
