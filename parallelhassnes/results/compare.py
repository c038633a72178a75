"""``compare A B``: two sides paired by task, and whether the difference is more than chance.

The two sides are batches, experiments, trials with a label, or an agent's trials in one. Agents are compared with themselves; where each
side has one agent only, these two are compared. The unit is the task: its mean reward on each side, and whether it
passed there (more than half of its scored trials passed).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.results import collect
from parallelhassnes.results.collect import TrialRow
from parallelhassnes.results.statistics import bootstrap_mean, mcnemar
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.store import members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views.scoreboard_models import View

CHECKSUM = "task_checksum"
_REPORTED = frozenset({CHECKSUM, "agent_version"})
"""Known only of trials that ran."""


class TaskPair(View):
    """One task on both sides."""

    task: str
    a: float
    """Mean reward of the scored trials."""
    b: float
    a_scored: int
    b_scored: int
    changed: bool
    """The task's files differ between the sides (checksums), so the pair compares two tasks."""
    unequal: list[str]
    """What else differs between its sides: see ``PairedAgent.unequal``."""


class PairedTrial(View):
    """One trial of a task, on one side."""

    step: str
    """``batch_id/job_id/step_id``."""
    attempt: str | None
    """Folder of the attempt that counts, relative to the root; null where none has finished."""
    passed: bool | None
    reward: float | None


class Flip(View):
    """A task that passes on one side only, with its trials on both."""

    task: str
    change: Literal["won", "lost"]
    """``won``: it passes in B only."""
    a: list[PairedTrial]
    b: list[PairedTrial]


class SideRate(View):
    """Passes of one side, on the tasks that the sides share."""

    passes: int
    scored: int
    """Trials of which it is known whether they passed."""
    worst: int
    """Passes if all trials without a decided score had failed."""
    best: int
    """Passes if all of these had passed."""
    of: int
    """Trials planned that were not skipped."""
    capped: int = 0
    """Trials whose agent was ended by a cap, scored or not."""


class Unequal(View):
    """Something besides what is compared that differs between the sides, so that the pair compares that, too."""

    what: str
    """``task_checksum``, ``agent_version``, ``attempts``, ``pass_rule``, or a setting of the trials as Harbor names it."""
    a: str
    b: str
    tasks: list[str]
    """Of which tasks."""


class Difference(View):
    """A quantity on both sides, as means over the tasks that have it on both."""

    tasks: int
    a: float | None
    b: float | None
    difference: float | None
    """b − a."""
    low: float | None
    """Ends of its 95 % bootstrap interval over tasks; null of fewer than two."""
    high: float | None


class PairedAgent(View):
    """One agent and model against itself, or against the only other one."""

    a: str
    b: str
    a_rate: SideRate
    b_rate: SideRate
    unequal: list[Unequal]
    """What makes the sides unequal; empty where only the agent, the model or the batch differs."""
    reward: Difference
    """Mean reward."""
    cost_usd: Difference
    """Of a trial, over all its attempts."""
    seconds: Difference
    """Wall time of a trial."""
    passed_both: int
    """Tasks that pass on both sides: more than half of their scored trials pass."""
    passed_neither: int
    won: list[str]
    """Tasks that pass in B only."""
    lost: list[str]
    """Tasks that pass in A only."""
    flips: list[Flip]
    """The tasks of ``lost``, then those of ``won``."""
    p_value: float
    """McNemar's exact test on won and lost."""
    new: list[str]
    """Tasks that are in B only."""
    gone: list[str]
    """Tasks that are in A only."""
    unpaired: list[str]
    """Tasks that are in both, and on one side without a scored trial."""
    tasks: list[TaskPair]


class Comparison(View):
    """What ``compare --json`` prints."""

    schema_version: Literal[1] = 1
    at: str
    a: str
    b: str
    passed_over: list[str] = []
    """What of the store could not be read and is not in here, a line each."""
    agents: list[PairedAgent]
    only_a: list[str]
    """Agents without a counterpart."""
    only_b: list[str]


class _Side(NamedTuple):
    label: str
    tasks: dict[str, list[TrialRow]]


def compare(layout: Layout, a: str, b: str) -> Comparison:
    """Compare two sides; see ``collect.side`` for what names one.

    Raises:
        UnknownId: a side names nothing.
        UserError: a side has no trials, or the sides have no agent in common.
    """
    with members.collecting() as passed_over:
        chosen = collect.side(layout, a), collect.side(layout, b)
        known: dict[str, list[TrialRow]] = {}
        read = [collect.read(layout, each, known) for each in chosen]
    together = collect.told_apart([row for rows in read for row in rows])
    own = together[: len(read[0])], together[len(read[0]) :]
    sides = [by_agent(collect.each_once(rows)) for rows in own]
    for side, each in zip(sides, chosen, strict=True):
        if not side:
            raise UserError(f"{each.said} has no trials", fix="name a batch with trials")
    left, right = sides
    if len(left) == len(right) == 1:
        pairs = [(next(iter(left.values())), next(iter(right.values())))]
        only_a, only_b = [], []
    else:
        pairs = [(left[key], right[key]) for key in left if key in right]
        only_a = [key for key in left if key not in right]
        only_b = [key for key in right if key not in left]
    if not pairs:
        raise UserError(
            f"no agent is on both sides: A has {', '.join(left)}, B has {', '.join(right)}",
            fix="write BATCH@AGENT on both sides to compare different agents",
        )
    return Comparison(
        passed_over=passed_over,
        at=now_text(),
        a=chosen[0].said,
        b=chosen[1].said,
        agents=[paired(one, other) for one, other in pairs],
        only_a=only_a,
        only_b=only_b,
    )


def by_agent(rows: Sequence[TrialRow]) -> dict[str, _Side]:
    found: dict[str, _Side] = {}
    for row in rows:
        label = " · ".join(filter(None, (row.agent, row.facts.model)))
        found.setdefault(label, _Side(label, {})).tasks.setdefault(row.task, []).append(row)
    return found


def paired(a: _Side, b: _Side) -> PairedAgent:
    """Return two agents on the tasks that they share."""
    both = [task for task in a.tasks if task in b.tasks]
    rewards = _pairs(a, b, both, lambda row: row.facts.reward)
    passes = _pairs(a, b, both, lambda row: float(row.facts.passed) if row.facts.passed is not None else None)
    passed = {task: (one > 0.5, other > 0.5) for task, (one, other) in passes.items()}
    won = [task for task, verdicts in passed.items() if verdicts == (False, True)]
    lost = [task for task, verdicts in passed.items() if verdicts == (True, False)]
    unequal = unequal_of(a.tasks, b.tasks, both)
    differing: dict[str, list[str]] = {}
    for one in unequal:
        for task in one.tasks:
            differing.setdefault(task, []).append(one.what)
    return PairedAgent(
        a=a.label,
        b=b.label,
        a_rate=_rate(a, both),
        b_rate=_rate(b, both),
        unequal=unequal,
        reward=_difference(rewards),
        cost_usd=_difference(_pairs(a, b, both, lambda row: row.facts.spent.cost_usd)),
        seconds=_difference(_pairs(a, b, both, lambda row: row.facts.duration_sec)),
        passed_both=sum(verdicts == (True, True) for verdicts in passed.values()),
        passed_neither=sum(verdicts == (False, False) for verdicts in passed.values()),
        won=won,
        lost=lost,
        flips=[*_flips(a, b, lost, "lost"), *_flips(a, b, won, "won")],
        p_value=mcnemar(len(lost), len(won)),
        new=[task for task in b.tasks if task not in a.tasks],
        gone=[task for task in a.tasks if task not in b.tasks],
        unpaired=[task for task in both if task not in rewards],
        tasks=[
            TaskPair(
                task=task,
                a=one,
                b=other,
                a_scored=_scored(a.tasks[task]),
                b_scored=_scored(b.tasks[task]),
                changed=CHECKSUM in differing.get(task, ()),
                unequal=[what for what in differing.get(task, ()) if what != CHECKSUM],
            )
            for task, (one, other) in rewards.items()
        ],
    )


def _pairs(
    a: _Side, b: _Side, tasks: Sequence[str], value: Callable[[TrialRow], float | None]
) -> dict[str, tuple[float, float]]:
    """Return task → the means of both sides, where both have one."""
    found = {}
    for task in tasks:
        one, other = (
            discrimination.mean([known for row in side.tasks[task] if (known := value(row)) is not None])
            for side in (a, b)
        )
        if one is not None and other is not None:
            found[task] = (one, other)
    return found


def _difference(pairs: dict[str, tuple[float, float]]) -> Difference:
    differences = [other - one for one, other in pairs.values()]
    interval = bootstrap_mean(differences) or (None, None)
    return Difference(
        tasks=len(pairs),
        a=discrimination.mean([one for one, _ in pairs.values()]),
        b=discrimination.mean([other for _, other in pairs.values()]),
        difference=discrimination.mean(differences),
        low=interval[0],
        high=interval[1],
    )


def _flips(a: _Side, b: _Side, tasks: Sequence[str], change: Literal["won", "lost"]) -> list[Flip]:
    return [Flip(task=task, change=change, a=_trials(a.tasks[task]), b=_trials(b.tasks[task])) for task in tasks]


def _trials(rows: Sequence[TrialRow]) -> list[PairedTrial]:
    return [
        PairedTrial(step=row.step, attempt=row.attempt, passed=row.facts.passed, reward=row.facts.reward)
        for row in rows
    ]


def _scored(rows: Sequence[TrialRow]) -> int:
    return sum(row.scored for row in rows)


def _rate(side: _Side, tasks: Sequence[str]) -> SideRate:
    rows = [row for task in tasks for row in side.tasks[task]]
    passes, decided = (sum(row.facts.passed is True for row in rows), sum(row.facts.decided for row in rows))
    due = sum(row.facts.result != "skipped" for row in rows)
    found = discrimination.bracket(passes, decided, due)
    return SideRate(
        passes=passes,
        scored=decided,
        worst=found.worst,
        best=found.best,
        of=found.of,
        capped=sum(row.facts.capped for row in rows),
    )


type _Tasks = Mapping[str, Sequence[TrialRow]]


def unequal_of(a: _Tasks, b: _Tasks, tasks: Sequence[str]) -> list[Unequal]:
    """Tell what differs between the sides of these tasks, the same difference of several tasks in one line."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for task in tasks:
        one, other = _circumstances(a[task]), _circumstances(b[task])
        for what in {**one, **other}:
            here, there = one.get(what, ""), other.get(what, "")
            # A version that nobody knows, because no trial got so far, is not another version.
            if here != there and (what not in _REPORTED or (here and there)):
                found.setdefault((what, here or "–", there or "–"), []).append(task)
    return [Unequal(what=what, a=x, b=y, tasks=own) for (what, x, y), own in found.items()]


def _circumstances(rows: Sequence[TrialRow]) -> dict[str, str]:
    """Tell what a task's trials on one side were run with; several values of one thing are all named."""
    values: dict[str, dict[str, None]] = {}
    alike = {(id(row.settings), row.facts.task_checksum, row.facts.agent_version): row for row in rows}
    for row in alike.values():
        reported = {CHECKSUM: row.facts.task_checksum or "", "agent_version": row.facts.agent_version or ""}
        for what, value in (reported | dict(row.settings)).items():
            if value:
                values.setdefault(what, {})[value] = None
    due = sum(row.facts.result != "skipped" for row in rows)
    return {what: ", ".join(sorted(own)) for what, own in values.items()} | {"attempts": str(due)}
