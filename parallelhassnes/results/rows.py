"""``results --trials``: a line per trial, and every attempt as a line, for whoever counts in a notebook of their own."""

from typing import Any, Literal

from parallelhassnes.results import collect
from parallelhassnes.results.collect import Choice, TrialRow
from parallelhassnes.steps import safe_read, usage
from parallelhassnes.store import members
from parallelhassnes.store.evidence import ledger
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
    capped: bool = False
    """Its agent was ended by a cap, be there a reward or none."""
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
    reused: str = ""
    """The attempt of another batch that it was taken from instead of being run: ``batch_id/job_id/step_id/attempt``."""


class ChosenLines(View):
    """What was asked for."""

    schema_version: Literal[1] = 1
    at: str
    of: str
    batches: list[str]
    passed_over: list[str] = []
    """What of the store could not be read and is not in here, a line each."""


class TrialLines(ChosenLines):
    """What ``results --trials --json`` prints."""

    trials: list[TrialLine]


def trial_lines(layout: Layout, chosen: Choice) -> TrialLines:
    """Return every trial of the choice, in the tables' order."""
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
    known = {name: getattr(facts, name) for name in TrialLine.model_fields if hasattr(facts, name)}
    own = {
        "experiment": row.experiment,
        "batch": row.batch_id,
        "job": row.job_id,
        "step": facts.step_id,
        "task": row.task,
        "agent": row.agent,
        "labels": dict(row.labels),
        "rewards": dict(facts.rewards),
        "cost_spent_usd": facts.spent.cost_usd,
        "cost_incomplete": facts.spent.cost_unknown > 0,
        "warnings": list(facts.warnings),
        "seconds": facts.duration_sec,
        "attempt": row.attempt,
        "reused": row.reused,
    }
    tokens = {f"{name}_tokens": count for name, count in facts.tokens._asdict().items()}
    return TrialLine(**known | own | tokens)


class AttemptRow(View):
    """One attempt, live or ended."""

    id: str
    """``batch_id/job_id/step_id/attempt``, as every command takes it."""
    batch: str
    job: str
    step: str
    attempt: str
    """Name of its folder."""
    number: int
    """1 for the first attempt of the step."""
    kind: str
    """``trial``, ``agent``, ``command``, ``analysis``, ``verdict`` or ``baseline``."""
    label: str | None
    """Name of the agent under test; trials only."""
    task: str | None
    """Trials only."""
    queue_key: str
    status: str
    """``running``, or how it ended: ``succeeded``, ``failed``, ``canceled`` or ``lost``."""
    failure_class: str | None
    failure: str | None
    """The failure in one line."""
    launched_at: str | None
    """RFC 3339, UTC."""
    ended_at: str | None
    result: str | None
    """Of a trial: ``scored``, or why there is no reward."""
    reward: float | None
    """The main reward of a scored trial."""
    passed: bool | None
    """None where the trial has no score, or several rewards and no rule."""
    seconds: float | None
    """Wall time of the trial or of the model's work."""
    cost_usd: float | None
    """None where it is not known."""
    tokens: int | None
    """Input and output; None where it is not known."""


class AttemptLines(ChosenLines):
    """Attempts, in the order in which they were launched."""

    attempts: list[AttemptRow]


def attempt_lines(layout: Layout, chosen: Choice) -> AttemptLines:
    """Return every attempt that the chosen batches have launched; attempts taken over by a rerun belong to the earlier batch."""
    found: list[AttemptRow] = []
    with members.collecting() as passed_over:
        for batch_id in chosen.batch_ids:
            with chosen.apart(layout, batch_id):
                found += _of_batch(layout, batch_id)
    return AttemptLines(
        at=now_text(),
        of=chosen.said,
        batches=list(chosen.batch_ids),
        attempts=found,
        passed_over=[*chosen.passed_over, *passed_over],
    )


def _of_batch(layout: Layout, batch_id: str) -> list[AttemptRow]:
    launched: dict[str, dict[str, Any]] = {}
    for _, event in ledger.read(layout.batch(batch_id)):
        if event.get("event") == "launched":
            launched[event["attempt"]] = {**event, "launched_at": event["at"], "status": "running"}
        elif event.get("event") == "ended":  # a crash can have its line written twice, or the other one not at all
            launched[event["attempt"]] = {**launched.get(event["attempt"], {}), **event}
    return [_attempt_row(batch_id, facts) for facts in launched.values()]


def _attempt_row(batch_id: str, facts: dict[str, Any]) -> AttemptRow:
    trial, failure = safe_read.mapping(facts.get("trial")), safe_read.mapping(facts.get("failure"))
    used = safe_read.mapping(facts.get("used"))
    return AttemptRow(
        id=f"{batch_id}/{facts['job_id']}/{facts['step_id']}/{facts['attempt']}",
        batch=batch_id,
        job=facts["job_id"],
        step=facts["step_id"],
        attempt=facts["attempt"],
        number=facts["number"],
        kind=facts.get("kind", ""),
        label=facts.get("label"),
        task=facts.get("task"),
        queue_key=facts.get("queue_key") or "",
        status=facts["status"],
        failure_class=failure.get("failure_class"),
        failure=failure.get("line"),
        launched_at=facts.get("launched_at"),
        ended_at=facts.get("ended_at"),
        result=trial.get("result"),
        reward=trial.get("reward"),
        passed=trial.get("passed"),
        seconds=safe_read.number(trial.get("duration_sec") or used.get("seconds")),
        cost_usd=usage.usd(facts.get("cost_usd")),
        tokens=usage.tokens(facts.get("tokens")),
    )
