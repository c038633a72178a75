"""Whether a task is sound: ``oracle`` (its own solution) must pass, ``nop`` (which does nothing) must not."""

from collections.abc import Sequence
from typing import Any

from parallelhassnes.steps.verdict.facts import TrialFacts

TASKS_FAULT = frozenset({"verifier", "task_definition", "agent_error", "agent_timeout"})
"""Classes that leave the oracle unscored through the task: its solution or its tests do not run."""


def oracle(facts: Sequence[TrialFacts]) -> dict[str, Any]:
    """``{present, ok, evidence}`` of the oracle; ``ok`` is None where it was never scored."""
    own = [fact for fact in facts if fact.agent == "oracle"]
    scored = [fact for fact in own if fact.result == "scored"]
    passes = sum(fact.passed for fact in scored)
    stuck = [
        fact for fact in own if fact.result == "unscored" and fact.failure_class in TASKS_FAULT
    ]
    evidence = _evidence("oracle", own, scored, passes)
    evidence += [f"{fact.step_id}: oracle was not scored ({fact.failure_class})" for fact in stuck]
    ok = None if not scored and not stuck else passes == len(scored) and not stuck
    return {"present": bool(own), "ok": ok, "evidence": evidence}


def nop(facts: Sequence[TrialFacts]) -> dict[str, Any]:
    """``{present, ok, evidence}`` of the agent that does nothing; ``ok`` is None where it was never scored."""
    own = [fact for fact in facts if fact.agent == "nop"]
    scored = [fact for fact in own if fact.result == "scored"]
    passes = sum(fact.passed for fact in scored)
    ok = passes == 0 if scored else None
    return {"present": bool(own), "ok": ok, "evidence": _evidence("nop", own, scored, passes)}


def task_broken(baselines: dict[str, dict[str, Any]]) -> tuple[bool | None, list[str]]:
    """Whether the task is broken, and why one may say so; None where a baseline is missing or unscored."""
    reasons = []
    if baselines["oracle"]["ok"] is False:
        reasons.append("the task's own solution does not pass its tests every time")
    if baselines["nop"]["ok"] is False:
        reasons.append("the task's tests pass although nothing was done")
    if reasons:
        return True, reasons
    unknown = [name for name, baseline in sorted(baselines.items()) if baseline["ok"] is None]
    if unknown:
        return None, [
            f"{name} {'was not scored' if baselines[name]['present'] else 'was not run'}"
            for name in unknown
        ]
    return False, ["oracle passed and nop did not"]


def _evidence(
    name: str, own: Sequence[TrialFacts], scored: Sequence[TrialFacts], passes: int
) -> list[str]:
    if not own:
        return [f"{name} was not run"]
    return [f"{name} passed {passes} of {len(scored)} scored trials ({len(own)} planned)"]
