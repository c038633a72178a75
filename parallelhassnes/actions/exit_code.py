"""What a batch came to, as an exit code for the commands that wait for it."""

from typing import Literal

from parallelhassnes.plan import StepSpec
from parallelhassnes.results import collect
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.store import batches, index
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus, StepStatus
from parallelhassnes.views.projection import StepRow

type FailOn = Literal["never", "infrastructure", "any"]

UNDER_TEST = frozenset({"agent_timeout", "capped", "agent_error", "verifier", "refusal", "context_length", "canceled"})
"""Failure classes of a trial that say something about what is tested, or were wanted."""


def exit_code(ctx: Context, batch_ids: list[str], fail_on: FailOn) -> int:
    """0 or 1.

    ``infrastructure``: 1 if a step has no result for a reason that is not the tested agent's (the provider, the
    host, the task's definition, a blocked step, a command that failed). ``any``: also if an agent failed or a
    trial did not pass, or has several rewards and nobody has said which one decides.
    """
    if fail_on == "never":
        return 0
    return int(any(_batch_fails(ctx, batch_id, fail_on) for batch_id in batch_ids))


def _batch_fails(ctx: Context, batch_id: str, fail_on: FailOn) -> bool:
    status = batch_status.read_told(ctx.layout, batch_id)
    for job_id in status.jobs:
        job = batches.read_job(ctx.layout.job(batch_id, job_id))
        for step in job.steps:
            entry = status.of(job_id, index.of(step))
            if entry.row is None:
                if entry.state != "canceled":
                    return True
            elif _step_fails(status, entry, entry.row, step, fail_on):
                return True
    return False


def _step_fails(status: BatchStatus, entry: StepStatus, row: StepRow, step: StepSpec, fail_on: FailOn) -> bool:
    """Of a trial whose score an attempt gave that another followed, the score counts."""
    if step.kind == "trial":
        if row.scored:
            found = collect.of_step(status, entry, facts.plan_of(step))
            return fail_on == "any" and found.passed is not True
        if fail_on == "any":
            return True
    if row.status in ("succeeded", "canceled"):
        return False
    if fail_on == "any" or step.kind == "command" or row.failure_class is None:
        return True
    return row.failure_class not in UNDER_TEST
