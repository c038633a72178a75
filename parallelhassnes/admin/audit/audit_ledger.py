"""A ledger as a verification reads it: the chain, the lines by attempt, and the files that it answers for."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import places
from parallelhassnes.store.evidence import removals
from parallelhassnes.store.evidence.ledger import LEDGER, WRITES
from parallelhassnes.store.evidence.removals import Tombstone


class Fault(NamedTuple):
    """One thing about a line."""

    line: int
    """From 1."""
    what: str
    """``ledger``, or ``torn`` where a crash explains it."""
    text: str


class FileRecord(NamedTuple):
    """What a file is, by its ledger."""

    sha256: str | None
    """None where it was removed."""
    before: str | None
    seq: int
    """Number of the line that says so."""


@dataclass
class Lines:
    """What is in a ledger."""

    faults: list[Fault] = field(default_factory=list)
    rules: int = 1
    """By which it was kept: see ``store.evidence.ledger.RULES``."""
    first: dict[str, Any] = field(default_factory=dict)
    submitted: dict[str, Any] | None = None
    """The last line that says so: a crash during ingest leaves one, and the redo writes another."""
    launched: dict[str, dict[str, Any]] = field(default_factory=dict)
    """run_id → line."""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    fenced: dict[str, set[str]] = field(default_factory=dict)
    """``job_id/steps/step_id`` → what lies there because attempts of a silent host were given up."""
    added: dict[str, str] = field(default_factory=dict)
    """``job_id/file`` of each addition → its hash; where a crash had it written twice the last counts."""
    files: dict[str, FileRecord] = field(default_factory=dict)
    """Path below the ledger's folder → what stands there."""
    promised: tuple[str, ...] = ()
    """Files that the last line was about to replace: each may still be what it was before."""
    packed: dict[str, Any] | None = None
    """The line that says what the batch's archive is; None where it has none."""
    removed: dict[str, Tombstone] = field(default_factory=dict)
    """Place of an attempt whose files a rule has removed → its tombstone."""
    uploads: dict[str, str | None] = field(default_factory=dict)
    """Hash of an uploaded task → hash of its record."""
    head: str = ""
    """Hash of the last line; empty where there is none."""
    count: int = 0
    """Lines, cut ones included."""
    seals: int = 0
    """Lines that name a seal."""
    marked: dict[int, str] = field(default_factory=dict)
    """Number of a line, from 1 → its hash, of those that were asked for."""


def read_lines(folder: Path, marks: Collection[int] = ()) -> Lines:
    """Read the whole ledger and follow its chain.

    Args:
        marks: numbers of lines, from 1, whose hashes are wanted.
    """
    found = Lines()
    try:
        stream = (folder / LEDGER).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        found.faults.append(Fault(0, "ledger", "there is no ledger"))
        return found
    except IsADirectoryError:
        found.faults.append(Fault(0, "ledger", "is a folder, not a file"))
        return found
    with stream:
        _follow(found, stream, frozenset(marks))
    return found


def _follow(found: Lines, stream: Any, marks: frozenset[int]) -> None:
    seq, torn = -1, 0
    for raw, follower in pairwise(_parsed(stream)):
        if not raw.whole:
            text = f"{len(raw.data)} bytes, cut off by a crash"
            found.faults.append(Fault(found.count + 1, "torn", text))
            continue
        found.count += 1
        number, document = found.count, raw.document
        digest = hashlib.sha256(raw.data).hexdigest()
        if number in marks:
            found.marked[number] = digest
        speaks = follower.document is not None and follower.document.get("torn")
        cut = len(raw.data) if speaks == len(raw.data) else 0
        if cut:
            found.faults.append(Fault(number, "torn", f"{cut} bytes, cut off by a crash"))
        if document is None:
            if not cut:
                found.faults.append(Fault(number, "ledger", "is not a line of a ledger"))
            found.head, torn = digest, cut
            continue
        if document.get("prev") != found.head:
            text = "the line before it is not the one that it was written after"
            found.faults.append(Fault(number, "ledger", text))
        if document.get("seq") != seq + 1:
            text = f"is number {document.get('seq')} where {seq + 1} is due"
            found.faults.append(Fault(number, "ledger", text))
        if document.get("torn", 0) != torn:
            text = "speaks of a cut line that is not before it"
            found.faults.append(Fault(number, "ledger", text))
        own = document.get("seq")
        seq, found.head, torn = own if isinstance(own, int) else seq + 1, digest, cut
        try:
            _take_in(found, number, document)
        except (KeyError, TypeError, AttributeError, ValueError):
            found.faults.append(Fault(number, "ledger", "is not what we write"))


class _Raw(NamedTuple):
    data: bytes
    whole: bool
    document: dict[str, Any] | None


def _parsed(stream: Any) -> Iterator[_Raw]:
    """Yield each line, and one more behind them all; a last one without its newline is not whole."""
    for data in stream:
        whole = data.endswith(b"\n")
        line = data[:-1] if whole else data
        yield _Raw(line, whole, _record(line))
    yield _Raw(b"", whole=False, document=None)


def _record(raw: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _take_end(found: Lines, run_id: str, document: dict[str, Any], seq: int) -> None:
    if document["event"] == "carried":  # its launch stands in the ledger of the batch that it comes from
        found.launched[run_id] = document
    found.ended[run_id] = document
    found.seals += "seal_sha256" in document
    for name, digest in (document.get("published") or {}).items():
        found.files[f"{document.get('job_id')}/{name}"] = FileRecord(digest, digest, seq)


def _take_fence(found: Lines, run_id: str, document: dict[str, Any]) -> None:
    """A host was silent: a copy of its attempt under another name is what counts, unless it had ended by then."""
    found.launched[run_id] = {**found.launched.get(run_id, document), "became": document.get("became")}
    place = places.StepKey(str(document.get("job_id")), str(document.get("step_id"))).place
    found.fenced.setdefault(place, {"fenced"}).add(f"fence.{run_id}.json")


def _take_kept(found: Lines, document: dict[str, Any]) -> None:
    """Note what is kept of attempts, and how: an archive, tombstones."""
    if document["event"] == removals.EVENT:
        found.removed.update(removals.told_by(document))
    elif document["event"] == removals.RESTORED:
        removals.take_back(found.removed, document)
    else:
        found.packed = document if document["event"] == "packed" else None


def _take_in(found: Lines, number: int, document: dict[str, Any]) -> None:
    seq = int(document.get("seq", number - 1))
    if seq == 0:
        found.first, found.rules = document, int(document.get("audit", 1))
        for place, digest in (document.get("found") or {}).items():
            found.files[place] = FileRecord(digest, digest, 0)
    for place, digest in (document.get("left") or {}).items():
        known = found.files.get(place)
        if place not in found.promised or known is None or digest != known.before:
            text = f"says that {place} was left as something that it never was"
            found.faults.append(Fault(number, "ledger", text))
        found.files[place] = FileRecord(digest, digest, seq)
    found.promised = ()
    run_id, event = str(document.get("run_id")), document.get("event")
    if event == WRITES:
        for place, digest in document["files"].items():
            known = found.files.get(place)
            found.files[place] = FileRecord(digest, known.sha256 if known else None, seq)
        found.promised = tuple(document["files"])
    elif event == "submitted":
        found.submitted = document
    elif event == "added":
        found.added[f"{document.get('job_id')}/{document.get('file')}"] = str(document.get("sha256"))
    elif event == "uploaded":
        found.uploads.update(dict.fromkeys(document.get("tasks") or ()))
        found.uploads.update(document.get("records") or {})
    elif event in ("packed", "unpacked", removals.EVENT, removals.RESTORED):
        _take_kept(found, document)
    elif event == "launched":
        found.launched[run_id] = document
    elif event == "fenced":
        _take_fence(found, run_id, document)
    elif event in ("ended", "carried"):
        _take_end(found, run_id, document, seq)
