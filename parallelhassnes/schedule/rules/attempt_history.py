"""The ended attempts of a step, as the decision on a retry reads them from disk."""

from pathlib import Path

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.rules.policy import Past
from parallelhassnes.steps import safe_read
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
        exception=_exception(folder) if step.retry.only or step.retry.never else "",
        scored=scored,
    )


def _exception(folder: Path) -> str:
    """The type of the exception that a trial ended by; empty where it ended by none, or nothing says."""
    report = safe_read.read_object(folder / "final.json", safe_read.MAX_JSON_BYTES) or {}
    trial = safe_read.mapping(report.get("trial"))
    steps = [
        safe_read.mapping(step.get("exception"))
        for step in map(safe_read.mapping, safe_read.sequence(trial.get("steps")))
    ]
    found = (safe_read.text(each.get("type"), 200) for each in (safe_read.mapping(trial.get("exception")), *steps))
    return next(filter(None, found), "")
