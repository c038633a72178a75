"""Tables of ``results.text_tables`` on a terminal."""

from rich.text import Text

from parallelhassnes import formatting
from parallelhassnes.cli.output.console import Page, Part, line
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.results.text_tables import Sheet

TELLING = frozenset({"passes/scored", "pass rate", "result", "reward", "change", "B − A (95 %)"})
"""Heads of the columns that say how it went."""


def render(*sheets: Sheet) -> Page:
    """Return the tables below each other; of an empty one only its title."""
    return Page(*(part for sheet in sheets for part in _parts(sheet)))


def errors(found: Errors) -> Page:
    """Return a few lines per group, the path of its example whole on the last."""
    if not found.groups:
        return Page(line(f"Failures of {found.of}: none"))
    table = Grid("class")
    for name in ("attempts", "steps", "open"):
        table.add_column(name, right=True, rank=2)
    table.add_column("agents", rank=1)
    table.add_column("what it said", key=True)
    for group in found.groups:
        name = formatting.failure_class(group.failure_class, group.guessed)
        beside = " beside a score" if group.beside_a_score else ""
        counts = (str(group.attempts), str(group.steps), str(group.open))
        table.add_row(Text(f"{name}{beside}", style="red"), *counts, ", ".join(group.agents), group.message)
    title = line(f"Failures of {found.of}", style="bold")
    examples = [line(f"    {group.attempt}", style="dim") for group in found.groups]
    return Page(title, table, Text(), line("an attempt of each:", style="dim"), *examples)


def _parts(sheet: Sheet) -> list[Part]:
    title = Text(sheet.title, style="bold")
    if not sheet.rows:
        return [line(title.append(": none")), *map(line, sheet.notes)]
    notes = [Text(note, style="dim") for note in sheet.notes]
    return [line(title), _table(sheet), *notes, Text()]


def _rank(sheet: Sheet, place: int) -> int:
    """Return how long the column stays where there is little room: what tells the result longest."""
    return 99 if sheet.heads[place] in TELLING else len(sheet.heads) - place


def _table(sheet: Sheet) -> Grid:
    table = Grid(sheet.heads[0])
    for place, head in enumerate(sheet.heads[1:], 1):
        is_key = place < sheet.texts
        table.add_column(head, right=sheet.is_number(place), key=is_key, rank=_rank(sheet, place))
    for row in sheet.rows:
        table.add_row(*row)
    return table
