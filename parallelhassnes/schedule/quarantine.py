"""Batches that cannot be gone on with: a file of theirs is torn, gone, or somebody else's. The others go on.

    _queue/blocked/<batch_id>.json   D   {"reason": …, "damaged": true}: nothing of the batch starts

What meets such a file under way notes it here and removes the ticket that led to it, which is derived. Every tick tries to make
the batch's tickets anew (``rebuild.mend``): as soon as the file is whole again the note goes, and the batch goes on. Attempts
that run are not disturbed. A ticket that is torn itself is made anew at once, and those of a batch that somebody has
deleted are removed.
"""

import contextlib
import shutil
from pathlib import Path

from parallelhassnes.execute import own_files
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, earlier_batches, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import delayed, tickets


def note(ctx: Context, batch_id: str, error: Exception) -> None:
    """Let nothing of the batch start until the file that the error names is whole again.

    One that a worker has closed to us, as it may, is opened: the next tick goes on.
    """
    if isinstance(error, earlier_batches.EarlierBatch):
        return
    if isinstance(error, PermissionError) and error.filename is not None:
        file, top = Path(error.filename), ctx.layout.batch(batch_id)
        if file.is_relative_to(top):
            with contextlib.suppress(OSError):  # what cannot be opened stays closed, and waits
                own_files.reopen(file, top)
    reason = describe(error)
    path = _path(ctx, batch_id)
    if reason_of(ctx, batch_id) != reason:
        with members.apart(path):
            atomic.write_json(path, {"reason": reason, "damaged": True}, durable=False)


def describe(error: Exception) -> str:
    """Tell why a batch waits that the error keeps from being read, in one line with what to do."""
    return f"damaged: {atomic.describe_damage(error)}; {atomic.advice(error)}"


def reason_of(ctx: Context, batch_id: str) -> str | None:
    """Tell why the batch is set aside; None where it is not."""
    return _reason(_path(ctx, batch_id))


def every(layout: Layout) -> dict[str, str]:
    """Return batch → why it is set aside, of all that are."""
    paths = map(Path, atomic.json_files(layout.blocked))
    return {path.stem: reason for path in paths if (reason := _reason(path)) is not None}


def _reason(path: Path) -> str | None:
    document = atomic.read_derived(path)
    return str(document.get("reason")) if document.get("damaged") else None


def _path(ctx: Context, batch_id: str) -> Path:
    return ctx.layout.blocked / f"{batch_id}.json"


def set_aside(ctx: Context, ticket: Path, error: Exception) -> None:
    """Note why a ticket cannot be followed, and remove it; nothing is noted of a batch that was deleted.

    The note comes first: by it the ticket comes back, so it must be there before the ticket is gone. It is written again
    where a tick has mended the batch meanwhile: that ticket may be the one that was removed.
    """
    batch_id = batch_of(ticket)
    if is_deleted(ctx, batch_id):
        _remove(ticket)
        forget(ctx, batch_id)
    else:
        note(ctx, batch_id, error)
        if reason_of(ctx, batch_id) is None and not isinstance(error, earlier_batches.EarlierBatch):
            return  # the disk refused the note: the next pass comes to the ticket again
        _remove(ticket)
        if reason_of(ctx, batch_id) is None:
            note(ctx, batch_id, error)


def batch_of(ticket: Path) -> str:
    """Return the batch of a ticket, by its name."""
    return delayed.batch_of(ticket) or tickets.parse_name(ticket.name).batch_id


def is_deleted(ctx: Context, batch_id: str) -> bool:
    return not members.is_there(ctx.layout.batch(batch_id))


def forget(ctx: Context, batch_id: str) -> None:
    """Remove what the queue still has of a deleted batch to start."""
    for name in members.names(ctx.layout.ready):
        key = ctx.layout.ready / name
        _remove(key / batch_id)
        with contextlib.suppress(OSError):
            key.rmdir()
    delayed.drop(ctx.layout, delayed.of_batch(ctx.layout, batch_id))
    _remove(_path(ctx, batch_id))


def _remove(path: Path) -> None:
    """Remove something of the queue, all of which is derived, whatever it has become."""
    with members.apart(path):
        try:
            path.unlink(missing_ok=True)
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(path, ignore_errors=True)
        except NotADirectoryError:
            return
