"""``cancel``, ``retry``, ``rerun``, ``doctor``, ``cron``, ``export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption, root_or_default

if TYPE_CHECKING:
    from parallelhassnes.actions.cancel_retry import Operated, Target
    from parallelhassnes.schedule.context import Context

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the ledger.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A batch, BATCH/JOB, BATCH/JOB/STEP or an attempt.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (cancel, retry, rerun, doctor, cron, export):
        app.command()(command)


def cancel(target: IdArgument, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False) -> None:
    """End what runs of it and start nothing more; partial results are kept.

    Example: parallelhassnes cancel latest
    """
    from parallelhassnes.actions import cancel_retry

    ctx, found = _resolve(target, root)
    done = cancel_retry.cancel(ctx, found, reason)
    _say(done, json, done.line)


def retry(
    target: IdArgument,
    failed: Annotated[
        bool, typer.Option("--failed", help="Of a batch or job: only the steps that did not succeed.")
    ] = False,
    failure_class: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="CLASS", help="Only steps that failed so, as rate_limit; repeatable."),
    ] = None,
    unscored: Annotated[bool, typer.Option("--unscored", help="Only trials without a score.")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="Only steps whose processes died.")] = False,
    reason: ReasonOption = "",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Let ended steps run again, each as a new attempt; the earlier ones stay.

    Example: parallelhassnes retry latest --failed
    """
    from parallelhassnes.actions import cancel_retry

    ctx, found = _resolve(target, root)
    only = cancel_retry.Only(failed=failed, classes=frozenset(failure_class or ()), unscored=unscored, lost=lost)
    done = cancel_retry.retry(ctx, found, only, reason)
    said = f"{len(done.steps)} steps of {done.target} run again, {done.started} started at once"
    _say(done, json, said)


def rerun(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, or latest.")],
    failed: Annotated[bool, typer.Option("--failed", help="Take over what succeeded; the rest runs.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Take over whatever has ended; the rest runs.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Take over nothing; everything runs.")] = False,
    edit: Annotated[
        list[str] | None,
        typer.Option("--edit", metavar="KEY=VALUE", help="Change the table: model=x, jobs.j1.model=x; repeatable."),
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Make a new batch of an old one's table, linked to it; retry goes on in the old one instead.

    Example: parallelhassnes rerun latest --failed --edit concurrency=2
    """
    from parallelhassnes.actions import rerun as action
    from parallelhassnes.errors import UserError

    chosen = [name for name, on in (("failed", failed), ("missing", missing), ("all", everything)) if on]
    if len(chosen) != 1:
        raise UserError("rerun runs again --failed, --missing or --all", fix="give one of the three")
    ctx, found = _resolve(batch, root)
    done = action.rerun(ctx, str(found), chosen[0], edit)  # type: ignore[arg-type]
    if json:
        typer.echo(done.model_dump_json())
        return
    if done.batch_id is None:
        typer.echo(f"nothing of {done.rerun_of} is to be run again")
        return
    typer.echo(done.batch_id)
    typer.echo(f"runs {done.steps} steps of {done.rerun_of} again; {done.carried} were taken over", err=True)
    for warning in done.warnings:
        typer.echo(f"note: {warning}", err=True)


def doctor(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make everything derived anew from the batches' folders.")
    ] = False,
    reap: Annotated[
        bool, typer.Option("--reap", help="Show and remove what dead attempts have left on this host.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Check this host and the store; exit 1 if there is trouble.

    Example: parallelhassnes doctor --rebuild
    """
    from parallelhassnes.admin.doctor import diagnose
    from parallelhassnes.admin.init import ensure
    from parallelhassnes.schedule.context import open_context

    ctx = open_context(root_or_default(root))
    ensure(ctx)
    found = diagnose(ctx, rebuild_first=rebuild, reap_first=reap)
    if json:
        typer.echo(found.model_dump_json(exclude_none=True))
    else:
        if found.rebuilt_batches is not None:
            typer.echo(f"rebuilt the queue, the indexes and the scoreboards of {found.rebuilt_batches} batches")
        for left in found.left:
            done = "removed" if left.removed else "found" if not reap else "kept"
            of = f" (run {left.run_id})" if left.run_id else ""
            typer.echo(f"{done:8}{left.what:12}{left.name}{of}")
        for check in found.checks:
            typer.echo(f"{check.state:8}{check.name:12}{check.text}")
    raise typer.Exit(0 if found.ok else 1)


def cron(
    systemd: Annotated[bool, typer.Option("--systemd", help="Print systemd user units instead.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Print the crontab line that ticks this root every minute; nothing is installed.

    Example: parallelhassnes cron --systemd
    """
    from parallelhassnes.admin import cron as lines
    from parallelhassnes.store.atomic import dumps

    place = root_or_default(root)
    if not systemd:
        line = lines.crontab_line(place)
        typer.echo(dumps({"crontab": line.text}) if json else line.text, nl=not json)
        if line.left_out:
            typer.echo(f"left out of PATH, for which the line has no room: {' '.join(line.left_out)}", err=True)
        return
    units = lines.systemd_units(place)
    if json:
        typer.echo(units.model_dump_json())
        return
    for name, content in units.files.items():
        typer.echo(f"# ~/.config/systemd/user/{name}\n{content}")
    typer.echo("# then: systemctl --user enable --now parallelhassnes.timer")
    typer.echo("# and, so that it goes on when you have logged out: loginctl enable-linger")


def export(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, or latest.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to make it in.")],
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Make a folder of links that harbor view shows and harbor job resume understands.

    Example: parallelhassnes export latest --to view
    """
    from parallelhassnes.admin.harbor_view import export as make
    from parallelhassnes.store.atomic import dumps

    ctx, found = _resolve(batch, root)
    done = make(ctx.layout.batch(found.batch_id), to)
    if json:
        document = {"ok": True, "jobs": [str(job) for job in done.jobs], "trials": done.trials, "skipped": done.skipped}
        typer.echo(dumps(document), nl=False)
        return
    typer.echo(f"{done.trials} trials in {', '.join(str(job) for job in done.jobs)}; open: harbor view {to}")
    for line in done.skipped:
        typer.echo(f"left out: {line}", err=True)


def _resolve(target: str, root: "RootOption") -> "tuple[Context, Target]":
    from parallelhassnes.actions.cancel_retry import Target
    from parallelhassnes.admin.init import ensure
    from parallelhassnes.refs import resolve
    from parallelhassnes.schedule.context import open_context

    ctx = open_context(root_or_default(root))
    ensure(ctx)
    found = resolve(ctx.layout, target)
    return ctx, Target(batch_id=found.batch_id, job_id=found.job_id, step_id=found.step_id)


def _say(done: "Operated", json: bool, line: str) -> None:
    typer.echo(done.model_dump_json() if json else line)
