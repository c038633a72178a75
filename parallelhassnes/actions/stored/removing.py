"""``gc``: removing files of attempts and packing batches, as ``actions/stored/retention.py`` has found.

    plan ──▶ attempts that an archive is to have are read there ──ingest.lock, tick.lock──▶ tombstones ──gc.lock──▶ files go ──▶ batches are packed

What was found is asked again under the locks, which are held for the tombstones alone, so no start waits for files to go, nor for an archive. A packed
batch is unpacked for it, and packed again; its ledger says that it is for now, so the next ``gc`` goes on after a crash.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping

from parallelhassnes.actions import packs
from parallelhassnes.actions.stored.retention import (
    Collected,
    Removable,
    RemovalPlan,
    is_to_be_packed_again,
    told,
    uses_of,
)
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, decider, locks, members
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.layout import Layout


def carry_out(ctx: Context, made: RemovalPlan) -> Collected:
    """Do what was found; what has changed since is left to the next time.

    Raises:
        UserError: another ``gc`` is at it, or there is no space to say what is removed.
        NotHere: another host decides.
    """
    done = made.said.model_copy(deep=True, update={"dry_run": False})
    gone: dict[str, dict[str, Removable]] = {}
    with removals.alone(ctx.layout):
        for batch_id in dict.fromkeys([*made.half, *made.goes]):
            with members.apart(
                ctx.layout.batch(batch_id), lambda error: done.failed.append(atomic.describe_damage(error))
            ):
                gone[batch_id] = _of_batch(ctx, batch_id, made, done)
        days = made.pack_after_days
        again = [each for each in made.repack if is_to_be_packed_again(ctx, each, done)]
        due = [*again, *(packs.finished(ctx, days, made.ended) if days is not None else [])]
        done.packed = []
        for batch_id in dict.fromkeys(due):
            with _told(done, batch_id):
                packs.pack(ctx, batch_id)
                done.packed.append(batch_id)
    done.rules = told(made, gone)
    done.failed += [line for line in made.archive.troubles if line not in done.failed]
    done.ok = not done.failed
    return done


def _of_batch(ctx: Context, batch_id: str, made: RemovalPlan, done: Collected) -> dict[str, Removable]:
    """Remove what goes of a batch; the attempts that have their tombstones for it."""
    batch_dir = ctx.layout.batch(batch_id)
    found = _proved(batch_id, made)
    buried: dict[str, Removable] = {}
    if found and packs.is_packed(batch_dir):
        with _told(done, batch_id):
            packs.unpack(ctx, batch_id, for_now=True)
            made.sizes[batch_id] = ledger.size(batch_dir)
            made.repack.append(batch_id)
    if found and not packs.is_packed(batch_dir):
        buried = _bury(ctx, batch_id, found, made, done)
    half = made.half.get(batch_id, ())
    stones = removals.of(batch_dir) if half else {}  # what was half gone may have been brought back since
    for place in [*(place for place in half if place in stones), *buried]:
        folder = batch_dir / place
        with members.apart(folder, lambda error: done.failed.append(atomic.describe_damage(error))):
            removals.strip(folder, removals.left_of(folder))
    return buried


def _proved(batch_id: str, made: RemovalPlan) -> dict[str, Removable]:
    """Return what goes of a batch, less what is to be in an archive and is not; of one batch all of that goes, or nothing."""
    found = made.goes.get(batch_id, {})
    asked = {each.tombstone.seal: place for place, each in found.items() if each.rule.archived}
    if not asked or made.archive.has_whole(batch_id, asked):
        return found
    return {place: each for place, each in found.items() if not each.rule.archived}


def _bury(
    ctx: Context, batch_id: str, found: Mapping[str, Removable], made: RemovalPlan, done: Collected
) -> dict[str, Removable]:
    """Write the tombstones of a batch, if all is as it was; the attempts that have one now."""
    layout, batch_dir = ctx.layout, ctx.layout.batch(batch_id)
    with locks.held(layout.ingest_lock), decider.deciding(layout):
        why = packs.why_not(ctx, batch_id)
        if ledger.size(batch_dir) != made.sizes[batch_id]:
            why = "was changed meanwhile"
        elif not why and _is_named_by_a_table(layout, batch_id):
            why = "is named by a table that waits to be taken in"
        since = uses_of(layout, [each for each in layout.batch_ids() if each not in made.known])
        why = why or since.unknown
        goes = {place: each for place, each in found.items() if f"{batch_id}/{place}" not in since.taken}
        if why or not goes:
            done.kept.append(f"{batch_id}: {why or 'its attempts were taken over meanwhile'}")
            return {}
        try:
            for rule in dict.fromkeys(each.rule for each in goes.values()):
                stones = {place: each.tombstone for place, each in goes.items() if each.rule is rule}
                where = made.archive.address if rule.archived else ""
                removals.bury(batch_dir, rule.name, rule.says, stones, archive=where)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{batch_dir / ledger.LEDGER}: there is no space for the line that says what is removed, so nothing more was",
                fix="free some space elsewhere, then run gc again",
            ) from None
    return goes


def _is_named_by_a_table(layout: Layout, batch_id: str) -> bool:
    """Tell whether a table that is not a batch yet speaks of the batch, as those of rerun, regrade and reuse do."""
    name = batch_id.encode()
    for entry in members.names(layout.incoming):
        try:
            if name in atomic.read_bytes(layout.incoming / entry):
                return True
        except (IsADirectoryError, FileNotFoundError):
            continue
    return False


@contextlib.contextmanager
def _told(done: Collected, batch_id: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not atomic.is_damage(error):
            raise
        done.failed.append(str(error) if batch_id in str(error) else f"{batch_id}: {error}")
