"""The line of one batch: its counts and its state.

Up to ``LARGE`` steps it is made from the status of every step. A larger batch that is going on is counted
from the ledger's fold and the queue's tickets alone: what is neither attempted nor in the queue is blocked.
That can be off by the few steps that moved during the look, and is exact when the batch stands still,
since one in which nothing runs or is ready is looked at step by step again.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parallelhassnes import names
from parallelhassnes.control import fold as folds
from parallelhassnes.control import status as statuses
from parallelhassnes.control.fold import Fold
from parallelhassnes.control.scoreboard_models import BatchLine, BatchState, Counts, KeyLoad
from parallelhassnes.control.status import BatchStatus, Held, StepStatus
from parallelhassnes.errors import UserError
from parallelhassnes.store import batches, queue_keys, tickets
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.ledger import LEDGER
from parallelhassnes.store.records import now_text

TROUBLE = ("failed", "lost", "needs_attention")
LARGE = 5_000


def stamp(layout: Layout, batch_id: str, live: int) -> str:
    """What a line depends on, in a few stats: the same stamp means the same line.

    Args:
        live: running tickets of the batch.
    """
    # Plain strings: a store may have 10,000 batches, and a Path costs more than a stat.
    size, _ = _stat(f"{layout.runs}/{batch_id}/{LEDGER}")
    _, control = _stat(f"{layout.runs}/{batch_id}/{batches.CONTROL}")
    _, note = _stat(f"{layout.blocked}/{batch_id}.json")
    _, paused = _stat(f"{layout.limits}/{queue_keys.PAUSED_MARK}")
    return f"{size}.{control}.{note}.{live}.{paused}"


def _stat(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; zeros where there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - hot path
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def make(layout: Layout, batch_id: str, live: int) -> BatchLine:
    """The batch's line as of now; leaves the fold's cache behind where that is worth it.

    Raises:
        FileNotFoundError: the batch is gone.
    """
    made_from = stamp(layout, batch_id, live)
    batch_dir = layout.batch(batch_id)
    meta = batches.read_about(batch_dir)
    fold = folds.load(batch_dir)
    total = meta["steps_total"] + fold.steps_added
    line = _quick(layout, meta, fold, total, made_from) if total > LARGE else None
    if line is None:
        status = statuses.read(layout, batch_id, fold)
        line = from_steps(status, list(status), meta, made_from)
    folds.save(fold, batch_dir)
    return line


def damaged(batch_id: str, reason: str) -> BatchLine:
    """The line of a batch that cannot be read; it has no stamp, so each look looks again."""
    return BatchLine(
        batch_id=batch_id, state="blocked", trouble=True, jobs_total=0, steps_total=0, counts=Counts(), created_at="",
        held=reason, stamp="",
    )  # fmt: skip


def from_steps(
    status: BatchStatus, steps: list[StepStatus], meta: dict[str, Any], made_from: str = ""
) -> BatchLine:
    """The line from the status of every step."""
    counts = Counts(**Counter(step.state for step in steps))
    final = sum(step.final for step in steps)
    return _line(meta, status.fold, status.held, counts, final, _queue(steps), made_from)


def _line(
    meta: dict[str, Any], fold: Fold, held: Held, counts: Counts, final: int, queue: dict[str, KeyLoad], made_from: str
) -> BatchLine:  # fmt: skip
    skipped = sum(not by_operator for by_operator in fold.canceled.values())
    state = _state(counts, final, held, skipped)
    failed = any(getattr(counts, name) for name in TROUBLE)
    return BatchLine(
        batch_id=meta["batch_id"], state=state,
        trouble=failed or bool(final or held.reason) or state == "blocked",
        jobs_total=len(meta.get("job_ids", ())), steps_total=sum(dict(counts).values()), counts=counts,
        experiment=meta.get("experiment", ""), source_name=meta.get("source_name", ""),
        created_at=meta["created_at"], last_event_at=fold.last_at, stand_in=fold.stand_in, held=held.reason,
        concurrency=meta.get("concurrency"), limits=meta.get("limits", {}), queue=queue, stamp=made_from,
    )  # fmt: skip


def _state(counts: Counts, final: int, held: Held, skipped: int) -> BatchState:
    if counts.running:
        return "running"
    if counts.ready:
        return "waiting"
    if counts.blocked > final:
        return "blocked"
    if final or any(getattr(counts, name) for name in TROUBLE):
        return "attention"
    return "canceled" if counts.canceled > skipped or held.canceled else "done"


def _queue(steps: list[StepStatus]) -> dict[str, KeyLoad]:
    tally = Counter((step.step.queue_key, step.delayed) for step in steps if step.state == "ready")
    return {
        key: KeyLoad(ready=tally[key, False] + tally[key, True], delayed=tally[key, True])
        for key in dict.fromkeys(key for key, _ in tally)
    }


# --- a large batch that is going on -------------------------------------------------------------------


def _quick(
    layout: Layout, meta: dict[str, Any], fold: Fold, total: int, made_from: str
) -> BatchLine | None:
    """The line without a look at every step; None where nothing of the batch runs or is ready."""
    held = statuses.held(layout, meta["batch_id"])
    if held.canceled or held.reason or fold.canceled or queue_keys.holds(layout):
        return None
    queue = _waiting(layout, meta["batch_id"], agents=fold.stand_in)
    tally = +fold.tally
    if tally.pop("retry", 0):
        now = now_text()
        for row in fold.steps.values():
            if (
                row.retry_at is not None and row.retry_at > now
            ):  # one that is due has a ready ticket again
                load = queue.setdefault(row.queue_key, KeyLoad())
                load.ready += 1
                load.delayed += 1
    tally["ready"] = sum(load.ready for load in queue.values())
    if not tally["ready"] and not tally["running"]:
        return None
    # A step whose ticket has not left ready/ yet, though it was launched, is counted twice: it runs.
    tally["ready"] -= min(tally["ready"], max(0, tally.total() - total))
    tally["blocked"] = max(0, total - tally.total())
    return _line(meta, fold, held, Counts(**tally), 0, queue, made_from)


def _waiting(layout: Layout, batch_id: str, *, agents: bool) -> dict[str, KeyLoad]:
    """Queue key → the batch's ready tickets there.

    Args:
        agents: count agent steps, too: without the stand-in they have tickets and are blocked all the same.
    """
    loads: dict[str, KeyLoad] = {}
    for folder, owner, path in tickets.ready_folders(layout):
        if owner == batch_id:
            count = sum(agents or not name.endswith(".agent") for name in _ready_names(path))
            if count:
                loads[key_of(folder)] = KeyLoad(ready=count)
    return loads


def _ready_names(folder: Path) -> Iterator[str]:
    """Names of the tickets in a batch's folder; a Path for each, as ``tickets.in_order`` gives, costs a second."""
    for chunk in _listing(str(folder)):
        if chunk != tickets.SERVED:
            yield from _listing(f"{folder}/{chunk}")


def _listing(folder: str) -> list[str]:
    """Names in a folder of the queue, which goes with its last ticket."""
    try:
        return [name for name in os.listdir(folder) if name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []


def key_of(folder: str) -> str:
    """The queue key of a folder of the queue; the folder's own name where that is too long to be read back."""
    try:
        return names.key_from_dir(folder)
    except UserError:
        return folder
