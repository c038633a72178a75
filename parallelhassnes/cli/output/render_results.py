"""Tables of ``results.text_tables`` on a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from parallelhassnes import formatting
from parallelhassnes.cli.output.console import line
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.results.text_tables import Sheet

TELLING = frozenset({"passes/scored", "pass rate", "result", "reward", "change", "B − A (95 %)"})
"""Heads of the columns that say how it went."""


def render(*sheets: Sheet) -> RenderableType:
    """Return the tables below each other; of an empty one only its title."""
    return Group(*(part for sheet in sheets for part in _parts(sheet)))


def errors(found: Errors) -> RenderableType:
    """Return a few lines per group, the path of its example whole on the last."""
    if not found.groups:
        return line(f"Failures of {found.of}: none")
    parts: list[RenderableType] = [line(f"Failures of {found.of}", style="bold")]
    for group in found.groups:
        attempts = formatting.counted(group.attempts, "attempt")
        of_steps = f"of {formatting.counted(group.steps, 'step')}, {group.open} open"
        text = Text(f"{attempts} ", style="bold")
        text.append(f"{'beside a score' if group.beside_a_score else of_steps}, ")
        text.append(formatting.failure_class(group.failure_class, group.guessed), style="red")
        parts += [text.append(f": {group.message}"), line(f"    {group.attempt}", style="dim")]
        if group.agents:
            parts.append(Text(f"    {', '.join(group.agents)}", style="dim"))
    return Group(*parts)


def _parts(sheet: Sheet) -> list[RenderableType]:
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
