"""The jobs of one batch as a pass changes them: what is known of each step, what follows from a change, and whose ticket is due.

Read once, changed in memory, then written (``save``). What an ended attempt leaves for others is written here, too: the
documents that it publishes to its job, and its line in the ledger.
"""

from collections import deque
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parallelhassnes import places, walk
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.rules import solver_critic
from parallelhassnes.schedule.rules.step_state import Dependency, dependency, kills, known, readiness, stand
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import atomic, attempts, batches, currents
from parallelhassnes.store.currents import Standing
from parallelhassnes.store.evidence import ledger, seal
from parallelhassnes.store.queue import notices, tickets
from parallelhassnes.store.records import AttemptMeta, Attribution, Overrides, StepNow, Ticket

_MOST_HINTS = 1024


_last_open: dict[tuple[Path, str, str], int] = {}
"""Waiting step → one more than the place of the dependency that was found open last; where to look first, no more."""


class JobState:
    """The jobs of one batch as far as a settle touches them: read once, changed in memory, then written."""

    def __init__(self, ctx: Context, batch_id: str) -> None:
        self.ctx = ctx
        self.batch_dir = ctx.layout.batch(batch_id)
        self.batch_id = batch_id
        self.canceled = batches.read_control(self.batch_dir).canceled
        self._currents: dict[str, Standing] = {}
        self._overrides: dict[str, Overrides] = {}

    def overrides(self, job_id: str) -> Overrides:
        if job_id not in self._overrides:
            self._overrides[job_id] = batches.read_overrides(self.batch_dir / job_id)
        return self._overrides[job_id]

    def job(self, job_id: str) -> JobSpec:
        return batches.read_job(self.batch_dir / job_id)

    def current(self, job_id: str) -> Standing:
        if job_id not in self._currents:
            self._currents[job_id] = currents.take(self.batch_dir / job_id)
        return self._currents[job_id]

    def forget(self, job_id: str) -> Standing:
        """Begin anew with a job of which nothing is known, whatever ``current.json`` says or fails to."""
        self._currents[job_id] = currents.begin_anew(self.batch_dir / job_id)
        return self._currents[job_id]

    def look_again(self, job: JobSpec, step: StepSpec) -> StepNow | None:
        """Derive the step from its attempts and take that into ``current.json``."""
        now = stand(self.step_dir(job, step), step, self.overrides(job.job_id))
        if now is not None:
            self.current(job.job_id).put(step.step_id, now)
        return now

    def evaluate(self, job: JobSpec, step: StepSpec, *, gate: bool = True) -> tuple[str, str]:
        """Readiness of a step by its dependencies and its gate, and the dependency because of which it is dead.

        Args:
            gate: False for how it would stand if it were approved.
        """
        seen = set()
        killer = ""
        for reference in reversed(step.depends_on):
            found = self._means(reference)
            seen.add(found)
            if kills(step.after, found):
                killer = reference
        verdict = readiness(step.after, seen)
        if verdict == "dead":
            return verdict, killer
        if verdict == "ready" and gate and self.is_gated(job, step):
            notices.note_gate(self.ctx.layout, self.ctx.config.notify, job.batch_id, job.job_id, step.step_id)
            return "waiting", ""
        return verdict, ""

    def _evaluate_after(self, job: JobSpec, step: StepSpec, changed: str) -> tuple[str, str]:
        """As ``evaluate``, where of all the dependencies only one has changed since the step was last looked at.

        A step may wait for thousands, and each end of one comes by here. What kills an unattempted step is known; else it
        waits as long as one of them is open, and that is most often the one that was found open the last time.
        """
        known_killer = self.current(job.job_id).killer(step.step_id)
        if known_killer and known_killer not in step.places:
            return self.evaluate(job, step)
        if kills(step.after, self._means(changed)):
            both = {changed, known_killer} - {""}
            return "dead", min(both, key=step.places.__getitem__)
        if known_killer not in ("", changed) and kills(step.after, self._means(known_killer)):
            return "dead", known_killer
        if not known_killer and self._has_open(job, step):
            return "waiting", ""
        return self.evaluate(job, step)

    def _has_open(self, job: JobSpec, step: StepSpec) -> bool:
        """Tell whether a dependency has neither ended nor is dead; looks from where one was found the last time."""
        count, key = len(step.depends_on), (self.batch_dir, job.job_id, step.step_id)
        first = min(_last_open.get(key, count), count) - 1
        for place in chain(range(first, -1, -1), range(count - 1, first, -1)):
            if self._means(step.depends_on[place]) == "open":
                if len(_last_open) > _MOST_HINTS:
                    _last_open.clear()
                _last_open[key] = place + 1
                return True
        return False

    def _means(self, reference: str) -> Dependency:
        """Tell what a dependency (``job_id/step_id``) means to what waits for it."""
        job_id, step_id = places.step_key(reference)
        current = self.current(job_id)
        now = current.get(step_id)
        dead = now is None and bool(current.killer(step_id))
        return dependency(known(now, called_off=self.is_canceled(job_id, step_id), dead=dead))

    def is_gated(self, job: JobSpec, step: StepSpec) -> bool:
        """Tell whether somebody must still approve the start of the step."""
        return step.gate is not None and step.step_id not in self.overrides(job.job_id).approved

    def spread(self, job: JobSpec, step: StepSpec, *, write_tickets: bool = True) -> None:
        """Pass on that a step ended (or will never start): ready ones get tickets, dead ones are marked."""
        open_ends = deque([(job, step.step_id)])
        while open_ends:
            ended_job, ended_id = open_ends.popleft()
            for reference in ended_job.dependents.get(ended_id, ()):
                job_id, step_id = places.step_key(reference)
                waiting_job = ended_job if job_id == ended_job.job_id else self.job(job_id)
                if self._follow(waiting_job, step_id, f"{ended_job.job_id}/{ended_id}", write_tickets):
                    open_ends.append((waiting_job, step_id))

    def _follow(self, job: JobSpec, step_id: str, changed: str, write_tickets: bool) -> bool:
        """Tell what follows for a step from the change of one that it depends on; whether it is dead since, or is no more."""
        if self.is_canceled(job.job_id, step_id):
            return False
        step, current = job.step(step_id), self.current(job.job_id)
        now = current.get(step_id)
        verdict, because = self._evaluate_after(job, step, changed)
        if verdict == "ready" and write_tickets:
            if now is not None:
                self._again(job, step, now)
            else:
                self.put_ticket(job, step)
        if now is not None or current.killer(step_id) == because:
            return False
        current.bury(step_id, because)
        return True

    def place(self, job: JobSpec, step: StepSpec) -> None:
        """Give a step that was never attempted its ticket, or mark it as one that never can start."""
        if self.is_canceled(job.job_id, step.step_id):
            return
        verdict, because = self.evaluate(job, step)
        if verdict == "ready":
            self.put_ticket(job, step)
        elif verdict == "dead":
            self.current(job.job_id).bury(step.step_id, because)

    def is_canceled(self, job_id: str, step_id: str) -> bool:
        return self.canceled or step_id in self.overrides(job_id).canceled

    def _again(self, job: JobSpec, step: StepSpec, now: StepNow) -> None:
        """A step that speaks of others' ends runs again when one of them has ended anew, a critic when its solver has ended anew."""
        if solver_critic.waits_for_solver(step, now, self.overrides(job.job_id)):
            self.put_ticket(job, step)
        elif now.settled and step.after != "success":
            self.ask_again(job, step, now.run_id)
            self.look_again(job, step)
            self.put_ticket(job, step)

    def ask_again(self, job: JobSpec, step: StepSpec, run_id: str, *, is_told: bool = False) -> None:
        """Note that the attempt ``run_id`` is to be followed by another, whatever it came to.

        Args:
            is_told: the caller has one line of the ledger say so of all such steps. Else the step has a line of its own: views, which
                read the ledger, would take it for ended.
        """
        overrides = self.overrides(job.job_id)
        retries = {**overrides.retries, step.step_id: run_id}
        self._write_overrides(job.job_id, overrides.model_copy(update={"retries": retries}))
        if not is_told:
            ledger.append(self.batch_dir, "again", job_id=job.job_id, step_id=step.step_id, run_id=run_id)

    def replace_canceled(
        self, job_id: str, canceled: dict[str, str], enough: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Set which steps of the job are not to start (step_id → when that was said).

        Args:
            enough: those of them that the job's own rule skips, with the reason. One that an operator takes back keeps
                an empty reason: it is not skipped again.
        """
        overrides = self.overrides(job_id)
        if overrides.canceled != canceled:
            why = {key: text if key in canceled else "" for key, text in overrides.enough.items()}
            no = {key: said for key, said in overrides.rejected.items() if key in canceled}
            update = {"canceled": canceled, "enough": {**why, **enough}, "rejected": no}
            self._write_overrides(job_id, overrides.model_copy(update=update))

    def decide_gate(self, job_id: str, step_id: str, word: Attribution, *, approved: bool) -> None:
        """Note what was decided about a step that waits for a person, in the place of an earlier decision."""
        old = self.overrides(job_id)
        yes = {key: said for key, said in old.approved.items() if key != step_id}
        no = {key: said for key, said in old.rejected.items() if key != step_id}
        canceled = {key: at for key, at in old.canceled.items() if key != step_id}
        (yes if approved else no)[step_id] = word
        if not approved:
            canceled[step_id] = word.at
        update = {"approved": yes, "rejected": no, "canceled": canceled}
        self._write_overrides(job_id, old.model_copy(update=update))

    def step_dir(self, job: JobSpec, step: StepSpec) -> Path:
        return self.ctx.layout.step(self.batch_id, job.job_id, step.step_id)

    def drop_ready(self, job: JobSpec, step: StepSpec) -> None:
        """Remove the step's ready ticket, if it has one."""
        _, name = ticket_of(job, step)
        path = tickets.ready_path(self.ctx.layout, step.queue_key, name)
        path.unlink(missing_ok=True)
        tickets.tidy(path.parent)

    def _write_overrides(self, job_id: str, overrides: Overrides) -> None:
        batches.write_overrides(self.batch_dir / job_id, overrides)
        self._overrides[job_id] = overrides

    def put_ticket(self, job: JobSpec, step: StepSpec, *, durable: bool = True) -> None:
        ticket, name = ticket_of(job, step)
        tickets.put_ready(self.ctx.layout, ticket, name, durable=durable)

    def save(self, *, whole: bool = False) -> None:
        """Write every ``current.json`` that has changed.

        Args:
            whole: not only into its journal (``store.currents``): no settle may follow that makes it whole.
        """
        for current in self._currents.values():
            if current.is_changed:
                current.save(whole=whole)


def ticket_of(job: JobSpec, step: StepSpec) -> tuple[Ticket, str]:
    """Return the step's ticket and its name, the same whenever it is made."""
    seq = job.first_seq + job.places[step.step_id]
    ticket = Ticket(
        batch_id=job.batch_id, job_id=job.job_id, step_id=step.step_id, queue_key=step.queue_key, kind=step.kind
    )
    return ticket, tickets.ticket_name(job.batch_id, seq, job.job_id, step.step_id, step.kind)


def record_end(batch_dir: Path, job: JobSpec, step: StepSpec, now: StepNow) -> None:
    """Write the ledger's line of an attempt's end, with the hash of its seal and what its report says (``steps.trial_data.ended_line``).

    Whoever calls waits for the disk (``ledger.sync``) once it has written down all that it has.
    """
    attempt_dir = batch_dir / places.StepKey(job.job_id, step.step_id).attempt(now.attempt)
    report = safe_read.read_object(attempt_dir / attempts.FINAL) or {}
    ledger.append_unsynced(
        batch_dir,
        "ended",
        job_id=job.job_id,
        step_id=step.step_id,
        run_id=now.run_id,
        attempt=now.attempt,
        number=now.number,
        status=now.status,
        failure=now.failure.model_dump(exclude_none=True) if now.failure else None,
        ended_at=now.ended_at,
        retry_at=now.retry_at,
        because=now.because or None,
        unmet=now.unmet or None,
        queue_key=step.queue_key,
        published=published(attempt_dir) or None,
        **seal.recorded(attempt_dir),
        **ended_line.line(step, now.status, report),
    )


def step_facts(step: StepSpec) -> dict[str, Any]:
    """Tell what a ledger's lines say of an attempt's step besides its name: whose trial it is, and of which task."""
    if step.kind != "trial":
        return {"kind": step.kind}
    checksum = step.spec.get("task_checksum")
    return {
        "kind": step.kind,
        "label": step.label or None,
        "task": step.spec.get("task_name"),
        "task_sha256": checksum or None,
        "must_score": step.retry.top_up is not None or None,
    }


def ran_under(meta: AttemptMeta) -> dict[str, str]:
    """Tell what a ledger's line of an attempt's start says of who runs it, and under which configuration."""
    return {"harness_version": meta.harness_version, "host": meta.host, "config_sha256": meta.config_sha256}


def publish(job_dir: Path, attempt_dir: Path) -> None:
    """Copy what an attempt has for its job (``verdict.json``) into the job's folder."""
    for path, _ in walk.files(attempt_dir, attempts.PUBLISH):
        atomic.write_bytes(job_dir / path.rpartition("/")[2], atomic.read_bytes(attempt_dir / path))


def published(attempt_dir: Path) -> dict[str, str]:
    """Name → hash of what ``publish`` gives the job."""
    paths = [path for path, _ in walk.files(attempt_dir, attempts.PUBLISH)]
    found = {path.rpartition("/")[2]: ledger.content_hash(attempt_dir / path) for path in paths}
    return {name: digest for name, digest in found.items() if digest}
