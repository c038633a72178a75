"""Sending to the archive while batches run: ``python -m parallelhassnes.actions.archive.send_beside ROOT [LOCK]``.

One process at a time, under ``sending.lock`` (files and order: ``schedule/process/archiving.py``), which yields the processor to all others. Each
attempt goes up after its end. The batch itself, its ledger and its records, goes up when it is over, and every few minutes until then.
"""

import os
import sys
import time
from pathlib import Path

from parallelhassnes.actions.archive.push_batch import is_over, opened, push, send_attempts
from parallelhassnes.errors import UserError
from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.schedule.process import archiving, senders
from parallelhassnes.store import identity, locks, members
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.archives.object_store import ObjectStore, StoreTrouble
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import now_text

_THREADS = 2
_HEAD_SEC = 300.0
"""Time between two heads of a batch that goes on."""
_STAY_SEC, _LOOK_SEC = 2.0, 0.1
"""How long it stays for the next end, and how often it looks: starting anew costs more."""


def send(ctx: Context) -> bool:
    """Send what is wished for, until nothing more comes; whether all could be sent. Who is at it already sees to what comes meanwhile."""
    layout = ctx.layout
    while archiving.has_wishes(layout):
        lock = locks.hold(archiving.sending_lock(layout))
        if lock is None:
            return True
        try:
            for batch_id in members.names(archiving.seen_to(layout)):  # one before us was killed
                _give_back(ctx, batch_id)
            store = opened(ctx, None, mb_per_sec=ctx.config.archive_mb_per_sec)
            while _wait(layout.archive):
                for batch_id in members.names(archiving.wanted(layout)):
                    _send_wished(ctx, store, batch_id)
            archiving.note_trouble(layout, "")
        except UserError as error:
            archiving.note_trouble(layout, str(error))
            _say(layout.archive, str(error))
            return False
        finally:
            locks.release(lock)
    return True


def _wait(folder: Path) -> bool:
    """Wait a little for a wish; whether there is one."""
    end = time.monotonic() + _STAY_SEC
    while not (found := members.names(folder / "wanted")) and time.monotonic() < end:
        time.sleep(_LOOK_SEC)
    return bool(found)


def _send_wished(ctx: Context, store: ObjectStore, batch_id: str) -> None:
    """Send what is new of one batch; what is wrong with it alone is logged, and keeps no other back.

    Raises:
        StoreTrouble: the archive does not take it; the wish stands again.
    """
    aside = archiving.seen_to(ctx.layout)
    aside.mkdir(exist_ok=True)
    (archiving.wanted(ctx.layout) / batch_id).rename(aside / batch_id)  # what ends from here on is a new wish
    try:
        _send_new(ctx, store, batch_id)
    except StoreTrouble:
        _give_back(ctx, batch_id)
        raise
    except (UserError, OSError) as error:
        _say(ctx.layout.archive, f"{batch_id} was not sent: {error}")
    (aside / batch_id).unlink(missing_ok=True)


def _give_back(ctx: Context, batch_id: str) -> None:
    archiving.wanted(ctx.layout).mkdir(exist_ok=True)
    (archiving.seen_to(ctx.layout) / batch_id).rename(archiving.wanted(ctx.layout) / batch_id)


def _send_new(ctx: Context, store: ObjectStore, batch_id: str) -> None:
    batch_dir = ctx.layout.batch(batch_id)
    known = archiving.sent(ctx.layout, batch_id, store.address)
    lines = list(ledger.read(batch_dir, int(known["bytes"])))
    new = remote.ended_attempts(line for _, line in lines)
    if not known["bytes"]:
        there = {name.removesuffix(".json") for name, _ in store.names(f"{remote.BATCHES}/{batch_id}/seals")}
        new = {digest: place for digest, place in new.items() if digest not in there}
    for _ in send_attempts(store, batch_dir, new, _THREADS):
        pass
    if lines:
        archiving.note_sent(ctx.layout, batch_id, store.address, bytes=lines[-1][0])
    if is_over(ctx, batch_id) or not 0 <= time.time() - known["head_at"] < _HEAD_SEC:
        push(ctx, batch_id, store, threads=_THREADS)


def _say(folder: Path, line: str) -> None:
    with (folder / archiving.LOG).open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(f"{now_text()} {line}\n")


def main(arguments: list[str]) -> None:
    """Send for a pass that waits for nothing."""
    os.nice(10)
    ctx = open_context(senders.begin(arguments))
    identity.check(ctx.layout)
    processes.set_title(f"sends {ctx.layout.root} to its archive")
    send(ctx)


if __name__ == "__main__":
    main(sys.argv[1:])
