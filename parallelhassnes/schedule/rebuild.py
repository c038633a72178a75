"""Making a batch's place in the queue anew from ``runs/<batch_id>/`` alone.

For every step: a live (or dead, not yet ended) attempt has a running ticket; a due retry a delayed one;
a step that may start a ready one; everything else none. Also ``current.json`` of every job and what it publishes. Tickets have
the same names whenever they are made, so this is the same as what is there, or mends it.
"""

import shutil
from functools import partial
from pathlib import Path

from parallelhassnes.key_names import key_dir
from parallelhassnes.plan import BatchMeta, JobSpec, StepSpec
from parallelhassnes.schedule import health, quarantine
from parallelhassnes.schedule.additions import add_steps, carry_over
from parallelhassnes.schedule.admission import note_blocked
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState, publish, record_end, ticket_of
from parallelhassnes.schedule.limits import spending
from parallelhassnes.schedule.rules import solver_critic
from parallelhassnes.schedule.rules.step_state import stand
from parallelhassnes.store import atomic, attempts, batches, currents, decider, index, locks, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import KEPT_LOOKS
from parallelhassnes.store.queue import delayed, tickets
from parallelhassnes.store.records import dump


def requeue_batch(ctx: Context, batch_id: str) -> None:
    """Write every ticket and ``current.json`` that the batch's own files call for; the caller sees to the locks."""
    book = JobState(ctx, batch_id)
    jobs = [batches.read_job(path) for path in batches.job_dirs(ctx.layout, batch_id)]
    for job in jobs:
        _restand(ctx, book, job)
    for job in jobs:
        _bury(book, job)
    for job in jobs:
        current = book.current(job.job_id)
        if not current.is_empty or (book.batch_dir / job.job_id / currents.CURRENT).exists():
            current.save(whole=True)
        for step in job.steps:
            _requeue(ctx, book, job, step)


def _restand(ctx: Context, book: JobState, job: JobSpec) -> None:
    current = book.forget(job.job_id)
    for step in job.steps:
        step_dir = ctx.layout.step(job.batch_id, job.job_id, step.step_id)
        now = stand(step_dir, step, book.overrides(job.job_id))
        if now is not None:
            current.put(step.step_id, now)
            if now.ended_at is not None:
                publish(book.batch_dir / job.job_id, step_dir / "attempts" / now.attempt)


def _bury(book: JobState, job: JobSpec) -> None:
    """Mark what can never start; every job has been stood up again before."""
    current = book.current(job.job_id)
    for step in job.steps:
        now = current.get(step.step_id)
        ended = now is not None and now.settled and now.status != "succeeded"
        if ended or (now is None and step.step_id in book.overrides(job.job_id).canceled):
            book.spread(job, step, write_tickets=False)


def _requeue(ctx: Context, book: JobState, job: JobSpec, step: StepSpec) -> None:
    now = book.current(job.job_id).get(step.step_id)
    ticket, name = ticket_of(job, step)
    if now is None:
        if not book.is_canceled(job.job_id, step.step_id) and book.evaluate(job, step)[0] == "ready":
            tickets.put_ready(ctx.layout, ticket, name)
    elif now.ended_at is None:
        folder = ctx.layout.running / key_dir(step.queue_key)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(folder / name, dump(ticket))
    elif solver_critic.waits_for_solver(step, now, book.overrides(job.job_id)):
        if book.evaluate(job, step)[0] == "ready":
            tickets.put_ready(ctx.layout, ticket, name)
    elif now.retry_at is not None:
        delayed.put(ctx.layout, ticket, name, now)


def rebuild(ctx: Context) -> int:
    """Make everything derived anew from the batches' own folders; how many batches.

    Takes the locks itself. Attempts that live keep their slot; what is not called for is removed.
    """
    for folder in ctx.layout.folders():
        folder.mkdir(parents=True, exist_ok=True)
    with locks.held(ctx.layout.ingest_lock), decider.deciding(ctx.layout):
        before = {entry.path for entry in tickets.running(ctx.layout)}
        for folder in (ctx.layout.ready, ctx.layout.delayed, ctx.layout.blocked, ctx.layout.ended):
            shutil.rmtree(folder)
            folder.mkdir()
        shutil.rmtree(ctx.layout.turns, ignore_errors=True)
        spending.forget_all(ctx.layout)
        for name in KEPT_LOOKS:
            (ctx.layout.system / name).unlink(missing_ok=True)
        batch_ids = ctx.layout.batch_ids()
        for batch_id in batch_ids:
            restore(ctx, batch_id)
        note_blocked(ctx)
        for path in before - {entry.path for entry in _called_for(ctx, batch_ids)}:
            path.unlink(missing_ok=True)
    return len(batch_ids)


def restore(ctx: Context, batch_id: str) -> bool:
    """Make everything derived of one batch anew, under ``tick.lock``; False where a file of it is damaged, which is noted."""
    if quarantine.is_deleted(ctx, batch_id):
        quarantine.forget(ctx, batch_id)
        return False
    with members.apart(ctx.layout.batch(batch_id), partial(quarantine.note, ctx, batch_id)):
        _rederive(ctx, batch_id)
        requeue_batch(ctx, batch_id)
        spending.forget(ctx.layout)
        _complete_ledger(ctx, batch_id)
        (ctx.layout.blocked / f"{batch_id}.json").unlink(missing_ok=True)
        return True
    return False


def _rederive(ctx: Context, batch_id: str) -> None:
    batch_dir = ctx.layout.batch(batch_id)
    meta = batches.read_batch(batch_dir)
    index.write(batch_dir, (batches.read_job(path) for path in batches.job_dirs(ctx.layout, batch_id)))
    for name in batches.DERIVED:
        if name != index.INDEX:
            (batch_dir / name).unlink(missing_ok=True)
    atomic.write_json(ctx.layout.tables_by_sha / meta.table_sha256, {"batch_id": batch_id})
    if not (ctx.layout.accepted / f"{batch_id}.ack.json").exists():
        for table in batch_dir.glob("launch_table.*"):
            atomic.write_bytes(ctx.layout.accepted / f"{batch_id}{table.suffix}", table.read_bytes())
        write_ack(ctx, meta)


def _complete_ledger(ctx: Context, batch_id: str) -> None:
    """Write down the additions and ends that nobody else will write: their notes went with the queue."""
    batch_dir = ctx.layout.batch(batch_id)
    jobs = [batches.read_job(p) for p in batches.job_dirs(ctx.layout, batch_id)]
    add_steps.tell(batch_dir, jobs)
    if batches.read_batch(batch_dir).imported is not None:
        book = JobState(ctx, batch_id)
        carry_over.complete(book, jobs)
        book.save(whole=True)
    known = {event.get("run_id") for _, event in ledger.read(batch_dir) if event.get("event") in ("ended", "carried")}
    for job_dir in batches.job_dirs(ctx.layout, batch_id):
        job = batches.read_job(job_dir)
        for step_id, now in currents.read(job_dir).steps.items():
            if now.ended_at is not None and now.run_id not in known:
                record_end(batch_dir, job, job.step(step_id), now)
    ledger.sync(batch_dir)


def write_ack(ctx: Context, meta: BatchMeta) -> None:
    """``accepted/<batch_id>.ack.json``."""
    document = {
        "schema_version": 1,
        "batch_id": meta.batch_id,
        "table_sha256": meta.table_sha256,
        "accepted_at": meta.created_at,
        "source_name": meta.source_name,
    }
    atomic.write_json(ctx.layout.accepted / f"{meta.batch_id}.ack.json", document)


def _called_for(ctx: Context, batch_ids: list[str]) -> list[tickets.Running]:
    """Return the running tickets of attempts that have not been sealed."""
    found = []
    for entry in tickets.running(ctx.layout):
        with members.apart(entry.path):
            ticket = tickets.read(entry.path)
            step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
            ref = attempts.newest(step_dir)
            if ticket.batch_id in batch_ids and ref is not None and not attempts.is_sealed(ref.dir):
                found.append(entry)
    return found


def pass_over(ctx: Context, ticket: Path, error: Exception) -> None:
    """As ``quarantine.set_aside``, under ``tick.lock``: a ticket that is torn itself is made anew, for another round of this pass."""
    quarantine.set_aside(ctx, ticket, error)
    if isinstance(error, tickets.Torn) and restore(ctx, quarantine.batch_of(ticket)):
        health.wish(ctx.layout)


def mend(ctx: Context) -> list[str]:
    """Make the tickets of damaged batches anew, as far as their files are whole again; those batches."""
    damaged = quarantine.every(ctx.layout)
    if not damaged:
        return []
    lock = locks.hold(ctx.layout.tick_lock)
    if lock is None:  # the next tick does it
        return []
    try:
        return [batch_id for batch_id in damaged if restore(ctx, batch_id)]
    finally:
        locks.release(lock)
