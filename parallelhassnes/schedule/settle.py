"""Settle: what follows from an attempt's end. Under ``tick.lock``; doing it twice changes nothing.

    ended/<ticket> ─▶ job files published ─▶ current.json ─▶ tickets of what became ready (or of the
    retry) ─▶ ledger line ─▶ ended/<ticket> removed

A crash anywhere leaves ended/<ticket>, and the next pass does it all again: the files are replaced by
the same, the tickets have the same names, and a line that is in the ledger already is not written twice.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parallelhassnes.execute import launcher
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule import damage, enough, health, loops
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.keys import Keys
from parallelhassnes.schedule.step_state import (
    Dependency,
    dependency,
    kills,
    known,
    readiness,
    stand,
)
from parallelhassnes.steps import ended, untrusted
from parallelhassnes.store import atomic, attempts, batches, ledger, members, seal, tickets
from parallelhassnes.store.records import Current, Overrides, Said, StepNow, Ticket, parse_time


def settle_ended(ctx: Context) -> int:
    """Settle every ended ticket; how many."""
    paths = tickets.ended(ctx.layout)
    books: dict[str, Book] = {}
    keys = Keys(ctx)
    for path in paths:
        if launcher.is_awaited():
            health.wish(ctx.layout)
            break
        with members.apart(path, partial(_give_up, ctx, books, path)):
            ticket = tickets.read(path)
            if ticket.batch_id not in books:
                books[ticket.batch_id] = Book(ctx, ticket.batch_id)
            _settle(ctx, books[ticket.batch_id], keys, ticket, path)
    if any(not tickets.has_any(ctx.layout, batch_id) for batch_id in books):
        ctx.layout.checkpoint_wanted.touch()
    return len(paths)


def _give_up(ctx: Context, books: "dict[str, Book]", path: Path, error: Exception) -> None:
    damage.pass_over(ctx, path, error)
    books.pop(damage.batch_of(path), None)


def _settle(ctx: Context, book: "Book", keys: Keys, ticket: Ticket, path: Path) -> None:
    job, step = batches.read_step(book.ctx.layout, ticket)
    before = book.current(ticket.job_id).steps.get(ticket.step_id)
    now = book.look_again(job, step)
    if now is not None and now.ended_at is not None:
        redo = before is not None and (before.run_id, before.ended_at) == (now.run_id, now.ended_at)
        publish(book.batch_dir / job.job_id, book.step_dir(job, step) / "attempts" / now.attempt)
        keys.note_end(job.batch_id, job.job_id, step, now)
        if loops.waits_for_solver(step, now, book.overrides(job.job_id)):
            loops.begin_round(book, job, step)
        elif now.retry_at is not None:
            tickets.put_delayed(ctx.layout, ticket, path.name, parse_time(now.retry_at))
        else:
            book.spread(job, step)
            for skipped in enough.skip(book, job, step):
                book.drop_ready(job, skipped)
                book.spread(job, skipped)
        book.save()
        if not (redo and ledger.has_ended(book.batch_dir, now.run_id)):
            record_end(book.batch_dir, job, step, now)
        loops.note_end(book, job, step)
    elif now is None:  # somebody deleted the attempt: the step is as if it had not been attempted
        book.place(job, step)
        book.save()
    path.unlink(missing_ok=True)


def record_end(batch_dir: Path, job: JobSpec, step: StepSpec, now: StepNow) -> None:
    """The ledger's line of an attempt's end, with the hash of its seal and what its report says (``steps.ended``)."""
    attempt_dir = batch_dir / job.job_id / "steps" / step.step_id / "attempts" / now.attempt
    report = untrusted.read_object(attempt_dir / attempts.FINAL) or {}
    ledger.append(
        batch_dir, "ended",
        job_id=job.job_id, step_id=step.step_id, run_id=now.run_id, attempt=now.attempt, number=now.number,
        status=now.status, failure=now.failure.model_dump(exclude_none=True) if now.failure else None,
        ended_at=now.ended_at, retry_at=now.retry_at, because=now.because or None, unmet=now.unmet or None, queue_key=step.queue_key,
        published=published(attempt_dir) or None, **seal.recorded(attempt_dir), **ended.line(step, now.status, report),
    )  # fmt: skip


def step_facts(step: StepSpec) -> dict[str, Any]:
    """What a ledger's lines say of an attempt's step besides its name: whose trial it is, and of which task."""
    if step.kind != "trial":
        return {"kind": step.kind}
    checksum = step.spec.get("task_checksum")
    return {
        "kind": step.kind, "label": step.label or None, "task": step.spec.get("task_name"),
        "task_sha256": checksum or None, "must_score": step.retry.top_up is not None or None,
    }  # fmt: skip


def publish(job_dir: Path, attempt_dir: Path) -> None:
    """Copy what an attempt has for its job (``verdict.json``) into the job's folder."""
    folder = attempt_dir / attempts.PUBLISH
    if folder.is_dir():
        for document in folder.iterdir():
            atomic.write_bytes(job_dir / document.name, atomic.read_bytes(document))


def published(attempt_dir: Path) -> dict[str, str]:
    """Name → hash of what ``publish`` gives the job."""
    folder = attempt_dir / attempts.PUBLISH
    if not folder.is_dir():
        return {}
    found = {path.name: ledger.content_hash(path) for path in sorted(folder.iterdir())}
    return {name: digest for name, digest in found.items() if digest}


class Book:
    """The jobs of one batch as far as a settle touches them: read once, changed in memory, then written."""

    def __init__(self, ctx: Context, batch_id: str) -> None:
        self.ctx = ctx
        self.batch_dir = ctx.layout.batch(batch_id)
        self.batch_id = batch_id
        self.canceled = batches.read_control(self.batch_dir).canceled
        self._currents: dict[str, Current] = {}
        self._overrides: dict[str, Overrides] = {}
        self._changed: set[str] = set()

    def overrides(self, job_id: str) -> Overrides:
        if job_id not in self._overrides:
            self._overrides[job_id] = batches.read_overrides(self.batch_dir / job_id)
        return self._overrides[job_id]

    def job(self, job_id: str) -> JobSpec:
        return batches.read_job(self.batch_dir / job_id)

    def current(self, job_id: str) -> Current:
        if job_id not in self._currents:
            self._currents[job_id] = batches.read_current(self.batch_dir / job_id)
        return self._currents[job_id]

    def forget(self, job_id: str) -> Current:
        """Begin anew with a job of which nothing is known, whatever ``current.json`` says or fails to."""
        self._currents[job_id] = Current()
        return self._currents[job_id]

    def look_again(self, job: JobSpec, step: StepSpec) -> StepNow | None:
        """Derive the step from its attempts and take that into ``current.json``."""
        step_dir = self.batch_dir / job.job_id / "steps" / step.step_id
        now = stand(step_dir, step, self.overrides(job.job_id))
        if now is not None:
            current = self.current(job.job_id)
            current.steps[step.step_id] = now
            current.dead.pop(step.step_id, None)
            self._changed.add(job.job_id)
        return now

    def evaluate(self, job: JobSpec, step: StepSpec, *, gate: bool = True) -> tuple[str, str]:
        """Readiness of a step by its dependencies and its gate, and the dependency because of which it is dead.

        Args:
            gate: False for how it would stand if it were approved.
        """
        seen: list[Dependency] = []
        killer = ""
        # The last ones listed are the last to end, so the first open one is found soonest from the back.
        for reference in reversed(step.depends_on):
            job_id, _, step_id = reference.partition("/")
            state = known(self.current(job_id), self.overrides(job_id), self.canceled, step_id)
            found = dependency(state)
            if found == "open" and step.after == "end":
                return "waiting", ""
            seen.append(found)
            if kills(step.after, found):
                killer = reference
        verdict = readiness(step.after, seen)
        if verdict == "dead":
            return verdict, killer
        if verdict == "ready" and gate and self.is_gated(job, step):
            return "waiting", ""
        return verdict, ""

    def is_gated(self, job: JobSpec, step: StepSpec) -> bool:
        """Whether somebody must still approve the start of the step."""
        return step.gate is not None and step.step_id not in self.overrides(job.job_id).approved

    def spread(self, job: JobSpec, step: StepSpec, *, write_tickets: bool = True) -> None:
        """Pass on that a step ended (or will never start): ready ones get tickets, dead ones are marked."""
        open_ends = deque(job.dependents.get(step.step_id, ()))
        while open_ends:
            job_id, _, step_id = open_ends.popleft().partition("/")
            waiting_job = self.job(job_id)
            waiting = waiting_job.step(step_id)
            if self.is_canceled(job_id, step_id):
                continue
            current = self.current(job_id)
            verdict, because = self.evaluate(waiting_job, waiting)
            if step_id in current.steps:
                if verdict == "ready" and write_tickets:
                    self._again(waiting_job, waiting, current.steps[step_id])
                continue
            if verdict == "ready" and write_tickets:
                self.put_ticket(waiting_job, waiting)
            if current.dead.get(step_id, "") != because:
                if because:
                    current.dead[step_id] = because
                else:
                    current.dead.pop(step_id, None)
                self._changed.add(job_id)
                open_ends.extend(waiting_job.dependents.get(step_id, ()))

    def place(self, job: JobSpec, step: StepSpec) -> None:
        """Give a step that was never attempted its ticket, or mark it as one that never can start."""
        if self.is_canceled(job.job_id, step.step_id):
            return
        verdict, because = self.evaluate(job, step)
        if verdict == "ready":
            self.put_ticket(job, step)
        elif verdict == "dead":
            self.current(job.job_id).dead[step.step_id] = because
            self._changed.add(job.job_id)

    def is_canceled(self, job_id: str, step_id: str) -> bool:
        return self.canceled or step_id in self.overrides(job_id).canceled

    def _again(self, job: JobSpec, step: StepSpec, now: StepNow) -> None:
        """A step that speaks of others' ends runs again when one of them has ended anew, a critic when its solver has."""
        if loops.waits_for_solver(step, now, self.overrides(job.job_id)):
            self.put_ticket(job, step)
        elif now.settled and step.after != "success":
            self.ask_again(job, step, now.run_id)
            self.look_again(job, step)
            self.put_ticket(job, step)

    def ask_again(self, job: JobSpec, step: StepSpec, run_id: str) -> None:
        """Note that the attempt ``run_id`` is to be followed by another, whatever it came to."""
        overrides = self.overrides(job.job_id)
        retries = {**overrides.retries, step.step_id: run_id}
        self._write_overrides(job.job_id, overrides.model_copy(update={"retries": retries}))

    def replace_canceled(
        self,
        job_id: str,
        canceled: dict[str, str],
        enough: Mapping[str, str] = MappingProxyType({}),
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

    def decide_gate(self, job_id: str, step_id: str, word: Said, *, approved: bool) -> None:
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
        return self.batch_dir / job.job_id / "steps" / step.step_id

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

    def save(self) -> None:
        for job_id in self._changed:
            batches.write_current(self.batch_dir / job_id, self._currents[job_id])
        self._changed.clear()


def ticket_of(job: JobSpec, step: StepSpec) -> tuple[Ticket, str]:
    """The step's ticket and its name, the same whenever it is made."""
    seq = job.first_seq + job.places[step.step_id]
    ticket = Ticket(
        batch_id=job.batch_id, job_id=job.job_id, step_id=step.step_id,
        queue_key=step.queue_key, kind=step.kind,
    )  # fmt: skip
    return ticket, tickets.ticket_name(job.batch_id, seq, job.job_id, step.step_id, step.kind)
