"""Attempts that are jobs of Slurm of their own: what the host that decides does for them.

    runners/.slurm/handed/<ticket>       a job is to run this: the assignment (``store/queue/handed.py``); the intent, before Slurm is asked
    runners/.slurm/taken/<ticket>        a job has begun it (``cluster_attempt``)
    runners/.slurm/jobs/<attempt>.json   what Slurm was asked for, written before it is; then the job's id, and Slurm's word on it
    runners/.slurm/jobs/<attempt>.log    what the job said
    runners/.slurm/answer.json           whether Slurm answered last
    runners/.slurm/pilots.json           its word on pilots (``pilot_jobs``), which a round notes, too

A job's name is its attempt's. The loop of the host that decides has a *round* run in a process of its own, at each heartbeat and when
something was handed over, so a controller that does not answer holds up nothing else. A round asks Slurm once what jobs there are.

=================================  ===================================================================================
a crash after                      and then
=================================  ===================================================================================
the intent, or the record          the next round finds the job by its name, or asks for one
sbatch, before the id is noted     the next round finds the job by its name, and notes the id
a job that ends unbegun            another is asked for, later and later: no attempt of the step
a job that begins twice            the rename to ``taken/`` has one winner; the other ends at once
the attempt's end                  its job is told to end if it has not by then, and its record is removed
=================================  ===================================================================================

Slurm's word ends nothing. An attempt that has begun is judged by its heartbeat, as on any other host (``schedule/repair.py``); the word tells
only, once it is given up, whether it counts.
"""

import shlex
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.execute import logs, slurm
from parallelhassnes.names import run_id_of
from parallelhassnes.plan import Record, StepSpec
from parallelhassnes.schedule.cluster import pilot_jobs
from parallelhassnes.schedule.context import ENTRY_POINTS, Context
from parallelhassnes.schedule.process.attempt_process import Assignment
from parallelhassnes.steps.registry import kind as kind_of
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import atomic, attempts, batches, decider, hosts, locks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import handed
from parallelhassnes.store.records import dump, now_text

OUT_OF_TIME = "TIMEOUT"
TAKEN_AWAY = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "CANCELLED", "REVOKED"})
"""Words of Slurm on a job whose end says nothing about the attempt in it, which uses no attempt of its step."""
_GONE = "GONE"
"""Our own word: Slurm does not know the job any more."""
_LEAST_WAIT_SEC, _MOST_WAIT_SEC = 5.0, 300.0
_MOST_REFUSALS = 3
"""After so many refusals a round asks for no more jobs."""
_ENDING_SEC = 10.0
"""For a job whose attempt is sealed to end by itself."""
_STARTING_SEC = 60
"""Of a job's time, for its start."""


class JobRecord(Record):
    """``jobs/<attempt>.json``."""

    schema_version: Literal[1] = 1
    attempt: str
    batch_id: str
    job_id: str
    step_id: str
    slurm_id: str | None = None
    """None where Slurm has refused, or whoever asked has not lived to note it."""
    asked_at: str
    options: tuple[str, ...] = ()
    tries: int = 1
    """How often a job was asked for."""
    next_at: float = 0.0
    """When another may be asked for, if this one does not begin; seconds since the epoch."""
    state: str = ""
    """As Slurm had it last."""
    reason: str = ""
    """Why it is pending."""
    node: str = ""
    trouble: str = ""
    """Why there is no job now, in one line."""
    since: float = 0.0
    """When Slurm said this first; seconds since the epoch."""

    @property
    def is_live(self) -> bool:
        return self.slurm_id is not None and self.state in slurm.LIVE

    def line(self) -> str:
        """Tell how it stands, in a few words."""
        if self.trouble:
            return f"no job of Slurm yet: {self.trouble}; asked again"
        if self.slurm_id is None:
            return "Slurm is being asked for its job"
        why = f" ({self.reason})" if self.state == "PENDING" and self.reason not in ("", "None") else ""
        where = f" on {self.node}" if self.node else ""
        return f"job {self.slurm_id} of Slurm is {self.state.lower() or 'submitted'}{why}{where}"


def folder(layout: Layout) -> Path:
    return layout.runners / handed.JOBS


def log_of(layout: Layout, attempt: str) -> Path:
    """Tell what the job of an attempt said."""
    return folder(layout) / "jobs" / f"{attempt}.log"


def record_of(layout: Layout, attempt: str) -> JobRecord | None:
    """Tell what is known of an attempt's job; None where there is none."""
    try:
        return atomic.read_record(JobRecord, folder(layout) / "jobs" / f"{attempt}.json")
    except (OSError, atomic.CorruptFile):
        return None


def records(layout: Layout) -> list[JobRecord]:
    """Return every job that is remembered, the oldest attempt first."""
    names = [name for name in members.names(folder(layout) / "jobs") if name.endswith(".json")]
    found = (record_of(layout, name.removesuffix(".json")) for name in names)
    return [each for each in found if each is not None]


def has_answered(layout: Layout) -> bool:
    """Tell whether Slurm answered when it was asked last."""
    return bool(atomic.read_derived(folder(layout) / "answer.json").get("answered", True))


def line_of(layout: Layout, record: JobRecord) -> str:
    """Tell how a job stands, and whether that is of an older day: in the same words wherever it is told."""
    return record.line() + ("" if has_answered(layout) else "; Slurm does not answer now")


def is_wanted(layout: Layout) -> bool:
    """Tell whether there is anything that a round may have to see to."""
    top = folder(layout)
    return members.is_there(top) and bool(handed.handed(layout, handed.JOBS) or members.names(top / "jobs"))


def is_under_way(layout: Layout) -> bool:
    """Tell whether a process of this host is at a round."""
    return locks.is_held(folder(layout) / "lock")


def see_to(ctx: Context) -> None:
    """Make one round; nothing where another process of this host is at one."""
    folder(ctx.layout).mkdir(parents=True, exist_ok=True)
    lock = locks.hold(folder(ctx.layout) / "lock")
    if lock is None:
        return
    try:
        _Round(ctx).run()
    finally:
        locks.release(lock)


class _Round:
    def __init__(self, ctx: Context) -> None:
        self.ctx, self.layout, self.now = ctx, ctx.layout, time.time()
        self.jobs: dict[str, list[slurm.ClusterJob]] = defaultdict(list)
        self.refusals = 0

    def run(self) -> None:
        given = self._given()
        known = {each.attempt: each for each in records(self.layout)}
        pilots = pilot_jobs.are_wanted(self.layout)
        if not given and not known and not pilots:
            return
        found = slurm.jobs(over=True)
        if has_answered(self.layout) != (found is not None):
            answer = {"schema_version": 1, "answered": found is not None, "at": now_text()}
            atomic.write_json(folder(self.layout) / "answer.json", answer, durable=False)
        if found is None:
            return
        if pilots:
            pilot_jobs.note(self.layout, found)
        for job in found:
            self.jobs[job.name].append(job)
        for record in known.values():
            with members.apart(folder(self.layout) / "jobs" / record.attempt):
                known[record.attempt] = self._look(record)
        for assignment in given.values():
            with members.apart(folder(self.layout) / "handed" / assignment.ticket):
                self._ask_if_needed(assignment, known.get(assignment.attempt))

    def _given(self) -> dict[str, Assignment]:
        found = {}
        for ticket in handed.handed(self.layout, handed.JOBS):
            document: dict[str, Any] = atomic.read_derived(folder(self.layout) / "handed" / ticket)
            try:
                found[ticket] = Assignment.model_validate({**document, "root": str(self.layout.root)})
            except ValidationError:  # taken just then
                continue
        return found

    def _look(self, record: JobRecord) -> JobRecord:
        """Note what Slurm says of a job now; one whose attempt is over is ended, or forgotten."""
        own = self.jobs.get(record.attempt, [])
        live = [job for job in own if job.state in slurm.LIVE]
        is_over = self._is_over(record)
        job = next(iter(live or [job for job in own if record.slurm_id in (None, job.job_id)]), None)
        if is_over and not live:
            for path in (log_of(self.layout, record.attempt), self._path(record.attempt)):
                path.unlink(missing_ok=True)
            return record
        said: dict[str, Any] = {"state": "", "reason": "", "node": ""}
        if job is not None:
            said = {"slurm_id": job.job_id, "state": job.state, "reason": job.reason, "node": job.node, "trouble": ""}
        elif record.slurm_id is not None:
            said = {"state": _GONE, "reason": "", "node": record.node}
            if record.state not in slurm.LIVE and record.state not in ("", _GONE):
                return record  # its last word counts
        seen = record.model_copy(update=said)
        if seen.state != record.state:
            seen = seen.model_copy(update={"since": self.now})
        if seen != record:
            self._write(seen, durable=False)
        if is_over and (seen.state == "PENDING" or self.now - seen.since > _ENDING_SEC):
            self._cancel([job.job_id for job in live])
        return seen

    def _is_over(self, record: JobRecord) -> bool:
        step_dir = self.layout.step(record.batch_id, record.job_id, record.step_id)
        attempt_dir = step_dir / "attempts" / record.attempt
        if attempts.is_fenced(step_dir, run_id_of(record.attempt)) or attempts.is_sealed(attempt_dir):
            return True
        return step_dir.parent.is_dir() and not attempt_dir.exists() and self.now - record.since > _ENDING_SEC

    def _cancel(self, job_ids: list[str]) -> None:
        try:
            slurm.cancel(job_ids, at_once=True)
        except UserError as error:
            logs.say(str(error))

    def _ask_if_needed(self, assignment: Assignment, record: JobRecord | None) -> None:
        attempt_dir = assignment.attempt_dir(self.layout)
        if attempts.is_asked_to_end(attempt_dir, run_id_of(assignment.attempt)) or (record and record.is_live):
            return
        if record is not None and record.state == _GONE:  # a controller that is just back may not know it yet
            patience = hosts.still_sec(self.layout, self.ctx.config.heartbeat_sec)
            if self.now - record.since < patience:
                return
        if record is not None and self.now < record.next_at <= self.now + _MOST_WAIT_SEC:
            self._say_why(record)
            return
        if self.refusals >= _MOST_REFUSALS or not decider.decides(self.layout):
            return
        self._ask(assignment, record.tries + 1 if record is not None else 1)

    def _say_why(self, record: JobRecord) -> None:
        """Have a job that has ended without having begun its attempt be told."""
        if record.state in ("", "COMPLETED") or record.trouble:
            return
        log = log_of(self.layout, record.attempt)
        line = f"job {record.slurm_id} ended as {record.state} before it began; {log} has what it said"
        self._write(record.model_copy(update={"trouble": line}), durable=False)

    def _ask(self, assignment: Assignment, tries: int) -> None:
        step = batches.read_job(self.layout.job(assignment.batch_id, assignment.job_id)).step(assignment.step_id)
        options = self._options(assignment, step)
        record = JobRecord(
            attempt=assignment.attempt,
            batch_id=assignment.batch_id,
            job_id=assignment.job_id,
            step_id=assignment.step_id,
            asked_at=now_text(),
            options=tuple(options),
            tries=tries,
            next_at=self.now + min(_LEAST_WAIT_SEC * 2 ** (min(tries, 10) - 1), _MOST_WAIT_SEC),
            since=self.now,
        )
        argv = [sys.executable, "-m", ENTRY_POINTS, "job", str(self.layout.root), assignment.ticket, assignment.attempt]
        what = f"Attempt {assignment.attempt} of {assignment.batch_id}/{assignment.job_id}/{assignment.step_id}."
        self._write(record, durable=True)
        try:
            slurm_id = slurm.submit(slurm.script(what, shlex.join(argv)), options)
        except slurm.Refused as error:
            self.refusals += 1
            self._write(record.model_copy(update={"trouble": error.message}), durable=False)
        except UserError:  # it may have been taken: the next round sees
            self.refusals = _MOST_REFUSALS
        else:
            self._write(record.model_copy(update={"slurm_id": slurm_id, "state": "PENDING"}), durable=False)

    def _options(self, assignment: Assignment, step: StepSpec) -> list[str]:
        config, wanted = self.ctx.config, step.resources
        before_end = slurm.before_end_sec(config.grace_sec)
        log = log_of(self.layout, assignment.attempt)
        options = slurm.batch_options(assignment.attempt, self.layout.root, log, before_end)
        time_limit = wanted.time if wanted else None
        if time_limit is None:
            attempt = StepAttempt(assignment.attempt_dir(self.layout), Path(), "", "", "", 1, step)
            limit = step.timeout_sec or kind_of(step.kind).deadline_sec(attempt)
            if limit is not None:
                time_limit = str(int((limit + before_end + _STARTING_SEC) // 60) + 1)
        said = {
            "cpus-per-task": wanted.cpus if wanted else None,
            "mem": f"{wanted.memory_mb}M" if wanted and wanted.memory_mb else None,
            "gres": f"gpu:{wanted.gpus}" if wanted and wanted.gpus else None,
            "partition": wanted.partition if wanted else None,
            "time": time_limit,
        }
        return [
            *options,
            *(f"--{name}={value}" for name, value in said.items() if value is not None),
            *config.slurm.options,
        ]

    def _path(self, attempt: str) -> Path:
        return folder(self.layout) / "jobs" / f"{attempt}.json"

    def _write(self, record: JobRecord, *, durable: bool) -> None:
        path = self._path(record.attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(path, dump(record), durable=durable)
