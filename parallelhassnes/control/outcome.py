"""What a batch came to, as an exit code for the commands that wait for it."""

from pathlib import Path
from typing import Literal

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.store import batches
from parallelhassnes.store.records import StepNow

type FailOn = Literal["never", "infrastructure", "any"]

UNDER_TEST = frozenset(
    {"agent_timeout", "agent_error", "verifier", "refusal", "context_length", "canceled"}
)
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
    canceled = batches.read_control(ctx.layout.batch(batch_id)).canceled
    for job_dir in batches.job_dirs(ctx.layout, batch_id):
        job = batches.read_job(job_dir)
        current, overrides = batches.read_current(job_dir), batches.read_overrides(job_dir)
        for step in job.steps:
            now = current.steps.get(step.step_id)
            if now is None:
                if not canceled and step.step_id not in overrides.canceled:
                    return True
                continue
            if now.unmet or _step_fails(job_dir, step, now, fail_on):
                return True
    return False


def _step_fails(job_dir: Path, step: StepSpec, now: StepNow, fail_on: FailOn) -> bool:
    """Of a trial whose score an attempt gave that another followed, the score counts."""
    if step.kind != "trial":
        return _fails(now, step.kind, fail_on)
    found = facts.of_step(job_dir, step)
    if found.result == "scored":
        return fail_on == "any" and found.passed is not True
    return fail_on == "any" or _fails(now, step.kind, fail_on)


def _fails(now: StepNow, kind: str, fail_on: FailOn) -> bool:
    if now.status in ("succeeded", "canceled"):
        return False
    if fail_on == "any" or kind == "command" or now.failure is None:
        return True
    return now.failure.failure_class not in UNDER_TEST
