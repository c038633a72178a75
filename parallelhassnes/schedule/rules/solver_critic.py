"""Loops: a solver and its critic take turns until the critic's report says enough, for so many rounds at most.

Each turn is an attempt of its step, so a loop has no files of its own: how it stands follows from the attempts on
disk. ``meta.json`` of each says which attempt of the other it was given (``inputs``):

    solver 1 ─▶ critic 1 (given solver 1): not enough ─▶ solver 2 (given critic 1) ─▶ critic 2 (given solver 2): enough

A critic's attempt that succeeded, is not satisfied and has rounds left is not settled: what depends on the loop waits. While
the solver's newest attempt is the one that the critic was given, the solver is due; once a newer one has succeeded, it is the critic's turn. Settle writes the ticket of whose turn it is; doing that twice changes nothing, and a rebuild finds the
same. Without rounds left, or with a solver that failed, the critic stands as ``unmet``, which stops what depends
on it. Failures within a turn are retried as anywhere; an operator's ``retry`` of the critic starts the count anew.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.plan import Loop, StepSpec
from parallelhassnes.schedule.rules import retry
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.records import AttemptState, Overrides, StepNow


class Judged(NamedTuple):
    """What a critic's report says about going on."""

    enough: bool
    fault: str = ""
    """Why that could not be told."""


def turn(
    step_dir: Path, step: StepSpec, state: AttemptState, overrides: Overrides, before: retry.Due
) -> tuple[retry.Due, str]:
    """Tell what follows the newest attempt of a step in a loop, which succeeded and is not to be retried; and why it is unmet.

    Args:
        before: what follows it outside of any loop.
    """
    loop = step.loop
    assert loop is not None  # noqa: S101 - it was asked for
    if step.step_id == loop.solver:
        return _solvers_turn(step_dir, loop, overrides, before), ""
    return _critics_turn(step_dir, loop, state, overrides, before)


def _critics_turn(
    step_dir: Path, loop: Loop, state: AttemptState, overrides: Overrides, before: retry.Due
) -> tuple[retry.Due, str]:
    rounds = _rounds(step_dir, overrides.retries.get(loop.critic))
    why = _over(step_dir, loop, rounds)
    if why is not None:
        unmet = why
        told = f"round {rounds}: {why}" if why else f"satisfied in round {rounds} of {loop.max_rounds}"
        return retry.Due(None, told), unmet
    if loop.critic in overrides.canceled or loop.solver in overrides.canceled:
        return before, f"canceled after round {rounds}"
    lost = _solver_failed(step_dir, loop, overrides)
    if lost:
        return retry.Due(None, lost), lost
    told = f"round {rounds + 1} of {loop.max_rounds}, after {loop.solver}"
    return retry.Due(state.ended_at, told), ""


def _solvers_turn(step_dir: Path, loop: Loop, overrides: Overrides, before: retry.Due) -> retry.Due:
    critic_dir = step_dir.parent / loop.critic
    ref = attempts.newest(critic_dir)
    if ref is None or not attempts.is_sealed(ref.dir) or not _gave(ref.dir, step_dir):
        return before
    state = attempts.read_state(ref.dir)
    rounds = _rounds(critic_dir, overrides.retries.get(loop.critic))
    if state.status != "succeeded" or _over(critic_dir, loop, rounds) is not None:
        return before
    if {loop.critic, loop.solver} & overrides.canceled.keys():
        return before
    return retry.Due(state.ended_at, f"round {rounds + 1} of {loop.max_rounds}: {loop.critic} was not satisfied")


def _gave(critic_attempt: Path, solver_dir: Path) -> bool:
    """Tell whether the solver's newest attempt is the one that this attempt of the critic was given."""
    newest = attempts.newest(solver_dir)
    job_id = solver_dir.parents[1].name
    given = attempts.read_meta(critic_attempt).inputs.get(f"{job_id}/{solver_dir.name}")
    return newest is not None and newest.name == given


def _rounds(critic_dir: Path, asked: str | None) -> int:
    """Rounds that the critic has judged: its attempts that succeeded, since an operator had one followed by another."""
    count = 0
    for name in reversed(attempts.names(critic_dir)):
        state = attempts.read_state(critic_dir / "attempts" / name)
        if state.run_id == asked:
            break
        count += state.status == "succeeded"
    return count


def _over(critic_dir: Path, loop: Loop, rounds: int) -> str | None:
    """Tell why the loop is over, empty where the critic is satisfied; None while it goes on."""
    ref = attempts.newest(critic_dir)
    assert ref is not None  # noqa: S101 - it has been attempted
    judged = judge(ref.dir, loop.until, rounds)
    if judged.enough:
        return ""
    if judged.fault:
        return f"until cannot be told: {judged.fault}"
    return f"not satisfied after {rounds} rounds" if rounds >= loop.max_rounds else None


@lru_cache(maxsize=256)
def judge(attempt_dir: Path, until: str, rounds: int) -> Judged:
    """Tell whether a critic's sealed attempt says enough."""
    from jinja2 import TemplateError

    from parallelhassnes.steps import final_report
    from parallelhassnes.tables.expanders import templates

    context: dict[str, Any] = {**final_report.of(attempt_dir), "round": rounds}
    try:
        return Judged(templates.holds(until, context))
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        return Judged(False, " ".join(str(error).split())[:200])


def _solver_failed(critic_dir: Path, loop: Loop, overrides: Overrides) -> str:
    """Tell why the critic's next turn will not come; empty where it may come."""
    job = batches.read_job(critic_dir.parents[1])
    solver_dir = critic_dir.parent / loop.solver
    ref = attempts.newest(solver_dir)
    if ref is None or not attempts.is_sealed(ref.dir):
        return ""
    state = attempts.read_state(ref.dir)
    if state.status == "succeeded":
        return ""
    if retry.due(solver_dir, job.step(loop.solver), state, overrides).at is not None:
        return ""
    return f"{loop.solver} ended as {state.status}"


def waits_for_solver(step: StepSpec, now: StepNow, overrides: Overrides) -> bool:
    """Tell whether a critic's next attempt is that of the next round, so that the solver's comes first."""
    return (
        step.loop is not None
        and step.step_id == step.loop.critic
        and now.status == "succeeded"
        and now.retry_at is not None
        and overrides.retries.get(step.step_id) != now.run_id
    )
