"""What comes from Harbor: ``harbor run``, a command line of its own that is run here, and ``import``, jobs that it has run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from parallelhassnes import formatting
from parallelhassnes.cli import run_options as opt
from parallelhassnes.cli.commands import CommandGroup
from parallelhassnes.cli.options import JsonOption, RootOption
from parallelhassnes.cli.output.typed import told_by_options
from parallelhassnes.cli.run import GivenTable, check_secrets, say_what_would_run, started
from parallelhassnes.cli.work import FailOnOption, check_fail_on, make_store, open_to_run, watch_until_idle
from parallelhassnes.harmless import one_line


def register(app: typer.Typer) -> None:
    """Add this group, and the command beside it."""
    group = typer.Typer(
        cls=CommandGroup,
        help="Run Harbor's own command lines here.\n\nExample: parallelhassnes harbor run -p examples/tasks/hello --dry-run",
        no_args_is_help=True,
    )
    # Harbor's own options are read by Harbor's own parser.
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    group.command("run", context_settings=settings)(run)
    app.add_typer(group, name="harbor")
    app.command("import")(import_jobs)


def run(line: typer.Context) -> None:
    """Run what harbor run would: every option of it, and --root, --detach, --dry-run, --fail-on, --report, --secret, --json.

    Harbor's own parser reads the line, and harbor run --help explains its options. It waits and ends as run does. Here
    --dry-run says what would run, -o, --launch, --upload, --server and --diff cannot be, and keys that the agents look for are
    passed on from this environment.

    Example: parallelhassnes harbor run -p examples/tasks/hello --dry-run
    """
    import os

    from parallelhassnes.actions.submit import base_dirs
    from parallelhassnes.steps.trial.preload import set_harbor_environment
    from parallelhassnes.store.atomic import dumps
    from parallelhassnes.tables.formats.harbor_line import read

    set_harbor_environment(os.environ)
    found = read(line.args, _own, "parallelhassnes harbor run")
    own: dict[str, Any] = found.own
    check_fail_on(own["fail_on"])
    if own["report"] is not None:
        from parallelhassnes.report.run_summary import check_report

        check_report(own["report"])
    document = {**found.document}
    if secrets := [*document.get("secrets", []), *(own["secret"] or ())]:
        document["secrets"] = list(dict.fromkeys(secrets))
    ctx = open_to_run(own["root"])
    table = GivenTable(dumps(document).encode(), "harbor-run.json", base_dirs(None))
    if not own["dry_run"]:
        check_secrets(ctx, own["secret"])
    made = None
    with told_by_options(table.data, table.name, "harbor run"):
        if own["dry_run"]:
            say_what_would_run(ctx, table, json=own["json"])
        else:
            made = started(ctx, table, detach=own["detach"], json=own["json"])
    if made is not None:
        watch_until_idle(
            *made, fail_on=own["fail_on"], quiet=bool(own["quiet"]), json=own["json"], report=own["report"]
        )


def _own(
    detach: opt.DetachOption = False,
    fail_on: FailOnOption = "infrastructure",
    secret: opt.SecretOption = None,
    report: opt.ReportOption = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Run a command line of Harbor's here. Harbor's options come first, ours are the last."""


def import_jobs(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Harbor job folders, exports of Oddish, or folders of them.")
    ],
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Of the new batches, instead of each job's name.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported; change nothing.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Bring finished or stopped jobs of Harbor or Oddish in as batches; what was imported before is not imported again.

    Example: parallelhassnes import jobs/ --dry-run
    """
    from parallelhassnes.actions.imports.import_jobs import import_jobs as bring_in

    ctx = open_to_run(root)
    done = bring_in(ctx, paths, experiment=experiment, dry_run=dry_run, found_good=lambda: make_store(ctx))
    if json:
        typer.echo(done.model_dump_json())
        raise typer.Exit(0 if done.ok else 2)
    for job in done.jobs:
        where = " ".join(filter(None, (job.batch_id, *job.more_batches))) or "a new batch"
        word = "would import" if dry_run else "imported"
        parts = [formatting.counted(job.trials, "new trial")]
        parts += [f"{job.unfinished} of them without a result"] if job.unfinished else []
        parts += [f"{job.known} imported before"] if job.known else []
        parts += [f"{job.not_run} planned and not run there"] if job.not_run else []
        typer.echo(one_line(f"{word} {job.path} as {where}: {', '.join(parts)}"))
        for note in job.notes:
            typer.echo(one_line(f"note: {job.job_name}: {note}"), err=True)
    for line in done.problems:
        typer.echo(one_line(line), err=True)
    raise typer.Exit(0 if done.ok else 2)
