"""``archive pull`` of a batch that is here: bringing back the files of attempts that went because an archive has them.

    archive ──read, proved──▶ runs/_system/tmp ──gc.lock: what a cut left goes──▶ ingest.lock, tick.lock: each top-level name by rename ──▶ ledger: ``restored``

Nothing is moved before all that come are here and proved by their seals. A crash before the line leaves files of attempts that have a tombstone, which the
next ``gc`` removes and the next pull brings again; after it they are whole. ``gc.lock`` keeps removals away; the two locks of tombstones keep a
pass, a ``pack`` and a rerun from seeing an attempt between the two. A packed batch is unpacked for now, and packed again, as by ``gc``.
"""

import stat
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import batched
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import packed, walk
from parallelhassnes.actions import packs
from parallelhassnes.actions.archive.push_batch import THREADS, each_of
from parallelhassnes.actions.archive.read_attempt import Proved, extract, read
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, attempts, decider, locks
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.archives.object_store import ObjectStore
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.evidence.removals import Tombstone

_AT_ONCE = 50
"""Attempts that get their files while ``tick.lock`` is held."""


class Restored(NamedTuple):
    """What came back."""

    attempts: int
    size: int
    """Bytes that were read from the archive."""
    elsewhere: list[str]
    """Archives that are said to have the files of others; this one has them not."""


def is_wanted(ctx: Context, batch_id: str) -> bool:
    """Tell whether the batch is here, and lacks files that an archive has, or is to be packed again after that."""
    batch_dir = ctx.layout.batch(batch_id)
    return batch_dir.is_dir() and (bool(_away(batch_dir)) or packs.is_cut_off(batch_dir))


def _away(batch_dir: Path) -> dict[str, Tombstone]:
    return {place: stone for place, stone in removals.of(batch_dir).items() if stone.archive}


def restore(ctx: Context, batch_id: str, store: ObjectStore, *, threads: int = THREADS) -> Restored:
    """Bring back what this archive has.

    Raises:
        WrongArchive: something there is not what was sealed; nothing was brought.
        UserError: the archive cannot be reached, a ``gc`` is at work, or the batch is not as its ledger says.
    """
    batch_dir = ctx.layout.batch(batch_id)
    with removals.alone(ctx.layout):
        aside = atomic.temp_path(batch_dir.parent)
        aside.mkdir()
        try:
            size, away = 0, _away(batch_dir)
            back: dict[str, dict[str, str]] = {}
            elsewhere: set[str] = set()
            for place, proved in _fetched(store, batch_dir, away, aside, threads):
                if proved is None:
                    elsewhere.add(away[place].archive)
                else:
                    size += proved.stored
                    back.setdefault(proved.batch_id, {})[place] = away[place].seal
            if back and packs.is_packed(batch_dir):
                packs.unpack(ctx, batch_id, for_now=True)
            for source, all_ in back.items():
                for some in batched(all_.items(), _AT_ONCE):
                    _move(ctx, batch_id, aside, dict(some), store.address, source if source != batch_id else "")
        finally:
            walk.remove_tree(aside)
        if packs.is_cut_off(batch_dir) and not packs.why_not(ctx, batch_id):
            packs.pack(ctx, batch_id)
    return Restored(sum(map(len, back.values())), size, sorted(elsewhere))


def _fetched(
    store: ObjectStore, batch_dir: Path, away: Mapping[str, Tombstone], aside: Path, threads: int
) -> Iterator[tuple[str, Proved | None]]:
    """Make each attempt that the archive has whole below a folder; yields its place, and None for one that it has not."""
    seals = {
        batch_id: {name.removesuffix(".json") for name, _ in store.names(f"{remote.BATCHES}/{batch_id}/seals")}
        for batch_id in {batch_dir.name, *(stone.archived_as for stone in away.values())} - {""}
    }

    def fetch(item: tuple[str, Tombstone]) -> tuple[str, Proved | None]:
        place, stone = item
        if ledger.content_hash(batch_dir / place / attempts.SEAL) != stone.seal:
            fix = f"see what `parallelhassnes audit verify {batch_dir.name}` says"
            raise UserError(f"{batch_dir.name}/{place}: its records here are not what was sealed", fix=fix)
        for batch_id in dict.fromkeys([batch_dir.name, stone.archived_as or batch_dir.name]):
            if stone.seal in seals[batch_id]:
                found = read(store, batch_id, stone.seal, place, partial(extract, aside), records_do=True)
                if found.is_whole:
                    return place, found
        if stone.archive == store.address:
            key = remote.seal_key(stone.archived_as or batch_dir.name, stone.seal)
            raise remote.wrong(store, key, "is gone, or has the records alone")
        return place, None

    yield from each_of(fetch, away.items(), threads)


def _move(ctx: Context, batch_id: str, aside: Path, back: Mapping[str, str], archive: str, archived_as: str) -> None:
    """Give attempts their files, and the ledger its line."""
    batch_dir = ctx.layout.batch(batch_id)
    for place in back:
        removals.strip(batch_dir / place, removals.left_of(batch_dir / place))
    with locks.held(ctx.layout.ingest_lock), decider.deciding(ctx.layout):
        if packed.of(batch_dir) is not None:
            raise UserError(f"{batch_id} was packed meanwhile", fix="pull it again")
        for place in back:
            for name in removals.left_of(aside / place):
                _rename(aside / place / name, batch_dir / place / name)
            atomic.sync_dir(batch_dir / place)
        removals.tell_restored(batch_dir, back, archive, archived_as)


def _rename(source: Path, target: Path) -> None:
    """Rename a file, or a folder that may be closed to its owner: that is renamed by who may write to it."""
    mode = source.lstat().st_mode
    is_closed = stat.S_ISDIR(mode) and not mode & stat.S_IWUSR
    if is_closed:
        source.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)
    source.rename(target)
    if is_closed:
        target.chmod(stat.S_IMODE(mode))
