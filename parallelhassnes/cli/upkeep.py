"""``rerun``, ``regrade``, ``doctor``, ``notify``, ``cron``, ``export``, ``explain``, ``pack``, ``unpack``, ``gc``, ``du``, ``help``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes import formatting
from parallelhassnes.cli.options import (
    BatchArgument,
    JsonOption,
    LookArgument,
    LookBatchArgument,
    RootOption,
    complete_batch,
    root_or_default,
)
from parallelhassnes.cli.work import open_store

if TYPE_CHECKING:
    from parallelhassnes.actions.packs import Packed
    from parallelhassnes.actions.stored.retention import Collected, RuleUse


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (rerun, regrade, doctor, notify, cron, export, explain, pack, unpack, gc, du):
        app.command()(command)
    app.command("help")(explain_command)


def rerun(
    batch: BatchArgument,
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
    from parallelhassnes.actions.stored import rerun as action
    from parallelhassnes.errors import UserError

    chosen = [name for name, on in (("failed", failed), ("missing", missing), ("all", everything)) if on]
    if len(chosen) != 1:
        raise UserError("rerun runs again --failed, --missing or --all", fix="give one of the three")
    done = action.rerun(open_store(root), batch, chosen[0], edit)  # type: ignore[arg-type]
    if json:
        typer.echo(done.model_dump_json())
        return
    if done.batch_id is None:
        typer.echo(f"nothing of {done.rerun_of} is to be run again")
        return
    typer.echo(done.batch_id)
    typer.echo(
        f"runs {formatting.counted(done.steps, 'step')} of {done.rerun_of} again; {done.carried} were taken over",
        err=True,
    )
    for warning in done.warnings:
        typer.echo(f"note: {warning}", err=True)


def regrade(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, or latest.")],
    verifier: Annotated[
        list[Path] | None,
        typer.Option(
            "--verifier", metavar="TASKS", help="Task folder, or folder of tasks, whose tests judge; repeatable."
        ),
    ] = None,
    experiment: Annotated[str | None, typer.Option("--experiment", "-E", help="Label of the new batch.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Make a new batch even if these tests have judged these trials before.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Judge a batch's trials by other tests, as a new batch and without their agents; of a regrade: say what flips.

    Example: parallelhassnes regrade latest --verifier examples/tasks
    """
    from parallelhassnes.cli.output import console, render_results
    from parallelhassnes.results.regraded import conclusions
    from parallelhassnes.results.text_tables import of_conclusions

    if verifier:
        from parallelhassnes.actions.stored.regrade import regrade as action

        done = action(open_store(root), batch, verifier, experiment=experiment, again=again)
        if json:
            typer.echo(done.model_dump_json())
            return
        typer.echo(done.batch_id)
        judged = formatting.counted(done.trials, "trial")
        known = "; these tests have judged them before, --again makes a new batch" if done.duplicate else ""
        typer.echo(
            f"judges {judged} of {done.regrade_of} again; regrade {done.batch_id} says what flips{known}", err=True
        )
        for note in done.notes:
            typer.echo(f"note: {note}", err=True)
        return
    found = conclusions(open_store(root).layout, batch)
    if json:
        typer.echo(found.model_dump_json())
        return
    console.show(render_results.render(*of_conclusions(found)))


def doctor(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make everything derived anew from the batches' folders.")
    ] = False,
    reap: Annotated[
        bool, typer.Option("--reap", help="Show and remove what dead attempts have left on this host.")
    ] = False,
    hosts: Annotated[
        bool, typer.Option("--hosts", help="Find out with the other hosts what each sees of the others, and join them.")
    ] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="Forget the root's other hosts, which are gone: this one goes on alone.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Check this host and the store; exit 1 if there is trouble.

    Example: parallelhassnes doctor --rebuild
    """
    from parallelhassnes.admin.doctor import diagnose

    if hosts or alone:
        raise typer.Exit(_hosts(root_or_default(root), alone=alone, json=json))
    found = diagnose(open_store(root, look=True), rebuild_first=rebuild, reap_first=reap)
    if json:
        typer.echo(found.model_dump_json(exclude_none=True))
    else:
        if found.rebuilt_batches is not None:
            typer.echo(
                f"rebuilt the queue, the indexes and the scoreboards of {formatting.counted(found.rebuilt_batches, 'batch')}"
            )
        for left in found.left:
            done = "removed" if left.removed else "found" if not reap else "kept"
            of = f" (run {left.run_id})" if left.run_id else ""
            if left.size_bytes is not None:
                of += f" ({formatting.size(left.size_bytes)})"
            typer.echo(f"{done:8}{left.what:12}{left.name}{of}")
        for check in found.checks:
            typer.echo(f"{check.state:8}{check.name:12}{check.text}")
    raise typer.Exit(0 if found.ok else 1)


def _hosts(root: Path, *, alone: bool, json: bool) -> int:
    """Forget the other hosts, or probe them; the exit code."""
    from parallelhassnes.admin import host_probe
    from parallelhassnes.schedule.context import open_context
    from parallelhassnes.store import identity
    from parallelhassnes.store.atomic import dumps

    ctx = open_context(root)
    identity.check(ctx.layout)
    if alone:
        gone = host_probe.forget_others(ctx)
        said = f"forgot {', '.join(gone)}; this host goes on alone" if gone else "this host is the only one already"
        typer.echo(dumps({"ok": True, "forgotten": gone}) if json else said, nl=not json)
        return 0
    typer.echo("asking the other hosts: run the same command there, unless they tick by themselves", err=True)
    found = host_probe.probe(ctx)
    if json:
        typer.echo(found.model_dump_json(exclude_none=True))
        return 0 if found.ok else 1
    for other in found.hosts:
        typer.echo(f"host {other.name}{f' ({other.host})' if other.host not in ('', other.name) else ''}")
        for check in other.checks:
            typer.echo(f"  {check.state:8}{check.name:10}{check.text}")
    for line in found.trouble:
        typer.echo(f"trouble {line}")
    if found.joined:
        locks = "locks reach from host to host" if found.locks_cross else "locks do not reach from host to host"
        typer.echo(
            f"{found.runner} is one of the hosts of {found.root}: {locks}, files are seen within {found.cache_sec:g} s"
        )
    return 0 if found.ok else 1


def notify(
    test: Annotated[
        bool, typer.Option("--test", help="Send a message to each of them, which says that messages come through.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Tell the services of [notify] what is new, and of a store that nothing ticks; exit 1 if one takes no message.

    Example: parallelhassnes notify --test
    """
    from parallelhassnes.admin import notifications
    from parallelhassnes.store.atomic import dumps

    ctx = open_store(root, look=True)
    told = notifications.test(ctx) if test else notifications.look(ctx)
    if json:
        typer.echo(dumps({"ok": all(each.ok for each in told), "told": [each.model_dump() for each in told]}), nl=False)
    else:
        for each in told:
            typer.echo(each.line)
        if not told:
            typer.echo("nothing is new")
    raise typer.Exit(0 if all(each.ok for each in told) else 1)


def cron(
    systemd: Annotated[bool, typer.Option("--systemd", help="Print systemd user units instead.")] = False,
    gc: Annotated[
        bool, typer.Option("--gc", help="Print the line that runs gc by the rules of [retention] once a day instead.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Print the crontab line that ticks this root every minute; nothing is installed.

    Example: parallelhassnes cron --systemd
    """
    from parallelhassnes.admin import cron as lines
    from parallelhassnes.errors import UserError
    from parallelhassnes.store.atomic import dumps

    place = root_or_default(root)
    if systemd and gc:
        raise UserError("cron prints --systemd or --gc, not both", fix="give one of the two")
    if not systemd:
        line = lines.crontab_line(place, gc=gc)
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
    batch: LookBatchArgument = "latest",
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to make it in.")],
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Make a folder of links that harbor view shows and harbor job resume understands.

    Example: parallelhassnes export latest --to view
    """
    from parallelhassnes.admin.harbor_view import export as make
    from parallelhassnes.refs import resolve
    from parallelhassnes.store.atomic import dumps

    layout = open_store(root, look=True).layout
    done = make(layout.batch(resolve(layout, batch).batch_id), to)
    if json:
        document = {"ok": True, "jobs": [str(job) for job in done.jobs], "trials": done.trials, "skipped": done.skipped}
        typer.echo(dumps(document), nl=False)
        return
    typer.echo(
        f"{formatting.counted(done.trials, 'trial')} in {', '.join(str(job) for job in done.jobs)}; open: harbor view {to}"
    )
    for line in done.skipped:
        typer.echo(f"left out: {line}", err=True)


def explain(target: LookArgument = "latest", root: RootOption = None, json: JsonOption = False) -> None:
    """Say why a step is where it is: what it waits for, until when, or how it ended and what follows.

    Example: parallelhassnes explain latest
    """
    from parallelhassnes.views import explain as action

    found = action.explain(open_store(root, look=True), target)
    if json:
        typer.echo(found.model_dump_json())
        return
    for step in found.steps:
        typer.echo(f"{step.step}: {step.state}")
        for line in step.why:
            typer.echo(f"  {line}")
    if found.more:
        typer.echo(f"… and {formatting.counted(found.more, 'more step')}; name one, or use --json")


def pack(
    batches: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BATCH", help="Batches, or latest; with --finished-days left out.", autocompletion=complete_batch
        ),
    ] = None,
    finished_days: Annotated[
        float | None,
        typer.Option("--finished-days", metavar="N", min=0, help="Every batch that ended so many days ago or earlier."),
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Put the attempts of finished batches into one archive each; every view reads them there, unpack brings them back.

    Example: parallelhassnes pack --finished-days 30
    """
    from parallelhassnes.actions import packs
    from parallelhassnes.errors import UserError

    if bool(batches) == (finished_days is not None):
        raise UserError("pack takes batches, or --finished-days N", fix="give one of the two")
    ctx = open_store(root)
    done = [packs.pack(ctx, each) for each in batches or packs.finished(ctx, finished_days or 0.0)]
    _print_packed(done, json=json)


def unpack(
    batches: Annotated[
        list[str], typer.Argument(metavar="BATCH", help="Batches, or latest.", autocompletion=complete_batch)
    ],
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Bring the files of packed batches back as they were.

    Example: parallelhassnes unpack latest
    """
    from parallelhassnes.actions import packs

    ctx = open_store(root)
    _print_packed([packs.unpack(ctx, each) for each in batches], json=json)


def _print_packed(done: "list[Packed]", *, json: bool) -> None:
    from parallelhassnes.store.atomic import dumps

    if json:
        typer.echo(dumps({"ok": True, "batches": [each.model_dump(mode="json") for each in done]}), nl=False)
        return
    for each in done:
        line = f"{each.batch_id}  {each.state}  {formatting.counted(each.attempts, 'attempt')}"
        if each.state == "packed":
            line += f" in {each.archive_bytes / 1e6:.2f} MB; {each.freed_bytes / 1e6:.2f} MB and {each.freed_inodes} files and folders freed"
        typer.echo(line)
    if not done:
        typer.echo("nothing is to be packed")


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and how much.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only trouble.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Remove files of attempts, and pack batches, by the rules of [retention]; ledgers, reports, verdicts and seals stay.

    Exit 1 if something could not be done. Nothing is removed by itself: you or cron run it (cron --gc).

    Example: parallelhassnes gc --dry-run
    """
    import signal
    import sys

    from parallelhassnes.actions.stored import removing, retention
    from parallelhassnes.errors import UserError

    ctx = open_store(root)
    if any(rule.archived for rule in ctx.config.retention.rules):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a request that waits for a server hears of no signal
    made = retention.plan(ctx)
    if dry_run or made.said.is_nothing:
        _print_collected(made.said, json=json, quiet=quiet and not dry_run)
        raise typer.Exit(0 if made.said.ok else 1)
    if not yes:
        if json or not sys.stdin.isatty():
            raise UserError("gc removes files, and nobody is here to be asked", fix="say --yes, or --dry-run to look")
        _print_collected(made.said, json=False, quiet=False)
        if not typer.confirm("Do it?", err=True):
            raise typer.Exit(1)
    done = removing.carry_out(ctx, made)
    _print_collected(done, json=json, quiet=quiet)
    raise typer.Exit(0 if done.ok else 1)


def _proof(use: "RuleUse", *, dry_run: bool) -> str:
    """Tell what was, or is to be, asked of an archive before."""
    if not use.archive:
        return ""
    return f", once all are read in {use.archive}" if dry_run else f", all of them whole in {use.archive}"


def _print_collected(done: "Collected", *, json: bool, quiet: bool) -> None:
    if json:
        typer.echo(done.model_dump_json())
        return
    would = "would be " if done.dry_run else ""
    if not quiet:
        for use in done.rules:
            typer.echo(
                f"{use.rule} ({use.says}): {formatting.counted(use.files, 'file')} of {formatting.counted(use.attempts, 'attempt')} "
                f"in {formatting.counted(use.batches, 'batch')}, {use.bytes / 1e6:,.2f} MB {would}removed{_proof(use, dry_run=done.dry_run)}"
            )
        if done.finished:
            typer.echo(f"{formatting.counted(done.finished, 'removal')} that was cut off {would}completed")
        for batch_id in done.packed:
            typer.echo(f"{batch_id} {would}packed")
        for line in done.kept:
            typer.echo(f"kept: {line}")
        if done.is_nothing and done.ok:
            typer.echo("nothing is to be removed or packed")
    for line in done.failed:
        typer.echo(line, err=True)


def du(
    batches: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BATCH", help="Batches, or latest; left out: the whole store.", autocompletion=complete_batch
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="batch|kind|environment", help="What the bytes are told apart by.")
    ] = "batch",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the store takes on disk, the largest first: bytes, files and attempts.

    Example: parallelhassnes du --by kind
    """
    from parallelhassnes.admin.disk_use import disk_use
    from parallelhassnes.errors import UserError
    from parallelhassnes.refs import resolve

    if by not in ("batch", "kind", "environment"):
        raise UserError(f"--by {by}: is not known", fix="it is batch, kind or environment")
    layout = open_store(root, look=True).layout
    found = disk_use(layout, by, [resolve(layout, each).batch_id for each in batches or ()])  # type: ignore[arg-type]
    if json:
        typer.echo(found.model_dump_json())
        return
    from parallelhassnes.cli.output import console
    from parallelhassnes.cli.output.grid import Grid

    table = Grid(by)
    for head in ("MB", "files", "attempts"):
        table.add_column(head, right=True, rank=1)
    for use in found.rows:
        table.add_row(
            use.name, f"{use.bytes / 1e6:,.2f}", f"{use.files:,}", f"{use.attempts:,}" if use.attempts else ""
        )
    table.add_row("in all", f"{found.bytes / 1e6:,.2f}", f"{found.files:,}")
    console.show(console.Page(table))


def explain_command(
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Which; left out: all of them.")] = None,
) -> None:
    """Explain a command, as its --help does, or list all of them.

    Example: parallelhassnes help run
    """
    from parallelhassnes.cli.app import app

    app([*(words or ()), "--help"], prog_name="parallelhassnes", standalone_mode=False)
