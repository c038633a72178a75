"""The scoreboard of one batch: results by job and agent, what runs, what waits and why, what went wrong.

    ledger, index, control, pauses … ──▶ BatchScoreboard ◀──▶ scoreboard.shown.json   (derived: may be deleted)

A board is made from every step of its batch. That of a batch of many steps which shows few lines is kept beside the ledger, with
the stamp of what it was made from (``batch_summary.stamp``, with the tickets that run) and this version. As long as the stamp is the same, a look
reads that file and the states of what runs: it costs what it shows. Any reader may write it, at any time, by rename.
"""

import contextlib
from collections import Counter
from collections.abc import Callable

from pydantic import ValidationError

from parallelhassnes.gc_paused import bulk
from parallelhassnes.states import TROUBLE
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.verdict import judge
from parallelhassnes.store import atomic, batches, rooted
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views import batch_status, batch_summary
from parallelhassnes.views.batch_status import BatchStatus, StepStatus
from parallelhassnes.views.projection import Fold
from parallelhassnes.views.results_matrix import JobRow, Matrix, column, is_unscored
from parallelhassnes.views.running import HeartbeatWatch, attempt_path, describe, look_again
from parallelhassnes.views.scoreboard_models import (
    BatchScoreboard,
    BlockedGroup,
    BrokenTask,
    FailedStep,
    GatedStep,
    RunningStep,
    Spent,
    TrialCounts,
    UnscoredStep,
)

FIRST_STEPS = 5
"""Steps that a group of blocked ones names."""
MAX_GROUPS = 50
MOST_BROKEN = 20
"""Broken tasks of which the verdict is read."""
KEPT = "scoreboard.shown.json"
MANY_STEPS = 1_000
"""From so many on a board is kept: fewer are counted as fast."""
MOST_ROWS = 1_000
"""Lines of a board that is kept: of more it costs what it shows to make it."""


@bulk
def batch_scoreboard(
    layout: Layout,
    batch_id: str,
    watch: HeartbeatWatch | None = None,
    fold: Fold | None = None,
    pick: Callable[[list[JobRow]], list[JobRow]] = list,
) -> BatchScoreboard:
    """Return one batch as of now; leaves the fold's cache behind where that is worth it.

    Args:
        watch: kept by the caller between looks, to judge the heartbeats of other hosts.
        fold: the batch's fold, where the caller keeps it between looks.
        pick: which rows of the matrix are wanted, and in which order; all in the table's, where left out.

    Raises:
        FileNotFoundError: there is no such batch.
    """
    if fold is not None or pick is not list:
        return _made(layout, batch_id, watch, fold, pick)
    made_from = _stamp(layout, batch_id)
    board = _kept(layout, batch_id, made_from)
    if board is not None:
        running = [look_again(layout.root, step, watch or HeartbeatWatch()) for step in board.running]
        return board.model_copy(update={"at": now_text(), "running": _oldest_first(running)})
    board = _made(layout, batch_id, watch, None, pick)
    _keep(layout, board, made_from)
    return board


def _stamp(layout: Layout, batch_id: str) -> str:
    return batch_summary.stamp(layout, batch_id, batch_status.running_digest(layout, batch_id))


def _kept(layout: Layout, batch_id: str, made_from: str) -> BatchScoreboard | None:
    """Return the board that was made from the same; None where there is none that can be used."""
    document = atomic.read_kept(layout.batch(batch_id) / KEPT)
    if document.get("made_from") != made_from:
        return None
    try:
        return BatchScoreboard.model_validate(document.get("board"))
    except ValidationError:
        return None


def _keep(layout: Layout, board: BatchScoreboard, made_from: str) -> None:
    """Leave a board behind that took long to make and is short; a store that cannot be written to is read all the same."""
    rows = len(board.jobs) + len(board.failures) + len(board.unscored) + len(board.gates)
    if board.steps_total < MANY_STEPS or rows > MOST_ROWS:
        return
    document = {"made_from": made_from, "board": board.model_dump(mode="json")}
    with contextlib.suppress(OSError):  # a reader with no right to write, a full disk, a batch being deleted
        atomic.write_kept(layout.batch(board.batch_id) / KEPT, document)


def _made(
    layout: Layout,
    batch_id: str,
    watch: HeartbeatWatch | None,
    fold: Fold | None,
    pick: Callable[[list[JobRow]], list[JobRow]],
) -> BatchScoreboard:
    status = batch_status.read_told(layout, batch_id, fold)
    steps = list(status)
    meta = batches.read_about(status.batch_dir)
    matrix = Matrix(steps)
    line = batch_summary.from_steps(status, steps, meta, matrix)
    known = [row.verdict for row in matrix.rows if row.verdict is not None]
    failures = _failures(status, steps)
    shown = pick(matrix.rows)
    return BatchScoreboard(
        at=now_text(),
        batch_id=batch_id,
        state=line.state,
        name=line.name,
        experiment=line.experiment,
        goal=meta.get("goal", ""),
        labels=meta.get("labels", {}),
        source_name=line.source_name,
        created_at=line.created_at,
        stand_in=line.stand_in,
        held=line.held,
        jobs_total=line.jobs_total,
        steps_total=line.steps_total,
        counts=line.counts,
        trials=line.trials or TrialCounts(),
        other_steps=line.other_steps,
        columns=matrix.columns,
        totals={name: total.cell() for name, total in matrix.totals.items()},
        jobs=[matrix.line(row) for row in shown],
        running=_running(layout, status, steps, watch or HeartbeatWatch()),
        blocked=_blocked(status.batch_dir.name, steps),
        gates=[gate_of(status, step) for step in steps if step.gated],
        failures=failures,
        failure_classes=dict(Counter(step.failure_class for step in failures).most_common()),
        unscored=[
            UnscoredStep(
                step=step.key,
                label=column(step),
                attempt=attempt_path(status.batch_dir.name, step.key, step.row.attempt),
            )
            for step in steps
            if step.row is not None and is_unscored(step)
        ],
        verdicts=dict(Counter(verdict.task_quality for verdict in known)),
        broken_tasks=_broken(layout, batch_id, shown),
        attempts=status.fold.attempts,
        spent=_spent(status.fold),
        warnings=rooted.unfold({key: meta.get(key) for key in (rooted.KEY, "warnings")}, layout.root)["warnings"] or [],
    )


def _broken(layout: Layout, batch_id: str, rows: list[JobRow]) -> list[BrokenTask]:
    """Return the first of the broken tasks, with what their verdicts say."""
    found = []
    for row in [row for row in rows if row.verdict is not None and row.verdict.task_broken is True][:MOST_BROKEN]:
        verdict = safe_read.mapping(judge.read(layout.job(batch_id, row.job_id)))
        why, to_do = (
            next((text for text in safe_read.sequence(verdict.get(name)) if isinstance(text, str)), "")
            for name in ("reasons", "recommendations")
        )
        found.append(BrokenTask(job=row.job_id, why=why, to_do=to_do))
    return found


# --- what was spent, what runs, waits, failed ----------------------------------------------------------


def _spent(fold: Fold) -> Spent:
    found = fold.spent
    return Spent(
        cost_usd=found.cost_usd,
        **found.tokens._asdict(),
        attempts_known=found.said,
        attempts_unknown=found.silent,
        cost_unknown=found.cost_unknown,
    )


def _running(layout: Layout, status: BatchStatus, steps: list[StepStatus], watch: HeartbeatWatch) -> list[RunningStep]:
    found = [describe(layout.root, status, step, watch) for step in steps if step.state == "running"]
    return _oldest_first(found)


def _oldest_first(running: list[RunningStep]) -> list[RunningStep]:
    return sorted(running, key=lambda step: -(step.age_sec or 0.0))


def gate_of(status: BatchStatus, step: StepStatus) -> GatedStep:
    """Tell what a person who decides about the step is told."""
    rows = {key: status.fold.steps.get(key) for key in step.step.depends_on}
    after = {key: attempt_path(status.batch_dir.name, key, row.attempt) for key, row in rows.items() if row}
    return GatedStep(step=step.key, label=step.step.label, after=after)


def _blocked(batch_id: str, steps: list[StepStatus]) -> list[BlockedGroup]:
    """By reason; beyond ``MAX_GROUPS`` the small ones are put together."""
    groups: dict[str, BlockedGroup] = {}
    many = sum(step.gated for step in steps) > 1
    person = f"waiting for a person: approve or reject {batch_id}, or one of its steps"
    for step in steps:
        if step.state == "blocked":
            reason = person if step.gated and many else step.reason
            group = groups.setdefault(reason, BlockedGroup(reason=reason, count=0, steps=[], final=step.final))
            group.count += 1
            if len(group.steps) < FIRST_STEPS:
                group.steps.append(step.key)
    found = sorted(groups.values(), key=lambda group: (not group.final, -group.count))
    rest = found[MAX_GROUPS:]
    return found[:MAX_GROUPS] + [
        BlockedGroup(
            reason=reason,
            count=sum(group.count for group in same),
            final=final,
            steps=[key for group in same[:FIRST_STEPS] for key in group.steps][:FIRST_STEPS],
        )
        for reason, final in (("other steps failed", True), ("waiting for other steps", False))
        if (same := [group for group in rest if group.final is final])
    ]


def _failures(status: BatchStatus, steps: list[StepStatus]) -> list[FailedStep]:
    found = [
        FailedStep(
            step=step.key,
            status=row.status,
            failure_class=row.failure_class or row.status,
            guessed=row.guessed,
            line=row.line or "",
            number=row.number,
            ended_at=row.at,
            retry_at=row.retry_at if step.state == "ready" else None,
            attempt=attempt_path(status.batch_dir.name, step.key, row.attempt),
        )
        for step in steps
        if (row := step.row) is not None and row.status in TROUBLE
    ]
    return sorted(found, key=lambda failed: failed.ended_at, reverse=True)
