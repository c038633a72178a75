"""How a step stands, derived from its attempts and from what operators have said; nothing else decides it.

``stand`` reads a step's attempts. All else is the pure rule, over what is ``Known`` of each step: passes know it from
``current.json`` (``known``), views from the ledger (``views.batch_status``), and both ask the same functions.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.rules import retry, solver_critic
from parallelhassnes.store import attempts
from parallelhassnes.store.records import Overrides, StepNow

type Readiness = Literal["ready", "waiting", "dead"]


def stand(step_dir: Path, step: StepSpec, overrides: Overrides) -> StepNow | None:
    """Return the step by its newest attempt; None where it has not been attempted."""
    ref = attempts.newest(step_dir)
    if ref is None:
        return None
    state = attempts.read_state(ref.dir)
    ended = attempts.is_sealed(ref.dir)
    decision = retry.due(step_dir, step, state, overrides) if ended else retry.Due(None, "")
    unmet = ""
    if ended and step.loop is not None and decision.at is None and state.status == "succeeded":
        decision, unmet = solver_critic.turn(step_dir, step, state, overrides, decision)
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


class Known(NamedTuple):
    """What is known of one step."""

    status: str = ""
    """``running``, how its newest attempt ended (``needs_attention`` where that is unmet), or empty: never attempted."""
    due: bool = False
    """The newest attempt has ended, and another is due."""
    called_off: bool = False
    """Somebody, or the job's own rule, said that it is not to start (again)."""
    dead: bool = False
    """It can never start, because of another step."""

    @property
    def settled(self) -> bool:
        """It has been attempted, and nothing follows by itself."""
        return self.status not in ("", "running") and (not self.due or self.called_off)


def known(now: StepNow | None, *, called_off: bool, dead: bool) -> Known:
    """Tell what a job's files say of a step.

    Args:
        now: its entry in ``current.json``, where it has one.
        called_off: it, or the whole batch, is not to start.
        dead: it never can start.
    """
    if now is None:
        return Known(called_off=called_off, dead=dead)
    status = "needs_attention" if now.unmet else now.status
    return Known(status, status != "running" and not now.settled, called_off)


type Dependency = Literal["success", "end", "never", "open"]


def dependency(found: Known) -> Dependency:
    """Tell what a step means to those that wait for it: it succeeded, ended otherwise, will never start, or none of that yet."""
    if found.settled:
        return "success" if found.status == "succeeded" else "end"
    if not found.status and (found.called_off or found.dead):
        return "never"
    return "open"


def kills(after: str, found: Dependency) -> bool:
    """Tell whether a dependency that stands so means that a step can never start.

    Args:
        after: what the step waits for: ``success``, ``attempt`` or ``end`` of its dependencies.
    """
    match after:
        case "success":
            return found in ("end", "never")
        case "attempt":
            return found == "never"
    return False


def readiness(after: str, seen: Collection[Dependency]) -> Readiness:
    """Tell whether a step that waits for these may start now, must wait, or never can start."""
    if any(kills(after, found) for found in seen):
        return "dead"
    return "waiting" if "open" in seen else "ready"
