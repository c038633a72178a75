"""How ``oracle`` (the task's own solution) and ``nop`` (which does nothing) came out, from their real trials alone."""

from collections.abc import Sequence
from typing import Any

from parallelhassnes.steps.trial_data.facts import TrialFacts
from parallelhassnes.steps.verdict.quality import TASKS_FAULT


def oracle(facts: Sequence[TrialFacts]) -> dict[str, Any]:
    """``{present, ok, evidence}`` of the oracle; ``ok`` is None where it was never scored."""
    own = [fact for fact in facts if fact.agent == "oracle"]
    scored = [fact for fact in own if fact.decided]
    passes = sum(fact.passed is True for fact in scored)
    stuck = [fact for fact in own if fact.result == "unscored" and fact.failure_class in TASKS_FAULT]
    evidence = _evidence("oracle", own, scored, passes)
    evidence += [f"{fact.step_id}: oracle was not scored ({fact.failure_class})" for fact in stuck]
    ok = None if not scored and not stuck else passes == len(scored) and not stuck
    return {"present": bool(own), "ok": ok, "evidence": evidence}


def nop(facts: Sequence[TrialFacts]) -> dict[str, Any]:
    """``{present, ok, evidence}`` of the agent that does nothing; ``ok`` is None where it was never scored."""
    own = [fact for fact in facts if fact.agent == "nop"]
    scored = [fact for fact in own if fact.decided]
    passes = sum(fact.passed is True for fact in scored)
    ok = passes == 0 if scored else None
    return {"present": bool(own), "ok": ok, "evidence": _evidence("nop", own, scored, passes)}


def _evidence(name: str, own: Sequence[TrialFacts], scored: Sequence[TrialFacts], passes: int) -> list[str]:
    if not own:
        return [f"{name} was not run"]
    undecided = sum(fact.undecided is not None for fact in own)
    said = f"{name} passed {passes} of {len(scored)} scored trials ({len(own)} planned)"
    return [said, *([f"{undecided} of {name} are undecided"] if undecided else [])]
