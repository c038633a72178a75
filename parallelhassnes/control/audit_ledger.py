"""A batch's ledger as a verification reads it: the chain, and the lines by attempt."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.store.ledger import LEDGER


class Fault(NamedTuple):
    """One thing about a line."""

    line: int
    """From 1."""
    what: str
    """``ledger``, or ``torn`` where a crash explains it."""
    text: str


class Lines(NamedTuple):
    """What is in a ledger."""

    faults: list[Fault]
    submitted: dict[str, Any] | None
    """The last line that says so: a crash during ingest leaves one, and the redo writes another."""
    launched: dict[str, dict[str, Any]]
    """run_id → line."""
    ended: dict[str, dict[str, Any]]
    added: dict[str, str]
    """``job_id/file`` of each addition → its hash; where a crash had it written twice the last counts."""
    head: str
    """Hash of the last line; empty where there is none."""


def read_lines(batch_dir: Path) -> Lines:
    """Read the whole ledger and follow its chain."""
    try:
        data = (batch_dir / LEDGER).read_bytes()
    except FileNotFoundError:
        return Lines([Fault(0, "ledger", "there is no ledger")], None, {}, {}, {}, "")
    found = Lines([], None, {}, {}, {}, "")
    prev, seq, torn = "", -1, 0
    raws = data.split(b"\n")
    unfinished = raws.pop()
    for number, raw in enumerate(raws, 1):
        digest = hashlib.sha256(raw).hexdigest()
        document = _record(raw)
        follower = _record(raws[number]) if number < len(raws) else None
        cut = len(raw) if follower is not None and follower.get("torn") == len(raw) else 0
        if cut:
            found.faults.append(Fault(number, "torn", f"{cut} bytes, cut off by a crash"))
        if document is None:
            if not cut:
                found.faults.append(Fault(number, "ledger", "is not a line of a ledger"))
            prev, torn = digest, cut
            continue
        if document.get("prev") != prev:
            text = "the line before it is not the one that it was written after"
            found.faults.append(Fault(number, "ledger", text))
        if document.get("seq") != seq + 1:
            text = f"is number {document.get('seq')} where {seq + 1} is due"
            found.faults.append(Fault(number, "ledger", text))
        if document.get("torn", 0) != torn:
            text = "speaks of a cut line that is not before it"
            found.faults.append(Fault(number, "ledger", text))
        own = document.get("seq")
        seq, prev, torn = own if isinstance(own, int) else seq + 1, digest, cut
        found = _take_in(found, document)
    if unfinished:
        found.faults.append(
            Fault(len(raws) + 1, "torn", f"{len(unfinished)} bytes, cut off by a crash")
        )
    return found._replace(head=prev)


def _record(raw: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _take_in(found: Lines, document: dict[str, Any]) -> Lines:
    match document.get("event"):
        case "submitted":
            return found._replace(submitted=document)
        case "added":
            place = f"{document.get('job_id')}/{document.get('file')}"
            found.added[place] = str(document.get("sha256"))
        case "launched":
            found.launched[str(document.get("run_id"))] = document
        case "carried":  # its launch stands in the ledger of the batch that it comes from
            found.launched[str(document.get("run_id"))] = document
            found.ended[str(document.get("run_id"))] = document
        case "ended":
            found.ended[str(document.get("run_id"))] = document
    return found
