"""Early stopping: once a job has enough of an agent's trials, those that have not started are skipped.

By the job's ``enough``: so many passes, or a pass rate that is known closely enough: half of its 95 % Wilson
interval. Only scored trials of the same label count, and of these the decided ones. A skipped step stands in ``overrides.json`` under
``canceled`` and, with the reason, ``enough``; what runs goes on, and a retry that is due still comes. An operator's
``retry`` of a skipped step stays in force.

Stopping at the first success biases the mean reward upwards; use ``successes`` for "can it be done at all", and
``half_width`` for rates.
"""

from typing import TYPE_CHECKING

from parallelhassnes.plan import Enough, JobSpec, StepSpec
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.store import attempts
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import now_text

if TYPE_CHECKING:
    from parallelhassnes.schedule.job_state import JobState


def half_width(passes: int, n: int) -> float:
    """Half of the 95 % Wilson interval of ``passes`` of ``n`` (at least 1)."""
    low, high = discrimination.wilson(passes / n, n)
    return (high - low) / 2


def reason(rule: Enough, passes: int, n: int) -> str | None:
    """Tell why no more trials are needed after ``passes`` of ``n`` scored ones; None where more are needed."""
    if rule.successes is not None and passes >= rule.successes:
        return f"enough: {passes} of {n} scored trials have passed"
    if rule.half_width is not None and n and half_width(passes, n) <= rule.half_width:
        return f"enough: the pass rate of {passes}/{n} is known to ±{half_width(passes, n):.3f}"
    return None


def skip(book: "JobState", job: JobSpec, ended: StepSpec) -> list[StepSpec]:
    """Skip what is not needed any more after this trial; the steps. Under ``tick.lock``."""
    if job.enough is None or ended.kind != "trial":
        return []
    same = [step for step in job.steps if step.kind == "trial" and step.label == ended.label]
    stood = facts.of_steps(book.batch_dir / job.job_id, same)
    passes = sum(found.passed is True for found in stood)
    why = reason(job.enough, passes, sum(found.decided for found in stood))
    if why is None:
        return []
    overrides = book.overrides(job.job_id)
    open_steps = [
        step
        for step in same
        if step.step_id not in overrides.canceled
        and step.step_id not in overrides.enough
        and attempts.newest(book.step_dir(job, step)) is None
    ]
    if open_steps:
        # The line first: a crash behind it has it written again, which says the same.
        ledger.append(
            book.batch_dir,
            "canceled",
            by="enough",
            reason=why,
            target=f"{job.batch_id}/{job.job_id}",
            attempts=[],
            steps=[f"{job.job_id}/{step.step_id}" for step in open_steps],
        )
        now = now_text()
        canceled = overrides.canceled | {step.step_id: now for step in open_steps}
        book.replace_canceled(job.job_id, canceled, {step.step_id: why for step in open_steps})
    return open_steps
