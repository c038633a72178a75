"""From the facts of a job's trials to its verdict; the same facts always give the same verdict."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from parallelhassnes.steps.verdict import baselines, statistics
from parallelhassnes.steps.verdict.facts import RESULTS, TrialFacts

SCHEMA_VERSION = "1.1.0"


def judge(batch_id: str, job_id: str, trials: Sequence[TrialFacts]) -> dict[str, Any]:
    """The content of ``verdict.json``; see ``schemas/verdict.schema.json``."""
    found = {"nop": baselines.nop(trials), "oracle": baselines.oracle(trials)}
    broken, reasons = baselines.task_broken(found)
    return {
        "schema_version": SCHEMA_VERSION,
        "batch_id": batch_id,
        "job_id": job_id,
        "task": {
            "name": _one(fact.task_name for fact in trials),
            "checksum": _one(fact.task_checksum for fact in trials),
            "source": _one(fact.task_source for fact in trials),
        },
        "task_broken": broken,
        "reasons": reasons,
        "baselines": found,
        "counts": _counts(trials),
        "agents": [_agent(group) for group in _groups(trials)],
        "trials": [_trial(fact) for fact in trials],
        "warnings": _warnings(trials),
    }


def _groups(trials: Sequence[TrialFacts]) -> list[list[TrialFacts]]:
    """The trials by agent and model, in the order in which these first appear."""
    groups: dict[tuple[str | None, str | None], list[TrialFacts]] = {}
    for fact in trials:
        groups.setdefault((fact.agent, fact.model), []).append(fact)
    return list(groups.values())


def _agent(group: Sequence[TrialFacts]) -> dict[str, Any]:
    rewards = [fact.reward for fact in group if fact.result == "scored" and fact.reward is not None]
    counts = _counts(group)
    tokens = [statistics.total([fact.tokens[i] for fact in group]) for i in range(3)]
    durations = [fact.duration_sec for fact in group if fact.duration_sec is not None]
    return {
        "agent": group[0].agent,
        "model": group[0].model,
        "versions": sorted({fact.agent_version for fact in group if fact.agent_version}),
        **counts,
        "mean_reward": statistics.mean(rewards),
        "pass_at": statistics.pass_at_all(counts["scored"], counts["passes"]),
        "cost_usd": statistics.total([fact.cost_usd for fact in group]),
        "tokens": dict(zip(("input", "cache", "output"), tokens, strict=True)),
        "duration_sec": statistics.spread(durations),
        "failures": dict(
            sorted(Counter(f.failure_class for f in group if f.failure_class).items())
        ),
    }


def _counts(trials: Sequence[TrialFacts]) -> dict[str, int]:
    results = Counter(fact.result for fact in trials)
    counts: dict[str, int] = {name: results[name] for name in RESULTS}
    return {
        "n": len(trials),
        "passes": sum(fact.passed for fact in trials),
        **counts,
        "superseded": sum(fact.superseded for fact in trials),
    }


def _trial(fact: TrialFacts) -> dict[str, Any]:
    return {
        "step_id": fact.step_id,
        "attempt": fact.attempt,
        "agent": fact.agent,
        "model": fact.model,
        "result": fact.result,
        "reward": fact.reward,
        "passed": fact.passed if fact.result == "scored" else None,
        "failure_class": fact.failure_class,
        "superseded": fact.superseded,
    }


def _warnings(trials: Sequence[TrialFacts]) -> list[str]:
    warnings = []
    for what, values in (
        ("tasks", {fact.task_name for fact in trials}),
        ("versions of the task (checksums)", {fact.task_checksum for fact in trials}),
    ):
        known = sorted(value for value in values if value)
        if len(known) > 1:
            warnings.append(f"the trials are of {len(known)} {what}: {', '.join(known[:5])}")
    return warnings


def _one(values: Iterable[str | None]) -> str | None:
    """The value that all who have one share; of several, the first."""
    return next((value for value in values if value), None)
