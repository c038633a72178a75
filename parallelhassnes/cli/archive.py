"""``archive push``, ``pull``, ``verify`` and ``list``."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes import formatting
from parallelhassnes.cli.commands import CommandGroup
from parallelhassnes.cli.options import JsonOption, RootOption, complete_batch
from parallelhassnes.harmless import one_line

if TYPE_CHECKING:
    from parallelhassnes.actions.archive.pull_batch import Pulled
    from parallelhassnes.actions.archive.push_batch import Pushed
    from parallelhassnes.schedule.context import Context
    from parallelhassnes.store.archives.object_store import ObjectStore


def register(app: typer.Typer) -> None:
    """Add this group."""
    group = typer.Typer(
        cls=CommandGroup,
        help="Keep batches in a bucket or a folder elsewhere, and bring them back.\n\nExample: parallelhassnes archive push latest --to /mnt/archive",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(push)
    group.command()(pull)
    group.command()(verify)
    group.command("list")(list_batches)
    group.callback()(_group)
    app.add_typer(group, name="archive")


def _group() -> None:
    """Keep batches in a bucket or a folder elsewhere, and bring them back.

    Example: parallelhassnes archive push latest --to /mnt/archive
    """


_WHERE = "s3://BUCKET/FOLDER, gs://…, az://… or a folder; left out: archive of parallelhassnes.toml."
BatchesArgument = Annotated[
    list[str], typer.Argument(metavar="BATCH", help="Batches, or latest.", autocompletion=complete_batch)
]
ThereArgument = Annotated[list[str], typer.Argument(metavar="BATCH", help="Batches of the archive, or latest.")]
FromOption = Annotated[str | None, typer.Option("--from", metavar="URL", help=_WHERE)]


def _opened(ctx: "Context", url: str | None) -> "ObjectStore":
    """Open the archive; from here on Ctrl-C ends the command at once.

    A request that waits for a server hears of no signal otherwise, and what any kill leaves harms nothing.
    """
    from parallelhassnes.actions.archive import push_batch

    store = push_batch.opened(ctx, url)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return store


def push(
    batches: BatchesArgument,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help=_WHERE)] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Read all that is there of them, and put right what has gone or is another."),
    ] = False,
    remove_local: Annotated[
        bool,
        typer.Option(
            "--remove-local",
            help="Then read all attempts there, and if each is whole, remove their files here as gc does; pull brings them back.",
        ),
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Send what an archive lacks of batches: attempts, then their ledgers and records; nothing there is overwritten.

    Example: parallelhassnes archive push latest --to /mnt/archive
    """
    from parallelhassnes.actions.archive import push_batch
    from parallelhassnes.actions.stored import remove_local as removal
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.errors import UserError

    if remove_local and repair:
        raise UserError("--repair and --remove-local do not go together", fix="repair first, then say --remove-local")
    ctx = open_store(root)
    store = _opened(ctx, to)

    def act(batch: str) -> "Pushed":
        if remove_local:
            return removal.push_and_remove(ctx, batch, store)
        return push_batch.push(ctx, batch, store, repair=repair)

    _each(batches, act, _pushed_line, json=json)


def _pushed_line(each: "Pushed") -> str:
    line = f"{each.batch_id}  {each.state}  {formatting.counted(each.attempts, 'attempt')}"
    if each.state == "pushed":
        line += f", {each.sent_attempts} of them sent now, {each.sent_bytes / 1e6:.2f} MB"
    if each.mended:
        line += f", {formatting.counted(each.mended, 'object')} put right"
    if each.removed_attempts:
        line += f", files of {each.removed_attempts} removed here, {each.removed_bytes / 1e6:.2f} MB"
    if each.kept:
        line += f", files kept: {'; '.join(each.kept)}"
    return line if each.over else f"{line}; it goes on: push it again when it is over"


def pull(batches: ThereArgument, from_: FromOption = None, root: RootOption = None, json: JsonOption = False) -> None:
    """Bring batches of an archive into this store, each proved against its seals and its ledger first; of batches that are here what was removed.

    Example: parallelhassnes archive pull latest --from /mnt/archive
    """
    from parallelhassnes.actions.archive import pull_batch
    from parallelhassnes.cli.work import open_store

    ctx = open_store(root)
    store = _opened(ctx, from_)
    _each(batches, lambda batch: pull_batch.pull(ctx, batch, store), _pulled_line, json=json)


def verify(batches: ThereArgument, from_: FromOption = None, root: RootOption = None, json: JsonOption = False) -> None:
    """Read all that an archive has of batches and prove it, as pull would; nothing is kept.

    Example: parallelhassnes archive verify latest --from /mnt/archive
    """
    from parallelhassnes.actions.archive import pull_batch
    from parallelhassnes.cli.work import open_store

    ctx = open_store(root, look=True)
    store = _opened(ctx, from_)
    _each(batches, lambda batch: pull_batch.verify(ctx, batch, store), _pulled_line, json=json)


_HERE = {
    "same": "as it is here",
    "has more": "the batch here has more: push it again",
    "has less": "the batch here has less",
    "another": "the batch here is another",
}


def _pulled_line(each: "Pulled") -> str:
    line = f"{each.batch_id}  {each.state}  {formatting.counted(each.attempts, 'attempt')}, {each.bytes / 1e6:.2f} MB"
    line += f", pushed {each.at}" if each.at else ""
    if each.here:
        line += f"; {_HERE[each.here]}"
    if each.elsewhere:
        line += f"; of some it has the records alone, and their files are in {' and '.join(each.elsewhere)}"
    if each.over or each.state == "restored":
        return line
    return f"{line}; it was not over then{' and is paused here' if each.state == 'pulled' else ''}"


def _each[T: (Pushed, Pulled)](
    batches: Sequence[str], act: Callable[[str], T], line: Callable[[T], str], *, json: bool
) -> None:
    """Do it to one batch after the other, and tell of each when it is done; also of those before one that failed."""
    from parallelhassnes.errors import UserError
    from parallelhassnes.store.atomic import dumps

    done: list[T] = []
    said: dict[str, object] = {"ok": True}
    try:
        for batch in batches:
            done.append(act(batch))
            if not json:
                typer.echo(one_line(line(done[-1])))
    except UserError as error:
        if not (json and done):
            raise
        print(error, file=sys.stderr)
        said = {"ok": False, "error": str(error), "errors": []}
    if json:
        typer.echo(dumps(said | {"batches": [each.model_dump(mode="json") for each in done]}), nl=False)
    if not said["ok"]:
        raise typer.Exit(2)


def list_batches(from_: FromOption = None, root: RootOption = None, json: JsonOption = False) -> None:
    """List the batches of an archive: id, attempts, when they were pushed last, name; exit 1 if one of them cannot be used.

    Example: parallelhassnes archive list --from /mnt/archive
    """
    from parallelhassnes.actions.archive import pull_batch
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.store.atomic import dumps

    found = pull_batch.every(_opened(open_store(root, look=True), from_))
    ok = not any(each.trouble for each in found)
    if json:
        typer.echo(dumps({"ok": ok, "batches": [each.model_dump(mode="json") for each in found]}), nl=False)
        raise typer.Exit(0 if ok else 1)
    for each in found:
        if each.trouble:
            typer.echo(one_line(f"{each.batch_id}  cannot be used: {each.trouble}"))
            continue
        if not each.at:
            typer.echo(f"{each.batch_id}  not whole yet: attempts without a ledger")
            continue
        over = "" if each.over else "  (not over then)"
        about = f"{formatting.counted(each.attempts, 'attempt')}  {each.at}  {each.name}{over}"
        typer.echo(one_line(f"{each.batch_id}  {about}"))
    if not found:
        typer.echo("there is no batch there")
    raise typer.Exit(0 if ok else 1)
