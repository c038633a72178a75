"""The ended attempts of a step, as the decision on a retry reads them from disk."""

from pathlib import Path

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.rules.policy import Past
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.store import attempts
from parallelhassnes.store.records import AttemptState, now_text, parse_time


def read(step_dir: Path, step: StepSpec, newest: AttemptState, asked: str | None) -> list[Past]:
    """Return every attempt since the step began, or since the one that an operator had followed by another; oldest first.

    Args:
        newest: the state of the newest attempt, which has ended.
        asked: run id of the attempt after which the counts start anew.
    """
    names = attempts.names(step_dir)
    found = [_past(step_dir / "attempts" / names[-1], step, newest)]
    for name in reversed(names[:-1]):
        folder = step_dir / "attempts" / name
        state = attempts.read_state(folder)
        if state.run_id == asked:
            break
        found.append(_past(folder, step, state))
    return found[::-1]


def _past(folder: Path, step: StepSpec, state: AttemptState) -> Past:
    failure = state.failure
    scored = step.retry.top_up is None or facts.is_scored(folder, step)
    return Past(
        run_id=state.run_id,
        status=state.status,
        failure_class=failure.failure_class if failure else None,
        ended_at=parse_time(state.ended_at or now_text()),
        retry_after=failure.retry_after_sec if failure else None,
        shut_down=state.shut_down,
        began=state.started_at is not None,
        scored=scored,
    )
