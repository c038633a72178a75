"""``pack`` and ``unpack``: a finished batch's attempts in one archive, and back.

What an archive is stands in ``parallelhassnes.packed``, how it is made and proved in ``store/archives/packing.py``. Here is who may be packed:
a batch in which nothing runs, waits or is held, and whose every attempt is sealed as the ledger says.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from parallelhassnes import packed, places, walk
from parallelhassnes.errors import UserError
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, attempts, decider, earlier_batches, members
from parallelhassnes.store.archives import packing, unpacking
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import parse_time
from parallelhassnes.views import batch_status, projection

_MOVES = {"running": "runs", "waiting": "waits to run", "blocked": "is not over"}


class Packed(BaseModel):
    """What came of one batch."""

    ok: bool = True
    batch_id: str
    state: str
    """``packed``, ``unpacked``, or ``was packed`` where nothing was left to do."""
    attempts: int
    archive_bytes: int = 0
    """Of the archive."""
    freed_bytes: int = 0
    """Of the originals on disk, less the archive, its seals and its index."""
    freed_inodes: int = 0


def finished(ctx: Context, days: float, among: Iterable[str] | None = None) -> list[str]:
    """Return the batches that ended so many days ago or earlier and are not packed, oldest first.

    Args:
        among: only these are looked at, in this order; all where left out.
    """
    found = []
    for batch_id in ctx.layout.batch_ids() if among is None else among:
        batch_dir = ctx.layout.batch(batch_id)
        with members.apart(batch_dir):
            if not packed.is_there(batch_dir) and _ended_before(batch_dir, days) and not why_not(ctx, batch_id):
                found.append(batch_id)
    return found


def _ended_before(batch_dir: Path, days: float) -> bool:
    """Tell whether the newest event of the batch's steps was so many days ago, or earlier."""
    return time.time() - last_event(batch_dir) >= days * 86_400


def last_event(batch_dir: Path) -> float:
    """Return when the newest event of the batch's steps was, in seconds since the epoch; where there was none, when its folder was changed."""
    last_at = projection.load(batch_dir).last_at
    return parse_time(last_at) if last_at else batch_dir.stat().st_mtime


def pack(ctx: Context, text: str) -> Packed:
    """Put a batch's attempts into an archive; goes on with what was cut off, and does nothing where all is done.

    Raises:
        UnknownId: there is no such batch.
        UserError: it is not over, not whole, or holds what an archive cannot.
    """
    batch_id, batch_dir = _batch(ctx, text)
    pack = packed.of(batch_dir)
    if pack is None:
        _refuse(ctx, batch_id)
        with _told(batch_id):
            _make(ctx, batch_id)
        pack = packed.of(batch_dir)
        assert pack is not None  # noqa: S101 - it was just made
        state = "packed"
    else:
        state = "packed" if _originals(batch_dir, pack) else "was packed"
    freed, inodes = _tell_and_clear(ctx, batch_id, pack)
    own = sum((batch_dir / name).stat().st_blocks * 512 for name in packed.FILES)
    return Packed(
        batch_id=batch_id,
        state=state,
        attempts=len(pack.attempts),
        archive_bytes=pack.index["archive_size"],
        freed_bytes=freed - own if freed else 0,
        freed_inodes=inodes,
    )


def _make(ctx: Context, batch_id: str) -> None:
    batch_dir = ctx.layout.batch(batch_id)
    before, seals = ledger.size(batch_dir), ledger.seals(batch_dir)
    aside = atomic.temp_path(batch_dir)
    aside.mkdir()
    try:
        made = packing.write(batch_dir, aside)
        packing.prove(made, seals, batch_dir)
        with decider.deciding(ctx.layout):
            if ledger.size(batch_dir) != before or why_not(ctx, batch_id):
                raise _changed(batch_id, "packed")
            _still(batch_id, batch_dir, None, "packed")
            for name in (packed.ARCHIVE, packed.SEALS, packed.INDEX):
                (aside / name).rename(batch_dir / name)
                atomic.sync_dir(batch_dir)
    finally:
        walk.remove_tree(aside)


def _tell_and_clear(ctx: Context, batch_id: str, pack: packed.Pack) -> tuple[int, int]:
    """Give the ledger its line, unless it has it, and take the originals away; the bytes and inodes that they had."""
    batch_dir = ctx.layout.batch(batch_id)
    away: list[Path] = []
    with decider.deciding(ctx.layout):
        _still(batch_id, batch_dir, pack, "packed")
        said = _last(batch_dir)
        digest = ledger.content_hash(batch_dir / packed.INDEX)
        if said.get("event") != "packed" or said.get("index_sha256") != digest:
            ledger.append(
                batch_dir,
                "packed",
                by=ledger.person(),
                archive_sha256=pack.index["archive_sha256"],
                seals_sha256=pack.index["seals_sha256"],
                index_sha256=digest,
                attempts=len(pack.attempts),
            )
        for steps in _originals(batch_dir, pack):
            place = atomic.to_be_swept() or atomic.temp_path(batch_dir)
            (batch_dir / steps).rename(place)
            atomic.sync_dir((batch_dir / steps).parent)
            away.append(place)
    size = inodes = 0
    for place in away:
        top = walk.open_folder(place)
        try:
            for entry in walk.walk(top):
                if not entry.leaving:
                    size, inodes = size + entry.info.st_blocks * 512, inodes + 1
        finally:
            os.close(top)
        walk.remove_tree(place)
    return size, inodes


def _originals(batch_dir: Path, pack: packed.Pack) -> list[str]:
    return [steps for steps in pack.rest if (batch_dir / steps).is_dir()]


def unpack(ctx: Context, text: str, *, for_now: bool = False) -> Packed:
    """Bring the files of a packed batch back, as they were: contents, permissions, times.

    Args:
        for_now: whoever asks packs the batch again; its ledger says so.

    Raises:
        UnknownId: there is no such batch.
        UserError: it is not packed, or its archive is not what was packed.
    """
    batch_id, batch_dir = _batch(ctx, text)
    pack = packed.of(batch_dir)
    if pack is None:
        said = _last(batch_dir)
        if said.get("event") != "packed":
            raise UserError(f"{batch_id} is not packed", fix=f"`parallelhassnes pack {batch_id}` packs it")
        with decider.deciding(ctx.layout):  # a crash came when all was back
            _still(batch_id, batch_dir, None, "unpacked")
            _drop(batch_dir, said["attempts"], for_now=for_now)
        return Packed(batch_id=batch_id, state="unpacked", attempts=said["attempts"])
    aside = atomic.temp_path(batch_dir)
    try:
        with _told(batch_id):
            packing.prove(pack, ledger.seals(batch_dir))
            aside.mkdir()
            unpacking.extract(pack, aside)
        with decider.deciding(ctx.layout):
            _still(batch_id, batch_dir, pack, "unpacked")
            for steps in pack.rest:
                if not (batch_dir / steps).is_dir():
                    (aside / steps).rename(batch_dir / steps)
                    atomic.sync_dir((batch_dir / steps).parent)
            _drop(batch_dir, len(pack.attempts), for_now=for_now)
    finally:
        walk.remove_tree(aside)
    return Packed(batch_id=batch_id, state="unpacked", attempts=len(pack.attempts))


def _still(batch_id: str, batch_dir: Path, pack: packed.Pack | None, what: str) -> None:
    """Refuse to go on where the batch has by now another archive than what was made or read before ``tick.lock`` was held, or none."""
    now = packed.of(batch_dir)
    if (now and now.index) != (pack and pack.index):
        raise _changed(batch_id, what)


@contextlib.contextmanager
def _told(batch_id: str) -> Iterator[None]:
    """Tell of files that are gone meanwhile, as those of the store may be, in one line."""
    try:
        yield
    except FileNotFoundError as error:
        fix = f"see whether another pack or unpack is at it, and what `parallelhassnes audit verify {batch_id}` says"
        raise UserError(f"{batch_id}: {error.filename} is not there any more", fix=fix) from None


def _changed(batch_id: str, what: str) -> UserError:
    return UserError(f"{batch_id} was changed while it was {what}", fix=f"{what.removesuffix('ed')} it again")


def is_packed(batch_dir: Path) -> bool:
    """Tell whether the batch is packed, or its ledger still says so after an ``unpack`` that was cut off."""
    return packed.of(batch_dir) is not None or _last(batch_dir).get("event") == "packed"


def is_cut_off(batch_dir: Path) -> bool:
    """Tell whether a ``pack`` of the batch is to go on, or whoever has unpacked it for now has not packed it again."""
    pack = packed.of(batch_dir)
    if pack is not None:
        return bool(_originals(batch_dir, pack))
    return bool(_last(batch_dir).get("for_now"))


def _drop(batch_dir: Path, number: int, *, for_now: bool = False) -> None:
    """Remove the archive of a batch whose files are back."""
    for name in (packed.INDEX, packed.SEALS, packed.ARCHIVE):
        (batch_dir / name).unlink(missing_ok=True)
        atomic.sync_dir(batch_dir)
    ledger.append(batch_dir, "unpacked", by=ledger.person(), attempts=number, for_now=for_now or None)


def _batch(ctx: Context, text: str) -> tuple[str, Path]:
    found = resolve(ctx.layout, text)
    if found.job_id is not None:
        raise UserError(f"{found} is a {found.what}, and batches are packed whole", fix=f"name {found.batch_id}")
    return found.batch_id, ctx.layout.batch(found.batch_id)


def _refuse(ctx: Context, batch_id: str) -> None:
    why = why_not(ctx, batch_id)
    if why:
        raise UserError(f"{batch_id} {why}, and is not packed", fix="pack it once it has ended")


def why_not(ctx: Context, batch_id: str) -> str:
    """Tell why a batch is not to be packed; empty where it may be."""
    layout, batch_dir = ctx.layout, ctx.layout.batch(batch_id)
    try:
        status = batch_status.read(layout, batch_id)
    except earlier_batches.EarlierBatch:
        return "is of the earlier ParallelHassnes, which sealed nothing"
    if status.held.reason:
        return f"is held ({status.held.reason})"
    state = batch_status.group(status).state
    if state in _MOVES:
        return _MOVES[state]
    if any(tickets.parse_name(entry.name).batch_id == batch_id for entry in tickets.running(layout)):
        return "runs"
    ended = (name for name in members.names(layout.ended) if tickets.parse_name(name).batch_id == batch_id)
    if any(ended) or members.is_there(layout.added / batch_id):
        return "is to be settled by the next tick"
    return _unsealed(batch_dir)


def _unsealed(batch_dir: Path) -> str:
    known = ledger.seals(batch_dir)
    for place in _places(batch_dir):
        if place.split("/")[3:4] == ["fenced"] or place.endswith("/fenced"):
            return f"has an attempt of a silent host ({place})"
        if place not in known or not attempts.is_sealed(batch_dir / place):
            return f"has an attempt that is not sealed ({place})"
    return ""


def _places(batch_dir: Path) -> Iterable[str]:
    for step_dir in sorted(batch_dir.glob("*/steps/*")):
        place = step_dir.relative_to(batch_dir).as_posix()
        if (step_dir / "fenced").exists():
            yield f"{place}/fenced"
        for name in attempts.names(step_dir):
            yield f"{place}/{places.ATTEMPTS}/{name}"


def _last(batch_dir: Path) -> dict[str, Any]:
    """Return the newest line about the batch's archive; empty where there is none."""
    last: dict[str, Any] = {}
    for line in ledger.mentioning(batch_dir, 'packed"'):
        if line.get("event") in ("packed", "unpacked"):
            last = line
    return last
