"""``cancel`` and ``retry``: an operator's word is a file under ``runs/`` that the next pass obeys.

    control.json of the batch     canceled
    overrides.json of the job     canceled steps; attempts to be followed by another
    cancel.json of the attempt    its supervisor ends it; a signal only makes that immediate

Written under ``tick.lock``, so that no pass decides on half of it.
"""

import signal
from pathlib import Path

from pydantic import BaseModel

from parallelhassnes.errors import UserError
from parallelhassnes.execute import processes
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.settle import Book, ticket_of
from parallelhassnes.store import atomic, attempts, batches, ledger, locks, tickets
from parallelhassnes.store.records import now_text, parse_time


class Target(BaseModel):
    """What an operator's word is about: a batch, one of its jobs, or one step of that."""

    batch_id: str
    job_id: str | None = None
    step_id: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.batch_id, self.job_id, self.step_id)))


class Operated(BaseModel):
    """What came of it."""

    ok: bool = True
    target: str
    attempts: list[str] = []
    """Attempts told to end (cancel), or that are followed by another (retry)."""
    steps: list[str] = []
    """Steps that will not start (cancel), or will again (retry)."""


def cancel(ctx: Context, target: Target) -> Operated:
    """End what runs, start nothing more; what has ended stays as it is. Doing it twice changes nothing."""
    result = Operated(target=str(target))
    with locks.held(ctx.layout.tick_lock):
        book = Book(ctx, target.batch_id)
        if target.job_id is None:
            control = batches.read_control(book.batch_dir)
            batches.write_control(book.batch_dir, control.model_copy(update={"canceled": True}))
        stopped: list[tuple[JobSpec, StepSpec]] = []
        for job in _jobs(ctx, target):
            canceled = dict(book.overrides(job.job_id).canceled)
            for step in _steps(job, target):
                if _cancel_step(ctx, job, step, result):
                    canceled[step.step_id] = now_text()
                    stopped.append((job, step))
            book.replace_canceled(job.job_id, canceled)
        for job, step in stopped:
            _remove_ready(ctx, job, step)
            book.look_again(job, step)
            if target.job_id is not None:
                book.spread(job, step)
        book.save()
        ledger.append(
            book.batch_dir,
            "canceled",
            by=ledger.person(),
            target=str(target),
            attempts=result.attempts,
            steps=result.steps,
        )
    return result


def _cancel_step(ctx: Context, job: JobSpec, step: StepSpec, result: Operated) -> bool:
    """Tell a live attempt to end; True where the step is not to start (again)."""
    step_dir = ctx.layout.step(job.batch_id, job.job_id, step.step_id)
    ref = attempts.newest(step_dir)
    if ref is not None and not attempts.is_sealed(ref.dir):
        atomic.write_json(ref.dir / attempts.CANCEL, {"at": now_text()})
        state = attempts.read_state(ref.dir)
        processes.send(state.pid, state.pid_start, signal.SIGTERM)
        result.attempts.append(ref.name)
        return True
    retrying = (
        ref is not None and (now := Book(ctx, job.batch_id).look_again(job, step)) and now.retry_at
    )
    if ref is None or retrying:
        result.steps.append(f"{job.job_id}/{step.step_id}")
        return True
    return False


def _remove_ready(ctx: Context, job: JobSpec, step: StepSpec) -> None:
    _, name = ticket_of(job, step)
    path = tickets.ready_path(ctx.layout, step.queue_key, name)
    path.unlink(missing_ok=True)
    tickets.tidy(path.parent)
    for _, delayed in tickets.delayed(ctx.layout):
        if delayed.name.split(".", 1)[1] == name:
            delayed.unlink(missing_ok=True)


def retry(ctx: Context, target: Target, *, failed_only: bool = False) -> Operated:
    """Let ended steps run again, as new attempts; a canceled or blocked one may start after all.

    Args:
        failed_only: over a batch or job: only what did not succeed. A step named itself is retried whatever it came to.
    """
    result = Operated(target=str(target))
    with locks.held(ctx.layout.tick_lock):
        book = Book(ctx, target.batch_id)
        control = batches.read_control(book.batch_dir)
        if control.canceled:
            batches.write_control(book.batch_dir, control.model_copy(update={"canceled": False}))
            book.canceled = False
        for job in _jobs(ctx, target):
            for step in _steps(job, target):
                _retry_step(
                    ctx,
                    book,
                    job,
                    step,
                    result,
                    always=not failed_only or target.step_id is not None,
                )
        book.save()
        ledger.append(
            book.batch_dir,
            "retry",
            by=ledger.person(),
            target=str(target),
            attempts=result.attempts,
            steps=result.steps,
        )
    return result


def _retry_step(
    ctx: Context, book: Book, job: JobSpec, step: StepSpec, result: Operated, *, always: bool
) -> None:
    step_dir = ctx.layout.step(job.batch_id, job.job_id, step.step_id)
    overrides = book.overrides(job.job_id)
    was_canceled = step.step_id in overrides.canceled
    if was_canceled:
        kept = {key: value for key, value in overrides.canceled.items() if key != step.step_id}
        book.replace_canceled(job.job_id, kept)
    ref = attempts.newest(step_dir)
    if ref is None:
        if book.evaluate(step)[0] == "ready":
            book.put_ticket(job, step)
            if was_canceled:
                result.steps.append(f"{job.job_id}/{step.step_id}")
        return
    if not attempts.is_sealed(ref.dir):
        return
    state = attempts.read_state(ref.dir)
    if not always and state.status == "succeeded":
        return
    book.ask_again(job, step, state.run_id)
    now = book.look_again(job, step)
    if now is not None and now.retry_at is not None:
        ticket, name = ticket_of(job, step)
        tickets.put_delayed(ctx.layout, ticket, name, parse_time(now.retry_at))
        book.spread(job, step)
        result.attempts.append(ref.name)
        result.steps.append(f"{job.job_id}/{step.step_id}")


def _jobs(ctx: Context, target: Target) -> list[JobSpec]:
    batch_dir = ctx.layout.batch(target.batch_id)
    if target.job_id is not None:
        return [batches.read_job(_existing(batch_dir / target.job_id))]
    return [batches.read_job(path) for path in batches.job_dirs(ctx.layout, target.batch_id)]


def _existing(job_dir: Path) -> Path:
    if not (job_dir / batches.JOB).is_file():
        raise UserError(f"{job_dir.parent.name} has no job {job_dir.name}")
    return job_dir


def _steps(job: JobSpec, target: Target) -> list[StepSpec]:
    if target.step_id is None:
        return list(job.steps)
    if target.step_id not in job.places:
        raise UserError(f"{job.batch_id}/{job.job_id} has no step {target.step_id}")
    return [job.step(target.step_id)]
