"""``results``: the trials of a choice of batches, grouped, with rates, intervals, tokens, money and time.

A trial without a reward is never a zero, unless that is asked for; how many there are stands beside every rate. A rate
or mean over several tasks has an interval in which the trials of one task count as alike (``statistics``).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from parallelhassnes import formatting, names
from parallelhassnes.errors import UserError
from parallelhassnes.results import collect
from parallelhassnes.results.collect import Choice, TrialRow
from parallelhassnes.results.statistics import clustered_interval
from parallelhassnes.results.trial_plans import RULE_OF_PASSING
from parallelhassnes.steps.usage import total
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.store import members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views.scoreboard_models import View

DEFAULT_BY = ("agent", "model")
LABEL = "label:"
MOST_RULES = 5
"""Pass rules that a note names."""
BY_REWARD = "reward"
"""The dimension in which a trial stands once for each of its rewards."""
DIMENSIONS: dict[str, Callable[[TrialRow], str]] = {
    "agent": lambda row: row.agent,
    "model": lambda row: row.facts.model or "",
    "agent_version": lambda row: row.facts.agent_version or "",
    "task": lambda row: row.task,
    "task_checksum": lambda row: row.facts.task_checksum or "",
    "task_source": lambda row: row.facts.task_source or "",
    "experiment": lambda row: row.experiment,
    "batch": lambda row: row.batch_id,
    "job": lambda row: row.job_id,
    "reward": lambda row: row.facts.main or "",
    "label": lambda row: ", ".join(f"{key}={row.labels[key]}" for key in sorted(row.labels)),
}


class RewardMean(View):
    """One reward, by its name."""

    n: int
    """Scored trials that have it."""
    mean: float


class GroupLine(View):
    """The trials that share a key."""

    key: dict[str, str]
    """Dimension → value; empty text where a trial has none (an agent without a model)."""
    tasks: int
    """Different tasks."""
    n: int
    """Trials planned, those skipped as not needed included."""
    scored: int
    """Trials with a reward, or several."""
    undecided: int
    """Of these those with several rewards and no main one: whether they passed is not known."""
    undecided_because: str | None
    """How to decide that; null where there is nothing to decide."""
    unscored: int
    """Ended without a reward through task, agent, model or verifier."""
    infrastructure: int
    canceled: int
    skipped: int
    missing: int
    """Without a finished attempt."""
    superseded: int
    """Finished attempts that another attempt of their trial stands for."""
    capped: int = 0
    """Trials whose agent was ended by a cap, scored or not."""
    passes: int
    """Main rewards that are enough (``pass``; at least 1 where nobody says)."""
    counted: int
    """Trials that the rates are over: the scored ones that are decided, or, if that was asked for, the unscored ones, too."""
    rewards: dict[str, RewardMean]
    """Name → that reward of the scored trials."""
    pass_rate: float | None
    """Passes of the counted trials; null where there are none."""
    pass_rate_low: float | None
    """Lower end of its 95 % interval."""
    pass_rate_high: float | None
    pass_rate_planned: float | None
    """Passes of all trials that were not skipped: what the rate is at least."""
    passes_worst: int
    """Passes if all trials that are unscored, undecided, canceled or missing had failed."""
    passes_best: int
    """Passes if all of these had passed."""
    bracket_of: int
    """Trials that the worst and the best case are over: all that were not skipped."""
    mean_reward: float | None
    """Of the main rewards."""
    mean_reward_low: float | None
    """Null where a reward is not from 0 to 1."""
    mean_reward_high: float | None
    k: int
    """Counted trials of the task that has the fewest; tasks without any are left out."""
    pass_at: dict[str, float]
    """k → unbiased estimate of the chance that at least one of k trials of a task passes, mean over the tasks."""
    pass_hat: dict[str, float]
    """k → the chance that all of k trials pass, likewise (pass^k)."""
    failures: dict[str, int]
    """Failure class → trials without a score; kept apart from the scores."""
    failures_guessed: dict[str, int] = {}
    """Failure class → those of these whose class nobody named: it was guessed from where they stood."""
    cost_usd: float | None
    """What all ended attempts of these trials have cost, superseded ones included, as far as it is known."""
    cost_known: int
    """Attempts whose cost is known."""
    cost_unknown: int
    """Attempts that have cost something nobody knows, in whole or in part: the sum is at least ``cost_usd``."""
    cost_counted_usd: float | None
    """What the attempts that count have cost, without the superseded ones."""
    cost_per_success_usd: float | None
    """``cost_usd`` per pass; null where there is no pass."""
    input_tokens: int | None
    """Of all ended attempts, as ``cost_usd``; those from the cache included."""
    cache_tokens: int | None
    output_tokens: int | None
    seconds_mean: float | None
    """Wall time of a trial."""
    seconds_p50: float | None
    seconds_p90: float | None
    seconds_max: float | None


class Results(View):
    """What ``results --json`` prints."""

    schema_version: Literal[1] = 1
    at: str
    """RFC 3339, UTC."""
    of: str
    """What was asked about, in words."""
    batches: list[str]
    by: list[str]
    unscored_as_zero: bool
    """Whether trials without a reward were counted as 0, because that was asked for."""
    passed_over: list[str] = []
    """What of the store could not be read and is not in here, a line each."""
    notes: list[str] = []
    """What makes the numbers less alike than they look, a line each: different pass rules."""
    groups: list[GroupLine]
    """Best first; with the task among the dimensions by task, then best first."""


def results(
    layout: Layout, chosen: Choice, by: Sequence[str] = DEFAULT_BY, *, unscored_as_zero: bool = False
) -> Results:
    """Return the results of the choice.

    Raises:
        UserError: a dimension is not known.
    """
    keys = {name: dimension(name) for name in by}
    with members.collecting() as passed_over:
        rows = collect.read(layout, chosen)
    return Results(
        at=now_text(),
        of=chosen.said,
        passed_over=[*chosen.passed_over, *passed_over],
        batches=list(chosen.batch_ids),
        by=list(by),
        unscored_as_zero=unscored_as_zero,
        notes=_notes(rows),
        groups=grouped(rows, keys, unscored_as_zero=unscored_as_zero),
    )


def _notes(rows: Sequence[TrialRow]) -> list[str]:
    reused = Counter(row.reused.partition("/")[0] for row in rows if row.reused)
    notes = []
    if reused:
        where = ", ".join(f"{batch} ({count})" for batch, count in reused.most_common(MOST_RULES))
        notes.append(f"{reused.total()} of {formatting.counted(len(rows), 'trial')} reused, not run: from {where}.")
    if again := len(rows) - len(collect.each_once(rows)):
        notes.append(
            f"{formatting.counted(again, 'trial')} taken over from, or judging again, another of these batches: "
            "each agent's run counts once in a group, as it was judged first."
        )
    rules = Counter(row.settings.get(RULE_OF_PASSING, "") for row in rows)
    if len(rules) < 2:
        return notes
    some = [f"{rule} ({formatting.counted(count, 'trial')})" for rule, count in rules.most_common(MOST_RULES)]
    more = len(rules) - len(some)
    return [*notes, f"The trials have different pass rules: {', '.join(some)}{f' and {more} more' if more else ''}."]


def dimension(name: str) -> Callable[[TrialRow], str]:
    """Tell what gives a row's value in a dimension.

    Raises:
        UserError: there is no such dimension.
    """
    if name.startswith(LABEL) and name != LABEL:
        return lambda row: row.labels.get(name.removeprefix(LABEL), "")
    if name not in DIMENSIONS:
        fix = names.did_you_mean(name, DIMENSIONS, f"use {', '.join(DIMENSIONS)} or label:NAME")
        raise UserError(f"--by {name}: is not known", fix=fix)
    return DIMENSIONS[name]


def grouped(
    rows: Sequence[TrialRow], keys: Mapping[str, Callable[[TrialRow], str]], *, unscored_as_zero: bool = False
) -> list[GroupLine]:
    """Return a line per combination of values, sorted as ``Results.groups``."""
    groups: dict[tuple[str, ...], list[TrialRow]] = {}
    for row in _by_reward(rows, keys) if BY_REWARD in keys else rows:
        groups.setdefault(tuple(value(row) for value in keys.values()), []).append(row)
    lines = [
        line(
            dict(zip(keys, values, strict=True)),
            own,
            unscored_as_zero=unscored_as_zero,
            ruled=BY_REWARD not in keys or _is_ruled(own),
        )
        for values, own in ((values, collect.each_once(own)) for values, own in groups.items())
    ]
    task_order = list(dict.fromkeys(line.key.get("task", "") for line in lines))
    places = {task: place for place, task in enumerate(task_order)}
    return sorted(lines, key=lambda line: (places[line.key.get("task", "")], _worse(line)))


def _by_reward(rows: Sequence[TrialRow], keys: Mapping[str, Callable[[TrialRow], str]]) -> Iterator[TrialRow]:
    """Yield each row once for each reward that it has, as if this were the trial's only one; an unscored one for each of its group's.

    Whether the trial passed is said where the reward is the main one.
    """
    others = [value for name, value in keys.items() if name != BY_REWARD]
    names: dict[tuple[str, ...], dict[str, None]] = {}
    for row in rows:
        own = names.setdefault(tuple(value(row) for value in others), {})
        own.update(dict.fromkeys(row.facts.rewards))
    for row in rows:
        fact = row.facts
        for name in names[tuple(value(row) for value in others)] or {"": None}:
            value = fact.rewards.get(name)
            if row.scored and name and value is None:
                continue
            mine = name == fact.main
            only = replace(
                fact,
                main=name,
                reward=None if value is None else float(value),
                rewards={} if value is None else {name: value},
                passed=fact.passed if mine else None,
                undecided=fact.undecided
                if mine
                else f"undecided: {name} is not the main reward"
                if row.scored
                else None,
            )
            yield replace(row, facts=only)


def _is_ruled(rows: Sequence[TrialRow]) -> bool:
    """Tell whether a rule decides by the reward that the rows share, or nothing is known of any."""
    return any(row.facts.decided for row in rows) or not any(row.scored for row in rows)


def _worse(line: GroupLine) -> tuple[float, float]:
    return tuple(-value if value is not None else 1.0 for value in (line.mean_reward, line.pass_rate))  # type: ignore[return-value]


def line(
    key: dict[str, str], rows: Sequence[TrialRow], *, unscored_as_zero: bool = False, ruled: bool = True
) -> GroupLine:
    """Return one group.

    Args:
        ruled: a trial of it can pass; else there is neither a rate nor its worst and best case.
    """
    results = Counter(row.facts.result for row in rows)
    due = [row for row in rows if row.facts.result != "skipped"]
    undecided = [row for row in rows if row.scored and not row.facts.decided]
    zeros = [row for row in due if not row.scored] if unscored_as_zero else []
    counted = [row for row in rows if row.facts.decided] + (zeros if ruled else [])
    valued = [row for row in rows if row.facts.reward is not None] + zeros
    passed = [float(row.facts.passed is True) for row in counted]
    rewards = [row.facts.reward or 0.0 for row in valued]
    passes = int(sum(passed))
    rate = clustered_interval(passed, [row.task for row in counted])
    mean = clustered_interval(rewards, [row.task for row in valued])
    k, pass_at, pass_hat = _at_k(counted)
    bracket = discrimination.bracket(passes, sum(row.facts.decided for row in rows), len(due) if ruled else 0)
    spent = total(row.facts.spent for row in rows)
    seconds = [row.facts.duration_sec for row in rows if row.facts.duration_sec is not None]
    times = discrimination.spread(seconds) or {}
    failed = [row.facts for row in rows if not row.scored]
    classes = Counter(fact.failure_class for fact in failed if fact.failure_class)
    guessed = Counter(fact.failure_class for fact in failed if fact.failure_class and fact.guessed)
    return GroupLine(
        key=key,
        tasks=len({row.task for row in rows}),
        n=len(rows),
        scored=results["scored"],
        undecided=len(undecided),
        undecided_because=undecided[0].facts.undecided if undecided else None,
        unscored=results["unscored"],
        infrastructure=results["infrastructure"],
        canceled=results["canceled"],
        skipped=results["skipped"],
        missing=results["missing"],
        superseded=sum(row.facts.superseded for row in rows),
        capped=sum(row.facts.capped for row in rows),
        passes=passes,
        counted=len(counted),
        rewards=_means(rows),
        pass_rate=discrimination.mean(passed),
        pass_rate_low=rate[0] if rate else None,
        pass_rate_high=rate[1] if rate else None,
        pass_rate_planned=passes / len(due) if due and ruled else None,
        passes_worst=bracket.worst,
        passes_best=bracket.best,
        bracket_of=bracket.of,
        mean_reward=discrimination.mean(rewards),
        mean_reward_low=mean[0] if mean else None,
        mean_reward_high=mean[1] if mean else None,
        k=k,
        pass_at=pass_at,
        pass_hat=pass_hat,
        failures=dict(classes.most_common()),
        failures_guessed=dict(guessed.most_common()),
        cost_usd=spent.cost_usd,
        cost_known=spent.cost_known,
        cost_unknown=spent.cost_unknown,
        cost_counted_usd=discrimination.total([row.facts.cost_usd for row in rows]),
        cost_per_success_usd=spent.cost_usd / passes if spent.cost_usd is not None and passes else None,
        **{f"{name}_tokens": count for name, count in spent.tokens._asdict().items()},
        **{f"seconds_{name}": times.get(name) for name in ("mean", "p50", "p90", "max")},  # type: ignore[arg-type]
    )


def _means(rows: Sequence[TrialRow]) -> dict[str, RewardMean]:
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.facts.rewards.items():
            found.setdefault(name, []).append(float(value))
    return {name: RewardMean(n=len(own), mean=discrimination.mean(own) or 0.0) for name, own in found.items()}


def _at_k(counted: Sequence[TrialRow]) -> tuple[int, dict[str, float], dict[str, float]]:
    """k, and pass@ and pass^ for each number of trials up to it, as means over the tasks."""
    outcomes: dict[str, list[bool]] = {}
    for row in counted:
        outcomes.setdefault(row.task, []).append(row.facts.passed is True)
    if not outcomes:
        return 0, {}, {}
    counts = [(len(own), sum(own)) for own in outcomes.values()]
    k = min(n for n, _ in counts)
    return (
        k,
        {str(j): _mean([discrimination.pass_at(n, passes, j) for n, passes in counts]) for j in range(1, k + 1)},
        {str(j): _mean([discrimination.pass_hat(n, passes, j) for n, passes in counts]) for j in range(1, k + 1)},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
