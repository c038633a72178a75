"""``results``, ``compare``, ``errors``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption, WideOption, complete_batch, layout_of

if TYPE_CHECKING:
    from parallelhassnes.results.export import FlatTable
    from parallelhassnes.results.text_tables import Sheet
    from parallelhassnes.views.scoreboard_models import View

BatchArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[BATCH]", help="One batch, or latest; left out: all of them.", autocompletion=complete_batch
    ),
]
ExperimentOption = Annotated[
    str | None, typer.Option("--experiment", "-E", metavar="NAME", help="The batches of an experiment.")
]
SideArgument = Annotated[
    str,
    typer.Argument(
        metavar="SIDE",
        help="BATCH, experiment:NAME or label:NAME=VALUE, and perhaps @AGENT[,MODEL][,NAME=VALUE…].",
        autocompletion=complete_batch,
    ),
]
FORMATS = ("table", "json", "csv", "parquet", "markdown")


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (results, compare, errors):
        app.command()(command)


def results(
    batch: BatchArgument = None,
    experiment: ExperimentOption = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="agent,model,task…",
            help="What to group by: agent, model, agent_version, task, task_checksum, task_source, experiment, batch, job,"
            " label, label:NAME.",
        ),
    ] = "agent,model",
    form: Annotated[str, typer.Option("--format", "-f", metavar="|".join(FORMATS), help="How to print it.")] = "table",
    trials: Annotated[bool, typer.Option("--trials", help="A line per trial instead of groups.")] = False,
    unscored_as_zero: Annotated[
        bool, typer.Option("--unscored-as-zero", help="Count trials without a reward as 0.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it to a file.")] = None,
    wide: WideOption = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Show rates with intervals, pass@k, tokens, money and time, by agent and model or by anything else.

    Example: parallelhassnes results latest --by agent,task --format markdown
    """
    from parallelhassnes.cli.output import console
    from parallelhassnes.errors import UserError
    from parallelhassnes.results import collect, export, text_tables
    from parallelhassnes.results.aggregate import results as group
    from parallelhassnes.results.rows import trial_lines

    console.widen(wide=wide)
    form = "json" if json else form
    _check(form, out)
    layout = layout_of(root)
    chosen = collect.choose(layout, batch, experiment)
    if trials:
        if unscored_as_zero or by != "agent,model":
            raise UserError("--trials groups and counts nothing", fix="leave out --by and the like")
        lines = trial_lines(layout, chosen)
        _put(lines, export.of_trials(lines.trials), text_tables.of_trials(lines), form, out)
        return
    names = [name.strip() for name in by.split(",") if name.strip()]
    found = group(layout, chosen, names, unscored_as_zero=unscored_as_zero)
    _put(found, export.of_groups(names, found.groups), text_tables.of_results(found), form, out)


def compare(
    a: SideArgument, b: SideArgument, wide: WideOption = False, root: RootOption = None, json: JsonOption = False
) -> None:
    """Compare two batches, experiments or agents task by task: difference, flips, cost and time.

    Example: parallelhassnes compare latest@oracle latest@nop
    """
    from parallelhassnes.cli.output import console, render_results
    from parallelhassnes.results import text_tables
    from parallelhassnes.results.compare import compare as pair

    found = pair(layout_of(root), a, b)
    if json:
        typer.echo(found.model_dump_json())
        return
    console.widen(wide=wide)
    console.show(render_results.render(*text_tables.of_comparison(found)))


def errors(
    batch: BatchArgument = None, experiment: ExperimentOption = None, root: RootOption = None, json: JsonOption = False
) -> None:
    """Group what failed by class and message, with counts and a path to one example each.

    Example: parallelhassnes errors latest
    """
    from parallelhassnes.cli.output import console, render_results
    from parallelhassnes.results import collect
    from parallelhassnes.results.error_groups import errors as find

    layout = layout_of(root)
    found = find(layout, collect.choose(layout, batch, experiment))
    if json:
        typer.echo(found.model_dump_json())
        return
    console.show(render_results.errors(found))


def _check(form: str, out: Path | None) -> None:
    from parallelhassnes.errors import UserError

    if form not in FORMATS:
        raise UserError(f"--format {form}: is not known", fix=f"use {', '.join(FORMATS)}")
    if form == "parquet" and out is None:
        raise UserError("--format parquet is not for a terminal", fix="add --out FILE")


def _put(document: "View", table: "FlatTable", sheet: "Sheet", form: str, out: Path | None) -> None:
    """Print it in the form that was asked for, or write it to a file."""
    from parallelhassnes.cli.output import console, render_results
    from parallelhassnes.results import export, text_tables

    if form == "parquet" and out is not None:
        export.write_file(out, export.parquet_bytes(table))
        return
    if form == "table":
        if out is None:
            console.show(render_results.render(sheet))
            return
        text = console.text_of(render_results.render(sheet))
    elif form == "markdown":
        text = text_tables.markdown(sheet)
    elif form == "csv":
        text = export.csv_text(table)
    else:
        text = document.model_dump_json() + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        export.write_file(out, text.encode())
