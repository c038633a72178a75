"""Tables of ``control.sheets`` on a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelhassnes.cli.console import line
from parallelhassnes.cli.render_system import grid
from parallelhassnes.control.sheets import Sheet


def render(*sheets: Sheet) -> RenderableType:
    """The tables below each other; of an empty one only its title."""
    return Group(*(part for sheet in sheets for part in _parts(sheet)))


def _parts(sheet: Sheet) -> list[RenderableType]:
    title = Text(sheet.title, style="bold")
    if not sheet.rows:
        return [line(title.append(": none")), *map(line, sheet.notes)]
    notes = [Text(note, style="dim") for note in sheet.notes]
    return [line(title), _table(sheet), *notes, Text()]


def _table(sheet: Sheet) -> Table:
    table = grid(first=sheet.heads[0])
    for place, head in enumerate(sheet.heads[1:], 1):
        # Paths and names are to be copied whole.
        table.add_column(head, justify="left" if place < sheet.texts else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*row)
    return table
