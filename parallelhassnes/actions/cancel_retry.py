"""``cancel`` and ``retry``: an operator's word is a file under ``runs/`` that the next pass obeys.

    control.json of the batch     canceled
    overrides.json of the job     canceled steps; attempts to be followed by another
    cancel.json of the step       its supervisor ends it; a signal only makes that immediate

Written under ``tick.lock``, so that no pass decides on half of it.
"""

import signal
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel

from parallelhassnes import formatting
from parallelhassnes.actions.attribution import ActionResult
from parallelhassnes.errors import UserError
from parallelhassnes.execute import processes
from parallelhassnes.names import suggestion
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.refs import Found, resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState, ticket_of
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.schedule.process import archiving, notifying
from parallelhassnes.schedule.tick import pass_and_wake
from parallelhassnes.steps.failures import CLASSES
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.store import attempts, batches, decider
from parallelhassnes.store.archives import packing
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import delayed, notices, tickets
from parallelhassnes.store.records import AttemptState, now_text
from parallelhassnes.views.scoreboard_models import View


class Operated(View, ActionResult):
    """What came of it."""

    ok: bool = True
    target: str
    attempts: list[str] = []
    """Attempts told to end (cancel), or that are followed by another (retry)."""
    steps: list[str] = []
    """Steps that will not start (cancel), or will again (retry)."""
    started: int = 0
    """Attempts that started at once (retry)."""
    changed: bool = True
    """False where there was nothing to do."""
    line: str = ""
    """What is so now, in words (cancel)."""

    @property
    def touched(self) -> int:
        """Steps that will start again; of a cancel, also attempts that were told to end."""
        return len(self.steps) + (len(self.attempts) if self.line else 0)

    def lines(self) -> list[str]:
        if not (self.line or self.steps):
            return [f"nothing of {self.target} is to be run again"]
        return [
            self.line
            or f"to run again of {self.target}: {formatting.counted(len(self.steps), 'step')}, {self.started} started at once"
        ]


class Only(BaseModel):
    """Which ended steps of a batch or job are retried: those that fit any of these; nothing given means all of them."""

    failed: bool = False
    """What did not succeed."""
    classes: frozenset[str] = frozenset()
    """What ended in one of these failure classes."""
    unscored: bool = False
    """Trials without a score that counts."""
    lost: bool = False

    @property
    def anything(self) -> bool:
        return not (self.failed or self.selective)

    @property
    def selective(self) -> bool:
        """Some ends are picked out, so that what never started is not meant."""
        return bool(self.classes or self.unscored or self.lost)

    def fits(self, step: StepSpec, attempt_dir: Path, state: AttemptState) -> bool:
        failure_class = state.failure.failure_class if state.failure else None
        return (
            self.anything
            or (self.failed and state.status != "succeeded")
            or (self.lost and state.status == "lost")
            or failure_class in self.classes
            or (self.unscored and step.kind == "trial" and not facts.is_scored(attempt_dir, step))
        )

    def words(self) -> list[str] | None:
        """For the ledger; None where every ended step is meant."""
        said = [name for name in ("failed", "unscored", "lost") if getattr(self, name)]
        return said + sorted(self.classes) or None


def cancel(ctx: Context, target: Found | str, reason: str = "", *, ended: bool = False) -> Operated:
    """End what runs, start nothing more; what has ended stays as it is. Doing it twice changes nothing.

    Where nothing runs and nothing would start by itself, nothing is canceled: what ended stays what it came to.

    Args:
        ended: keep steps that have ended, too, from running again by themselves, as one does that speaks of others' ends.
    """
    target = _meant(ctx, target)
    result = Operated(target=str(target))
    with decider.deciding(ctx.layout):
        book = JobState(ctx, target.batch_id)
        found = _to_cancel(book, target, ended=ended)
        if found is None:
            result.changed, result.line = False, f"nothing to cancel: {target} is over"
            return result
        if target.job_id is None:
            control = batches.read_control(book.batch_dir)
            batches.write_control(ctx.layout, target.batch_id, control.model_copy(update={"canceled": True}))
        for job, steps in found:
            canceled = dict(book.overrides(job.job_id).canceled)
            for step in steps:
                _cancel_step(ctx, job, step, result)
                canceled[step.step_id] = now_text()
            book.replace_canceled(job.job_id, canceled)
        waiting = delayed.by_ticket(ctx.layout, target.batch_id)
        for job, steps in found:
            for step in steps:
                _remove_ready(ctx, job, step, waiting)
                book.look_again(job, step)
                if target.job_id is not None:
                    book.spread(job, step)
        book.save(whole=True)
        ledger.append(
            book.batch_dir,
            "canceled",
            by=ledger.person(),
            target=str(target),
            attempts=result.attempts,
            steps=result.steps,
            reason=reason or None,
        )
        if not result.attempts:  # else the end of the last one that runs is the batch's
            notices.note_end(ctx.layout, ctx.config.notify, target.batch_id)
            archiving.wish(ctx, target.batch_id)
    notifying.keep(ctx)
    archiving.keep(ctx)
    result.line = f"canceled {target}: {len(result.attempts)} running told to end, {len(result.steps)} not started"
    return result


def _meant(ctx: Context, target: Found | str) -> Found:
    """Tell what is named; of an attempt its step."""
    found = resolve(ctx.layout, target) if isinstance(target, str) else target
    return found._replace(attempt=None)


def _to_cancel(book: JobState, target: Found, *, ended: bool) -> list[tuple[JobSpec, list[StepSpec]]] | None:
    """Tell what runs, or is to start, or would if another step were retried or, if asked for, has ended; None where nothing goes on by itself."""
    found, goes_on = [], target.step_id is not None
    for job in _jobs(book.ctx, target):
        steps = []
        for step in _steps(job, target):
            now = book.look_again(job, step)
            open_now = now is not None and (now.ended_at is None or now.retry_at is not None)
            never = (now is None or ended) and not book.is_canceled(job.job_id, step.step_id)
            if open_now or never:
                steps.append(step)
                dead = bool(book.current(job.job_id).killer(step.step_id))
                goes_on = goes_on or ended or open_now or not dead
        if steps:
            found.append((job, steps))
    return found if found and goes_on else None


def _cancel_step(ctx: Context, job: JobSpec, step: StepSpec, result: Operated) -> None:
    """Tell a live attempt of the step to end, or note that it does not start (again)."""
    step_dir = ctx.layout.step(job.batch_id, job.job_id, step.step_id)
    ref = attempts.newest(step_dir)
    if ref is not None and not attempts.is_sealed(ref.dir):
        state = attempts.read_state(ref.dir)
        batches.ask_to_end(step_dir, state.run_id)
        if state.supervisor_lives():  # one that cannot be seen from here looks at its next heartbeat
            processes.send(state.pid, state.pid_start, signal.SIGTERM)
        result.attempts.append(ref.name)
        return
    result.steps.append(f"{job.job_id}/{step.step_id}")


def _remove_ready(ctx: Context, job: JobSpec, step: StepSpec, waiting: Mapping[str, list[delayed.Delayed]]) -> None:
    _, name = ticket_of(job, step)
    path = tickets.ready_path(ctx.layout, step.queue_key, name)
    path.unlink(missing_ok=True)
    tickets.tidy(path.parent)
    delayed.drop(ctx.layout, waiting.get(name, ()))


def retry(ctx: Context, target: Found | str, only: Only | None = None, reason: str = "") -> Operated:
    """Let ended steps run again, as new attempts, at once; a canceled or blocked one may start after all.

    Args:
        only: over a batch or job: which. A step named itself is retried whatever it came to.

    Raises:
        UserError: there is no such failure class.
    """
    only = only or Only()
    _check_classes(only.classes)
    target = _meant(ctx, target)
    result = Operated(target=str(target))
    with decider.deciding(ctx.layout):
        book = JobState(ctx, target.batch_id)
        packing.check_unpacked(book.batch_dir)
        control = batches.read_control(book.batch_dir)
        if control.canceled:
            batches.write_control(ctx.layout, target.batch_id, control.model_copy(update={"canceled": False}))
            book.canceled = False
        credentials.bind_again(ctx, target.batch_id)
        waiting = delayed.by_ticket(ctx.layout, target.batch_id)
        for job in _jobs(ctx, target):
            for step in _steps(job, target):
                _retry_step(book, job, step, result, Only() if target.step_id else only, waiting)
        book.save(whole=True)
        ledger.append(
            book.batch_dir,
            "retry",
            by=ledger.person(),
            target=str(target),
            attempts=result.attempts,
            steps=result.steps,
            only=only.words() if only.selective else None,
            reason=reason or None,
        )
    result.started = len(pass_and_wake(ctx))
    return result


def _check_classes(classes: Collection[str]) -> None:
    for name in classes:
        if name not in CLASSES:
            fix = suggestion(name, CLASSES)
            raise UserError(f"there is no failure class {name}", fix=fix)


def _retry_step(
    book: JobState,
    job: JobSpec,
    step: StepSpec,
    result: Operated,
    only: Only,
    waiting: Mapping[str, list[delayed.Delayed]],
) -> None:
    ctx = book.ctx
    step_dir = ctx.layout.step(job.batch_id, job.job_id, step.step_id)
    if only.selective and not _picked(step_dir, step, only):
        return
    overrides = book.overrides(job.job_id)
    was_canceled = step.step_id in overrides.canceled
    if was_canceled:
        kept = {key: value for key, value in overrides.canceled.items() if key != step.step_id}
        book.replace_canceled(job.job_id, kept)
    ref = attempts.newest(step_dir)
    if ref is None:
        if book.evaluate(job, step)[0] == "ready":
            book.put_ticket(job, step)
            if was_canceled:
                result.steps.append(f"{job.job_id}/{step.step_id}")
        return
    if not attempts.is_sealed(ref.dir):
        return
    state = attempts.read_state(ref.dir)
    if not only.fits(step, ref.dir, state):
        return
    book.ask_again(job, step, state.run_id, is_told=True)
    now = book.look_again(job, step)
    if now is not None and now.retry_at is not None:
        ticket, name = ticket_of(job, step)
        _remove_ready(ctx, job, step, waiting)  # one that was due later
        delayed.put(ctx.layout, ticket, name, now)
        book.spread(job, step)
        result.attempts.append(ref.name)
        result.steps.append(f"{job.job_id}/{step.step_id}")


def _picked(step_dir: Path, step: StepSpec, only: Only) -> bool:
    ref = attempts.newest(step_dir)
    if ref is None or not attempts.is_sealed(ref.dir):
        return False
    return only.fits(step, ref.dir, attempts.read_state(ref.dir))


def _jobs(ctx: Context, target: Found) -> list[JobSpec]:
    batch_dir = ctx.layout.batch(target.batch_id)
    if target.job_id is not None:
        return [batches.read_job(_existing(batch_dir / target.job_id))]
    return [batches.read_job(path) for path in batches.job_dirs(ctx.layout, target.batch_id)]


def _existing(job_dir: Path) -> Path:
    if not (job_dir / batches.JOB).is_file():
        raise UserError(f"{job_dir.parent.name} has no job {job_dir.name}")
    return job_dir


def _steps(job: JobSpec, target: Found) -> list[StepSpec]:
    if target.step_id is None:
        return list(job.steps)
    if target.step_id not in job.places:
        raise UserError(f"{job.batch_id}/{job.job_id} has no step {target.step_id}")
    return [job.step(target.step_id)]
