"""What a regrade changes: rewards, verdicts and comparisons of a batch, by its own tests and by those that have judged it again.

Both sides are the same work of the same agents, so every difference is the tests'. Only trials that were judged again are looked at, on either side.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from parallelhassnes.errors import UserError
from parallelhassnes.refs import resolve
from parallelhassnes.results import collect
from parallelhassnes.results.collect import TrialRow
from parallelhassnes.results.compare import by_agent, paired
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data.facts import RESULTS
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.store import atomic, batches, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views.scoreboard_models import View

SIGNIFICANT = 0.05
"""McNemar's p below which one agent is called better than another."""


class JudgedAgain(View):
    """One trial, judged twice."""

    task: str
    agent: str
    model: str | None
    step: str
    """``batch_id/job_id/step_id`` of the new batch."""
    attempt: str
    """The attempt whose work was judged: ``batch_id/job_id/step_id/attempt``."""
    by: str
    """``workspace`` or ``artifacts``."""
    before: float | None
    """The main reward; null without one."""
    after: float | None
    passed_before: bool | None
    passed_after: bool | None
    result_after: str
    """``scored``, or why there is no reward."""
    flipped: bool
    """It passed, and does so no longer, or the other way round."""


class VerdictFlip(View):
    """The verdict of a job on both sides."""

    job: str
    before: str | None
    """``good``, ``needs_review``, ``broken`` or ``unknown``; null where there is none."""
    after: str | None
    flipped: bool


class RateFlip(View):
    """The pass rate of an agent on both sides."""

    agent: str
    trials: int
    before: float | None
    after: float | None


class ComparisonFlip(View):
    """Two agents of the batch, compared on both sides."""

    a: str
    b: str
    before: str
    """``a``, ``b`` (the one that is better, by McNemar's test at 0.05), ``no difference``, or ``none`` where no task has a score of both."""
    after: str
    p_before: float | None
    p_after: float | None
    difference_before: float | None
    """Mean reward of ``b`` less that of ``a``."""
    difference_after: float | None
    flipped: bool
    turned: bool
    """The sign of the difference of mean rewards has changed."""


class Conclusions(View):
    """What ``regrade BATCH`` of a regrade prints."""

    schema_version: Literal[1] = 1
    at: str
    batch: str
    """The new one."""
    regrade_of: str
    verifier: list[str]
    left_out: int
    """Trials of the old batch that were not judged again."""
    pending: int
    """Trials that are still to be judged."""
    trials: list[JudgedAgain]
    verdicts: list[VerdictFlip]
    rates: list[RateFlip]
    comparisons: list[ComparisonFlip]
    passed_over: list[str] = []


def conclusions(layout: Layout, text: str) -> Conclusions:
    """Return what a regrade has changed so far.

    Raises:
        UserError: the batch is no regrade.
    """
    batch_id = resolve(layout, text).batch_id
    said = batches.read_batch(layout.batch(batch_id)).regrade
    if said is None:
        raise UserError(
            f"{batch_id} judges no other batch", fix=f"regrade {batch_id} --verifier TASKS judges it by other tests"
        )
    with members.collecting() as passed_over:
        after = collect.read(layout, collect.choose(layout, batch_id))
    judged = [row for row in after if row.facts.result not in ("missing", "canceled", "skipped")]
    before = [_before(layout, row) for row in judged]
    return Conclusions(
        at=now_text(),
        batch=batch_id,
        regrade_of=said.batch,
        verifier=list(said.verifier),
        left_out=said.left_out,
        pending=len(after) - len(judged),
        trials=[_trial(layout, row) for row in judged],
        verdicts=[_verdict(layout, said.batch, batch_id, job) for job in dict.fromkeys(row.job_id for row in judged)],
        rates=_rates(before, judged),
        comparisons=_comparisons(before, judged),
        passed_over=passed_over,
    )


def _before(layout: Layout, row: TrialRow) -> TrialRow:
    """Return a trial as it stood when it was given to be judged again."""
    again = _again(layout, row)
    passed, result = again.get("passed"), again.get("result")
    facts = replace(
        row.facts,
        result=result if result in RESULTS else "unscored",
        reward=safe_read.number(again.get("reward")),
        rewards={},
        passed=passed if isinstance(passed, bool) else None,
        task_checksum=safe_read.text(again.get("task_checksum")),
    )
    return replace(row, facts=facts)


def _again(layout: Layout, row: TrialRow) -> dict[str, Any]:
    spec = batches.read_job(layout.job(row.batch_id, row.job_id)).step(row.facts.step_id).spec
    return dict(safe_read.mapping(spec.get("regrade")))


def _trial(layout: Layout, row: TrialRow) -> JudgedAgain:
    again, facts = _again(layout, row), row.facts
    passed = again.get("passed")
    return JudgedAgain(
        task=row.task,
        agent=row.agent,
        model=facts.model,
        step=row.step,
        attempt=str(again.get("attempt") or ""),
        by=str(again.get("by") or ""),
        before=safe_read.number(again.get("reward")),
        after=facts.reward,
        passed_before=passed,
        passed_after=facts.passed,
        result_after=facts.result,
        flipped=passed is not None and facts.passed is not None and passed != facts.passed,
    )


def _verdict(layout: Layout, old: str, new: str, job_id: str) -> VerdictFlip:
    before, after = (_quality(layout, batch_id, job_id) for batch_id in (old, new))
    return VerdictFlip(job=job_id, before=before, after=after, flipped=None not in (before, after) and before != after)


def _quality(layout: Layout, batch_id: str, job_id: str) -> str | None:
    try:
        document = atomic.read_json_or_none(layout.job(batch_id, job_id) / "verdict.json")
    except (atomic.CorruptFile, OSError):
        return None
    return safe_read.text(safe_read.mapping(document).get("task_quality"), 40)


def _rates(before: Sequence[TrialRow], after: Sequence[TrialRow]) -> list[RateFlip]:
    one, other = by_agent(before), by_agent(after)
    return [
        RateFlip(
            agent=label,
            trials=sum(map(len, side.tasks.values())),
            before=_rate([row for rows in one[label].tasks.values() for row in rows]) if label in one else None,
            after=_rate([row for rows in side.tasks.values() for row in rows]),
        )
        for label, side in other.items()
    ]


def _rate(rows: Sequence[TrialRow]) -> float | None:
    return discrimination.mean([float(row.facts.passed) for row in rows if row.facts.passed is not None])


def _comparisons(before: Sequence[TrialRow], after: Sequence[TrialRow]) -> list[ComparisonFlip]:
    one, other = by_agent(before), by_agent(after)
    found = []
    for a, b in itertools.combinations([label for label in other if label in one], 2):
        then, now = paired(one[a], one[b]), paired(other[a], other[b])
        was, is_so = (_better(pair.p_value, len(pair.won), len(pair.lost), bool(pair.tasks)) for pair in (then, now))
        signs = [pair.reward.difference for pair in (then, now)]
        turned = all(value is not None for value in signs) and (signs[0] or 0) * (signs[1] or 0) < 0
        found.append(
            ComparisonFlip(
                a=a,
                b=b,
                before=was,
                after=is_so,
                p_before=then.p_value if then.tasks else None,
                p_after=now.p_value if now.tasks else None,
                difference_before=signs[0],
                difference_after=signs[1],
                flipped=was != is_so,
                turned=turned,
            )
        )
    return found


def _better(p_value: float, won: int, lost: int, is_known: bool) -> str:
    if not is_known:
        return "none"
    if p_value >= SIGNIFICANT:
        return "no difference"
    return "b" if won > lost else "a"
