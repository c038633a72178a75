"""The line of one batch: its counts and its state, from the status of its steps."""

import os
from collections import Counter
from pathlib import Path

from parallelhassnes.control import fold as folds
from parallelhassnes.control import status as statuses
from parallelhassnes.control.scoreboard_models import BatchLine, BatchState, Counts, KeyLoad
from parallelhassnes.control.status import BatchStatus, StepStatus
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.ledger import LEDGER

TROUBLE = ("failed", "lost", "needs_attention")


def stamp(layout: Layout, batch_id: str, live: int) -> str:
    """What a line depends on, in a few stats: the same stamp means the same line.

    Args:
        live: running tickets of the batch.
    """
    batch_dir = layout.batch(batch_id)
    return ".".join(
        (
            str(_stat(batch_dir / LEDGER)[0]),
            str(_stat(batch_dir / batches.CONTROL)[1]),
            str(_stat(layout.blocked / f"{batch_id}.json")[1]),
            str(live),
        )
    )


def _stat(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; zeros where there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - hot path
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def make(layout: Layout, batch_id: str, live: int) -> BatchLine:
    """The batch's line as of now; leaves the fold's cache behind where that is worth it.

    Raises:
        FileNotFoundError: the batch, or its index, is gone.
    """
    before = stamp(layout, batch_id, live)
    status = statuses.read(layout, batch_id)
    line = from_steps(status, list(status), before)
    folds.save(status.fold, status.batch_dir)
    return line


def from_steps(status: BatchStatus, steps: list[StepStatus], made_from: str) -> BatchLine:
    meta = atomic.read_json(status.batch_dir / batches.META)
    tally = Counter(step.state for step in steps)
    counts = Counts(**tally)
    final = sum(step.final for step in steps)
    state = _state(status, counts, final)
    return BatchLine(
        batch_id=status.batch_dir.name,
        state=state,
        trouble=bool(final or status.held.reason or any(tally[name] for name in TROUBLE))
        or state == "blocked",
        jobs_total=len(status.jobs),
        steps_total=len(steps),
        counts=counts,
        experiment=meta.get("experiment", ""),
        source_name=meta.get("source_name", ""),
        created_at=meta["created_at"],
        last_event_at=max((row.at for row in status.fold.steps.values()), default=""),
        stand_in=status.fold.stand_in,
        held=status.held.reason,
        concurrency=meta.get("concurrency"),
        limits=meta.get("limits", {}),
        queue=_queue(steps),
        stamp=made_from,
    )


def _state(status: BatchStatus, counts: Counts, final: int) -> BatchState:
    if counts.running:
        return "running"
    if counts.ready:
        return "waiting"
    if counts.blocked > final:
        return "blocked"
    if final or any(getattr(counts, name) for name in TROUBLE):
        return "attention"
    return "canceled" if counts.canceled or status.held.canceled else "done"


def _queue(steps: list[StepStatus]) -> dict[str, KeyLoad]:
    loads: dict[str, KeyLoad] = {}
    for step in steps:
        if step.state in ("ready", "running"):
            load = loads.setdefault(step.step.queue_key, KeyLoad())
            if step.state == "running":
                load.running += 1
            else:
                load.ready += 1
                load.delayed += step.delayed
    return loads
