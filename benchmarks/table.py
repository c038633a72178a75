"""The printed table."""

from rich.console import Console
from rich.table import Table

from benchmarks.results import Figure, Row

_FORMAT = {"s": "{:.2f} s", "ms": "{:.2f} ms", "MB": "{:.1f} MB", "count": "{:.0f}", "ratio": "{:.2f}"}


def show(rows: list[Row]) -> None:
    """Print one line per figure, with what it is held against."""
    table = Table("row", "measure", "peer", "this project", "ratio", "goal", "")
    for row in rows:
        if row.skipped:
            table.add_row(row.name, f"skipped: {row.skipped}")
        for number, figure in enumerate(row.figures):
            table.add_row("" if number else row.name, *_cells(figure))
        table.add_section()
    console = Console()
    # A pipe has no width of its own; a cut table is of no use in a log.
    console.width = max(console.width, 130)
    console.print(table)
    for row in rows:
        console.print(f"{row.name}: {row.work}; load before {row.load_1min:.1f}")


def _cells(figure: Figure) -> tuple[str, str, str, str, str, str]:
    shown = _FORMAT[figure.unit]
    met = {None: "", True: "met", False: "MISSED"}[figure.met]
    return (
        figure.measure,
        "" if figure.peer is None else f"{shown.format(figure.peer)} ({figure.peer_name})",
        shown.format(figure.ours),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.goal is None else _goal(figure),
        met,
    )


def _goal(figure: Figure) -> str:
    if figure.ratio is not None:
        return f"≤ {figure.goal:.2f} ×"
    return f"≤ {_FORMAT[figure.unit].format(figure.goal)}"
