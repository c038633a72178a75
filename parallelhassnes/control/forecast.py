"""What a plan may cost, by what its tasks, agents and models have cost so far in this store."""

from collections.abc import Iterator
from statistics import fmean
from typing import NamedTuple

from parallelhassnes.control import trial_rows
from parallelhassnes.control.trial_rows import Choice
from parallelhassnes.plan import Plan
from parallelhassnes.steps.verdict import facts
from parallelhassnes.store.layout import Layout

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


class _Trial(NamedTuple):
    agent: str
    model: str
    task: str


def forecast(layout: Layout, plan: Plan) -> list[Forecast]:
    """By agent and model, in the plan's order."""
    planned = list(_planned(plan))
    if not planned:
        return []
    chosen = Choice(tuple(layout.batch_ids()[-RECENT:]), "the newest batches")
    rows = [row.facts for row in trial_rows.read(layout, chosen)]
    found = []
    for agent, model in dict.fromkeys((trial.agent, trial.model) for trial in planned):
        own = [trial for trial in planned if (trial.agent, trial.model) == (agent, model)]
        tasks = {trial.task for trial in own}
        alike = [row for row in rows if (row.agent or "", row.model or "") == (agent, model)]
        same = [row for row in alike if row.task_name in tasks]
        used = same or alike
        costs = [row.cost_usd for row in used if row.cost_usd is not None]
        times = [row.duration_sec for row in used if row.duration_sec is not None]
        found.append(
            Forecast(
                agent, model, len(own), len(costs) or len(times), bool(same),
                fmean(costs) if costs else None, fmean(times) if times else None,
            )
        )  # fmt: skip
    return found


def _planned(plan: Plan) -> Iterator[_Trial]:
    for job in plan.jobs:
        for step in job.steps:
            if step.kind == "trial":
                about = facts.planned(facts.TrialFacts(step.step_id, "missing"), step)
                yield _Trial(about.agent or "", about.model or "", about.task_name or "")
