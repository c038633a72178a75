"""``harbor run``: a command line of Harbor's, run here."""

from typing import Any

import typer

from parallelhassnes.cli import run_options as opt
from parallelhassnes.cli.options import JsonOption, RootOption
from parallelhassnes.cli.run import GivenTable, say_what_would_run, started
from parallelhassnes.cli.work import FailOnOption, check_fail_on, open_to_run, watch_until_idle


def register(app: typer.Typer) -> None:
    """Add this group."""
    group = typer.Typer(
        help="Run Harbor's own command lines here.\n\nExample: parallelhassnes harbor run -p examples/tasks/hello --dry-run",
        no_args_is_help=True,
    )
    # Harbor's own options are read by Harbor's own parser.
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    group.command("run", context_settings=settings)(run)
    app.add_typer(group, name="harbor")


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
    if own["dry_run"]:
        say_what_would_run(ctx, table, json=own["json"])
    elif (made := started(ctx, table, detach=own["detach"], json=own["json"])) is not None:
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
