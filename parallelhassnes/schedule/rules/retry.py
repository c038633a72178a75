"""When an ended attempt is followed by another: what an operator said, else what the policy decides."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.config import RetryConfig
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.rules import attempt_history, policy
from parallelhassnes.store.records import AttemptState, Overrides, now_text


class Due(NamedTuple):
    """The next attempt of a step."""

    at: str | None
    """When it may start; None where there is to be none."""
    why: str


def due(step_dir: Path, step: StepSpec, newest: AttemptState, overrides: Overrides) -> Due:
    """Tell what follows the newest attempt, which has ended; derived from the step's folder and ``overrides.json`` alone.

    What the table leaves open follows ``[retry]`` as it was when that attempt ended, as noted in its ``state.json``: a decision
    stays what it was, whatever is edited afterwards and however often it is derived.

    A retry that an operator asked for is due at once, whatever the attempt came to, and starts the counts anew.
    """
    if step.step_id in overrides.canceled:
        return Due(None, "canceled")
    asked = overrides.retries.get(step.step_id)
    if asked == newest.run_id:
        return Due(newest.ended_at, "asked for")
    if newest.failure is None and newest.status == "succeeded" and step.retry.top_up is None:
        return Due(None, "")
    past = attempt_history.read(step_dir, step, newest, asked)
    decision = policy.decide(past, step.retry.under(newest.retry or RetryConfig()))
    if decision.retry_at is None:
        return Due(None, decision.why)
    return Due(now_text(datetime.fromtimestamp(decision.retry_at, UTC)), decision.why)
