"""``audit verify``: is the store what was once written down about it.

For every batch: the ledger's chain; ``launch_table``, ``batch_meta.json`` and every ``job.json`` against the hashes in
the ledger's first line; every attempt against its seal, the seal against the ledger's line of the
attempt's end; attempts without lines and lines without attempts; the ledger's statuses against ``state.json``.
Nothing is changed, no lock is held; a batch that runs meanwhile is looked at as far as it has ended.

What is a trace of a crash and not of a change (a torn line, an attempt that died before its line) is a note.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from parallelhassnes.control.audit_ledger import Lines, read_lines
from parallelhassnes.store import additions, atomic, attempts, batches, locks, seal
from parallelhassnes.store.layout import Layout

type What = Literal[
    "changed", "missing", "added", "unsealed", "unreadable", "ledger", "torn", "unrecorded", "live", "redone",
]  # fmt: skip


class Finding(BaseModel):
    """One thing that is not as it was written down."""

    what: str
    place: str
    """Path below ``runs/``, with the line of a ledger behind a colon."""
    text: str = ""


class Audit(BaseModel):
    """What a verification found; ``ok`` where there is no problem."""

    ok: bool
    batches: int
    attempts: int
    """Sealed ones, all of whose files were read."""
    files: int
    bytes: int
    seconds: float
    heads: dict[str, str]
    """Batch → hash of its ledger's last line: kept elsewhere, it also proves that no line was cut off the end."""
    problems: list[Finding]
    notes: list[Finding]


class _Checked(NamedTuple):
    """What one attempt came to."""

    findings: list[Finding]
    sealed: bool = False
    files: int = 0
    size: int = 0


NOTES = frozenset({"torn", "unrecorded", "live"})


def verify(layout: Layout, batch_ids: list[str] | None = None) -> Audit:
    """Verify these batches, or all; reads every byte of every sealed attempt once."""
    began = time.monotonic()
    wanted = layout.batch_ids() if batch_ids is None else batch_ids
    heads: dict[str, str] = {}
    found: list[Finding] = []
    tally = [0, 0, 0]
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        for batch_id in wanted:
            batch = _Batch(layout, batch_id)
            found += batch.records()
            for checked in pool.map(batch.attempt, batch.attempt_dirs(), chunksize=16):
                found += checked.findings
                tally = [
                    tally[0] + checked.sealed, tally[1] + checked.files, tally[2] + checked.size,
                ]  # fmt: skip
            found += batch.leftover_lines()
            heads[batch_id] = batch.lines.head
    if batch_ids is None:
        found += _strangers(layout, wanted)
    problems = [finding for finding in found if finding.what not in NOTES]
    return Audit(
        ok=not problems, batches=len(wanted), attempts=tally[0], files=tally[1], bytes=tally[2],
        seconds=round(time.monotonic() - began, 3), heads=heads, problems=problems,
        notes=[finding for finding in found if finding.what in NOTES],
    )  # fmt: skip


def _strangers(layout: Layout, known: list[str]) -> Iterator[Finding]:
    """Folders with attempts in them that are no batch: its ``batch_meta.json`` is gone."""
    for entry in layout.runs.iterdir():
        if entry.name[0] not in "_." and entry.name not in known and any(entry.glob("*/steps")):
            yield Finding(what="missing", place=f"{entry.name}/{batches.META}")


class _Batch:
    """One batch while it is verified."""

    def __init__(self, layout: Layout, batch_id: str) -> None:
        self.layout, self.batch_id, self.dir = layout, batch_id, layout.batch(batch_id)
        self.lines: Lines = read_lines(self.dir)
        self.seen: set[str] = set()

    def records(self) -> Iterator[Finding]:
        """The ledger's chain, and what its first line says of the batch's own files."""
        for number, what, text in self.lines.faults:
            yield Finding(what=what, place=f"{self.batch_id}/ledger.jsonl:{number}", text=text)
        submitted = self.lines.submitted
        if submitted is None:
            yield Finding(
                what="missing", place=f"{self.batch_id}/ledger.jsonl", text="no line says submitted"
            )
            return
        meta = (self.dir / batches.META).read_bytes()
        tables = sorted(self.dir.glob("launch_table.*"))
        if not tables:
            yield Finding(what="missing", place=f"{self.batch_id}/launch_table")
        for path, name in [(table, "table_sha256") for table in tables]:
            if hashlib.sha256(path.read_bytes()).hexdigest() != submitted.get(name):
                yield Finding(what="changed", place=f"{self.batch_id}/{path.name}")
        if hashlib.sha256(meta).hexdigest() != submitted.get("meta_sha256"):
            yield Finding(what="changed", place=f"{self.batch_id}/{batches.META}")
        try:
            about = atomic.read_json(self.dir / batches.META)
        except atomic.CorruptFile:
            return
        yield from self._jobs(about, submitted)
        yield from self._additions(about)

    def _jobs(self, meta: dict[str, Any], submitted: dict[str, Any]) -> Iterator[Finding]:
        digest = hashlib.sha256()
        gone = False
        for job_id in meta.get("job_ids", ()):
            try:
                content = (self.dir / job_id / batches.JOB).read_bytes()
            except FileNotFoundError:
                gone = True
                yield Finding(what="missing", place=f"{self.batch_id}/{job_id}/{batches.JOB}")
                continue
            digest.update(seal.job_line(job_id, content))
        if not gone and digest.hexdigest() != submitted.get("jobs_sha256"):
            yield Finding(
                what="changed", place=f"{self.batch_id}/*/{batches.JOB}",
                text="the jobs are not those that were submitted",
            )  # fmt: skip

    def _additions(self, meta: dict[str, Any]) -> Iterator[Finding]:
        """Steps that were added later, against the lines that say so; a line whose file never came is no change."""
        told = dict(self.lines.added)
        for job_id in meta.get("job_ids", ()):
            for name in additions.names(self.dir / job_id):
                place = f"{job_id}/{additions.FOLDER}/{name}"
                found = hashlib.sha256((self.dir / place).read_bytes()).hexdigest()
                said = told.pop(place, None)
                if said != found:
                    what: What = "changed" if said else "added"
                    yield Finding(what=what, place=f"{self.batch_id}/{place}")
        for place in told:
            yield Finding(what="missing", place=f"{self.batch_id}/{place}")

    def attempt_dirs(self) -> Iterator[Path]:
        """Every attempt's folder, in no order that matters."""
        for job in _folders(self.dir):
            for step in _folders(f"{job}/steps"):
                for attempt in _folders(f"{step}/attempts"):
                    yield Path(attempt)

    def attempt(self, folder: Path) -> _Checked:
        """Compare an attempt with its seal and its lines."""
        place = folder.relative_to(self.layout.runs).as_posix()
        sealed = _read_seal(folder)
        if sealed is None:
            return _Checked(list(self._unsealed(folder, place)))
        document, digest = sealed
        then = document.get("files") or {}
        now = seal.survey(folder, sync=False, like=then)
        findings = list(_compare(place, then, now))
        findings += self._against_ledger(folder, place, digest)
        size = sum(facts.get("size", 0) for facts in now.values())
        return _Checked(findings, sealed=True, files=len(now), size=size)

    def _unsealed(self, folder: Path, place: str) -> Iterator[Finding]:
        self.seen.add(folder.name)
        if locks.is_held(folder.parents[1] / "step.lock"):
            yield Finding(what="live", place=place)
        elif not attempts.is_sealed(folder):
            run_id = folder.name.partition("_")[2]
            text = (
                "its seal is gone"
                if run_id in self.lines.ended
                else "dead, and not ended; run a tick, then look again"
            )
            yield Finding(what="unsealed", place=place, text=text)

    def _against_ledger(self, folder: Path, place: str, digest: str) -> Iterator[Finding]:
        self.seen.add(folder.name)
        try:
            state = atomic.read_json(folder / attempts.STATE)
            run_id, status = state["run_id"], state["status"]
        except (OSError, atomic.CorruptFile, KeyError, TypeError):
            return  # the comparison with the seal has said so
        ended = self.lines.ended.get(run_id)
        if run_id not in self.lines.launched:
            dead = status == "lost" and not state.get("worker_pid")
            text = "died between its folder and its line" if dead else "no line of its launch"
            yield Finding(what="unrecorded" if dead else "ledger", place=place, text=text)
        if ended is None:
            if self._is_settled(folder):
                yield Finding(what="ledger", place=place, text="no line of its end")
            else:
                yield Finding(
                    what="live", place=place, text="sealed, to be settled by the next tick"
                )
            return
        if ended.get("status") != status:
            text = f"state.json says {status}, the ledger {ended.get('status')}"
            yield Finding(what="changed", place=f"{place}/{attempts.STATE}", text=text)
        if ended.get("seal_sha256") != digest:
            text = "is not the one that the ledger names"
            yield Finding(what="changed", place=f"{place}/{attempts.SEAL}", text=text)

    def _is_settled(self, folder: Path) -> bool:
        """Whether no ticket of the attempt waits to be settled any more."""
        try:
            ticket = str(atomic.read_json(folder / attempts.META)["ticket"])
        except (OSError, atomic.CorruptFile, KeyError):
            return True
        running = any(self.layout.running.glob(f"*/{ticket}"))
        return not running and not (self.layout.ended / ticket).exists()

    def leftover_lines(self) -> Iterator[Finding]:
        """Lines of attempts whose folders are gone."""
        for line in (*self.lines.launched.values(), *self.lines.ended.values()):
            name = line.get("attempt")
            if name not in self.seen:
                self.seen.add(str(name))
                place = f"{self.batch_id}/{line.get('job_id')}/steps/{line.get('step_id')}/attempts/{name}"
                yield Finding(what="missing", place=place, text="the attempt's folder is gone")


def _folders(folder: Path | str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [
                entry.path for entry in entries if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
            ]  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_seal(folder: Path) -> tuple[dict[str, Any], str] | None:
    """The seal and its hash; an empty one where it is not JSON."""
    try:
        data = (folder / attempts.SEAL).read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = json.loads(data)
    except ValueError:
        document = {}
    return document if isinstance(document, dict) else {}, hashlib.sha256(data).hexdigest()


def _compare(place: str, then: dict[str, Any], now: dict[str, Any]) -> Iterator[Finding]:
    for name, facts in then.items():
        if name not in now:
            if not _is_closed_folder(facts):  # open by now
                yield Finding(what="missing", place=f"{place}/{name}")
        elif now[name] != facts:
            text = "cannot be read" if "unreadable" in now[name] else ""
            yield Finding(what="changed", place=f"{place}/{name}", text=text)
    closed = tuple(f"{name}/" for name, facts in then.items() if _is_closed_folder(facts))
    for name in now.keys() - then.keys():
        if not _is_closed_folder(now[name]) and not name.startswith(closed):
            yield Finding(what="added", place=f"{place}/{name}")


def _is_closed_folder(facts: dict[str, Any]) -> bool:
    """Whether a seal says of a folder that nobody could look into it; what is in it has no facts."""
    return facts.get("type") == "d"
