"""``archive pull`` and ``archive verify``: a batch out of an archive, and whether it would come out whole.

Everything is fetched and proved aside, below ``runs/_system/tmp``: blobs by their keys, attempts by their seals and the lines of their ends, the
ledger by its chain. Then the batch's folder gets its name. A crash before that leaves what the next tick removes; there is nothing after it.
One that was not over when it was pushed comes paused: what it ran may go on where it came from.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from parallelhassnes import formatting, walk
from parallelhassnes.actions import pause_resume
from parallelhassnes.actions.archive import restore
from parallelhassnes.actions.archive.push_batch import THREADS, each_of, is_over, ledger_bytes
from parallelhassnes.actions.archive.read_attempt import Look, Proved, extract, read_best, survey
from parallelhassnes.admin.audit.audit_ledger import read_lines
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.names import is_safe_id, nearest
from parallelhassnes.refs import LATEST
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, batches, decider, index, uploaded_tasks
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.archives import unpacking
from parallelhassnes.store.archives.object_store import ObjectStore
from parallelhassnes.store.archives.remote_batch import RemoteHead
from parallelhassnes.store.evidence import ledger, removals


class Pulled(BaseModel):
    """What came of one batch."""

    ok: bool = True
    batch_id: str
    state: str
    """``pulled``, ``restored`` where files that had been removed here are back, ``was there``, or ``whole`` where it was only verified."""
    over: bool
    """Whether it had ended when it was pushed."""
    attempts: int
    """Of one that is ``restored`` those whose files are back."""
    bytes: int
    """That were read from the archive."""
    at: str
    """When it was pushed last; of one that is ``restored`` empty."""
    here: str = ""
    """Of one that was verified, and that this store has: ``same``, ``has more``, ``has less`` or ``another``."""
    elsewhere: list[str] = []
    """Addresses of other archives, which are said to have files of attempts of which this one has the records alone."""


class Archived(BaseModel):
    """A batch in an archive."""

    batch_id: str
    name: str
    over: bool
    attempts: int
    at: str
    """When it was pushed last; of attempts that no head names yet, empty."""
    trouble: str = ""
    """Why nothing else can be told of it; empty where all can."""


def every(store: ObjectStore, threads: int = THREADS) -> list[Archived]:
    """Return the batches of an archive, the newest last; of one whose head cannot be used, why.

    Raises:
        StoreTrouble: it cannot be reached.
    """

    def look(name: str) -> Archived:
        said = Archived(batch_id=name, name="", over=False, attempts=0, at="")
        try:
            head = remote.newest_head(store, name)
        except (remote.WrongArchive, atomic.CorruptFile) as error:
            return said.model_copy(update={"trouble": str(error)})
        if head is None:
            return said
        return Archived(batch_id=name, name=head.name, over=head.over, attempts=head.attempts, at=head.at)

    found = [name for name, _ in store.names(remote.BATCHES) if _is_batch(name)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(look, found))


def pull(ctx: Context, batch_id: str, store: ObjectStore, *, threads: int = THREADS) -> Pulled:
    """Bring a batch of an archive into this store; of one that is here the files that were removed because the archive has them.

    Raises:
        UnknownId: the archive has no such batch.
        WrongArchive: something there is not what it says; nothing was brought.
        UserError: this store has another batch by that id, or the archive cannot be reached.
    """
    head = None
    if not (_is_batch(batch_id) and restore.is_wanted(ctx, batch_id)):  # else its ledger here says what is wanted
        head = _head(store, batch_id)
        batch_id = head.batch_id
    target = ctx.layout.batch(batch_id)
    if restore.is_wanted(ctx, batch_id):
        back = restore.restore(ctx, batch_id, store, threads=threads)
        if back.attempts:
            return Pulled(
                batch_id=batch_id,
                state="restored",
                over=is_over(ctx, batch_id),
                attempts=back.attempts,
                bytes=back.size,
                at="",
                elsewhere=back.elsewhere,
            )
        if back.elsewhere:
            raise UserError(
                f"{batch_id}: {store.url} has none of the files that were removed here",
                fix=f"pull from {' and '.join(back.elsewhere)}",
            )
    head = head or _head(store, batch_id)
    if target.exists():
        here = compared(ctx, store, head)
        if here in ("same", "has more"):
            return _pulled(head, "was there", 0, [])
        fix = f"move {target} away first, if the archive's is the one that you want"
        raise UserError(
            f"{batch_id} is here already, and {'lacks what the archive has' if here == 'has less' else 'is another'}",
            fix=fix,
        )
    _bring_tasks(ctx, store, head)
    aside = atomic.temp_path(target.parent)
    aside.mkdir()
    try:
        read = _bring(store, head, aside, threads)
        if not head.over:
            pause_resume.pause_apart(aside, f"pulled from an archive of {head.at}, when it was not over")
        with decider.deciding(ctx.layout):
            if target.exists():
                raise UserError(f"{batch_id} has come here meanwhile", fix="look at it with show")
            aside.rename(target)
            atomic.sync_dir(target.parent)
            index.write(target, map(batches.read_job, batches.job_dirs(ctx.layout, batch_id)))
    finally:
        walk.remove_tree(aside)
    return _pulled(head, "pulled", read.size, read.elsewhere)


def verify(ctx: Context, batch_id: str, store: ObjectStore, *, threads: int = THREADS) -> Pulled:
    """Read all that an archive has of a batch, and prove it; nothing is kept.

    Raises:
        UnknownId: the archive has no such batch.
        WrongArchive: something there is not what it says.
        UserError: the archive cannot be reached.
    """
    head = _head(store, batch_id)
    batch_id = head.batch_id
    aside = atomic.temp_path(ctx.layout.batch(batch_id).parent)
    aside.mkdir()
    try:
        read = _prove(store, head, aside, threads, survey)
    finally:
        walk.remove_tree(aside)
    with remote.members(store, head.records) as members:
        for _ in members:
            pass
    size = read.size
    for digest in head.tasks:
        task = remote.read_task(store, digest)
        with remote.members(store, task.blobs, digest) as members:
            for _ in members:
                pass
        size += task.stored
    here = compared(ctx, store, head) if ctx.layout.batch(batch_id).exists() else ""
    return _pulled(head, "whole", size, read.elsewhere).model_copy(update={"here": here})


def compared(ctx: Context, store: ObjectStore, head: RemoteHead) -> str:
    """Tell how the ledger here stands to that of the archive: ``same``, ``has more``, ``has less`` or ``another``."""
    here, there = ledger_bytes(ctx.layout.batch(head.batch_id)), remote.read_ledger(store, head)
    if here == there:
        return "same"
    return "has more" if here.startswith(there) else "has less" if there.startswith(here) else "another"


def _pulled(head: RemoteHead, state: str, size: int, elsewhere: list[str]) -> Pulled:
    return Pulled(
        batch_id=head.batch_id,
        state=state,
        over=head.over,
        attempts=head.attempts,
        bytes=size,
        at=head.at,
        elsewhere=elsewhere,
    )


def _is_batch(name: str) -> bool:
    """Tell whether a batch can be called so in a store, where other folders begin with ``_``."""
    return is_safe_id(name) and not name.startswith("_")


def _head(store: ObjectStore, batch_id: str) -> RemoteHead:
    """Return the newest head of a batch by that id, or the beginning of one; ``latest`` is the one with the highest id."""
    known = sorted(name for name, _ in store.names(remote.BATCHES) if _is_batch(name))
    fitting = [batch_id] if batch_id in known else [name for name in known if name.startswith(batch_id)]
    if batch_id == LATEST:
        fitting = known[-1:]
    if len(fitting) > 1:
        raise UnknownId(
            f"{batch_id} is {formatting.counted(len(fitting), 'batch')} of {store.url}", fix="write more of the id"
        )
    head = remote.newest_head(store, fitting[0]) if fitting else None
    if head is None:
        near = nearest(batch_id, known)
        fix = (
            f"did you mean {near}?" if near and near != batch_id else "`parallelhassnes archive list` says what it has"
        )
        what = "is not whole there yet" if fitting else "is not there"
        raise UnknownId(f"{batch_id}: {what} ({store.url})", fix=fix)
    return head


class _ProvedBatch(NamedTuple):
    """What was read of a batch's attempts."""

    size: int
    back: dict[str, dict[str, str]]
    """Of those whose files a rule had removed, and the archive has: the batch by which it does → place → seal."""
    elsewhere: list[str]
    """Archives that are said to have the files of others."""


def _bring(store: ObjectStore, head: RemoteHead, aside: Path, threads: int) -> _ProvedBatch:
    """Make the batch's folder, proved."""
    with remote.members(store, head.records) as members:
        unpacking.extract_members(members, aside)
    read = _prove(store, head, aside, threads, partial(extract, aside))
    whole = {place for some in read.back.values() for place in some}
    for place in removals.of(aside).keys() - whole:  # it may have been pushed before a rule removed its files
        removals.strip(aside / place, removals.left_of(aside / place))
    for batch_id, some in read.back.items():
        removals.tell_restored(aside, some, store.address, batch_id if batch_id != head.batch_id else "")
    return read


def _prove(store: ObjectStore, head: RemoteHead, aside: Path, threads: int, look: Look) -> _ProvedBatch:
    """Write the ledger into a folder, prove it and every attempt that it names.

    Args:
        look: returns what an attempt's files are, as ``seal.survey`` does.
    """
    data = remote.read_ledger(store, head)
    atomic.write_bytes(aside / ledger.LEDGER, data)
    lines = read_lines(aside)
    broken = [fault.text for fault in lines.faults if fault.what != "torn"]
    said = (lines.submitted or {}).get("batch_id", head.batch_id)
    if broken or said != head.batch_id:
        what = broken[0] if broken else f"is the ledger of {said}"
        raise remote.wrong(store, remote.head_key(head.batch_id, head.number), f"its ledger is broken: {what}")
    size = len(data) + sum(blob.size for blob in head.records)
    buried = removals.of(aside)
    back: dict[str, dict[str, str]] = {}
    elsewhere: set[str] = set()

    def check(item: tuple[str, str]) -> tuple[str, str, Proved]:
        digest, place = item
        return digest, place, read_best(store, head.batch_id, digest, place, look, buried.get(place))

    wanted = remote.ended_attempts(remote.lines_of(data))
    if len(wanted) != head.attempts:
        key = remote.head_key(head.batch_id, head.number)
        raise remote.wrong(
            store, key, f"says {formatting.counted(head.attempts, 'attempt')}, and its ledger has {len(wanted)}"
        )
    for digest, place, proved in each_of(check, wanted.items(), threads):
        size += proved.stored
        if place in buried and buried[place].archive:
            if proved.is_whole:
                back.setdefault(proved.batch_id, {})[place] = digest
            else:
                elsewhere.add(buried[place].archive)
    return _ProvedBatch(size, back, sorted(elsewhere))


def _bring_tasks(ctx: Context, store: ObjectStore, head: RemoteHead) -> None:
    """Bring uploaded tasks that the batch names and this store lacks."""
    for digest in head.tasks:
        if (ctx.layout.tasks / digest).exists():
            continue
        task = remote.read_task(store, digest)
        ctx.layout.tasks.mkdir(exist_ok=True)
        fresh = atomic.temp_path(ctx.layout.tasks)
        fresh.mkdir()
        try:
            with remote.members(store, task.blobs, digest) as members:
                unpacking.extract_members(members, fresh)
            if uploaded_tasks.content_of(fresh / digest) != digest:
                raise remote.wrong(store, f"{remote.TASKS}/{digest}.json", "holds another task than it is named by")
            with contextlib.suppress(FileExistsError):
                (fresh / digest).rename(ctx.layout.tasks / digest)
            atomic.sync_dir(ctx.layout.tasks)
        finally:
            walk.remove_tree(fresh)
