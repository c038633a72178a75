"""``init``, ``validate``, ``submit``, ``tick``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes import formatting
from parallelhassnes.cli.options import JsonOption, ReuseOption, RootOption, layout_of, root_or_default

if TYPE_CHECKING:
    from parallelhassnes.actions.run_until_idle import Ticked
    from parallelhassnes.schedule.context import Context, Options

TableArgument = Annotated[
    str, typer.Argument(metavar="TABLE", help="A launch table, JSON or YAML; - for standard input.")
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(
        "--n-concurrent",
        "-n",
        "--concurrency",
        "-j",
        min=1,
        help="Live attempts on this host at most. [default: as configured]",
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="KEY=N", help="Live attempts of a queue key at most; may be repeated."),
]
NoCodexOption = Annotated[
    bool,
    typer.Option("--no-codex", help="Dry run: call no agent; each agent step gets a made-up answer, marked as such."),
]
FailOnOption = Annotated[
    str, typer.Option("--fail-on", metavar="never|infrastructure|any", help="What makes the exit code 1.")
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (init, validate, submit, tick):
        app.command()(command)


def init(root: RootOption = None, json: JsonOption = False) -> None:
    """Make runs/, runners/ and a commented parallelhassnes.toml; overwrites nothing.

    Example: parallelhassnes init --root .
    """
    from parallelhassnes.admin.init import init as make
    from parallelhassnes.store.atomic import dumps

    done = make(root.absolute() if root else Path.cwd())
    if json:
        typer.echo(dumps({"ok": True, "root": str(done.root), "made": done.made}), nl=False)
    elif done.made:
        typer.echo(f"made {', '.join(name for name in done.made if '/' not in name)} in {done.root}")
    else:
        typer.echo(f"{done.root} is set up already; nothing changed")


def validate(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE", help="A launch table, a folder of tasks or a dataset (name@version); - for standard input."
        ),
    ],
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Check a table and say what it would run; every error at once.

    Example: parallelhassnes validate examples/table.json
    """
    from parallelhassnes.actions import submit as action
    from parallelhassnes.admin.init import check_apart
    from parallelhassnes.config import load_config
    from parallelhassnes.schedule.context import open_context
    from parallelhassnes.schedule.limits.concurrency_keys import effective_limit
    from parallelhassnes.store.queue import queue_keys

    load_config(root_or_default(root))
    ctx = open_context(root_or_default(root))
    check_apart(ctx.layout)
    data, name, folders = _table_or_tasks(ctx, table)
    found = action.validate(ctx, data, name=name, folders=folders)
    if json:
        typer.echo(found.model_dump_json())
        return
    made = f"{formatting.counted(found.jobs, 'job')}, {formatting.counted(found.steps, 'step')}"
    typer.echo(f"{name}: valid ({found.table_format}): {made}")
    typer.echo(f"  {found.outline}")
    if found.plan_sha256 is not None:
        typer.echo(f"  plan sha256:{found.plan_sha256}")
    for key, count in found.queue_keys.items():
        limit = effective_limit(ctx, queue_keys.read(ctx.layout, key)).number
        typer.echo(
            f"  {key}: {formatting.counted(count, 'step')}{'' if limit is None else f', at most {limit} at once'}"
        )
    for warning in found.warnings:
        typer.echo(f"  note: {warning}")


def submit(
    table: TableArgument,
    again: Annotated[
        bool, typer.Option("--again", help="Make a new batch even if this table was submitted before.")
    ] = False,
    reuse: ReuseOption = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Check a table, put it into the queue and print its batch id.

    Example: parallelhassnes submit examples/table.json
    """
    from parallelhassnes.actions import submit as action

    ctx = open_store(root, strict=True)
    data, name, folders = _table(table)
    done = action.submit(ctx, data, name=name, folders=folders, again=again, reuse=reuse)
    if json:
        typer.echo(done.model_dump_json())
        return
    typer.echo(done.batch_id)
    said = "was submitted before; --again makes a new batch" if done.duplicate else "is queued"
    made = f"{formatting.counted(done.jobs, 'job')}, {formatting.counted(done.steps, 'step')}"
    typer.echo(f"{name} {said}: {made}", err=True)
    if done.reused:
        typer.echo(done.reused, err=True)
    if not done.duplicate:
        typer.echo("nothing starts before a tick: parallelhassnes tick --until-idle", err=True)
    if done.plan_sha256 is not None:
        typer.echo(f"plan sha256:{done.plan_sha256}", err=True)
    for warning in done.warnings:
        typer.echo(f"note: {warning}", err=True)


def tick(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Go on until nothing is left to run, showing progress.")
    ] = False,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    no_codex: NoCodexOption = False,
    fail_on: FailOnOption = "infrastructure",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only trouble, as cron wants it.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Take in tables, end what died, start what may start; waits for nothing.

    Example: parallelhassnes tick --until-idle --concurrency 4
    """
    from parallelhassnes.actions.run_until_idle import ticked
    from parallelhassnes.schedule import at_rest
    from parallelhassnes.schedule.tick import tick as one_tick

    check_fail_on(fail_on)
    before = at_rest.found(layout_of(root))
    ctx = open_store(root, options(concurrency, limit, no_codex))
    if until_idle:
        watch_until_idle(ctx, None, fail_on=fail_on, quiet=quiet, json=json)
        return
    done = ticked(ctx, one_tick(ctx))
    _print_tick(ctx, done, quiet=quiet, json=json)
    if not done.ok:
        raise typer.Exit(3)
    if done.had_nothing:
        at_rest.note(ctx.layout, before)


# --- shared with run ----------------------------------------------------------------------------------


def open_store(
    root: Path | None, said: "Options | None" = None, *, strict: bool = False, look: bool = False
) -> "Context":
    """Return the context of a root whose folders exist.

    Args:
        look: nothing is to be changed, so it works on a host that may not work on the root, too.
        strict: a configuration that cannot be used is an error, also where an earlier one is in force.
    """
    from parallelhassnes.admin.init import ensure
    from parallelhassnes.config import load_config
    from parallelhassnes.schedule.context import open_context

    if strict:
        load_config(root_or_default(root))
    ctx = open_context(root_or_default(root), said)
    ensure(ctx, look=look)
    return ctx


def open_to_run(root: Path | None, said: "Options | None" = None) -> "Context":
    """Return the context of a root that may have no store yet: ``make_store`` makes it, once what is to run was found good."""
    from parallelhassnes.admin.init import check_apart
    from parallelhassnes.config import load_config
    from parallelhassnes.schedule.context import open_context

    folder = root_or_default(root, may_be_made=True)
    load_config(folder)
    ctx = open_context(folder, said)
    check_apart(ctx.layout)
    return ctx


def make_store(ctx: "Context") -> None:
    """Make a store where there is none, and say so on stderr."""
    from parallelhassnes.admin.init import ensure

    is_new = not ctx.layout.system.is_dir()
    ensure(ctx, make=True)
    if is_new:
        print(f"made a store in {ctx.layout.runs}", file=sys.stderr)


def options(concurrency: int | None, limit: list[str] | None, no_codex: bool) -> "Options":
    """Tell what was said on the command line, as the scheduler's options."""
    from parallelhassnes.schedule.context import Options

    return Options(concurrency=concurrency, limits=parse_limits(limit), no_codex=no_codex)


def parse_limits(texts: list[str] | None) -> dict[str, int]:
    """Return ``KEY=N`` texts as a dict with normalised keys; UserError where one is not of that form."""
    if not texts:
        return {}
    from parallelhassnes.key_names import normalise_queue_key
    from parallelhassnes.tables.formats.request import limits_of

    found = limits_of(texts, "--limit", "--limit openai/gpt-5.2=3")
    return {normalise_queue_key(key): number for key, number in found.items()}


def check_fail_on(value: str) -> None:
    from parallelhassnes.errors import UserError

    if value not in ("never", "infrastructure", "any"):
        raise UserError(f"--fail-on {value}: is not known", fix="use never, infrastructure or any")


def watch_until_idle(
    ctx: "Context", batch_ids: list[str] | None, *, fail_on: str, quiet: bool, json: bool, report: Path | None = None
) -> None:
    """Drive the root with live progress, print the result, exit 0 or 1; Ctrl-C stops only the watching.

    Args:
        report: where to write the report of the one batch, too.
    """
    from parallelhassnes.actions.exit_code import exit_code
    from parallelhassnes.actions.run_until_idle import until_idle
    from parallelhassnes.cli.output.live_progress import LiveProgress
    from parallelhassnes.cli.watch import print_scoreboard

    before = _ledger_sizes(ctx)
    try:
        if quiet:
            until_idle(ctx, batch_ids, lambda: None)
        else:
            with LiveProgress(ctx, batch_ids) as progress:
                until_idle(ctx, batch_ids, progress.update, stays=lambda: progress.keeps_open)
    except KeyboardInterrupt:
        _say_how_to_come_back(ctx, batch_ids)
        raise typer.Exit(130) from None
    moved = [batch_id for batch_id, size in _ledger_sizes(ctx).items() if size != before.get(batch_id)]
    ids = moved if batch_ids is None else batch_ids
    code = exit_code(ctx, ids, fail_on)  # type: ignore[arg-type]
    one = ids[0] if batch_ids and len(ids) == 1 else None
    if one is not None:
        _print_run(ctx, one, code, report, quiet=quiet, json=json)
    elif json or not quiet:
        print_scoreboard(ctx.layout, None, json=json)
    raise typer.Exit(code)


def _print_run(ctx: "Context", batch_id: str, code: int, report: Path | None, *, quiet: bool, json: bool) -> None:
    from parallelhassnes.cli.watch import print_scoreboard

    written = None
    if report is not None:
        from parallelhassnes.report.run_summary import write_report

        written = write_report(ctx.layout, batch_id, report)
    if json:
        from parallelhassnes.report.run_summary import run_done

        typer.echo(run_done(ctx.layout, batch_id, code, written).model_dump_json())
    elif not quiet:
        from parallelhassnes.cli.output import run_end
        from parallelhassnes.views.batch_scoreboard import batch_scoreboard

        print_scoreboard(ctx.layout, batch_id, json=False)
        sys.stdout.flush()
        for line in ("", *run_end.lines(ctx.layout, batch_scoreboard(ctx.layout, batch_id))):
            print(line, file=sys.stderr)
        if written is not None:
            print(f"written:     {written}", file=sys.stderr)


def _ledger_sizes(ctx: "Context") -> dict[str, int]:
    """Return batch → bytes of its ledger: one that something happened to has grown."""
    from parallelhassnes.store.evidence import ledger

    return {batch_id: ledger.size(ctx.layout.batch(batch_id)) for batch_id in ctx.layout.batch_ids()}


def _say_how_to_come_back(ctx: "Context", batch_ids: list[str] | None) -> None:
    from parallelhassnes.store import batches
    from parallelhassnes.store.queue import tickets

    live = len(tickets.running(ctx.layout))
    root = f" --root {ctx.layout.root}"
    waiting = batch_ids or sorted({batch_id for _, batch_id, _ in tickets.ready_folders(ctx.layout)})
    paused = [each for each in waiting if batches.read_control(ctx.layout.batch(each)).paused is not None]
    resume = f"  let it go on: parallelhassnes resume {' '.join(paused)}{root}\n" if paused else ""
    print(
        f"\nstopped watching; {formatting.counted(live, 'live attempt')}, which nothing here stops.\n{resume}"
        f"  watch again:  parallelhassnes tick --until-idle{root}\n"
        f"  look:         parallelhassnes scoreboard{root}\n"
        f"  cancel:       parallelhassnes cancel {batch_ids[0] if batch_ids else 'latest'}{root}",
        file=sys.stderr,
    )


def _print_tick(ctx: "Context", done: "Ticked", *, quiet: bool, json: bool) -> None:
    from parallelhassnes.store.atomic import dumps

    if json:
        typer.echo(dumps(done.to_dict()), nl=False)
        return
    for table in done.rejected:
        for line in table.errors:
            typer.echo(f"rejected {line}", err=True)
    for name in done.repaired:
        typer.echo(f"attempt {name} had died; it is ended as lost", err=True)
    lasting = [f"left {line}" for table in done.left for line in table.errors]
    lasting += [f"passed over {line}" for line in done.passed_over]
    if quiet:
        _print_trouble(ctx, lasting)
        return
    for line in lasting:
        typer.echo(line, err=True)
    for line in done.waiting:
        typer.echo(line)
    accepted = formatting.counted(len(done.accepted), "table")
    typer.echo(
        f"{accepted} accepted, {formatting.counted(len(done.launched), 'attempt')} started, {done.running} running"
    )


def _print_trouble(ctx: "Context", lasting: list[str]) -> None:
    """Tell what a quiet tick tells of what lasts: once, until it is another."""
    from parallelhassnes.actions.run_until_idle import waiting
    from parallelhassnes.schedule import health, quarantine
    from parallelhassnes.store.queue import tickets
    from parallelhassnes.views.told_trouble import news

    if ctx.shortage() is not None and any(True for _ in tickets.ready_folders(ctx.layout)):
        lasting.append(waiting(ctx)[0])
    lasting += health.waiting(ctx.layout)
    lasting += [f"batch {batch_id} waits: {why}" for batch_id, why in sorted(quarantine.every(ctx.layout).items())]
    for line in news(ctx.layout, lasting):
        typer.echo(line, err=True)


def _table_or_tasks(ctx: "Context", table: str) -> tuple[bytes, str, list[Path]]:
    """As ``_table``; of tasks, the table that ``run`` would make of them."""
    from parallelhassnes.actions.submit import base_dirs, table_of
    from parallelhassnes.tables.formats.request import RunRequest

    path = Path(table)
    if table == "-" or path.is_file():
        return _table(table)
    if path.is_dir():
        return table_of(ctx, RunRequest(paths=(table,))), table, base_dirs(None)
    if "@" in table and not path.exists():
        return table_of(ctx, RunRequest(dataset=table)), table, base_dirs(None)
    return _table(table)


def _table(table: str) -> tuple[bytes, str, list[Path]]:
    from parallelhassnes.actions.submit import base_dirs, read_table

    if table == "-":
        return sys.stdin.buffer.read(), "-", base_dirs(None)
    path = Path(table)
    return read_table(path), str(path), base_dirs(path)
