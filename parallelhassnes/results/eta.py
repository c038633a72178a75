"""What a plan may cost, by what its tasks, agents and models have cost so far in this store."""

from collections.abc import Iterator
from statistics import fmean
from typing import NamedTuple

from parallelhassnes.plan import Plan
from parallelhassnes.results import collect
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.trial_data.facts import TrialFacts, TrialPlan
from parallelhassnes.store import members
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status

RECENT = 30
"""Batches that are looked at, the newest ones."""


class Forecast(NamedTuple):
    """The trials of a plan by one agent and model."""

    agent: str
    model: str
    trials: int
    like_these: int
    """Earlier trials by the same agent and model whose cost is known, of the plan's own tasks where there are such."""
    same_tasks: bool
    """They are trials of the plan's own tasks."""
    mean_usd: float | None
    """Of one trial; None where none is known."""
    mean_sec: float | None

    @property
    def usd(self) -> float | None:
        """Of all its trials."""
        return None if self.mean_usd is None else self.mean_usd * self.trials


class _Likeness(NamedTuple):
    """What trials have in common that are alike, as their tables say it."""

    agent: str
    model: str
    task: str


def forecast(layout: Layout, plan: Plan) -> list[Forecast]:
    """By agent and model, in the plan's order."""
    planned = [_kind(facts.plan_of(step)) for job in plan.jobs for step in job.steps if step.kind == "trial"]
    if not planned:
        return []
    past: list[tuple[_Likeness, TrialFacts]] = []
    for batch_id in layout.batch_ids()[-RECENT:]:
        with members.apart(batch_id, lambda _: None):
            past += _past(layout, batch_id)
    found = []
    for agent, model in dict.fromkeys((kind.agent, kind.model) for kind in planned):
        own = [kind for kind in planned if (kind.agent, kind.model) == (agent, model)]
        tasks = {kind.task for kind in own}
        alike = [(kind, fact) for kind, fact in past if (kind.agent, kind.model) == (agent, model)]
        same = [(kind, fact) for kind, fact in alike if kind.task in tasks]
        used = [fact for _, fact in same or alike]
        costs = [fact.spent.cost_usd for fact in used if fact.spent.cost_usd is not None]
        times = [fact.duration_sec for fact in used if fact.duration_sec is not None]
        found.append(
            Forecast(
                agent,
                model,
                len(own),
                len(costs) or len(times),
                bool(same),
                fmean(costs) if costs else None,
                fmean(times) if times else None,
            )
        )
    return found


def _past(layout: Layout, batch_id: str) -> Iterator[tuple[_Likeness, TrialFacts]]:
    """Return the trials of a batch, with what was said of each."""
    return (
        (_kind(plan.trials[step_id].plan), fact)
        for _, plan, found in collect.of_batch(layout, batch_status.read_told(layout, batch_id))
        for step_id, fact in found.items()
    )


def _kind(plan: TrialPlan) -> _Likeness:
    return _Likeness(plan.agent or "", plan.model or "", plan.task_name or "")
