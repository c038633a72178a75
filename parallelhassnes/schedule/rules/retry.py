"""When an ended attempt is followed by another: what an operator said, else what the policy decides."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.config import RetryConfig
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.rules import policy
from parallelhassnes.schedule.rules.policy import Past
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.store import attempts
from parallelhassnes.store.records import AttemptState, Overrides, now_text, parse_time


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
    past = _past_of(step_dir, step, newest, asked)
    decision = policy.decide(past, step.retry.under(newest.retry or RetryConfig()))
    if decision.retry_at is None:
        return Due(None, decision.why)
    return Due(now_text(datetime.fromtimestamp(decision.retry_at, UTC)), decision.why)


def _past_of(step_dir: Path, step: StepSpec, newest: AttemptState, asked: str | None) -> list[Past]:
    """Return every attempt since the step began, or since the one that an operator had followed by another; oldest first.

    Args:
        newest: the state of the newest attempt, which has ended.
        asked: run id of the attempt after which the counts start anew.
    """
    names = attempts.names(step_dir)
    found = [_one(step_dir / "attempts" / names[-1], step, newest)]
    for name in reversed(names[:-1]):
        folder = step_dir / "attempts" / name
        state = attempts.read_state(folder)
        if state.run_id == asked:
            break
        found.append(_one(folder, step, state))
    return found[::-1]


def _one(folder: Path, step: StepSpec, state: AttemptState) -> Past:
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
    """Return the type of the exception that a trial ended by; empty where it ended by none, or nothing says."""
    report = safe_read.read_object(folder / "final.json", safe_read.MAX_JSON_BYTES) or {}
    trial = safe_read.mapping(report.get("trial"))
    steps = [
        safe_read.mapping(step.get("exception"))
        for step in map(safe_read.mapping, safe_read.sequence(trial.get("steps")))
    ]
    found = (safe_read.text(each.get("type"), 200) for each in (safe_read.mapping(trial.get("exception")), *steps))
    return next(filter(None, found), "")
