"""What follows from a job's sealed attempts, compared with what stands there: ``current.json``, the verdict, the tasks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parallelhassnes import places
from parallelhassnes.admin.audit.audit_batch import BatchAudit
from parallelhassnes.admin.audit.audit_models import Finding, What
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.verdict.judge import VERDICT_FILE
from parallelhassnes.steps.verdict.verdict_step import compute
from parallelhassnes.store import atomic, attempts, batches, currents
from parallelhassnes.store.records import StepNow
from parallelhassnes.version import __version__

type Line = dict[str, Any]


class TaskFolders:
    """Whether tasks are what they were when they were submitted; each folder is read once."""

    def __init__(self, *, strict: bool) -> None:
        self.what: What = "changed" if strict else "task"
        self._hashes: dict[str, str] = {}

    def differs(self, path: str, expected: str) -> str:
        """In what way a task's folder is another one than then; empty where it is the same."""
        if path not in self._hashes:
            self._hashes[path] = _content_hash(Path(path))
        now = self._hashes[path]
        if now == expected:
            return ""
        return f"its task {path} {'has been edited since' if now else 'is gone'}"


def _content_hash(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    from harbor.publisher.packager import Packager

    try:
        return f"sha256:{Packager.compute_content_hash(folder)[0]}"
    except OSError as error:
        return f"unreadable: {error.strerror}"


class JobsAudit:
    """The jobs of one batch; after its attempts have been looked at."""

    def __init__(self, batch: BatchAudit, tasks: TaskFolders, *, restarted: bool) -> None:
        self.batch, self.tasks = batch, tasks
        self.restarted = restarted
        """The host was started since the last tick: what is derived is made anew by the next one."""
        self.newest: dict[tuple[str, str], Line] = {}
        """Line of the end of each step's newest attempt that has one."""
        for line in batch.lines.ended.values():
            key = (str(line.get("job_id")), str(line.get("step_id")))
            if key not in self.newest or str(line.get("attempt")) >= self.newest[key]["attempt"]:
                self.newest[key] = line
        self._told: set[str] = set()

    def findings(self) -> Iterator[Finding]:
        """Yield everything that differs."""
        ended: dict[str, list[Line]] = {job_id: [] for job_id in self.batch.job_ids}
        for (job_id, _), line in self.newest.items():
            ended.get(job_id, []).append(line)
        for job_id, lines in ended.items():
            job_dir = self.batch.dir / job_id
            try:
                job = batches.read_job(job_dir)
            except (atomic.CorruptFile, OSError) as error:
                if lines:  # without any, the comparison of the hashes has said all there is to say
                    yield self._finding("unreadable", f"{job_id}/{batches.JOB}", str(error))
                continue
            if not self.restarted:
                yield from self._current(job, lines)
            yield from self._tasks(job)
            for step in job.steps:
                last = self.newest.get((job_id, step.step_id))
                if step.kind == "verdict" and last is not None:
                    yield from self._verdict(job, step, last, lines)

    def _finding(self, what: What, place: str, text: str) -> Finding:
        return Finding(what=what, place=f"{self.batch.batch_id}/{place}", text=text)

    def _current(self, job: JobSpec, lines: list[Line]) -> Iterator[Finding]:
        """Yield ``current.json`` against the lines of the ends; the rest of it is derived, and made anew by ``doctor --rebuild``."""
        place = f"{job.job_id}/{currents.CURRENT}"
        try:
            current = currents.read(self.batch.dir / job.job_id)
        except (atomic.CorruptFile, OSError) as error:
            yield self._finding("unreadable", place, f"{error}; doctor --rebuild makes it anew")
            return
        if lines and not (self.batch.dir / place).exists():
            yield self._finding("missing", place, "doctor --rebuild makes it anew")
            return
        for line in lines:
            now = current.steps.get(line["step_id"])
            if now is None or now.attempt < line["attempt"] or not _agrees(now, line):
                text = f"{line['step_id']} is not what the ledger says; doctor --rebuild makes it anew"
                yield self._finding("changed", place, text)
        for step_id, now in current.steps.items():
            told = now.run_id in self.batch.lines.launched or now.ended_at is None
            if step_id not in job.places or not told:
                text = f"{step_id} has no such attempt; doctor --rebuild makes it anew"
                yield self._finding("changed", place, text)
        for step_id, because in current.dead.items():
            if step_id not in job.places or because not in job.step(step_id).depends_on:
                text = f"{step_id} does not depend on {because}; doctor --rebuild makes it anew"
                yield self._finding("changed", place, text)

    def _verdict(self, job: JobSpec, step: StepSpec, line: Line, lines: list[Line]) -> Iterator[Finding]:
        """Yield the verdict, made again from the attempts that it was made from, where nothing has ended since it began."""
        launched = self.batch.lines.launched.get(str(line.get("run_id")), line)
        began = launched.get("seq", -1)
        since = [each for each in lines if each is not line and each.get("seq", 0) > began]
        said = self.batch.lines.files.get(f"{job.job_id}/{batches.OVERRIDES}")
        folder = self.batch.dir / places.StepKey(job.job_id, step.step_id).attempt(line["attempt"])
        place = f"{job.job_id}/{VERDICT_FILE}"
        sealed = safe_read.read_object(folder / attempts.PUBLISH / VERDICT_FILE)
        if since or sealed is None or (said is not None and said.seq > began) or self.batch.lines.rules < 2:
            return
        meta = safe_read.read_object(folder / attempts.META) or {}
        if meta.get("harness_version") != __version__:
            text = f"was given by version {meta.get('harness_version')}, and is not made again by this one"
            yield self._finding("uncovered", place, text)
            return
        found = compute(self.batch.dir / job.job_id, job, step, str(sealed.get("batch_id")))
        differing = [key for key in found if _plain(found[key], key) != _plain(sealed.get(key), key)]
        if differing:
            text = f"the sealed attempts give another verdict: {', '.join(differing)}"
            yield self._finding("changed", place, text)

    def _tasks(self, job: JobSpec) -> Iterator[Finding]:
        """Yield the tasks of the trials that were started, as they are now."""
        for step in job.steps:
            line = self.newest.get((job.job_id, step.step_id))
            if step.kind != "trial" or line is None:
                continue
            task = safe_read.mapping(safe_read.mapping(step.spec.get("config")).get("task"))
            launched = self.batch.lines.launched.get(str(line.get("run_id")), line)
            expected = launched.get("task_sha256") or step.spec.get("task_checksum")
            path = task.get("path")
            if not expected or not isinstance(path, str) or path in self._told:
                continue
            self._told.add(path)
            if text := self.tasks.differs(path, expected):
                yield self._finding(self.tasks.what, places.StepKey(job.job_id, step.step_id).place, text)


def _agrees(now: StepNow, line: Line) -> bool:
    """Tell whether an entry of ``current.json`` is what the line of that end says; a later attempt has no line yet."""
    if now.attempt > line["attempt"]:
        return True
    failure = now.failure.model_dump(exclude_none=True) if now.failure else None
    then = (line.get("run_id"), line.get("status"), line.get("number"), line.get("ended_at"), line.get("failure"))
    return (now.run_id, now.status, now.number, now.ended_at, failure) == then


def _plain(value: Any, key: str) -> Any:
    """Return a part of a verdict as JSON has it; without what a model's prose adds to it."""
    if key == "prose":
        return None
    if key == "warnings":
        return [line for line in value or () if not str(line).startswith("no prose")]
    return json.loads(json.dumps(value))
