"""Tables that fit a width and hide nothing: a column that does not fit folds, or goes whole and is named.

Columns that tell rows apart (keys) never go. They fold after a space, ``-``, ``/``, ``.`` and ``_``; where even so there is no room
for them, every row becomes a record, a line per column. Other columns go by rank, the last of the lowest rank first.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

GAP = 2
"""Cells between two columns."""
_PIECE = re.compile(r"\s+|[^\s\-/._,]*[\-/._,]|[^\s\-/._,]+")


class _GridColumn(NamedTuple):
    head: Text
    right: bool
    key: bool
    rank: int


class Grid:
    """A table without lines."""

    def __init__(self, first: str) -> None:
        self._columns: list[_GridColumn] = []
        self._rows: list[list[Text]] = []
        self.add_column(first, key=True)

    def add_column(self, head: str, *, right: bool = False, key: bool = False, rank: int = 0) -> None:
        """Add a column.

        Args:
            right: it holds numbers, which stand at its right and never fold.
            key: it tells rows apart, so it never goes.
            rank: of those that may go, the lowest go first.
        """
        self._columns.append(_GridColumn(Text(head, style="bold"), right, key, rank))

    def add_row(self, *cells: str | Text) -> None:
        """Add a row; cells that are left out at its end are empty."""
        row = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self._rows.append(row + [Text("")] * (len(self._columns) - len(row)))

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield the lines of the table as it fits."""
        yield from self.lines(options.max_width)

    def lines(self, width: int) -> Iterator[Text]:
        """Yield the lines of the table where there is so much room."""
        least, natural = self._widths()
        shown = list(range(len(self._columns)))
        keys = [place for place in shown if self._columns[place].key]
        if _sum(least, keys) > width:
            yield from self._records(width)
            return
        while _sum(least, shown) > width:
            may_go = [place for place in shown if not self._columns[place].key]
            shown.remove(min(may_go, key=lambda place: (self._columns[place].rank, -place)))
        widths, left = dict(enumerate(least)), width - _sum(least, shown)
        for place in sorted(shown, key=lambda place: natural[place] - least[place]):
            more = min(left, natural[place] - least[place])
            widths[place] += more
            left -= more
        for row in [[column.head for column in self._columns], *self._rows]:
            yield from self._row([row[place] for place in shown], shown, widths)
        gone = [self._columns[place].head.plain or "notes" for place in range(len(self._columns)) if place not in shown]
        if gone:
            said = f"no room for: {', '.join(gone)}; `--wide`, `| less -S` or --json has them"
            yield from _folded(Text(said, style="dim"), width)

    def _widths(self) -> tuple[list[int], list[int]]:
        """Return per column the least cells that it can do with, and those that it would like."""
        least, natural = [], []
        for place, column in enumerate(self._columns):
            cells = [row[place] for row in self._rows]
            whole = max([_widest(column.head), *map(_widest, cells)])
            parts = [_longest(column.head), *(_widest(cell) if column.right else _longest(cell) for cell in cells)]
            least.append(max(parts))
            natural.append(whole)
        return least, natural

    def _row(self, cells: Sequence[Text], shown: Sequence[int], widths: dict[int, int]) -> Iterator[Text]:
        folded = [list(_folded(cell, widths[place])) for cell, place in zip(cells, shown, strict=True)]
        for number in range(max(map(len, folded))):
            line = Text()
            for lines, place in zip(folded, shown, strict=True):
                piece = lines[number] if number < len(lines) else Text()
                space = " " * (widths[place] - cell_len(piece.plain))
                right = self._columns[place].right
                line.append(space if right else "").append_text(piece)
                line.append("" if right else space).append(" " * GAP)
            line.rstrip()
            line.no_wrap, line.overflow = True, "ignore"
            yield line

    def _records(self, width: int) -> Iterator[Text]:
        """Yield every row as lines ``head: cell``, all columns of it."""
        for number, row in enumerate(self._rows):
            if number:
                yield Text("")
            for column, cell in zip(self._columns, row, strict=True):
                if cell.plain:
                    head = Text(f"{column.head.plain}: " if column.head.plain else "", style="bold")
                    yield from _folded(Text().append_text(head).append_text(cell), width)


def _sum(widths: Sequence[int], places: Sequence[int]) -> int:
    return sum(widths[place] for place in places) + GAP * (len(places) - 1)


def _pieces(text: str) -> list[str]:
    """Return what a text may be folded between."""
    found: list[str] = []
    for part in _PIECE.findall(text):
        # Wide characters (CJK, emoji) need no sign between them.
        found += (
            re.findall(r"[\x00-\u02ff]+|[^\x00-\u02ff]+", part) if cell_len(part) == len(part) else _by_character(part)
        )
    return found


def _by_character(part: str) -> list[str]:
    found: list[str] = []
    for char in part:
        if found and cell_len(char) == 0:  # what belongs to the character before it
            found[-1] += char
        else:
            found.append(char)
    return found


def _widest(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.split("\n")), default=0)


def _longest(text: Text) -> int:
    return max((cell_len(piece.strip()) for piece in _pieces(text.plain)), default=0)


def _folded(text: Text, width: int) -> Iterator[Text]:
    """Yield the lines of a text that is no wider than this; a piece that is wider is broken anywhere."""
    for whole in text.split("\n", allow_blank=True):
        start = at = 0
        for piece in _pieces(whole.plain):
            for part in [piece] if cell_len(piece.rstrip()) <= width else _by_character(piece):
                if at > start and cell_len(whole.plain[start : at + len(part)].rstrip()) > width:
                    yield _trimmed(whole[start:at])
                    start = at
                at += len(part)
        yield _trimmed(whole[start:at])


def _trimmed(text: Text) -> Text:
    text.rstrip()
    text.no_wrap, text.overflow = True, "ignore"
    return text
