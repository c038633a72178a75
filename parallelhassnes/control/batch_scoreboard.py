"""The scoreboard of one batch: results by job and agent, what runs, what waits and why, what went wrong."""

from collections import Counter

from parallelhassnes.control import batch_line, numbers
from parallelhassnes.control import fold as folds
from parallelhassnes.control import status as statuses
from parallelhassnes.control.bulk import bulk
from parallelhassnes.control.fold import Fold
from parallelhassnes.control.running import HeartbeatWatch, attempt_path, describe
from parallelhassnes.control.scoreboard_models import (
    BatchScoreboard,
    BlockedGroup,
    Cell,
    Counts,
    FailedStep,
    GatedStep,
    JobLine,
    RunningStep,
    Spent,
    UnscoredStep,
    Verdict,
)
from parallelhassnes.control.status import BatchStatus, StepStatus
from parallelhassnes.steps.verdict.facts import PASS_REWARD
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text

RESULT_KINDS = frozenset({"trial", "agent"})
"""Kinds of steps that have a cell in the matrix."""
FIRST_STEPS = 5
"""Steps that a group of blocked ones names."""
MAX_GROUPS = 50


@bulk
def batch_scoreboard(
    layout: Layout, batch_id: str, watch: HeartbeatWatch | None = None, fold: Fold | None = None
) -> BatchScoreboard:
    """One batch as of now; leaves the fold's cache behind where that is worth it.

    Args:
        watch: kept by the caller between looks, to judge the heartbeats of other hosts.
        fold: the batch's fold, where the caller keeps it between looks.

    Raises:
        FileNotFoundError: there is no such batch.
    """
    status = statuses.read(layout, batch_id, fold)
    many = numbers.take_in(status)
    steps = list(status)
    meta = atomic.read_json(status.batch_dir / batches.META)
    line = batch_line.from_steps(status, steps, meta)
    folds.save(status.fold, status.batch_dir, force=many > 100)
    columns = list(dict.fromkeys(_column(step) for step in steps if step.step.kind in RESULT_KINDS))
    jobs = _jobs(steps, columns)
    known = [job.verdict for job in jobs if job.verdict is not None]
    failures = _failures(status, steps)
    return BatchScoreboard(
        at=now_text(), batch_id=batch_id, state=line.state, experiment=line.experiment, goal=meta.get("goal", ""),
        labels=meta.get("labels", {}), source_name=line.source_name, created_at=line.created_at,
        stand_in=line.stand_in, held=line.held, jobs_total=line.jobs_total, steps_total=line.steps_total,
        counts=line.counts, columns=columns, totals=_totals(jobs, columns), jobs=jobs,
        running=_running(layout, status, steps, watch or HeartbeatWatch()), blocked=_blocked(status.batch_dir.name, steps),
        gates=[gate_of(status, step) for step in steps if step.gated],
        failures=failures, failure_classes=dict(Counter(step.failure_class for step in failures).most_common()),
        unscored=[
            UnscoredStep(step=step.key, label=_column(step), attempt=attempt_path(status, step.key, step.row.attempt))
            for step in steps
            if step.row is not None and _is_unscored(step)
        ],
        verdicts=dict(Counter(verdict.task_quality for verdict in known)),
        attempts=status.fold.attempts, spent=_spent(status.fold), warnings=meta.get("warnings", []),
    )  # fmt: skip


# --- results ------------------------------------------------------------------------------------------


def _column(step: StepStatus) -> str:
    return step.step.label or step.step.step_id


def _jobs(steps: list[StepStatus], columns: list[str]) -> list[JobLine]:
    by_job: dict[str, list[StepStatus]] = {}
    for step in steps:
        by_job.setdefault(step.job_id, []).append(step)
    return [
        JobLine(
            job_id=job_id,
            counts=Counts(**Counter(step.state for step in own)),
            cells={
                column: _cell(
                    [s for s in own if s.step.kind in RESULT_KINDS and _column(s) == column]
                )
                for column in columns
                if any(s.step.kind in RESULT_KINDS and _column(s) == column for s in own)
            },
            verdict=_verdict(own),
        )
        for job_id, own in by_job.items()
    ]


def _cell(steps: list[StepStatus]) -> Cell:
    states = Counter(step.state for step in steps)
    rewards = [reward for step in steps if (reward := _reward(step)) is not None]
    return Cell(
        n=len(steps), scored=len(rewards), passes=sum(reward == PASS_REWARD for reward in rewards),
        mean_reward=sum(rewards) / len(rewards) if rewards else None,
        running=states["running"], waiting=states["ready"] + states["blocked"],
        unscored=sum(map(_is_unscored, steps)),
        failed=sum(states[name] for name in batch_line.TROUBLE), canceled=states["canceled"],
    )  # fmt: skip


def _totals(jobs: list[JobLine], columns: list[str]) -> dict[str, Cell]:
    totals = {column: Cell() for column in columns}
    sums: Counter[str] = Counter()
    for job in jobs:
        for column, cell in job.cells.items():
            total = totals[column]
            for name in (
                "n",
                "scored",
                "passes",
                "running",
                "waiting",
                "unscored",
                "failed",
                "canceled",
            ):
                setattr(total, name, getattr(total, name) + getattr(cell, name))
            sums[column] += (cell.mean_reward or 0.0) * cell.scored  # type: ignore[assignment]
    for column, total in totals.items():
        total.mean_reward = sums[column] / total.scored if total.scored else None
    return totals


def _reward(step: StepStatus) -> float | None:
    if step.state != "succeeded" or step.row is None:
        return None
    found = numbers.trial(step.row.numbers)
    return found.reward if found else None


def _is_unscored(step: StepStatus) -> bool:
    return step.step.kind == "trial" and step.state == "succeeded" and _reward(step) is None


def _verdict(steps: list[StepStatus]) -> Verdict | None:
    for step in steps:
        if step.step.kind == "verdict" and step.row is not None:
            found = numbers.verdict(step.row.numbers)
            if found is not None:
                return Verdict(**found._asdict())
    return None


def _spent(fold: Fold) -> Spent:
    whole = {
        name: int(fold.spent[name]) for name in ("input", "cache", "output") if name in fold.spent
    }
    return Spent(
        cost_usd=fold.spent.get("cost_usd"), **whole,
        attempts_known=int(fold.spent.get("known", 0)), attempts_unknown=int(fold.spent.get("unknown", 0)),
    )  # fmt: skip


# --- what runs, waits, failed -------------------------------------------------------------------------


def _running(
    layout: Layout, status: BatchStatus, steps: list[StepStatus], watch: HeartbeatWatch
) -> list[RunningStep]:
    found = [
        describe(layout.root, status, step, watch) for step in steps if step.state == "running"
    ]
    return sorted(found, key=lambda step: -(step.age_sec or 0.0))


def gate_of(status: BatchStatus, step: StepStatus) -> GatedStep:
    """What a person who decides about the step is told."""
    rows = {key: status.fold.steps.get(key) for key in step.step.depends_on}
    after = {key: attempt_path(status, key, row.attempt) for key, row in rows.items() if row}
    return GatedStep(step=step.key, label=step.step.label, after=after)


def _blocked(batch_id: str, steps: list[StepStatus]) -> list[BlockedGroup]:
    """By reason; beyond ``MAX_GROUPS`` the small ones are put together."""
    groups: dict[str, BlockedGroup] = {}
    many = sum(step.gated for step in steps) > 1
    person = f"waiting for a person: approve or reject {batch_id}, or one of its steps"
    for step in steps:
        if step.state == "blocked":
            reason = person if step.gated and many else step.reason
            group = groups.setdefault(
                reason, BlockedGroup(reason=reason, count=0, steps=[], final=step.final)
            )
            group.count += 1
            if len(group.steps) < FIRST_STEPS:
                group.steps.append(step.key)
    found = sorted(groups.values(), key=lambda group: (not group.final, -group.count))
    rest = found[MAX_GROUPS:]
    return found[:MAX_GROUPS] + [
        BlockedGroup(
            reason=reason, count=sum(group.count for group in same), final=final,
            steps=[key for group in same[:FIRST_STEPS] for key in group.steps][:FIRST_STEPS],
        )
        for reason, final in (("other steps failed", True), ("waiting for other steps", False))
        if (same := [group for group in rest if group.final is final])
    ]  # fmt: skip


def _failures(status: BatchStatus, steps: list[StepStatus]) -> list[FailedStep]:
    found = [
        FailedStep(
            step=step.key, status=row.status, failure_class=row.failure_class or row.status, line=row.line or "",
            number=row.number, ended_at=row.at, retry_at=row.retry_at if step.state == "ready" else None,
            attempt=attempt_path(status, step.key, row.attempt),
        )
        for step in steps
        if (row := step.row) is not None and row.status in batch_line.TROUBLE
    ]  # fmt: skip
    return sorted(found, key=lambda failed: failed.ended_at, reverse=True)
