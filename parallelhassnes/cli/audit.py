"""``audit verify``, ``audit checkpoint`` and ``audit prove``."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes import formatting
from parallelhassnes.cli.commands import CommandGroup
from parallelhassnes.cli.options import BatchArgument, JsonOption, RootOption, complete_batch, layout_of

if TYPE_CHECKING:
    from parallelhassnes.admin.audit.audit_models import Audit
    from parallelhassnes.store.archives.object_store import ObjectStore
    from parallelhassnes.store.layout import Layout

SHOWN = 100


def register(app: typer.Typer) -> None:
    """Add this group."""
    group = typer.Typer(
        cls=CommandGroup,
        help="Prove that the store is as it was written.\n\nExample: parallelhassnes audit verify",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(verify)
    group.command()(checkpoint)
    group.command()(prove)
    group.callback()(_group)
    app.add_typer(group, name="audit")


def _group() -> None:
    """Prove that the store is as it was written.

    Example: parallelhassnes audit verify
    """


def verify(
    batch: Annotated[
        str | None,
        typer.Argument(
            metavar="[BATCH]", help="A batch id, or latest; left out: every batch.", autocompletion=complete_batch
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="CHECKPOINT|URL",
            help="A checkpoint that was kept elsewhere, or where all are sent to (s3://…, gs://…, az://… or a folder): the ledgers must go on from them.",
        ),
    ] = None,
    signers: Annotated[
        Path | None,
        typer.Option(
            "--signers", metavar="FILE", help="OpenSSH's allowed_signers: checkpoints must be signed by one of them."
        ),
    ] = None,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Count a task that was edited since as a change, too.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Compare every file with its seal and every ledger with its chain; exit 1 if anything differs.

    Example: parallelhassnes audit verify latest
    """
    from parallelhassnes.admin.audit.verify import verify as check
    from parallelhassnes.refs import resolve
    from parallelhassnes.store.atomic import dumps

    layout = layout_of(root)  # nothing is written, so that root can verify another user's store
    named = None if batch is None else [resolve(layout, batch).batch_id]
    places = [each for each in against or () if "://" in each or Path(each).is_dir()]
    done = check(
        layout,
        named,
        against=[Path(each) for each in against or () if each not in places],
        elsewhere=_opened(layout, places),
        signers=signers,
        tasks=tasks,
    )
    if json:
        typer.echo(dumps(done.model_dump()), nl=False)
    else:
        _show(done)
    raise typer.Exit(0 if done.ok else 1)


def _opened(layout: "Layout", places: list[str]) -> "list[ObjectStore]":
    """Open what is named by an address, with credentials as ``archive`` takes them."""
    if not places:
        return []
    from parallelhassnes.schedule.context import open_context
    from parallelhassnes.store.archives.object_store import open_store

    ctx = open_context(layout.root)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a request that waits for a server hears of no signal otherwise
    wait = ctx.config.archive_timeout_sec
    return [open_store(each, ctx.secrets(), at=Path.cwd(), timeout_sec=wait) for each in places]


def _show(done: "Audit") -> None:
    from parallelhassnes.harmless import one_line

    for finding in [*done.notes, *done.problems][:SHOWN]:
        text = f": {finding.text}" if finding.text else ""
        typer.echo(f"{finding.what:11}{one_line(f'{finding.place}{text}')}")
    more = len(done.notes) + len(done.problems) - SHOWN
    if more > 0:
        typer.echo(f"and {more} more; --json has all of them")
    for rule, count in done.removed.items():
        typer.echo(
            f"{formatting.counted(count, 'attempt')} removed by rule {rule}, as {'its tombstone says' if count == 1 else 'their tombstones say'}"
        )
    word = (
        "everything is as it was written"
        if done.ok
        else f"not as written: {formatting.counted(len(done.problems), 'thing')}"
    )
    typer.echo(
        f"{formatting.counted(done.batches, 'batch')}, {formatting.counted(done.attempts, 'attempt')}, {formatting.counted(done.files, 'file')}, {done.bytes / 1e6:.1f} MB, "
        f"{formatting.counted(done.checkpoints, 'checkpoint')}: {word}"
    )


def checkpoint(
    full: Annotated[bool, typer.Option("--full", help="Name every batch, and not only what is new.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Write down how far every ledger has come, sign it and send it, as configured in [audit].

    Example: parallelhassnes audit checkpoint
    """
    from parallelhassnes.admin.audit.make_checkpoint import checkpoint as make
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.store.atomic import dumps

    done = make(open_store(root), full=full)
    if json:
        typer.echo(dumps(done.model_dump()), nl=False)
    else:
        typer.echo(done.line)
    raise typer.Exit(0 if done.ok else 1)


def prove(
    batch: BatchArgument,
    claim: Annotated[
        str,
        typer.Option(
            "--claim", metavar="TEXT", help='"pass rate of AGENT" or "mean reward of AGENT", as in its scoreboard.'
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the proof.")] = Path("proof.json"),
    verifier: Annotated[
        Path | None, typer.Option("--verifier", metavar="FILE", help="Write the script that checks proofs, too.")
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Write one file that proves a number to somebody who has neither this store nor this program.

    Example: parallelhassnes audit prove latest --claim "pass rate of oracle"
    """
    from parallelhassnes.admin.audit.prove import prove as make
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.refs import resolve
    from parallelhassnes.store.atomic import dumps

    ctx = open_store(root)
    done = make(ctx, resolve(ctx.layout, batch).batch_id, claim, out, verifier)
    typer.echo(dumps(done.model_dump()) if json else done.line, nl=not json)
