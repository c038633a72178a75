"""Tables at every width: what tells rows apart is always there, and what is not shown is named."""

import io
import re

import pytest
import stores
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from parallelhassnes.cli.output import render_results
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.results.text_tables import Sheet

NAMES = (
    "parallelhassnes/changelog-steps",
    "a-task-with-a-name-that-is-very-much-longer-than-any_reasonable_name.should/be/at/all",
    "任务名称很长而且没有空格可以断开的地方就这样一直写下去",
    "🚀🚀🚀🚀🚀🚀-emoji-👩‍💻",
    "x" * 130,
    "[bold]markup[/bold]",
    "line one\nline two",
)
WIDTHS = (40, 60, 80, 100, 200)


def printed(renderable: object, width: int) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(renderable, crop=False)
    return stream.getvalue().splitlines()


def bare(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_key_is_there_whole_and_no_line_is_too_wide(name, width):
    grid = Grid("task")
    grid.add_column("agent", key=True)
    for number in range(12):
        grid.add_column(f"column{number}", right=True, rank=number)
    cells = [f"{number}.12345" for number in range(12)]
    grid.add_row(name, "oracle", *cells)
    grid.add_row("other", "nop", *cells)
    found = printed(grid, width)
    assert max(map(cell_len, found)) <= width
    said = bare("".join(found))
    gone = bare("".join(found[next((i for i, each in enumerate(found) if "no room for" in each), len(found)) :]))
    for number in range(12):
        assert f"{number}.12345" in said or f"column{number}" in gone
    assert "oracle" in said
    assert "nop" in said
    # The pieces of a folded cell stand below each other; of a record behind each other.
    start = found[0].find("agent")
    column = found if start < 0 else [cut(line, start) for line in found]
    assert bare(name) in bare("".join(column))


def cut(line: str, cells: int) -> str:
    """What of a line stands in its first cells."""
    for place in range(len(line), -1, -1):
        if cell_len(line[:place]) <= cells:
            return line[:place]
    return ""


@pytest.mark.parametrize("width", WIDTHS)
def test_two_rows_of_results_can_be_told_apart(width):
    heads = ("task", "agent", "tasks", "passes/scored", "pass rate", "cost", "tokens in", "out", "not scored")
    rows = [(NAMES[0], agent, "1", "0/2", "0 % (0–66)", "$1.00", "12.3k", "950", "") for agent in ("oracle", "nop")]
    found = printed(render_results.render(Sheet("Results", heads, rows, (), 2, 1)), width)
    said = bare("".join(found))
    assert "oracle" in said
    assert "nop" in said
    assert "0/2" in said
    for head in heads:
        assert all(part in said for part in re.split("[ /]", head)), "neither shown nor named as left out"


def test_a_short_table_is_as_wide_as_it_is_and_ends_without_spaces():
    grid = Grid("a")
    grid.add_column("number", right=True)
    grid.add_row("x", Text("1"))
    assert printed(grid, 100_000) == ["a  number", "x       1"]


def test_a_pipe_is_cut_neither_in_width_nor_in_rows(root):
    ctx = stores.context(root)
    long = "-".join(["word"] * 12)
    jobs = [stores.job(f"{long}-{number}", stores.command("c", "true")) for number in range(60)]
    batch_id = stores.put(ctx, stores.table(*jobs))
    for arguments in (("scoreboard", batch_id), ("show", batch_id)):
        done = stores.program(root, *arguments, env={"COLUMNS": ""})
        for number in range(60):
            assert re.search(rf"^{long}-{number}\b", done.stdout, re.MULTILINE), arguments
        assert "… and" not in done.stdout
    narrow = stores.program(root, "scoreboard", batch_id, env={"COLUMNS": "50"}).stdout
    assert max(map(cell_len, narrow.splitlines()[2:])) <= 50
