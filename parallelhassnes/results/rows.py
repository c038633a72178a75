"""``results --trials``: a line per trial, for whoever counts in a notebook of their own."""

from typing import Literal

from parallelhassnes.results import collect
from parallelhassnes.results.collect import Choice, TrialRow
from parallelhassnes.store import members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views.scoreboard_models import View


class TrialLine(View):
    """One trial, by the attempt of it that counts."""

    experiment: str
    batch: str
    job: str
    step: str
    task: str
    task_checksum: str | None
    task_source: str | None
    agent: str
    agent_version: str | None
    model: str | None
    labels: dict[str, str]
    result: str
    """``scored``, or why there is no reward: ``unscored``, ``infrastructure``, ``canceled``, ``skipped``, ``missing``."""
    reward: float | None
    """The main one; null where it is not scored, or has several and no main one."""
    rewards: dict[str, float]
    """All of them by name."""
    passed: bool | None
    """Whether the main reward is enough; null if not scored, or undecided."""
    undecided: str | None
    """Of several rewards without a main one: how to decide whether it passed."""
    failure_class: str | None
    guessed: bool = False
    """Nobody named the cause: the failure class is a guess."""
    exception: str | None
    """Type of the exception beside, or instead of, the reward."""
    cost_usd: float | None
    """Of the attempt that counts."""
    cost_spent_usd: float | None
    """Of all attempts of the trial, superseded ones included."""
    cost_incomplete: bool
    """It has cost more, or nobody knows what."""
    warnings: list[str]
    """What was reported and cannot be true."""
    input_tokens: int | None
    """Those from the cache included."""
    cache_tokens: int | None
    output_tokens: int | None
    seconds: float | None
    """Wall time."""
    superseded: int
    attempt: str | None
    """Its folder, relative to the root; null where no attempt has finished."""


class TrialLines(View):
    """What ``results --trials --json`` prints."""

    schema_version: Literal[1] = 1
    at: str
    of: str
    batches: list[str]
    passed_over: list[str] = []
    """What of the store could not be read and is not in here, a line each."""
    trials: list[TrialLine]


def trial_lines(layout: Layout, chosen: Choice) -> TrialLines:
    """Every trial of the choice, in the tables' order."""
    with members.collecting() as passed_over:
        rows = collect.read(layout, chosen)
    return TrialLines(
        at=now_text(),
        of=chosen.said,
        batches=list(chosen.batch_ids),
        trials=[_line(row) for row in rows],
        passed_over=[*chosen.passed_over, *passed_over],
    )


def _line(row: TrialRow) -> TrialLine:
    facts = row.facts
    tokens = dict(zip(("input_tokens", "cache_tokens", "output_tokens"), facts.tokens, strict=True))
    return TrialLine(
        experiment=row.experiment,
        batch=row.batch_id,
        job=row.job_id,
        step=facts.step_id,
        task=row.task,
        task_checksum=facts.task_checksum,
        task_source=facts.task_source,
        agent=row.agent,
        agent_version=facts.agent_version,
        model=facts.model,
        labels=dict(row.labels),
        result=facts.result,
        reward=facts.reward,
        rewards=dict(facts.rewards),
        passed=facts.passed,
        undecided=facts.undecided,
        failure_class=facts.failure_class,
        guessed=facts.guessed,
        exception=facts.exception,
        cost_usd=facts.cost_usd,
        cost_spent_usd=facts.spent.cost_usd,
        cost_incomplete=facts.spent.cost_unknown > 0,
        warnings=list(facts.warnings),
        **tokens,
        seconds=facts.duration_sec,
        superseded=facts.superseded,
        attempt=row.attempt,
    )
