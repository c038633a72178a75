"""Whether an ended attempt is followed by another by itself, and when.

Only failures of the infrastructure are retried, with a fixed backoff (none for a first attempt that was lost), up to the step's
``max_attempts``; a retry that an operator asked for is due at once and regardless of all that.
"""

from datetime import UTC, datetime

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps.failures import RETRIED_CLASSES
from parallelhassnes.store.records import AttemptState, Overrides, now_text, parse_time


def due_at(step: StepSpec, state: AttemptState, number: int, overrides: Overrides) -> str | None:
    """When the attempt after this ended one may start; None where there is to be none."""
    if overrides.retries.get(step.step_id) == state.run_id:
        return state.ended_at
    if step.step_id in overrides.canceled or number >= step.retry.max_attempts:
        return None
    failure_class = state.failure.failure_class if state.failure else None
    if state.status != "lost" and not (
        state.status == "failed" and failure_class in RETRIED_CLASSES
    ):
        return None
    ended = parse_time(state.ended_at or now_text())
    # After a crash of the host its work is to go on at once; what is lost again and again waits.
    backoff = 0.0 if state.status == "lost" and number == 1 else step.retry.backoff_sec
    return now_text(datetime.fromtimestamp(ended + backoff, UTC))
