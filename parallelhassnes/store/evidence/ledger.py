"""``ledger.jsonl`` of a batch: one line per decision, appended, never changed, chained by hashes.

    {"seq": 7, "prev": "<SHA-256 of the line before>", "at": …, "event": …, "by": …, …}
    {…, "event": "writes", "files": {"<path>": "<SHA-256>"}}      the file is about to be replaced by that content
    {…, "left": {"<path>": "<SHA-256>"}}                          … and was not: a crash came between

``seq`` counts from 0; ``prev`` is the hash of the bytes of the line before, without its newline, and is
empty in the first. One writer at a time: ``submitted`` is written under ``ingest.lock`` before the batch can
be seen, everything else under ``tick.lock``. An append reads the end of the file only.

A crash can leave a last line without its newline. Readers leave it alone; the next writer ends it and says so
(``torn``: its bytes, ``prev``: its hash), which a verification takes for what it is. A full disk leaves the
ledger as it was. A crash can also repeat the event of a settle, which looks whether the line is there first
(``has_ended``).

A file that is replaced while a batch lives (``control.json``, ``overrides.json``, ``cancel.json``; of the store: its
configuration, budgets and tokens) is written by ``replace``: first the line ``writes`` with the hash of what is about to
stand there, then the file by rename. As long as that line is the last one, the file may have either content; the next
line closes this: where a crash came before the rename, it says what was ``left``. The first line of a ledger says
by which rules it was kept (``audit``), so that an audit knows what must have a record and what an earlier version
did not record; in the store's own it also says what was there before it (``found``).
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import packed, places
from parallelhassnes.store import atomic
from parallelhassnes.store.records import now_text

LEDGER = "ledger.jsonl"
WRITES = "writes"
SEALED = '"seal_sha256"'
"""Stands in every line that ``sealed_by`` knows."""
RULES = 2
"""What a ledger that was begun by this version records: every file that is replaced, and more of each attempt."""
_BLOCK = 4096
_NEAR = 1 << 16
"""Bytes from the end in which a line is looked for first."""
_CHUNK = 1 << 20
"""Bytes of lines that are parsed in one go."""
SYSTEM_FILES = ("harness_config.json", "budgets.json", "oddish_names.json", "config_versions/*.json", "tokens/*.json")
"""What the store's own ledger answers for, as patterns."""


class Head(NamedTuple):
    """Where a ledger ends."""

    head: str
    """SHA-256 of its last whole line; empty where there is none."""
    lines: int
    """Whole lines, those that a crash has cut included once they were ended."""
    seals: int
    """Lines that name the seal of an attempt."""


class _Actor:
    name = "tick"


_speaker: ContextVar[str | None] = ContextVar("speaker", default=None)


class _End(NamedTuple):
    """What an append must know of the lines before."""

    seq: int
    """Of the last whole line; -1 where there is none."""
    prev: str
    torn: int
    """Bytes of an unfinished line at the end."""
    promised: dict[str, str | None]
    """Path → hash of the files that the last whole line said it was about to replace."""


def acting_as(name: str) -> None:
    """Tell who this process, and those it forks, writes lines as: ``tick`` or ``supervisor``."""
    _Actor.name = name


@contextmanager
def speaking_for(name: str | None) -> Iterator[None]:
    """Within the block, what this thread does is done by somebody else than who runs the process: by a token's holder."""
    before = _speaker.set(name)
    try:
        yield
    finally:
        _speaker.reset(before)


def speaker() -> str | None:
    """Tell whom this thread speaks for; None for whoever runs the process."""
    return _speaker.get()


def person(uid: int | None = None) -> str:
    """Tell whom this thread speaks for, else ``user@host`` of the one who runs this process; or that of a user id."""
    if uid is None and (named := _speaker.get()) is not None:
        return named
    uid = os.getuid() if uid is None else uid
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return f"{name}@{platform.node()}"


def append(batch_dir: Path, event: str, *, by: str | None = None, **facts: Any) -> None:
    """Add one line, and wait for the disk; facts that are None are left out. The caller is the only writer.

    Raises:
        OSError: there is no space for it, or another host has taken over since (``renew``); the ledger is as it was.
    """
    _append(batch_dir, event, by, facts, durable=True)


def append_unsynced(batch_dir: Path, event: str, *, by: str | None = None, **facts: Any) -> None:
    """As ``append``, without waiting for the disk.

    ``sync`` does, before anything goes that would have the line written again, and before anybody says elsewhere that it is there.
    """
    _append(batch_dir, event, by, facts, durable=False)


def _append(batch_dir: Path, event: str, by: str | None, facts: Mapping[str, Any], *, durable: bool) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    handle = os.open(batch_dir / LEDGER, flags, 0o666)
    try:
        size = os.fstat(handle).st_size
        end = _end(handle, size)
        document = {
            "seq": end.seq + 1,
            "prev": end.prev,
            "at": now_text(),
            "event": event,
            "by": by or _Actor.name,
            "torn": end.torn or None,
            "audit": RULES if end.seq < 0 else None,
            "left": _left(batch_dir, end.promised) or None,
            "found": (_found(batch_dir) or None) if end.seq < 0 else None,
            **facts,
        }
        kept = {key: value for key, value in document.items() if value is not None}
        line = atomic.dumps(kept).encode("utf-8", "surrogateescape")
        try:
            _write_whole(handle, size, b"\n" + line if end.torn else line)
        except OSError as error:
            error.filename = error.filename or str(batch_dir / LEDGER)
            raise
        if durable and atomic.is_durable():
            os.fsync(handle)
        if not os.fstat(handle).st_nlink:
            raise OSError(errno.ESTALE, "another host has taken over meanwhile", str(batch_dir / LEDGER))
    finally:
        os.close(handle)


def sync(batch_dir: Path) -> None:
    """Wait until every line is on disk; nothing where there is no ledger."""
    if not atomic.is_durable():
        return
    try:
        handle = os.open(batch_dir / LEDGER, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def renew(batch_dir: Path) -> None:
    """Put a copy in the ledger's place, so that a writer of a host that stands still in the middle of ``append`` reaches nothing that counts.

    For whoever takes over the right to decide from a silent host, before its first line. Nothing where there is no ledger.
    """
    with contextlib.suppress(FileNotFoundError):
        atomic.write_bytes(batch_dir / LEDGER, (batch_dir / LEDGER).read_bytes())


def check(batch_dir: Path) -> None:
    """Look whether a line can be added, before something is done that needs one.

    Raises:
        OSError: the file system refuses the ledger.
    """
    os.close(os.open(batch_dir / LEDGER, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))


def replace(folder: Path, place: str, data: bytes | None) -> None:
    """Replace a file below the ledger's folder, or remove it where ``data`` is None; the ledger says so first.

    The caller is the ledger's only writer, and writes another line afterwards, which says what it was for.
    """
    append(folder, WRITES, files={place: None if data is None else hashlib.sha256(data).hexdigest()})
    if data is not None:
        atomic.write_bytes(folder / place, data)
    else:
        (folder / place).unlink(missing_ok=True)
        atomic.sync_dir((folder / place).parent)


def replace_json(folder: Path, place: str, document: Any) -> None:
    """As ``replace``, with JSON."""
    replace(folder, place, atomic.dumps(document).encode())


def content_hash(path: Path | str) -> str | None:
    """Return the SHA-256 of a file's bytes; None where there is none."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - hot path
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        try:
            with open(packed.open_file(path), "rb") as stream:  # noqa: PTH123 - by descriptor
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            return None
    except IsADirectoryError:
        return None


def _found(folder: Path) -> dict[str, str | None]:
    """Tell what lies in ``_system`` already when its ledger begins, as in a store of an earlier version."""
    if folder.name != "_system":
        return {}
    places = [path for pattern in SYSTEM_FILES for path in sorted(folder.glob(pattern))]
    return {path.relative_to(folder).as_posix(): content_hash(path) for path in places}


def _left(folder: Path, promised: dict[str, str | None]) -> dict[str, str | None]:
    """Return the files of the last line that a crash kept from being replaced, with what they are."""
    found = {place: content_hash(folder / place) for place in promised}
    return {place: digest for place, digest in found.items() if digest != promised[place]}


def _write_whole(handle: int, size: int, data: bytes) -> None:
    written = 0
    try:
        while written < len(data):
            written += os.write(handle, data[written:])
    except OSError:
        os.ftruncate(handle, size)
        raise


def _end(handle: int, size: int) -> _End:
    """Return the state of the chain, from the file's end."""
    if size == 0:
        return _End(-1, "", 0, {})
    torn = os.pread(handle, 1, size - 1) != b"\n"
    last = _line_before(handle, size if torn else size - 1)
    prev, at = hashlib.sha256(last).hexdigest(), size - len(last) - (not torn)
    whole = last
    while (document := _numbered(whole)) is None and at > 0:  # a torn line says nothing; the one before it does
        whole = _line_before(handle, at - 1)
        at -= len(whole) + 1
    cut = len(last) if torn else 0
    if document is None:
        return _End(-1, prev, cut, {})
    promised = document.get("files") if document.get("event") == WRITES else None
    return _End(document["seq"], prev, cut, promised or {})


def _line_before(handle: int, end: int) -> bytes:
    """Return the bytes from behind the last newline before ``end`` up to ``end``."""
    data = b""
    while end > len(data):
        start = max(0, end - len(data) - _BLOCK)
        data = os.pread(handle, end - len(data) - start, start) + data
        newline = data.rfind(b"\n")
        if newline >= 0:
            return data[newline + 1 :]
    return data


def _numbered(line: bytes) -> dict[str, Any] | None:
    found = _document(line)
    return found if isinstance(found, dict) and isinstance(found.get("seq"), int) else None


def has_ended(batch_dir: Path, run_id: str) -> bool:
    """Tell whether the end of this attempt is in the ledger, in a whole line; looks back as far as the line of its start."""
    try:
        handle = os.open(batch_dir / LEDGER, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        for line in _lines_back(handle, f'"run_id":"{run_id}"'.encode()):
            found = _document(line)
            if (
                isinstance(found, dict)
                and found.get("run_id") == run_id
                and found.get("event") in ("ended", "launched")
            ):
                return bool(found["event"] == "ended")
    finally:
        os.close(handle)
    return False


def _lines_back(handle: int, part: bytes) -> Iterator[bytes]:
    """Yield the whole lines that have these bytes in them, the last one first."""
    start, length, begun = os.fstat(handle).st_size, _NEAR, b""
    while start > 0:
        end, start, length = start, max(0, start - length), min(2 * length, _CHUNK)
        data = os.pread(handle, end - start, start) + begun
        first = data.find(b"\n") + 1 if start else 0
        at = data.rfind(b"\n") + 1  # what is behind it, a crash has cut
        while (at := data.rfind(part, first, at)) >= 0:
            begins = data.rfind(b"\n", 0, at) + 1
            yield data[begins : data.index(b"\n", at)]
            at = begins
        begun = data if start and not first else data[:first]


def read(batch_dir: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each whole line from byte ``offset`` on, with the offset behind it.

    Lines that are not JSON are passed over, and ``writes``, which the line behind it explains.
    """
    for lines in _lines(batch_dir, offset):
        for line, document in zip(lines, _documents(lines), strict=True):
            offset += len(line) + 1
            if isinstance(document, dict) and document.get("event") != WRITES:
                yield offset, document


def mentioning(batch_dir: Path, *words: str) -> Iterator[dict[str, Any]]:
    """Yield the lines in which one of these stands, as ``read`` does. Others are not parsed, which is most of what it costs."""
    wanted = [word.encode() for word in words]
    for lines in _lines(batch_dir, 0):
        some = [line for line in lines if any(word in line for word in wanted)]
        for document in _documents(some):
            if isinstance(document, dict) and document.get("event") != WRITES:
                yield document


def _lines(batch_dir: Path, offset: int) -> Iterator[list[bytes]]:
    """Yield the whole lines from byte ``offset`` on, some thousands at a time."""
    try:
        stream = open(batch_dir / LEDGER, "rb")  # noqa: PTH123, SIM115 - hot path
    except FileNotFoundError:
        return
    except IsADirectoryError:
        raise _folder(batch_dir) from None
    with stream:
        stream.seek(offset)
        rest = b""
        while chunk := stream.read(_CHUNK):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield whole.split(b"\n")


def _documents(lines: list[bytes]) -> list[Any]:
    """Return what each line says, None for one that is not JSON; parsed in one go, which takes a third of the time."""
    with contextlib.suppress(ValueError, RecursionError):  # an empty, cut or foreign line somewhere
        found: list[Any] = json.loads(b"[%b]" % b",\n".join(lines))
        if len(found) == len(lines):
            return found
    return [_document(line) for line in lines]


def _document(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def line_hash(folder: Path, end: int) -> str:
    """Return SHA-256 of the line whose newline is the byte before ``end``; of the chain, so of all lines up to there. Empty where no line ends there."""
    handle = os.open(folder / LEDGER, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if end <= 0 or os.pread(handle, 1, end - 1) != b"\n":
            return ""
        return hashlib.sha256(_line_before(handle, end - 1)).hexdigest()
    except IsADirectoryError:
        raise _folder(folder) from None
    finally:
        os.close(handle)


def check_readable(folder: Path) -> None:
    """Look whether the ledger is there and can be read.

    Raises:
        CorruptFile: there is none, or nothing in it: every ledger begins before it can be seen.
        OSError: it cannot be read.
    """
    end = size(folder)
    if not end:
        raise atomic.CorruptFile(f"{folder / LEDGER}: is gone or empty")
    line_hash(folder, end)


def _folder(folder: Path) -> atomic.CorruptFile:
    return atomic.CorruptFile(f"{folder / LEDGER}: is a folder, not a file")


def head(folder: Path) -> Head:
    """Tell where the ledger ends now; reads all of it."""
    last, lines, seals = b"", 0, 0
    try:
        stream = (folder / LEDGER).open("rb")
    except FileNotFoundError:
        return Head("", 0, 0)
    with stream:
        for raw in stream:
            if not raw.endswith(b"\n"):
                break
            last, lines, seals = raw, lines + 1, seals + (SEALED.encode() in raw)
    return Head(hashlib.sha256(last[:-1]).hexdigest() if lines else "", lines, seals)


def seals(batch_dir: Path) -> dict[str, str]:
    """Return place of each attempt, below the batch → SHA-256 of its seal, by the lines of their ends."""
    return dict(filter(None, map(sealed_by, mentioning(batch_dir, SEALED))))


def sealed_by(line: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the place of the attempt whose end a line tells, below the batch, and the SHA-256 of its seal; None of any other line."""
    if line.get("event") not in ("ended", "carried") or "seal_sha256" not in line:
        return None
    place = str(places.of_line(line))
    return place, str(line["seal_sha256"])


def size(batch_dir: Path) -> int:
    """Return the bytes in the ledger; 0 where there is none."""
    try:
        return os.stat(batch_dir / LEDGER).st_size  # noqa: PTH116 - hot path
    except FileNotFoundError:
        return 0
