"""``archive push``: a batch into an archive elsewhere, and what is new of one that goes on.

Keys and order are in ``store/archives/remote_batch.py``. Nothing but a note is written to the store here, and ``tick.lock`` is held only where a batch
goes on so fast that its records are never read as they stood at one moment.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from parallelhassnes.errors import UserError
from parallelhassnes.names import CONFIG_NAME
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import archiving
from parallelhassnes.store import additions, atomic, batches, decider, identity
from parallelhassnes.store.archives import object_store
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.archives.object_store import Mending, ObjectStore
from parallelhassnes.store.archives.remote_batch import RemoteHead
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.records import now_text
from parallelhassnes.views import batch_status

THREADS = 16
_LOOKS = 5
"""At a batch that goes on meanwhile; then it is made to wait for the next one."""
_GOES_ON = ("running", "waiting", "blocked")
_TASK = re.compile(rb"/_tasks/([0-9a-f]{64})[/\"]")


class Pushed(BaseModel):
    """What came of one batch."""

    ok: bool = True
    batch_id: str
    state: str
    """``pushed``, or ``was there`` where the archive had it as it is."""
    over: bool
    """Whether it had ended; if not, another push sends what comes."""
    attempts: int
    """That have ended and are in the archive."""
    sent_attempts: int
    """Of these the ones that were not there before."""
    sent_bytes: int
    mended: int = 0
    """Objects that had gone there or were not what they were named by, where that was looked at."""
    removed_attempts: int = 0
    """Those whose files were removed here, since the archive has them."""
    removed_bytes: int = 0
    kept: list[str] = []
    """Why files of others were kept, where they were to be removed."""


def opened(ctx: Context, url: str | None, *, mb_per_sec: float = 0.0) -> ObjectStore:
    """Return the archive that is named, or the configured one.

    Raises:
        UserError: there is none, it is no address of one, or it is a folder of the store's own.
    """
    named, at = (ctx.config.archive, ctx.layout.root) if url is None else (url, Path.cwd())
    if named is None:
        raise UserError(
            "no archive is named", fix=f'give its URL, or write archive = "s3://BUCKET/FOLDER" into {CONFIG_NAME}'
        )
    wait = ctx.config.archive_timeout_sec
    store = object_store.open_store(named, ctx.secrets(), at=at, mb_per_sec=mb_per_sec, timeout_sec=wait)
    is_folder = "://" not in store.address
    if is_folder and Path(store.address).resolve().is_relative_to(ctx.layout.runs.resolve()):
        raise UserError(f"{named}: is in {ctx.layout.runs}, whose folders are batches", fix="name a folder elsewhere")
    return store


def batch_named(ctx: Context, text: str) -> str:
    """Return the batch that is named.

    Raises:
        UnknownId: there is none.
        UserError: it is a part of one.
    """
    found = resolve(ctx.layout, text)
    if found.job_id is not None:
        raise UserError(f"{found} is a {found.what}, and batches are archived whole", fix=f"name {found.batch_id}")
    return found.batch_id


def push(ctx: Context, text: str, store: ObjectStore, *, threads: int = THREADS, repair: bool = False) -> Pushed:
    """Send what the archive lacks of a batch; of one that goes on what it has by now. That the configured archive has it is noted here.

    Args:
        repair: read all that is there of it, and put right what has gone or is another.

    Raises:
        UnknownId: there is no such batch.
        UserError: the archive cannot be reached, or has another batch by this id; or something here is not what was sealed.
    """
    head, done = _push(ctx, batch_named(ctx, text), store, threads=threads, repair=repair)
    if _is_configured(ctx, store):
        at = {"head_at": time.time(), "head_bytes": head.ledger.size}
        archiving.note_sent(ctx.layout, head.batch_id, store.address, **at)
    return done


def _is_configured(ctx: Context, store: ObjectStore) -> bool:
    named = ctx.config.archive
    return named is not None and (
        named == store.url or ("://" not in named and opened(ctx, None).address == store.address)
    )


def _push(ctx: Context, batch_id: str, store: ObjectStore, *, threads: int, repair: bool) -> tuple[RemoteHead, Pushed]:
    batch_dir = ctx.layout.batch(batch_id)
    batches.read_batch(batch_dir)  # those of the earlier ParallelHassnes have no seals
    to = Mending(store) if repair else store
    data = ledger_bytes(batch_dir)
    head, number = _newest(store, batch_id, repair=repair)
    if (
        not repair
        and head is not None
        and goes_on(store, head, data) == len(data)
        and head.over == is_over(ctx, batch_id)
    ):
        return _pushed(head, "was there", 0, 0)
    there = {name.removesuffix(".json") for name, _ in store.names(f"{remote.BATCHES}/{batch_id}/seals")}
    count = size = 0
    buried = removals.of(batch_dir)
    with _moment(ctx, batch_id) as now:
        wanted = remote.ended_attempts(remote.lines_of(now.data))
        missing = {
            digest: place
            for digest, place in wanted.items()
            if digest not in there
            or (repair and place not in buried)  # what a rule has removed here is whole only there
        }
        for sent in send_attempts(to, batch_dir, missing, threads):
            size += sent
        count = len(missing.keys() - there)
        # What came back to here since the newest head may have been pushed as records alone.
        new = remote.lines_of(now.data[head.ledger.size if head is not None else 0 :])
        back = removals.back_by(new, store.address) - buried.keys()
        anew = {digest: place for digest, place in wanted.items() if place in back and digest not in missing}
        for sent in send_attempts(Mending(store), batch_dir, anew, threads):
            size += sent
        if removals.of(batch_dir) != buried:  # a rule has removed files while they were read: the ledger has to say so
            made, again = _push(ctx, batch_id, store, threads=threads, repair=repair)
            return made, again.model_copy(
                update={"sent_attempts": count + again.sent_attempts, "sent_bytes": size + again.sent_bytes}
            )
        size += now.records.send(to, head.records if head and not repair else ())
        tasks = _tasks(batch_dir)
        for task in tasks:
            size += remote.send_task(to, ctx.layout.tasks / task, again=repair)
        while True:
            if head is not None and goes_on(store, head, now.data) > len(now.data):
                return _pushed(head, "pushed", count, size, to)  # another has pushed what came since
            there_now, sent = remote.send_ledger(to, now.data, head.ledger if head else None, again=repair)
            wished = there_now, now.records.blobs, now.over
            if (
                repair
                and head is not None
                and head.number == number
                and wished == (head.ledger, head.records, head.over)
            ):
                return _pushed(head, "was there", count, size + sent, to)
            made = RemoteHead(
                number=number + 1,
                prev=remote.head_digest(store, head) if head else "",
                at=now_text(),
                by=ledger.person(),
                batch_id=batch_id,
                store_id=identity.store_id(ctx.layout.runs),
                name=str(batches.read_about(batch_dir).get("source_name") or ""),
                over=now.over,
                attempts=len(wanted),
                ledger=there_now,
                records=now.records.blobs,
                tasks=tasks,
            )
            if store.create(remote.head_key(batch_id, made.number), remote.document(made)):
                return _pushed(made, "pushed", count, size + sent, to)
            head, number = _newest(store, batch_id, repair=repair)


def _newest(store: ObjectStore, batch_id: str, *, repair: bool) -> tuple[RemoteHead | None, int]:
    """Return the newest head of a batch and the highest number; where it is to be mended, the newest that can be read."""
    keys = remote.head_keys(store, batch_id)
    for key in reversed(keys):
        try:
            return remote.read_head(store, key), remote.number_of(keys[-1])
        except (remote.WrongArchive, atomic.CorruptFile):
            if not repair:
                raise
    return None, remote.number_of(keys[-1]) if keys else 0


def _pushed(
    head: RemoteHead, state: str, count: int, size: int, to: ObjectStore | None = None
) -> tuple[RemoteHead, Pushed]:
    return head, Pushed(
        batch_id=head.batch_id,
        state=state,
        over=head.over,
        attempts=head.attempts,
        sent_attempts=count,
        sent_bytes=size,
        mended=to.mended if isinstance(to, Mending) else 0,
    )


def send_attempts(store: ObjectStore, batch_dir: Path, wanted: Mapping[str, str], threads: int) -> Iterator[int]:
    """Send attempts, several at once; yields the bytes of each that is there.

    Args:
        wanted: SHA-256 of the seal → place.

    Raises:
        UserError: one of them is not here, or not what was sealed, or cannot be sent; what had begun is there.
    """

    def send(item: tuple[str, str]) -> int:
        digest, place = item
        try:
            return remote.send_attempt(store, batch_dir, place, digest).sent
        except FileNotFoundError:
            fix = f"see what `parallelhassnes audit verify {batch_dir.name}` says"
            raise UserError(f"{batch_dir.name}/{place}: is gone here, and cannot be sent", fix=fix) from None

    yield from each_of(send, wanted.items(), threads)


def each_of[Item, Came](act: Callable[[Item], Came], items: Iterable[Item], threads: int) -> Iterator[Came]:
    """Do it to several at once; the first that fails ends it."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            yield from pool.map(act, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def is_over(ctx: Context, batch_id: str) -> bool:
    """Tell whether nothing of a batch runs or waits."""
    return batch_status.group(batch_status.read(ctx.layout, batch_id)).state not in _GOES_ON


class _Moment(NamedTuple):
    """A batch as it stood at one moment."""

    data: bytes
    """Its ledger, in whole lines."""
    records: remote.HeldRecords
    over: bool


@contextlib.contextmanager
def _moment(ctx: Context, batch_id: str) -> Iterator[_Moment]:
    """Give a batch as it stood at one moment: records that were read while no line came.

    A file is replaced after the line that promises it and before the line that explains it, so records between two lines are what a crash
    there would leave, which an audit knows.
    """
    batch_dir = ctx.layout.batch(batch_id)
    for look in range(_LOOKS + 1):
        with decider.deciding(ctx.layout) if look == _LOOKS else contextlib.nullcontext():
            data, over = ledger_bytes(batch_dir), is_over(ctx, batch_id)
            records = remote.HeldRecords(batch_dir)
        if look == _LOOKS or ledger_bytes(batch_dir) == data:
            break
        records.close()
    try:
        ledger.sync(batch_dir)  # else a power cut takes lines here that the archive has, and the two never go on as one
        yield _Moment(data, records, over)
    finally:
        records.close()


def ledger_bytes(batch_dir: Path) -> bytes:
    """Return the whole lines of a batch's ledger."""
    data = atomic.read_bytes(batch_dir / ledger.LEDGER)
    return data[: data.rfind(b"\n") + 1]


def goes_on(store: ObjectStore, head: RemoteHead, data: bytes) -> int:
    """Return how long the ledger is in the archive, which has to be one with ours.

    Raises:
        UserError: it is another one.
    """
    there = head.ledger
    if there.size <= len(data):
        begin = data[: there.size]
        if begin.endswith(b"\n") and hashlib.sha256(begin.splitlines()[-1]).hexdigest() == there.head:
            return there.size
    elif remote.read_ledger(store, head).startswith(data):
        return there.size
    raise UserError(
        f"{head.batch_id}: {store.url} has this batch with another ledger, which does not go on as the one here",
        fix="one of the two was restored or went on elsewhere: look at `audit verify`, or push to another URL",
    )


def _tasks(batch_dir: Path) -> list[str]:
    """Return the uploaded tasks that a batch names."""
    found: set[str] = set()
    for job_dir in batch_dir.iterdir():
        for path in (job_dir / batches.JOB, *(job_dir / additions.FOLDER).glob("*.json")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found |= {digest.decode() for digest in _TASK.findall(atomic.read_bytes(path))}
    tasks = batch_dir.parent / "_tasks"
    return sorted(digest for digest in found if (tasks / digest).is_dir())
