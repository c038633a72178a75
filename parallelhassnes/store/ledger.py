"""``ledger.jsonl`` of a batch: one line per decision, appended, never changed, chained by hashes.

    {"seq": 7, "prev": "<SHA-256 of the line before>", "at": …, "event": …, "by": …, …}

``seq`` counts from 0; ``prev`` is the hash of the bytes of the line before, without its newline, and is
empty in the first. One writer at a time: ``submitted`` is written under ``ingest.lock`` before the batch can
be seen, everything else under ``tick.lock``. An append reads the end of the file only.

A crash can leave a last line without its newline. Readers leave it alone; the next writer ends it and says so
(``torn``: its bytes, ``prev``: its hash), which a verification takes for what it is. A full disk leaves the
ledger as it was. A crash can also repeat the event of a settle: the redo looks whether the line is there
(``has_ended``).
"""

import hashlib
import json
import os
import platform
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.store import atomic
from parallelhassnes.store.records import now_text

LEDGER = "ledger.jsonl"
_BLOCK = 4096


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


def acting_as(name: str) -> None:
    """Who this process, and those it forks, writes lines as: ``tick`` or ``supervisor``."""
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
    """Whom this thread speaks for; None for whoever runs the process."""
    return _speaker.get()


def person(uid: int | None = None) -> str:
    """Whom this thread speaks for, else ``user@host`` of the one who runs this process; or that of a user id."""
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
        OSError: there is no space for it; the ledger is as it was.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    handle = os.open(batch_dir / LEDGER, flags, 0o666)
    try:
        size = os.fstat(handle).st_size
        end = _end(handle, size)
        document = {
            "seq": end.seq + 1, "prev": end.prev, "at": now_text(), "event": event,
            "by": by or _Actor.name, "torn": end.torn or None, **facts,
        }  # fmt: skip
        kept = {key: value for key, value in document.items() if value is not None}
        line = atomic.dumps(kept).encode("utf-8", "surrogateescape")
        _write_whole(handle, size, b"\n" + line if end.torn else line)
        if atomic.is_durable():
            os.fsync(handle)
    finally:
        os.close(handle)


def _write_whole(handle: int, size: int, data: bytes) -> None:
    written = 0
    try:
        while written < len(data):
            written += os.write(handle, data[written:])
    except OSError:
        os.ftruncate(handle, size)
        raise


def _end(handle: int, size: int) -> _End:
    """The state of the chain, from the file's end."""
    if size == 0:
        return _End(-1, "", 0)
    torn = os.pread(handle, 1, size - 1) != b"\n"
    last = _line_before(handle, size if torn else size - 1)
    prev, at = hashlib.sha256(last).hexdigest(), size - len(last) - (not torn)
    whole = last
    while (
        seq := _seq(whole)
    ) is None and at > 0:  # a torn line says nothing; the one before it does
        whole = _line_before(handle, at - 1)
        at -= len(whole) + 1
    return _End(-1 if seq is None else seq, prev, len(last) if torn else 0)


def _line_before(handle: int, end: int) -> bytes:
    """The bytes from behind the last newline before ``end`` up to ``end``."""
    data = b""
    while end > len(data):
        start = max(0, end - len(data) - _BLOCK)
        data = os.pread(handle, end - len(data) - start, start) + data
        newline = data.rfind(b"\n")
        if newline >= 0:
            return data[newline + 1 :]
    return data


def _seq(line: bytes) -> int | None:
    try:
        found = json.loads(line)["seq"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def has_ended(batch_dir: Path, run_id: str) -> bool:
    """Whether the end of this attempt is in the ledger, in a whole line; reads all of it."""
    return any(
        document.get("event") == "ended" and document.get("run_id") == run_id
        for _, document in read(batch_dir)
    )


def read(batch_dir: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole line from byte ``offset`` on, with the offset behind it; lines that are not JSON are passed over."""
    try:
        stream = open(batch_dir / LEDGER, "rb")  # noqa: PTH123, SIM115 - hot path
    except FileNotFoundError:
        return
    except IsADirectoryError:
        raise atomic.CorruptFile(f"{batch_dir / LEDGER}: is a folder, not a file") from None
    with stream:
        stream.seek(offset)
        for raw in stream:
            if not raw.endswith(b"\n"):
                return
            offset += len(raw)
            try:
                document = json.loads(raw)
            except ValueError:
                continue
            if isinstance(document, dict):
                yield offset, document


def size(batch_dir: Path) -> int:
    """Bytes in the ledger; 0 where there is none."""
    try:
        return os.stat(batch_dir / LEDGER).st_size  # noqa: PTH116 - hot path
    except FileNotFoundError:
        return 0
