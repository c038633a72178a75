"""The line of one batch: its counts and its state, from the status of every step."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from parallelhassnes import formatting, key_names
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.limits import concurrency_keys
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.version import __version__
from parallelhassnes.views import batch_status, projection
from parallelhassnes.views.batch_status import BatchStatus, StepStatus, Surroundings
from parallelhassnes.views.outcome import count_trials, standing
from parallelhassnes.views.results_matrix import Matrix
from parallelhassnes.views.scoreboard_models import BatchLine, Counts, KeyLoad

_MADE_BY = f"{__version__}.{projection.VERSION}.3"
"""What a kept line was made by: a line of another version is made anew. The last number is raised with the line's fields."""
MOST_NAMED = 3
"""Tasks, and agents, that are named in a batch's name; more are counted."""
MOST_COLUMNS = 6
"""Columns of the matrix that a line has; the batch's own scoreboard has all."""


def stamp(layout: Layout, batch_id: str, live: int | str, surroundings: Surroundings | None = None) -> str:
    """Tell what a line depends on, ``batch_status.stamp`` and this version: the same stamp means the same line."""
    return f"{_MADE_BY}.{batch_status.stamp(layout, batch_id, live, surroundings)}"


def make(layout: Layout, batch_id: str, live: int, paused: concurrency_keys.Holds) -> BatchLine:
    """Return the batch's line as of now; leaves the fold's cache behind where that is worth it.

    Args:
        live: running tickets of the batch.
        paused: what keeps queue keys from starting anything.

    Raises:
        FileNotFoundError: the batch is gone.
    """
    made_from = stamp(layout, batch_id, live)
    batch_dir = layout.batch(batch_id)
    meta = batches.read_about(batch_dir)
    fold = projection.load(batch_dir)
    status = batch_status.read(layout, batch_id, fold, paused)
    projection.take_in(fold, batch_dir)
    steps = list(status)
    line = from_steps(status, steps, meta, Matrix(steps), made_from)
    projection.save(fold, batch_dir)
    return line


def damaged(batch_id: str, reason: str) -> BatchLine:
    """Return the line of a batch that cannot be read; it has no stamp, so each look looks again."""
    return BatchLine(
        batch_id=batch_id,
        state="blocked",
        trouble=True,
        jobs_total=0,
        steps_total=0,
        counts=Counts(),
        created_at="",
        held=reason,
        stamp="",
    )


def from_steps(
    status: BatchStatus, steps: list[StepStatus], meta: dict[str, Any], matrix: Matrix, made_from: str = ""
) -> BatchLine:
    """Return the line from the status of every step, and the results of these."""
    totals = {name: total.cell() for name, total in matrix.totals.items()}
    found, held, fold = batch_status.group(steps), status.held, status.fold
    return BatchLine(
        batch_id=meta["batch_id"],
        state=found.state,
        trouble=bool(found.failed or found.final or held.reason) or found.state == "blocked",
        jobs_total=len(meta.get("job_ids", ())),
        steps_total=len(steps),
        counts=found.counts,
        trials=count_trials(standing_of(step) for step in steps if step.step.kind == "trial"),
        other_steps=batch_status.group(step for step in steps if step.step.kind != "trial").counts,
        skipped=found.skipped,
        columns=len(totals),
        totals=dict(islice(totals.items(), MOST_COLUMNS)),
        experiment=meta.get("experiment", ""),
        name=name_of(status.batch_dir, meta, list(totals)),
        source_name=meta.get("source_name", ""),
        created_at=meta["created_at"],
        last_event_at=fold.last_at,
        stand_in=fold.stand_in,
        held=held.reason,
        concurrency=meta.get("concurrency"),
        limits=meta.get("limits", {}),
        queue=_queue(steps),
        stamp=made_from,
    )


def name_of(batch_dir: Path, meta: Mapping[str, Any], agents: Sequence[str]) -> str:
    """Return what people call a batch: its experiment, or what runs with whom: ``hello × oracle, nop``, ``9 tasks × 4 agents``.

    Args:
        agents: the columns of its matrix; none where it has no trials.
    """
    if meta.get("experiment"):
        return str(meta["experiment"])
    jobs = [str(job_id) for job_id in meta.get("job_ids", ())]
    shown = [_task_of(batch_dir / job_id) for job_id in jobs] if len(jobs) <= MOST_NAMED else jobs
    what = _listed(shown, "task" if agents else "job")
    return f"{what} × {_listed(agents, 'agent')}" if agents else what


def _task_of(job_dir: Path) -> str:
    """Return the name of a job's task without that of its organisation; of any other job, its id."""
    with contextlib.suppress(OSError, atomic.CorruptFile):
        task = mapping(mapping(atomic.read_json(job_dir / batches.JOB)).get("labels")).get("task")
        return str(task or job_dir.name).rpartition("/")[2]
    return job_dir.name


def _listed(members: Sequence[str], noun: str) -> str:
    return ", ".join(members) if 0 < len(members) <= MOST_NAMED else formatting.counted(len(members), noun)


def standing_of(step: StepStatus) -> str:
    """Return what a step has come to, in a word."""
    return standing(step.step.kind, step.state, step.row.said if step.row else None)


def _queue(steps: list[StepStatus]) -> dict[str, KeyLoad]:
    tally = Counter((step.step.queue_key, step.delayed) for step in steps if step.state == "ready")
    return {
        key: KeyLoad(ready=tally[key, False] + tally[key, True], delayed=tally[key, True])
        for key in dict.fromkeys(key for key, _ in tally)
    }


def key_of(folder: str) -> str:
    """Return the queue key of a folder of the queue; the folder's own name where that is too long to be read back."""
    try:
        return key_names.key_from_dir(folder)
    except UserError:
        return folder
