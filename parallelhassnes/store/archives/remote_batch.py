"""What an archive elsewhere has of a batch, and under which keys.

    blobs/<sha256>                          bytes by their hash: parts of tars, in frames of zstd; lines of a ledger
    tasks/<sha256>.json                     a task that was uploaded, as ``runs/_tasks`` has it: its blobs
    batches/<batch_id>/seals/<sha256>.json  an attempt: its seal, word for word, and its blobs; by the hash of the seal
    batches/<batch_id>/heads/<number>.json  the batch as it stood: its ledger, its records; the highest number counts

Each is written where there is none, and never again. Blobs go first. The seal of an attempt goes after all its blobs: it is what says that
the attempt is there. A head goes after the seals of all attempts whose ends are in the ledger as it has it; it is what says that the batch
is there. So what a cut leaves at any point is blobs that nobody names, or attempts that the next head will name, and pushing again sends
what is missing. What is read is believed by its hash alone: a blob by its key, an attempt by its seal and the line of its end, a
ledger by the hash of its last line.

A ledger that has grown is one more blob. Of two who push at once one has the next head; the other reads it, and goes on from there.
"""

import contextlib
import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple, cast

from pydantic import Field

from parallelhassnes import packed, places
from parallelhassnes.errors import UserError
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic, attempts, batches
from parallelhassnes.store.archives import packing
from parallelhassnes.store.archives.object_store import LARGEST, NotThere, ObjectStore, TooLarge, as_it_is
from parallelhassnes.store.evidence import ledger, removals, seal

BATCHES, TASKS = "batches", "tasks"
_BLOB = 8 << 20
"""Bytes of a blob at most: as much is in memory for each of those that are sent or read at once."""
_MOST_PLAIN, _MOST_TIMES = 1 << 30, 1_000
"""Bytes that records unpack to at most: so many, and so many times what they are packed. Of attempts their seals say it."""
_NO_RECORDS = frozenset({ledger.LEDGER, *batches.DERIVED})
_HEAD = re.compile(r"[0-9]{8,}\.json")
_LEDGER_BLOBS = 64
"""Blobs of a ledger from which it is sent anew as one."""


class WrongArchive(UserError):
    """What an archive holds is not what it says."""


type Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""By which something has its key: in a folder that is a path, which leads to nowhere else so."""


class Blob(Record):
    """Some bytes of an archive."""

    sha256: Sha256
    size: int = Field(ge=0, le=LARGEST)


class SealedAttempt(Record):
    """The content of ``seals/<sha256>.json``, and without a seal of ``tasks/<sha256>.json``."""

    schema_version: Literal[1] = 1
    place: str
    """Below the batch's folder; of a task its name."""
    seal: str = ""
    """``seal.json``, word for word."""
    size: int
    """Bytes of the tar."""
    blobs: list[Blob]

    @property
    def stored(self) -> int:
        """Bytes in the archive."""
        return sum(blob.size for blob in self.blobs)


class LedgerThere(Record):
    """A ledger as far as an archive has it."""

    size: int
    lines: int
    head: str
    """SHA-256 of its last line, without the newline."""
    blobs: list[Blob]


class RemoteHead(Record):
    """The content of ``heads/<number>.json``."""

    schema_version: Literal[1] = 1
    number: int
    prev: str = ""
    """SHA-256 of the head before; empty in the first."""
    at: str
    by: str
    batch_id: str
    store_id: str
    """The store that it was pushed from."""
    name: str = ""
    """What the batch is called."""
    over: bool
    """Whether nothing of it ran or waited."""
    attempts: int
    """Those that have ended."""
    ledger: LedgerThere
    records: list[Blob]
    """A tar of everything that is in no attempt."""
    tasks: list[Sha256] = []
    """SHA-256 of the uploaded tasks that it ran."""


def ended_attempts(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return SHA-256 of the seal of each attempt whose end has a line → where it lies below the batch's folder."""
    found = {}
    for line in lines:
        if line.get("event") in ("ended", "carried") and "seal_sha256" in line:
            found[str(line["seal_sha256"])] = str(places.of_line(line))
    return found


def lines_of(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines of a ledger's bytes that are records."""
    for raw in data.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(raw)
            if isinstance(line, dict):
                yield line


def blob_key(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"


def seal_key(batch_id: str, digest: str) -> str:
    return f"{BATCHES}/{batch_id}/seals/{digest}.json"


def head_key(batch_id: str, number: int) -> str:
    return f"{BATCHES}/{batch_id}/heads/{number:08d}.json"


# --- writing ----------------------------------------------------------------------------------------------------


class BlobSink:
    """Cuts what it is given into blobs and sends them; ``end`` returns them."""

    def __init__(self, store: ObjectStore, known: Sequence[Blob] = ()) -> None:
        """Begin.

        Args:
            known: blobs that are there.
        """
        self._store, self._known = store, {blob.sha256 for blob in known}
        self._held = bytearray()
        self.blobs: list[Blob] = []
        self.sent = 0
        """Bytes that were not there before."""

    def write(self, data: bytes, /) -> None:
        self._held += data
        while len(self._held) >= _BLOB:
            self._send(bytes(self._held[:_BLOB]))
            del self._held[:_BLOB]

    def end(self) -> list[Blob]:
        """Send what is left."""
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()
        return self.blobs

    def _send(self, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs.append(Blob(sha256=digest, size=len(data)))
        if digest not in self._known:
            self._known.add(digest)
            self.sent += len(data) * self._store.create(blob_key(digest), data)


class HeldRecords:
    """A tar of a batch's records, a blob to a frame, kept in a nameless file until it is known to be one moment's."""

    def __init__(self, batch_dir: Path) -> None:
        """Read them.

        Raises:
            NotPackable: one of them cannot be read, or is nothing that an archive can hold.
        """
        self._held = tempfile.TemporaryFile(dir=atomic.temp_path(batch_dir).parent)  # noqa: SIM115 - until ``close``
        self._frame = hashlib.sha256()
        self.blobs: list[Blob] = []
        self._begin = 0
        writer = packing.Writer(self, self._cut)
        packing.write_records(writer, batch_dir, _NO_RECORDS)

    def write(self, data: bytes, /) -> None:
        self._frame.update(data)
        self._held.write(data)

    def _cut(self) -> None:
        size = self._held.tell() - self._begin
        if size:
            self.blobs.append(Blob(sha256=self._frame.hexdigest(), size=size))
        self._frame, self._begin = hashlib.sha256(), self._held.tell()

    def send(self, store: ObjectStore, known: Sequence[Blob]) -> int:
        """Send what is not known to be there; the bytes that were sent."""
        there, sent = {blob.sha256 for blob in known}, 0
        self._held.seek(0)
        for blob in self.blobs:
            data = self._held.read(blob.size)
            if blob.sha256 not in there:
                there.add(blob.sha256)
                sent += blob.size * store.create(blob_key(blob.sha256), data)
        return sent

    def close(self) -> None:
        self._held.close()


class Sent(NamedTuple):
    """What sending something came to."""

    what: SealedAttempt
    sent: int
    """Bytes of blobs that were not there before."""


def send_attempt(store: ObjectStore, batch_dir: Path, place: str, digest: str) -> Sent:
    """Send an attempt: its blobs, then its seal. One whose files a rule has removed, maybe meanwhile, takes nobody's place that is there.

    Args:
        digest: the SHA-256 of its seal, by the ledger.

    Raises:
        WrongArchive: its seal is not the one that the ledger names, or its files are not those that were sealed.
        NotPackable: it holds what an archive cannot.
        StoreTrouble: it could not be sent.
    """
    text = atomic.read_bytes(batch_dir / place / attempts.SEAL)
    if hashlib.sha256(text).hexdigest() != digest:
        fix = f"see what `parallelhassnes audit verify {batch_dir.name}` says"
        raise WrongArchive(f"{batch_dir.name}/{place}/seal.json: is not the one that the ledger names", fix=fix)
    was_whole = place not in removals.of(batch_dir)
    if was_whole:
        _check_as_sealed(batch_dir, place, text)
    sink = BlobSink(store)
    writer = packing.Writer(sink)
    packing.write_attempt(writer, batch_dir, place)
    made = SealedAttempt(place=place, seal=text.decode(), size=writer.total, blobs=sink.end())
    is_whole = was_whole and place not in removals.of(batch_dir)
    (store if is_whole else as_it_is(store)).create(seal_key(batch_dir.name, digest), document(made))
    return Sent(made, sink.sent)


def _check_as_sealed(batch_dir: Path, place: str, text: bytes) -> None:
    """Refuse an attempt of which a file is not what was sealed: sent, it would take the place of one that is whole."""
    files = json.loads(text)["files"]
    now = seal.survey(batch_dir / place, sync=False, like=files)
    differing = [path for path in sorted({*files, *now}) if files.get(path) != now.get(path)]
    if differing and place not in removals.of(batch_dir):  # a rule may remove them meanwhile
        fix = f"see what `parallelhassnes audit verify {batch_dir.name}` says"
        raise WrongArchive(f"{batch_dir.name}/{place}/{differing[0]}: is not what was sealed", fix=fix)


def send_task(store: ObjectStore, folder: Path, *, again: bool = False) -> int:
    """Send an uploaded task, unless it is there; the bytes that were sent.

    Args:
        again: also where it is.
    """
    key = f"{TASKS}/{folder.name}.json"
    try:
        store.read(key)
        is_there = not again
    except (NotThere, TooLarge):
        is_there = False
    if not is_there:
        sink = BlobSink(store)
        writer = packing.Writer(sink)
        packing.write_folder(writer, folder)
        made = SealedAttempt(place=folder.name, size=writer.total, blobs=sink.end())
        store.create(key, document(made))
        return sink.sent
    return 0


def send_ledger(
    store: ObjectStore, data: bytes, there: LedgerThere | None, *, again: bool = False
) -> tuple[LedgerThere, int]:
    """Send what a ledger has got since; how it stands in the archive then, and the bytes that were sent.

    Args:
        data: all of it, in whole lines.
        again: also what is there.
    """
    before = there.blobs if there is not None and len(there.blobs) < _LEDGER_BLOBS else []
    begin, at = sum(blob.size for blob in before), 0
    for blob in before if again else ():
        part = data[at : (at := at + blob.size)]
        if hashlib.sha256(part).hexdigest() == blob.sha256:
            store.create(blob_key(blob.sha256), part)
    sink = BlobSink(store, before)
    sink.write(data[begin:])
    lines = data.splitlines()
    made = LedgerThere(
        size=len(data),
        lines=len(lines),
        head=hashlib.sha256(lines[-1]).hexdigest() if lines else "",
        blobs=[*before, *sink.end()],
    )
    return made, sink.sent


# --- reading ----------------------------------------------------------------------------------------------------


def newest_head(store: ObjectStore, batch_id: str) -> RemoteHead | None:
    """Return the newest head of a batch; None where the archive has no head of it.

    Raises:
        WrongArchive: what is there is no head.
        StoreTrouble: that cannot be told.
    """
    keys = head_keys(store, batch_id)
    return read_head(store, keys[-1]) if keys else None


def head_keys(store: ObjectStore, batch_id: str) -> list[str]:
    """Return the keys of a batch's heads, the newest last; what is not named as one is none."""
    folder = f"{BATCHES}/{batch_id}/heads"
    return sorted((f"{folder}/{name}" for name, _ in store.names(folder) if _HEAD.fullmatch(name)), key=number_of)


def number_of(key: str) -> int:
    """Return the number of a head by its key."""
    return int(key.rpartition("/")[2].removesuffix(".json"))


def read_head(store: ObjectStore, key: str) -> RemoteHead:
    """Return a head; raises as ``newest_head``."""
    head = _record(store, RemoteHead, key)
    if key != head_key(head.batch_id, head.number):
        raise wrong(store, key, f"is the head {head.number} of {head.batch_id}")
    return head


def head_digest(store: ObjectStore, head: RemoteHead) -> str:
    """Return the SHA-256 of a head's bytes."""
    return hashlib.sha256(_content(store, head_key(head.batch_id, head.number))).hexdigest()


def read_task(store: ObjectStore, digest: str) -> SealedAttempt:
    """Return what the archive says of an uploaded task; raises as ``newest_head``."""
    return _record(store, SealedAttempt, f"{TASKS}/{digest}.json")


def read_attempt(store: ObjectStore, batch_id: str, digest: str) -> SealedAttempt:
    """Return what the archive says of an attempt; its seal is the one with that hash.

    Raises:
        WrongArchive: there is none, or another.
        StoreTrouble: that cannot be told.
    """
    found = _record(store, SealedAttempt, seal_key(batch_id, digest))
    if hashlib.sha256(found.seal.encode()).hexdigest() != digest:
        raise wrong(store, seal_key(batch_id, digest), "holds another seal than it is named by")
    return found


def read_blob(store: ObjectStore, blob: Blob) -> bytes:
    """Return a blob, which is what its key says.

    Raises:
        WrongArchive: it is gone, or another.
        StoreTrouble: that cannot be told.
    """
    data = _content(store, blob_key(blob.sha256), blob.size)
    if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.sha256:
        raise wrong(store, blob_key(blob.sha256), "is not what it is named by")
    return data


def read_ledger(store: ObjectStore, head: RemoteHead) -> bytes:
    """Return the ledger as a head has it; raises as ``read_blob``."""
    data = b"".join(read_blob(store, blob) for blob in head.ledger.blobs)
    lines = data.splitlines()
    if (
        (len(data), len(lines)) != (head.ledger.size, head.ledger.lines)
        or not lines
        or hashlib.sha256(lines[-1]).hexdigest() != head.ledger.head
    ):
        raise wrong(store, head_key(head.batch_id, head.number), "names another ledger than it has")
    return data


@contextmanager
def members(
    store: ObjectStore, blobs: Sequence[Blob], top: str = ""
) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]]:
    """Give the members of a tar, in its order, read while they are asked for; each can be made below an empty folder.

    Args:
        top: the one folder that they are in; without one they are a batch's records, and none of them is in an attempt.

    Raises:
        WrongArchive: a blob is gone or another, all of them are no tar, or a member is none that a push writes.
        StoreTrouble: that cannot be told.
    """
    import zstandard

    source = cast("IO[bytes]", _Blobs(store, blobs))
    try:
        with (
            zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as plain,
            tarfile.open(fileobj=io.BufferedReader(plain, 1 << 16), mode="r|", errors="surrogateescape") as tar,
        ):
            fits = _Fitting(top, _MOST_PLAIN + _MOST_TIMES * sum(blob.size for blob in blobs))
            yield ((fits.checked(info), tar.extractfile(info) if info.isreg() else None) for info in tar)
    except _DoesNotFit as error:
        raise wrong(store, blob_key(blobs[0].sha256) if blobs else "blobs", str(error)) from None
    except (zstandard.ZstdError, tarfile.TarError) as error:
        raise wrong(store, blob_key(blobs[0].sha256) if blobs else "blobs", f"cannot be read ({error})") from None


class _DoesNotFit(Exception):
    """A member of a tar is none that a push writes."""


class _Fitting:
    """Whether each member of a tar lies in a folder that came before it, under a name of its own, and is of a kind that belongs there."""

    def __init__(self, top: str, most: int) -> None:
        self._top, self._left = top, most
        self._open: list[tuple[str, set[str]]] = [("", set())]

    def checked(self, info: tarfile.TarInfo) -> tarfile.TarInfo:
        above, _, name = info.name.rpartition("/")
        while len(self._open) > 1 and self._open[-1][0] != above:
            self._open.pop()
        place, known = self._open[-1]
        if place != above or name in ("", ".", "..", *known) or not self._belongs(info):
            raise _DoesNotFit(f"holds {info.name[:200]!r}, which no push writes there")
        known.add(name)
        self._left -= info.size
        if self._left < 0 and self._top != packing.ATTEMPT:
            raise _DoesNotFit(f"unpacks to more with {info.name[:200]!r} than any push writes")
        if info.isdir():
            self._open.append((info.name, set()))
        return info

    def _belongs(self, info: tarfile.TarInfo) -> bool:
        parts = info.name.split("/")
        if self._top:
            is_ours = info.isdir() if len(parts) == 1 else info.isreg() or info.isdir() or info.issym() or info.isfifo()
            return parts[0] == self._top and is_ours
        is_in_attempt = (
            len(parts) > 4 and parts[1::2][:2] == [places.STEPS, places.ATTEMPTS] and attempts.is_name(parts[4])
        )
        is_derived = parts[0] in _NO_RECORDS or parts[0] in packed.FILES
        return (info.isreg() or info.isdir()) and not is_in_attempt and not is_derived


class _Blobs(io.RawIOBase):
    """The bytes of blobs, one after the other."""

    def __init__(self, store: ObjectStore, blobs: Sequence[Blob]) -> None:
        super().__init__()
        self._store, self._left, self._data = store, list(blobs), b""

    def readable(self) -> bool:
        return True

    def read(self, most: int = -1) -> bytes:
        if not self._data and self._left:
            self._data = read_blob(self._store, self._left.pop(0))
        most = len(self._data) if most < 0 else most
        data, self._data = self._data[:most], self._data[most:]
        return data


def wrong(store: ObjectStore, key: str, what: str) -> WrongArchive:
    return WrongArchive(
        f"{store.url}/{key}: {what}",
        fix="where the batch is whole, `archive push --repair` puts it right; or bring this object back from a copy of the archive",
    )


def _content(store: ObjectStore, key: str, most: int = LARGEST) -> bytes:
    try:
        return store.read(key, most)
    except NotThere:
        raise wrong(store, key, "is gone") from None
    except TooLarge as error:
        raise wrong(store, key, str(error)) from None


def _record[Model: Record](store: ObjectStore, model: type[Model], key: str) -> Model:
    try:
        return atomic.parse(model, json.loads(_content(store, key)), f"{store.url}/{key}")
    except (ValueError, RecursionError):
        raise wrong(store, key, "is not JSON") from None


def document(model: Record) -> bytes:
    """Return a record as it is written."""
    return atomic.dumps(model.model_dump(mode="json")).encode()
