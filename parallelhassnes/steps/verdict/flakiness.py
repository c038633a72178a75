"""Whether a task's rewards depend on more than what was done: differing rewards of one agent, and of the same actions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parallelhassnes.steps.trial_data import rewards
from parallelhassnes.steps.trial_data.facts import TrialFacts

BASELINES = ("oracle", "nop")
"""Agents without a model: each of their runs on a task does the same."""
type Actions = Mapping[str, tuple[str, ...]]
"""step_id → what the agent did, in order; only of trials whose trajectory says it."""


@dataclass(frozen=True)
class Varying:
    """One agent's scored trials whose rewards differ."""

    agent: str | None
    model: str | None
    rewards: Mapping[str, int]
    """Reward as text → trials."""


@dataclass(frozen=True)
class Same:
    """Trials that did the same and were rewarded differently."""

    what: str
    """``oracle``, ``nop`` or ``3 commands``."""
    trials: tuple[TrialFacts, ...]

    @property
    def is_baseline(self) -> bool:
        return self.what in BASELINES


def varying(groups: Sequence[Sequence[TrialFacts]]) -> list[Varying]:
    """Return the agents whose scored trials differ in their reward; this alone says nothing against the task."""
    found = []
    for group in groups:
        counts = Counter(f"{fact.reward:g}" for fact in group if fact.reward is not None)
        if len(counts) > 1:
            found.append(Varying(group[0].agent, group[0].model, dict(sorted(counts.items()))))
    return found


def same_actions(trials: Sequence[TrialFacts], actions: Actions) -> list[Same]:
    """Return the sets of scored trials with the same actions whose rewards differ."""
    groups: dict[tuple[str, tuple[str, ...]], list[TrialFacts]] = {}
    for fact in trials:
        if fact.reward is None:  # without a main one, timings and counts would pass for rewards
            continue
        if fact.agent in BASELINES:
            groups.setdefault((fact.agent, ()), []).append(fact)
        elif actions.get(fact.step_id):
            groups.setdefault(("", actions[fact.step_id]), []).append(fact)
    return [
        Same(name or f"{len(done)} command{'s' if len(done) > 1 else ''}", tuple(own))
        for (name, done), own in groups.items()
        if _differ([fact.reward for fact in own if fact.reward is not None])
    ]


def _differ(values: Sequence[float]) -> bool:
    """By more than the order of a sum can make."""
    return max(values) - min(values) > rewards.TOLERANCE * max(map(abs, values))


def may_differ(trials: Sequence[TrialFacts]) -> bool:
    """Tell whether trajectories are worth reading: the scored trials of real agents do not all have one reward."""
    own = [f.reward for f in trials if f.reward is not None and f.agent not in BASELINES]
    return bool(own) and _differ(own)
