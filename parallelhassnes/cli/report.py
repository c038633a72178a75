"""``report``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption, complete, layout_of

if TYPE_CHECKING:
    from parallelhassnes.report.transcripts import Which
    from parallelhassnes.store.layout import Layout

DEFAULT_OUT = "report.html"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(report)


def report(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="A batch; or a job, a step, an attempt. [default: the newest batch]",
            autocompletion=complete,
        ),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-E", metavar="NAME", help="All batches of an experiment.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to. [default: report.html]")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Markdown for a pull request, on stdout or in FILE.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="PATH", help="A folder, or FILE.zip: the report with transcripts of trials."),
    ] = None,
    trials: Annotated[
        str | None, typer.Option("--trials", metavar="failed|all|sample", help="Whose transcripts. [default: failed]")
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Write what came of a batch or an experiment as one file that opens anywhere; print the report of anything smaller.

    Example: parallelhassnes report latest -o report.html
    """
    from parallelhassnes.errors import UserError

    layout = layout_of(root)
    which = _which(trials, bundle, alone=out is None and not markdown)
    if what is not None and experiment is not None:
        raise UserError("both an id and --experiment are given", fix="give one")
    if experiment is None:
        what = what or "latest"
    if what is not None:
        from parallelhassnes.refs import resolve

        found = resolve(layout, what)
        if found.what != "batch":
            if out is not None or markdown or bundle is not None:
                fix = f"write report {found.batch_id}, or leave --out, --markdown and --bundle out"
                raise UserError(f"{found} is a {found.what}, whose report is printed", fix=fix)
            _of_attempts(layout, what, json=json)
            return
    _of_batches(layout, what, experiment, out, bundle=bundle, which=which, markdown=markdown, json=json)


def _which(trials: str | None, bundle: Path | None, *, alone: bool) -> "Which":
    from parallelhassnes.errors import UserError
    from parallelhassnes.names import suggestion
    from parallelhassnes.report.transcripts import WHICH

    if bundle is not None and not alone:
        raise UserError("--bundle has a page of its own", fix="leave --out and --markdown out")
    if trials is not None and bundle is None:
        raise UserError(f"--trials {trials}: only a bundle has transcripts", fix="add --bundle PATH")
    for which in WHICH:
        if trials in (None, which):
            return which
    raise UserError(f"--trials {trials}: is not known", fix=suggestion(trials or "", WHICH))


def _of_attempts(layout: "Layout", what: str, *, json: bool) -> None:
    from parallelhassnes.store.atomic import dumps
    from parallelhassnes.views.run_report import lines, run_reports

    found = run_reports(layout, what)
    if json:
        documents = [one.model_dump(mode="json") for one in found]
        only = documents[0] if len(documents) == 1 else {"ok": True, "reports": documents}
        typer.echo(dumps(only), nl=False)
        return
    typer.echo("\n\n".join("\n".join(lines(one)) for one in found))


def _of_batches(
    layout: "Layout",
    batch: str | None,
    experiment: str | None,
    out: Path | None,
    *,
    bundle: Path | None,
    which: "Which",
    markdown: bool,
    json: bool,
) -> None:
    from parallelhassnes.report import write
    from parallelhassnes.results.collect import choose

    chosen = choose(layout, batch, experiment)
    if bundle is not None:
        done = write.bundle(layout, chosen, bundle, which)
    else:
        done = write.markdown(layout, chosen, out) if markdown else write.html(layout, chosen, out or Path(DEFAULT_OUT))
    if json:
        typer.echo(done.model_dump_json())
    else:
        sys.stdout.write(done.text if done.text is not None else f"{done.path}\n")
