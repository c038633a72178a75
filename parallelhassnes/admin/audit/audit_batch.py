"""One batch, compared with its ledger and its seals.

    launch_table.*  batch_meta.json  jobs.sha256  */job.json     the hashes in the line ``submitted``
    */additions/*                                                the lines ``added``
    control.json  */overrides.json  */steps/*/cancel.json        the last line ``writes`` of each
    */verdict.json                                               ``published`` of the lines ``ended`` and ``carried``
    */steps/*/attempts/*                                         its seal; the seal: the line of its end
    */current.json                                               the lines of the ends that it speaks of

What is in a record of where it belongs (batch, job, step, run) is compared with the folder that it lies in, so nothing can
be copied or moved. What is in no record and is not derived (``batches.DERIVED``) is ``added``.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import packed, places
from parallelhassnes.admin.audit.audit_ledger import FileRecord, Lines, read_lines
from parallelhassnes.admin.audit.audit_models import Finding, What
from parallelhassnes.names import run_id_of
from parallelhassnes.steps import safe_read
from parallelhassnes.store import additions, atomic, attempts, batches, currents, hosts, locks
from parallelhassnes.store.evidence import ledger, merkle, removals, seal
from parallelhassnes.store.evidence.removals import Tombstone
from parallelhassnes.store.layout import Layout

_TABLE_ENDINGS = (".json", ".yaml", ".yml")
_IN_JOB = frozenset({batches.JOB, currents.CURRENT, currents.JOURNAL, additions.FOLDER, "steps"})
_IN_STEP = frozenset({"step.lock", "attempts"})
_REPLACED = frozenset({batches.CONTROL, batches.OVERRIDES, attempts.CANCEL})
"""What an earlier version replaced without a record."""
_LEFTOVERS = (".tmp-", ".nfs")
"""What a crash of ours, or a network file system, may leave beside a file; nobody reads it."""


class Checked(NamedTuple):
    """What one attempt came to."""

    findings: list[Finding]
    sealed: bool = False
    files: int = 0
    size: int = 0


class BatchAudit:
    """One batch while it is verified."""

    def __init__(self, layout: Layout, batch_id: str, marks: Collection[int] = ()) -> None:
        self.layout, self.batch_id, self.dir = layout, batch_id, layout.batch(batch_id)
        self.lines: Lines = read_lines(self.dir, marks)
        self.is_shared = hosts.is_shared(layout)
        """Several hosts: a lock that is free here proves nothing of another's attempt."""
        self.seen: set[str] = set()
        self.unsettled: dict[str, set[str]] = {}
        """Job → hashes of what its sealed attempts publish whose ends have no line yet."""
        self.by_seal: dict[str, tuple[int, str]] = {}
        """``job/name`` → number of the line, and hash, of what was published last, by the seals."""
        self.buried: list[str] = []
        """The rule of each attempt that was looked at and has a true tombstone."""
        self.job_ids: list[str] = []
        self.packed = packed.of(self.dir)

    def records(self) -> Iterator[Finding]:
        """Yield the ledger's chain, and what its first line says of the batch's own files."""
        for number, what, text in self.lines.faults:
            yield self._finding(what, f"ledger.jsonl:{number}", text)  # type: ignore[arg-type]
        if self.lines.rules < ledger.RULES and self.lines.count:
            text = "was begun by an earlier version: what operators said, and what this version adds, is not covered by its records"
            yield self._finding("uncovered", ledger.LEDGER, text)
        submitted = self.lines.submitted
        if submitted is None:
            yield self._finding("missing", ledger.LEDGER, "no line says submitted")
            return
        if submitted.get("batch_id", self.batch_id) != self.batch_id:
            text = f"is the ledger of {submitted['batch_id']}"
            yield self._finding("changed", ledger.LEDGER, text)
        tables = sorted(self.dir.glob("launch_table.*"))
        if not tables:
            endings = [e for e in _TABLE_ENDINGS if self.layout.accepted.joinpath(self.batch_id + e).exists()]
            yield self._finding("missing", f"launch_table{(*endings, _TABLE_ENDINGS[0])[0]}")
        for path in tables:
            if ledger.content_hash(path) != submitted.get("table_sha256"):
                yield self._finding("changed", path.name)
        yield from self._accepted(submitted)
        if ledger.content_hash(self.dir / batches.META) != submitted.get("meta_sha256"):
            yield self._finding("changed", batches.META)
        try:
            about = atomic.read_json(self.dir / batches.META)
        except (atomic.CorruptFile, OSError):
            yield self._finding("unreadable", batches.META)
            return
        yield from self._belongs(about, batches.META, {"batch_id": self.batch_id})
        self.job_ids = [str(name) for name in about.get("job_ids", ())]
        yield from self._jobs(submitted)
        yield from self._additions()

    def _finding(self, what: What, place: str, text: str = "") -> Finding:
        return Finding(what=what, place=f"{self.batch_id}/{place}", text=text)

    def _belongs(self, document: Any, place: str, expected: dict[str, str]) -> Iterator[Finding]:
        """Tell what a record says of where it lies, against where it does."""
        for key, value in expected.items():
            said = document.get(key) if isinstance(document, dict) else None
            if said != value:
                yield self._finding("changed", place, f"says {key} {said}, and lies in {value}")

    def _accepted(self, submitted: dict[str, Any]) -> Iterator[Finding]:
        """Yield the copy of the table in the queue, where there is one; ``gc`` may have removed it."""
        for ending in _TABLE_ENDINGS:
            digest = ledger.content_hash(self.layout.accepted / f"{self.batch_id}{ending}")
            if digest is not None and digest != submitted.get("table_sha256"):
                place = f"_queue/accepted/{self.batch_id}{ending}"
                yield Finding(what="changed", place=place)

    def _jobs(self, submitted: dict[str, Any]) -> Iterator[Finding]:
        told = self._told_jobs(submitted)
        if told is None and self.lines.rules >= ledger.RULES:
            yield self._finding("changed", batches.JOB_HASHES, "is not what was submitted")
        digest, wrong = hashlib.sha256(), False
        for job_id in self.job_ids:
            place = f"{job_id}/{batches.JOB}"
            try:
                content = (self.dir / place).read_bytes()
            except OSError:
                wrong = True
                yield self._finding("missing", place)
                continue
            digest.update(seal.job_line(job_id, content))
            if told is not None and told.get(job_id) != hashlib.sha256(content).hexdigest():
                wrong = True
                yield self._finding("changed", place)
                continue
            expected = {"batch_id": self.batch_id, "job_id": job_id}
            yield from self._belongs(_parsed(content), place, expected)
        if not wrong and digest.hexdigest() != submitted.get("jobs_sha256"):
            text = "the jobs are not those that were submitted"
            yield self._finding("changed", f"*/{batches.JOB}", text)

    def _told_jobs(self, submitted: dict[str, Any]) -> dict[str, str] | None:
        """Job → hash of its ``job.json``; None where there is no list of them, or not the one that was submitted."""
        try:
            data = (self.dir / batches.JOB_HASHES).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != submitted.get("jobs_sha256"):
            return None
        return dict(line.split(" ", 1) for line in data.decode().splitlines())

    def _additions(self) -> Iterator[Finding]:
        """Yield the steps that were added later, against the lines that say so; a line whose file never came is no change."""
        told = dict(self.lines.added)
        for job_id in self.job_ids:
            for name in additions.names(self.dir / job_id):
                place = f"{job_id}/{additions.FOLDER}/{name}"
                said = told.pop(place, None)
                if said != ledger.content_hash(self.dir / place):
                    yield self._finding("changed" if said else "added", place)
        for place in told:
            yield self._finding("missing", place)

    # --- attempts ---------------------------------------------------------------------------------------

    def attempt_dirs(self) -> Iterator[Path]:
        """Yield every attempt's folder, in no order that matters."""
        for job in _folders(self.dir):
            for step in _folders(job / "steps"):
                yield from _folders(step / "attempts")
        for place in self.packed.attempts if self.packed else ():
            if not (self.dir / place).exists():
                yield self.dir / place

    def archive(self) -> Iterator[Finding]:
        """Yield the archive of a batch that is packed, against the ledger's line; what is in it is looked at as attempts are."""
        if self.packed is None:
            return
        said = self.lines.packed or {}
        if not said:
            yield self._finding("torn", packed.INDEX, "a crash came before its line; `parallelhassnes pack` goes on")
        for name, key in (
            (packed.ARCHIVE, "archive_sha256"),
            (packed.SEALS, "seals_sha256"),
            (packed.INDEX, "index_sha256"),
        ):
            if said and ledger.content_hash(self.dir / name) != said.get(key):
                yield self._finding("changed", name, "is not what the ledger says was packed")

    def attempt(self, folder: Path) -> Checked:
        """Compare an attempt with its seal and its lines."""
        place = folder.relative_to(self.dir).as_posix()
        try:
            return self._attempt(folder, place)
        except OSError as error:
            if self.packed is None or folder.exists():
                raise
            self.seen.add(place)
            return Checked([self._finding("unreadable", place, error.strerror or str(error))])

    def _attempt(self, folder: Path, place: str) -> Checked:
        sealed = _read_seal(folder)
        if sealed is None:
            return Checked(list(self._unsealed(folder, place)))
        document, digest = sealed
        files: dict[str, Any] = document.get("files") or {}
        now = seal.survey(folder, sync=False, like=files)
        root = merkle.root(files)
        findings: list[Finding] = []
        there = files
        if (gone := self.lines.removed.get(place)) is not None:
            findings += self._removed(place, now, is_true=_is_of(gone, digest, root, files))
            if not findings or findings[0].what == "torn":
                there = {path: facts for path, facts in files.items() if removals.stays(path) or path in now}
        findings += self._compare(place, there, now)
        if document.get("merkle_root", root) != root:
            text = "its Merkle root is not that of its files"
            findings.append(self._finding("changed", f"{place}/{attempts.SEAL}", text))
        findings += self._against_ledger(folder, place, digest, root, files)
        size = sum(facts.get("size", 0) for facts in now.values())
        return Checked(findings, sealed=True, files=len(now), size=size)

    def _removed(self, place: str, now: Collection[str], *, is_true: bool) -> Iterator[Finding]:
        if not is_true:
            yield self._finding("changed", f"{place}/{attempts.SEAL}", "is not what its tombstone says of it")
            return
        self.buried.append(self.lines.removed[place].rule)
        if not all(map(removals.stays, now)):
            yield self._finding(
                "torn", place, "was removed by a rule and is not gone yet; `parallelhassnes gc` goes on"
            )

    def removed(self) -> dict[str, int]:
        """Return name of each rule → attempts whose files it has removed, of those that were looked at and have a true tombstone."""
        return Counter(self.buried)

    def _unsealed(self, folder: Path, place: str) -> Iterator[Finding]:
        self.seen.add(place)
        if locks.is_held(folder.parents[1] / "step.lock") or (self.is_shared and not self._is_settled(folder)):
            yield self._finding("live", place)
        elif not attempts.is_sealed(folder):
            gone = run_id_of(folder.name) in self.lines.ended
            text = "its seal is gone" if gone else "dead, and not ended; run a tick, then look again"
            yield self._finding("unsealed", f"{place}/{attempts.SEAL}" if gone else place, text)

    def _compare(self, place: str, then: dict[str, Any], now: dict[str, Any]) -> Iterator[Finding]:
        for name, facts in then.items():
            if name not in now:
                if not _is_closed_folder(facts):  # open by now
                    yield self._finding("missing", f"{place}/{name}")
            elif now[name] != facts:
                text = "cannot be read" if "unreadable" in now[name] else ""
                yield self._finding("changed", f"{place}/{name}", text)
        closed = tuple(f"{name}/" for name, facts in then.items() if _is_closed_folder(facts))
        for name in now.keys() - then.keys():
            if not _is_closed_folder(now[name]) and not name.startswith(closed):
                yield self._finding("added", f"{place}/{name}")

    def _against_ledger(
        self, folder: Path, place: str, digest: str, root: str, files: dict[str, Any]
    ) -> Iterator[Finding]:
        self.seen.add(place)
        run_id = run_id_of(folder.name)
        launched, ended = self.lines.launched.get(run_id), self.lines.ended.get(run_id)
        yield from self._identity(folder, place, run_id, launched or ended or {})
        state = _object(folder / attempts.STATE)
        status = state.get("status")
        if launched is None:
            dead = status == "lost" and not state.get("worker_pid")
            text = "died between its folder and its line" if dead else "no line of its launch"
            yield self._finding("unrecorded" if dead else "ledger", place, text)
        self._note_published(folder.parents[3].name, files, ended)
        if ended is None:
            if self._is_settled(folder):
                yield self._finding("ledger", place, "no line of its end")
            else:
                yield self._finding("live", place, "sealed, to be settled by the next tick")
            return
        if ended.get("status") != status:
            text = f"state.json says {status}, the ledger {ended.get('status')}"
            yield self._finding("changed", f"{place}/{attempts.STATE}", text)
        if ended.get("seal_sha256") != digest or ended.get("merkle_root", root) != root:
            text = "is not the one that the ledger names"
            yield self._finding("changed", f"{place}/{attempts.SEAL}", text)

    def _identity(self, folder: Path, place: str, run_id: str, line: dict[str, Any]) -> Iterator[Finding]:
        """Tell where the attempt's records say that they belong, and the ledger that they lie."""
        where = places.place(place)
        lies = where._asdict()
        for key, value in lies.items():
            is_copy = key == "attempt" and line.get("became") == value
            if line and line.get(key, value) != value and not is_copy:
                yield self._finding("changed", place, f"the ledger says {key} {line.get(key)}")
        source = str(line.get("source") or f"{self.batch_id}/{where.key}").split("/")
        known = dict(zip(("batch_id", "job_id", "step_id"), source, strict=False))
        known["run_id"] = run_id
        if "source" in line:  # what was carried twice still says where it ran first
            known.pop("batch_id")
        yield from self._belongs(_object(folder / attempts.META), f"{place}/{attempts.META}", known)
        said = _object(folder / attempts.STATE)
        yield from self._belongs(said, f"{place}/{attempts.STATE}", {"run_id": run_id})
        report = _object(folder / attempts.FINAL).get("attempt")
        if report is not None:
            yield from self._belongs(report, f"{place}/{attempts.FINAL}", known)

    def _note_published(self, job_id: str, files: dict[str, Any], ended: dict[str, Any] | None) -> None:
        prefix = f"{attempts.PUBLISH}/"
        for name, facts in files.items():
            if not name.startswith(prefix) or "sha256" not in facts:
                continue
            if ended is None:
                self.unsettled.setdefault(job_id, set()).add(facts["sha256"])
                continue
            key, number = f"{job_id}/{name.removeprefix(prefix)}", int(ended.get("seq", 0))
            if number >= self.by_seal.get(key, (-1, ""))[0]:
                self.by_seal[key] = (number, facts["sha256"])

    def _is_settled(self, folder: Path) -> bool:
        """Tell whether no ticket of the attempt waits to be settled any more."""
        ticket = _object(folder / attempts.META).get("ticket")
        if not isinstance(ticket, str) or "/" in ticket:
            return True
        running = any(self.layout.running.glob(f"*/{ticket}"))
        return not running and not (self.layout.ended / ticket).exists()

    # --- what lies beside them --------------------------------------------------------------------------

    def files(self) -> Iterator[Finding]:
        """Yield the files that are replaced while a batch lives, and what has no business in its folders; after the attempts."""
        expected = dict(self.lines.files)
        if self.lines.rules < ledger.RULES:
            for place, (number, sealed) in self.by_seal.items():
                expected.setdefault(place, FileRecord(sealed, sealed, number))
        for place, written in expected.items():
            digest = ledger.content_hash(self.dir / place)
            if digest == written.sha256:
                continue
            if place in self.lines.promised and digest == written.before:
                text = "a crash came before it was replaced, or it is just being replaced"
                yield self._finding("torn", place, text)
            elif not self._is_about_to_settle(place, digest):
                what: What = "changed" if digest and written.sha256 else "added" if digest else "missing"
                yield self._finding(what, place, "is not what the ledger says was written")
        early = _REPLACED if self.lines.rules < ledger.RULES else frozenset[str]()
        for place, usual in self._present():
            if {place.rpartition("/")[2]} & (usual | early) or place in expected:
                continue
            if place in self.seen or self._is_about_to_settle(place, ledger.content_hash(self.dir / place)):
                continue
            yield self._finding("added", place, "no record speaks of it")

    def _is_about_to_settle(self, place: str, digest: str | None) -> bool:
        """Tell whether the file is what an attempt published whose end has no line yet."""
        return digest is not None and digest in self.unsettled.get(place.partition("/")[0], ())

    def _present(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield everything between the batch's folder and its attempts, with the names that are usual there."""
        tables = {f"launch_table{ending}" for ending in _TABLE_ENDINGS}
        usual = frozenset({*batches.FILES, *tables, *self.job_ids})
        for name in _names(self.dir):
            yield name, usual
        for job_id in self.job_ids:
            for name in _names(self.dir / job_id):
                yield f"{job_id}/{name}", _IN_JOB
            steps = self.dir / job_id / "steps"
            for step in _names(steps):
                place = places.StepKey(job_id, step).place
                yield place, frozenset({step} if (steps / step).is_dir() else ())
                for name in _names(steps / step):
                    yield f"{place}/{name}", _IN_STEP | self.lines.fenced.get(place, set())
                for name in _names(steps / step / "attempts"):
                    yield places.StepKey(job_id, step).attempt(name), frozenset()

    def leftover_lines(self) -> Iterator[Finding]:
        """Lines of attempts whose folders are gone, those too whose files a rule has removed: their records stay."""
        for place in self.lines.removed:
            if place not in self.seen:
                self.seen.add(place)
                yield self._finding("missing", place, "a rule has removed its files, and its records are gone, too")
        for line in (*self.lines.launched.values(), *self.lines.ended.values()):
            key = places.StepKey(str(line.get("job_id")), str(line.get("step_id")))
            place = key.attempt(str(line.get("attempt")))
            if place not in self.seen and key.attempt(str(line.get("became"))) not in self.seen:
                self.seen.add(place)
                yield self._finding("missing", place, "the attempt's folder is gone")


def _names(folder: Path) -> list[str]:
    """Tell what is in a folder, but what a crash of ours leaves there."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(_LEFTOVERS))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path) for entry in entries if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _object(path: Path) -> dict[str, Any]:
    """Return a record of an attempt, as far as it can be read; its seal says whether it may be what it is."""
    return safe_read.read_object(path) or {}


def _read_seal(folder: Path) -> tuple[dict[str, Any], str] | None:
    """Return the seal and its hash; an empty one where it is not JSON."""
    try:
        data = atomic.read_bytes(folder / attempts.SEAL)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    document = _parsed(data)
    return document if isinstance(document, dict) else {}, hashlib.sha256(data).hexdigest()


def _is_of(gone: Tombstone, digest: str, root: str, files: dict[str, Any]) -> bool:
    """Tell whether a tombstone says of an attempt's files what its seal says."""
    try:
        return gone.says_of_files(removals.of_seal(digest, root, files))
    except (AttributeError, TypeError, ValueError):  # no seal of ours
        return False


def _is_closed_folder(facts: dict[str, Any]) -> bool:
    """Tell whether a seal says of a folder that nobody could look into it; what is in it has no facts."""
    return facts.get("type") == "d"
