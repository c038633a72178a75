"""The blocks of code in the documents: what a reader may type, write into a file, or compare with what is shown."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stores import CHECKOUT

PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((CHECKOUT / "docs").glob("*.md")),
    *sorted((CHECKOUT / "examples").rglob("README.md")),
]
SHELL = ("console", "sh")
"""Commands: with a ``$`` before each and what they print between them, or a script."""
WRITTEN = ("json", "yaml", "toml", "nginx")
"""What a reader writes into a file, or into a part of one."""


class Example(NamedTuple):
    """A block of a page."""

    page: str
    """From the checkout, as ``docs/start.md``."""
    line: int
    language: str
    text: str
    not_run: str | None
    """Why nothing runs it: the page has ``<!-- not run: REASON -->`` on the line before the block, which no reader sees."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def script(self) -> str:
        """Its commands."""
        if self.language == "sh":
            return self.text
        return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith("$ "))


_BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def of_page(page: str | Path) -> list[Example]:
    """Every block of a page, in order."""
    path = CHECKOUT / page
    text, name = path.read_text(encoding="utf-8"), path.relative_to(CHECKOUT).as_posix()
    return [Example(name, text.count("\n", 0, m.start()) + 1, m[2], m[3], m[1]) for m in _BLOCK.finditer(text)]


def every() -> Iterator[Example]:
    for page in PAGES:
        yield from of_page(page)


def commands_of(page: str) -> list[str]:
    """The lines of a page's ``console`` blocks that are to be typed."""
    shown = (each for each in of_page(page) if each.language == "console" and each.not_run is None)
    return [line for each in shown for line in each.script.splitlines()]
