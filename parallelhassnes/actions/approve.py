"""``approve`` and ``reject``: a person's decision on steps with ``gate: human``.

    overrides.json of the job     approved, or rejected and canceled      (one rename: the decision)
    ledger.jsonl of the batch     approved / rejected, by whom and why

Under ``tick.lock``. An approved step that is ready gets its ticket before the decision is written: a crash between
leaves a ticket whose step may not start, which the next pass drops, and nothing decided. A decision can be
changed until the step has started.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from parallelhassnes import formatting
from parallelhassnes.actions.attribution import ActionResult, said
from parallelhassnes.errors import UserError
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.refs import Found, resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState
from parallelhassnes.schedule.tick import pass_and_wake
from parallelhassnes.store import attempts, batches, decider
from parallelhassnes.store.evidence import ledger


class Decided(ActionResult):
    """What came of a decision."""

    ok: bool = True
    target: str
    steps: list[str] = []
    """``job_id/step_id`` of the steps that it was about; none where nothing waited for it."""
    started: int = 0
    """Attempts that could start because of it."""
    event: ClassVar[Literal["approved", "rejected"]] = "approved"
    """In the ledger."""

    @property
    def touched(self) -> int:
        return len(self.steps)

    def lines(self) -> list[str]:
        said = [f"{self.event} {step}" for step in self.steps] or [f"nothing of {self.target} waits for a person"]
        return [*said, f"{formatting.counted(self.started, 'attempt')} started"] if self.started else said


class _Rejected(Decided):
    event = "rejected"


def approve(ctx: Context, text: str, reason: str = "") -> Decided:
    """Let a step start; of a job or batch every step that waits for a person now.

    Raises:
        UserError: the step has no gate, or has started.
    """
    done = _decide(ctx, Decided(target=text), reason)
    done.started = len(pass_and_wake(ctx))
    return done


def reject(ctx: Context, text: str, reason: str) -> Decided:
    """Have a step never start, nor what needs it; of a job or batch every step that waits for a person now.

    Raises:
        UserError: the step has no gate, or has started; or no reason is given.
    """
    if not reason.strip():
        raise UserError("a rejection needs a reason", fix='add --reason "…"')
    return _decide(ctx, _Rejected(target=text), reason)


def _decide(ctx: Context, result: Decided, reason: str) -> Decided:
    found = resolve(ctx.layout, result.target)
    result.target = str(found)
    word, approved = said(reason), result.event == "approved"
    with decider.deciding(ctx.layout):
        book = JobState(ctx, found.batch_id)
        for job, step in list(_meant(ctx, book, found)):
            if approved and not book.canceled and book.evaluate(job, step, gate=False)[0] == "ready":
                book.put_ticket(job, step)
            book.decide_gate(job.job_id, step.step_id, word, approved=approved)
            if not approved:
                book.drop_ready(job, step)
            book.spread(job, step)
            result.steps.append(f"{job.job_id}/{step.step_id}")
        book.save(whole=True)
        if result.steps:
            ledger.append(
                book.batch_dir,
                result.event,
                by=word.by,
                reason=word.reason or None,
                target=result.target,
                steps=result.steps,
            )
    return result


def _meant(ctx: Context, book: JobState, found: Found) -> Iterator[tuple[JobSpec, StepSpec]]:
    if found.step_id is not None:
        job = batches.read_job(ctx.layout.job(found.batch_id, found.job_id or ""))
        step = job.step(found.step_id)
        _check(book, job, step)
        yield job, step
        return
    for job_dir in batches.job_dirs(ctx.layout, found.batch_id):
        if found.job_id not in (None, job_dir.name):
            continue
        job = batches.read_job(job_dir)
        for step in job.steps:
            waits = book.is_gated(job, step) and not book.is_canceled(job.job_id, step.step_id)
            if waits and book.evaluate(job, step, gate=False)[0] == "ready":
                yield job, step


def _check(book: JobState, job: JobSpec, step: StepSpec) -> None:
    name = f"{job.batch_id}/{job.job_id}/{step.step_id}"
    if step.gate is None:
        raise UserError(f"{name} waits for nobody", fix='only steps with "gate": "human" do')
    if attempts.newest(book.step_dir(job, step)) is not None:
        raise UserError(f"{name} has started already", fix="cancel it, or retry it")
