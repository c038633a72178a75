"""From the facts of a job's trials and analyses to its verdict, and reading verdicts of any version.

The same facts always give the same verdict.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.steps.trial_data.facts import RESULTS, TrialFacts
from parallelhassnes.steps.usage import total
from parallelhassnes.steps.verdict import discrimination, flakiness, quality
from parallelhassnes.steps.verdict.analysis_results import EngineOpinion
from parallelhassnes.steps.verdict.discrimination import Interval
from parallelhassnes.steps.verdict.flakiness import Actions
from parallelhassnes.steps.verdict.quality import QualityFinding

SCHEMA_VERSION = "2.1.0"
BROKEN = {"broken": True, "good": False}
MOST_WARNINGS = 20
"""Of those that trials have."""
_OF_TRIAL = "step_id attempt agent model result reward rewards passed undecided failure_class superseded"
_OF_OPINION = "step_id trial engine attempt outcome subtype confidence root_cause"


def judge(
    batch_id: str,
    job_id: str,
    trials: Sequence[TrialFacts],
    actions: Actions | None = None,
    opinions: Sequence[EngineOpinion] = (),
) -> dict[str, Any]:
    """Return the content of ``verdict.json``; see ``schemas/verdict.schema.json``."""
    groups = _groups(trials)
    same = flakiness.same_actions(trials, actions or {})
    found = quality.judge(trials, same, opinions)
    return {
        "schema_version": SCHEMA_VERSION,
        "batch_id": batch_id,
        "job_id": job_id,
        "task": {
            "name": _one(fact.task_name for fact in trials),
            "checksum": _one(fact.task_checksum for fact in trials),
            "source": _one(fact.task_source for fact in trials),
        },
        "task_quality": found.quality,
        "confidence": found.confidence,
        "primary_issue": found.primary_issue,
        "recommendations": list(found.recommendations),
        "findings": [_finding(each) for each in found.findings],
        "task_broken": BROKEN.get(found.quality),
        "reasons": [each.text for each in found.findings],
        "baselines": {"nop": quality.nop(trials), "oracle": quality.oracle(trials)},
        "flakiness": {
            "agents": [{**vars(each), "rewards": dict(each.rewards)} for each in flakiness.varying(groups)],
            "same_actions": [
                {
                    "what": each.what,
                    "steps": [fact.step_id for fact in each.trials],
                    "rewards": [fact.reward for fact in each.trials],
                }
                for each in same
            ],
        },
        "counts": _counts(trials),
        "agents": [_agent(group, opinions) for group in groups],
        "trials": [_trial(fact) for fact in trials],
        "analyses": _analyses(opinions),
        "prose": None,
        "warnings": _warnings(trials),
    }


def _named(thing: object, names: str) -> dict[str, Any]:
    """Tell what an object has under these names."""
    return {name: getattr(thing, name) for name in names.split()}


def _finding(finding: QualityFinding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "task_quality": finding.quality,
        "issue": finding.issue,
        "confidence": finding.confidence,
        "text": finding.text,
        "evidence": list(finding.evidence),
        "analyses": [opinion.attempt for opinion in finding.analyses if opinion.attempt],
    }


def _groups(trials: Sequence[TrialFacts]) -> list[list[TrialFacts]]:
    """Return the trials by agent and model, in the order in which these first appear."""
    groups: dict[tuple[str | None, str | None], list[TrialFacts]] = {}
    for fact in trials:
        groups.setdefault((fact.agent, fact.model), []).append(fact)
    return list(groups.values())


def _agent(group: Sequence[TrialFacts], opinions: Sequence[EngineOpinion]) -> dict[str, Any]:
    rewards = [fact.reward for fact in group if fact.result == "scored" and fact.reward is not None]
    counts = _counts(group)
    decided, passes = counts["scored"] - counts["undecided"], counts["passes"]
    spent = total(fact.spent for fact in group)
    durations = [fact.duration_sec for fact in group if fact.duration_sec is not None]
    doubted = {o.trial for o in opinions if o.outcome == "bad_success"}
    return {
        "agent": group[0].agent,
        "model": group[0].model,
        "versions": sorted({fact.agent_version for fact in group if fact.agent_version}),
        **counts,
        "passes_doubted": sum(fact.passed is True and fact.step_id in doubted for fact in group),
        "pass_rate": passes / decided if decided else None,
        "pass_rate_interval": listed(discrimination.wilson(passes / decided, decided) if decided else None),
        "bracket": discrimination.bracket(passes, decided, len(group) - counts["skipped"])._asdict(),
        "rewards": means_by_name(group),
        "mean_reward": discrimination.mean(rewards),
        "mean_reward_interval": listed(discrimination.mean_interval(rewards)),
        "pass_at": discrimination.pass_at_all(decided, passes),
        "pass_hat": discrimination.pass_hat_all(decided, passes),
        "cost_usd": spent.cost_usd,
        "cost_known": spent.cost_known,
        "cost_unknown": spent.cost_unknown,
        "cost_per_success_usd": spent.cost_usd / passes if spent.cost_usd is not None and passes else None,
        "tokens": spent.tokens._asdict(),
        "duration_sec": discrimination.spread(durations),
        "failures": dict(sorted(Counter(f.failure_class for f in group if f.failure_class).items())),
    }


def means_by_name(trials: Iterable[TrialFacts]) -> dict[str, float]:
    """Return the mean of each reward over the scored trials that have it, in the order in which the names first appear."""
    found: dict[str, list[float]] = {}
    for fact in trials:
        if fact.result == "scored":
            for name, value in fact.rewards.items():
                found.setdefault(name, []).append(float(value))
    return {name: mean for name, own in found.items() if (mean := discrimination.mean(own)) is not None}


def listed(interval: Interval | None) -> list[float] | None:
    """Return an interval as JSON has it."""
    return None if interval is None else list(interval)


def _counts(trials: Sequence[TrialFacts]) -> dict[str, int]:
    results = Counter(fact.result for fact in trials)
    counts: dict[str, int] = {name: results[name] for name in RESULTS}
    return {
        "n": len(trials),
        "passes": sum(fact.passed is True for fact in trials),
        **counts,
        "undecided": sum(fact.result == "scored" and not fact.decided for fact in trials),
        "superseded": sum(fact.superseded for fact in trials),
    }


def _trial(fact: TrialFacts) -> dict[str, Any]:
    return _named(fact, _OF_TRIAL) | {"rewards": dict(fact.rewards)}


def _analyses(opinions: Sequence[EngineOpinion]) -> dict[str, Any]:
    return {
        "n": len(opinions),
        "missing": [opinion.step_id for opinion in opinions if opinion.missing],
        "outcomes": dict(sorted(Counter(o.outcome for o in opinions if not o.missing).items())),
        "said": [_named(opinion, _OF_OPINION) for opinion in opinions if not opinion.missing],
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
    said = Counter(line for fact in trials for line in filter(None, (fact.undecided, *fact.warnings)))
    warnings += [f"{line} ({words_of(count)})" for line, count in said.most_common(MOST_WARNINGS)]
    return warnings


def words_of(count: int) -> str:
    return f"{count} trial{'s' if count > 1 else ''}"


def _one(values: Iterable[str | None]) -> str | None:
    """Return the value that all who have one share; of several, the first."""
    return next((value for value in values if value), None)


VERDICT_FILE = "verdict.json"


def read(job_dir: Path) -> dict[str, Any] | None:
    """Return the job's verdict in the shape of this version; None where there is none."""
    found = safe_read.read_object(job_dir / VERDICT_FILE)
    return None if found is None else upgraded(found)


def upgraded(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict of any version as one of this: what an older one did not say is empty.

    Before 2.0.0 a task was broken, sound or neither, and there were no findings, intervals and analyses.
    """
    if str(verdict.get("schema_version", "")).partition(".")[0] != "1":
        return dict(verdict)
    found = ended_line.QUALITY_OF_1[verdict["task_broken"]]
    added = {
        "task_quality": found,
        "confidence": 0.0,
        "primary_issue": None,
        "recommendations": [],
        "findings": [],
        "flakiness": {"agents": [], "same_actions": []},
        "analyses": {"n": 0, "missing": [], "outcomes": {}, "said": []},
        "prose": None,
    }
    agents = [_agent_of_1(agent) for agent in verdict["agents"]]
    return {**verdict, **added, "agents": agents, "schema_version": SCHEMA_VERSION}


def _agent_of_1(agent: Mapping[str, Any]) -> dict[str, Any]:
    scored, passes, cost = agent["scored"], agent["passes"], agent["cost_usd"]
    return {
        **agent,
        "superseded": agent.get("superseded", 0),
        "passes_doubted": 0,
        "pass_rate": passes / scored if scored else None,
        "pass_rate_interval": listed(discrimination.wilson(passes / scored, scored) if scored else None),
        "mean_reward_interval": None,
        "pass_hat": discrimination.pass_hat_all(scored, passes),
        "cost_per_success_usd": cost / passes if cost is not None and passes else None,
    }
