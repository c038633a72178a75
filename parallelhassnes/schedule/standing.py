"""How a step stands, derived from its attempts and from what operators have said; nothing else decides it."""

from pathlib import Path
from typing import Literal

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule import loops, retry
from parallelhassnes.store import attempts
from parallelhassnes.store.records import Current, Overrides, StepNow

type Readiness = Literal["ready", "waiting", "dead"]


def stand(step_dir: Path, step: StepSpec, overrides: Overrides) -> StepNow | None:
    """The step by its newest attempt; None where it has not been attempted."""
    ref = attempts.newest(step_dir)
    if ref is None:
        return None
    state = attempts.read_state(ref.dir)
    ended = attempts.is_sealed(ref.dir)
    decision = retry.due(step_dir, step, state, overrides) if ended else retry.Due(None, "")
    unmet = ""
    if ended and step.loop is not None and decision.at is None and state.status == "succeeded":
        decision, unmet = loops.turn(step_dir, step, state, overrides, decision)
    failure = state.failure.model_copy(update={"evidence": None}) if state.failure else None
    return StepNow(
        status=state.status if ended or not state.terminal else "running",
        attempt=ref.name,
        run_id=state.run_id,
        number=ref.number,
        ended_at=state.ended_at if ended else None,
        failure=failure if ended else None,
        settled=ended and decision.at is None,
        retry_at=decision.at,
        because=decision.why,
        unmet=unmet,
    )


type Dependency = Literal["success", "end", "never", "open"]


def dependency(current: Current, overrides: Overrides, canceled: bool, step_id: str) -> Dependency:
    """What a step of this job means to those that wait for it: it succeeded, ended otherwise, will never start, or none yet."""
    now = current.steps.get(step_id)
    if now is not None:
        if not now.settled:
            return "open"
        return "success" if now.status == "succeeded" and not now.unmet else "end"
    if step_id in current.dead or step_id in overrides.canceled or canceled:
        return "never"
    return "open"


def kills(step: StepSpec, found: Dependency) -> bool:
    """Whether a dependency that stands so means that the step can never start."""
    match step.after:
        case "success":
            return found in ("end", "never")
        case "attempt":
            return found == "never"
        case "end":
            return False


def readiness(step: StepSpec, seen: list[Dependency]) -> Readiness:
    """Whether a step that waits for these may start now, must wait, or never can."""
    if any(kills(step, found) for found in seen):
        return "dead"
    return "waiting" if "open" in seen else "ready"
