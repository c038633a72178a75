"""``current.json`` of a job: every step that was attempted, and those that never can start; derived from the attempts.

    <job>/current.json    A   the job whole, as ``records.Current``
    <job>/current.jsonl   A   of a job with many steps while its batch goes on: what has changed since ``current.json`` was written

A job of a few dozen steps has the first alone, replaced at each change. Beyond that a change is a line of the second, so that
it costs the same however many steps have ended; once the lines are as long as the file, the file is written anew. The end of
the batch does that, too, as does everything that an operator says of a job: a batch that is over has ``current.json`` whole.

The first line of the journal says what it belongs to: ``{"of": <SHA-256 of current.json>, "id": …}``. Each other line is a part
of such a document, ``{"steps": {…}, "dead": {…}}``, and replaces what is there; null under ``dead`` takes one away.

Writers hold ``tick.lock``. The file is replaced first, then the journal begun anew or removed: a crash in between leaves one
that belongs to another ``current.json``, and counts for nothing. A crash in an append leaves a line without its end, which
readers leave alone and the next writer overwrites; whose change that was settles again. After a power cut all is made anew.

What a process knows of a job it keeps, and its forks with it: where both files are still those that it knows, the next look
reads what has come to the journal since. Every reader goes through this module.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from parallelhassnes import file_stamp
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.names import new_run_id
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic
from parallelhassnes.store.records import Current, StepNow, dump

CURRENT, JOURNAL = "current.json", "current.jsonl"

WHOLE = 8_192
"""Bytes of ``current.json`` up to which it is replaced at each change."""
_KEPT, _KEPT_STEPS = 64, 200_000
"""Jobs, and steps of them together, that a process remembers at most."""


def read(job_dir: Path) -> Current:
    """Return the job as of now, for whoever only looks.

    Raises:
        CorruptFile: it cannot be understood.
    """
    return atomic.parse(Current, _read(job_dir).document, job_dir / CURRENT)


def take(job_dir: Path) -> "Standing":
    """Return the job as of now, for a holder of ``tick.lock``; raises as ``read``."""
    kept = _known.get(job_dir)
    if kept is not None and kept.catch_up():
        return kept
    return Standing(job_dir, _read(job_dir))


def begin_anew(job_dir: Path) -> "Standing":
    """Return a job of which nothing is known, whatever its files say or fail to; ``save`` it whole."""
    return Standing(job_dir, _Read(_empty(), 0, "", b"", 0, None))


def fold(job_dir: Path) -> None:
    """Have ``current.json`` whole; costs a look where it is."""
    if (job_dir / JOURNAL).exists():
        take(job_dir).save(whole=True)


class Standing:
    """One job as a holder of ``tick.lock`` knows and changes it; steps stay JSON until somebody asks for them."""

    def __init__(self, job_dir: Path, found: "_Read") -> None:
        self.job_dir = job_dir
        self._steps = {step_id: _text(now) for step_id, now in found.document["steps"].items()}
        self._dead: dict[str, str] = found.document["dead"]
        self._changed: dict[str, str] = {}
        self._dead_changed: dict[str, str | None] = {}
        self._size, self._digest = found.size, found.digest
        self._header, self._offset = found.header, found.offset
        self._stamp = found.stamp
        _remember(self)

    # --- what is known --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._steps)

    def get(self, step_id: str) -> StepNow | None:
        """Tell how a step stands; None where it was never attempted."""
        text = self._steps.get(step_id)
        return None if text is None else atomic.parse(StepNow, json.loads(text), self.job_dir / CURRENT)

    def killer(self, step_id: str) -> str:
        """Return the dependency because of which a step cannot start; empty where it may start."""
        return self._dead.get(step_id, "")

    @property
    def is_empty(self) -> bool:
        return not (self._steps or self._dead)

    @property
    def is_changed(self) -> bool:
        return bool(self._changed or self._dead_changed)

    # --- changes --------------------------------------------------------------------------------------

    def put(self, step_id: str, now: StepNow) -> None:
        """Set how a step stands; one that was attempted is not dead."""
        text = _text(dump(now))
        if self._steps.get(step_id) != text:
            self._touch()
            self._steps[step_id] = self._changed[step_id] = text
        self.bury(step_id, "")

    def bury(self, step_id: str, because: str) -> None:
        """Note because of which dependency a step never can start; empty where it may start."""
        if self._dead.get(step_id, "") == because:
            return
        self._touch()
        self._dead_changed[step_id] = because or None
        _bury(self._dead, step_id, because)

    def _touch(self) -> None:
        """Have nobody take this for what is on disk until it is saved."""
        _known.pop(self.job_dir, None)

    def save(self, *, whole: bool = False) -> None:
        """Write what was changed.

        Args:
            whole: into ``current.json``, however long that is, also where nothing was changed.
        """
        journal = self._offset - len(self._header)
        if whole or (self.is_changed and (self._size <= WHOLE or journal > self._size)):
            self._write_whole(begin=not whole)
        elif self.is_changed:
            self._append()
        self._changed, self._dead_changed = {}, {}
        _remember(self)

    def _write_whole(self, *, begin: bool) -> None:
        text = f'{{"schema_version":1,"steps":{_joined(self._steps)},"dead":{_text(self._dead)}}}\n'
        data = text.encode()
        atomic.write_bytes(self.job_dir / CURRENT, data, durable=False)
        self._size, self._digest = len(data), hashlib.sha256(data).hexdigest()
        self._stamp = file_stamp.at(self.job_dir / CURRENT)
        self._header, self._offset = b"", 0
        if begin and self._size > WHOLE:
            self._begin()
        else:
            (self.job_dir / JOURNAL).unlink(missing_ok=True)

    def _begin(self) -> None:
        header = _text({"of": self._digest, "id": new_run_id()}).encode() + b"\n"
        atomic.write_bytes(self.job_dir / JOURNAL, header, durable=False)
        self._header, self._offset = header, len(header)

    def _append(self) -> None:
        if not self._offset:
            self._begin()
        text = f'{{"steps":{_joined(self._changed)},"dead":{_text(self._dead_changed)}}}\n'
        line = text.encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self.job_dir / JOURNAL, flags)
        try:
            os.ftruncate(handle, self._offset)  # of a line that a crash has cut
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)
        self._offset += len(line)

    def catch_up(self) -> bool:
        """Take in what has come to the journal since; False where one of the two files is not the one that this was read from."""
        try:
            if file_stamp.at(self.job_dir / CURRENT) != self._stamp:
                return False
            header, tail = _journal(self.job_dir, self._offset, len(self._header))
            if header != self._header:
                return False
            changes, end = _changes(tail, self.job_dir)
        except (OSError, atomic.CorruptFile):  # whoever reads all of it is told
            return False
        for change in changes:
            self._steps.update((step_id, _text(now)) for step_id, now in change.steps.items())
            for step_id, because in change.dead.items():
                _bury(self._dead, step_id, because)
        self._offset += end
        return True


_known: dict[Path, Standing] = {}
"""What this process knows as it is on disk, of jobs that have a journal; the longest known first."""


def _remember(standing: Standing) -> None:
    _known.pop(standing.job_dir, None)
    if standing._offset:  # noqa: SLF001 - its own module
        _known[standing.job_dir] = standing
        while len(_known) > _KEPT or (len(_known) > 1 and sum(map(len, _known.values())) > _KEPT_STEPS):
            del _known[next(iter(_known))]


# --- files --------------------------------------------------------------------------------------------


class _Shape(Record):
    """``current.json``, its steps not looked into."""

    schema_version: Literal[1] = 1
    steps: dict[str, dict[str, Any]] = {}
    dead: dict[str, str] = {}


"""Inode, mtime and size of ``current.json``; None where there is no file."""


class _Read(NamedTuple):
    """What the two files say together."""

    document: dict[str, Any]
    size: int
    """Bytes of ``current.json``."""
    digest: str
    header: bytes
    """First line of the journal; empty where there is none that counts."""
    offset: int
    """Bytes of the journal that are in the document."""
    stamp: FileStamp | None


class _Change(NamedTuple):
    """A line of the journal."""

    steps: dict[str, dict[str, Any]]
    dead: dict[str, str | None]


def _read(job_dir: Path) -> _Read:
    path = job_dir / CURRENT
    stamp, data = file_stamp.at(path), _bytes(path)
    while True:
        digest = hashlib.sha256(data).hexdigest()
        header, tail = _journal(job_dir)
        if _of(header) == digest:
            break
        moved, again = file_stamp.at(path), _bytes(path)
        if again == data:  # else it was written anew between the two
            header = tail = b""
            break
        stamp, data = moved, again
    document = _document(data, path)
    changes, end = _changes(tail, job_dir)
    for change in changes:
        document["steps"].update(change.steps)
        for step_id, because in change.dead.items():
            _bury(document["dead"], step_id, because)
    return _Read(document, len(data), digest, header, len(header) + end, stamp)


def _bytes(path: Path) -> bytes:
    try:
        return atomic.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _document(data: bytes, path: Path) -> dict[str, Any]:
    if not data:
        if path.exists():
            raise atomic.CorruptFile(f"{path}: is empty")
        return _empty()
    try:
        document: dict[str, Any] = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise atomic.CorruptFile(f"{path}: is not JSON ({error})") from None
    atomic.parse(_Shape, document, path)
    return _empty() | document


def _empty() -> dict[str, Any]:
    return {"steps": {}, "dead": {}}


def _journal(job_dir: Path, offset: int = 0, header: int = 0) -> tuple[bytes, bytes]:
    """Return the first line of the journal, its newline included, and what stands from ``offset`` on; both empty without one.

    Args:
        header: length of the first line, where it is known.
    """
    try:
        handle = os.open(job_dir / JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return b"", b""
    try:
        size = os.fstat(handle).st_size
        if header:
            return os.pread(handle, header, 0), os.pread(handle, max(0, size - offset), offset)
        first, newline, rest = os.pread(handle, size, 0).partition(b"\n")
        return first + newline, rest
    finally:
        os.close(handle)


def _of(header: bytes) -> str | None:
    """Tell what a journal with this first line belongs to; None where that is none."""
    try:
        document = json.loads(header)
    except (ValueError, RecursionError):
        return None
    return document.get("of") if isinstance(document, dict) else None


def _changes(lines: bytes, job_dir: Path) -> tuple[list[_Change], int]:
    """Return the whole lines of a journal, and how many bytes they are."""
    end = lines.rfind(b"\n") + 1
    try:
        found = [_Change(**json.loads(line)) for line in lines[:end].split(b"\n")[:-1]]
        if not all(isinstance(part, dict) for change in found for part in change):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise atomic.CorruptFile(
            f"{job_dir / JOURNAL}: is no journal of {CURRENT}; doctor --rebuild makes both anew"
        ) from None
    return found, end


def _bury(dead: dict[str, str], step_id: str, because: str | None) -> None:
    if because:
        dead[step_id] = because
    else:
        dead.pop(step_id, None)


def _joined(steps: dict[str, str]) -> str:
    return "{" + ",".join(f"{_text(step_id)}:{text}" for step_id, text in steps.items()) + "}"


def _text(value: Any) -> str:
    return atomic.dumps(value)[:-1]
