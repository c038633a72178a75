"""Adding steps to jobs that were accepted before; ``store.additions`` says what is written, and in which order."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from parallelhassnes.plan import Addition, StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.settle import Book
from parallelhassnes.store import additions, atomic, attempts, batches, index, ledger
from parallelhassnes.store.records import now_text


def add(ctx: Context, batch_id: str, steps: Mapping[str, Sequence[StepSpec]]) -> None:
    """Add these steps (job id → steps) to a batch; the caller holds ``tick.lock``."""
    batch_dir = ctx.layout.batch(batch_id)
    by = ledger.person()
    (ctx.layout.added / batch_id).touch()
    for job_id, own in steps.items():
        job_dir = batch_dir / job_id
        addition = Addition(at=now_text(), by=by, steps=tuple(own))
        slim = addition.model_dump(mode="json", exclude_defaults=True) | {"schema_version": 1}
        path = job_dir / additions.FOLDER / additions.next_name(job_dir)
        path.parent.mkdir(exist_ok=True)
        atomic.write_json(path, slim)
    complete(ctx)


def complete(ctx: Context) -> None:
    """Give additions their place in index and queue, where a crash has kept them from it; under ``tick.lock``."""
    if not ctx.layout.added.is_dir():  # a store of an earlier version, until its next tick
        return
    for mark in sorted(ctx.layout.added.iterdir()):
        if ctx.layout.batch(mark.name).is_dir():
            _complete(ctx, mark.name)
        mark.unlink(missing_ok=True)


def _tell(batch_dir: Path, job_id: str, name: str) -> None:
    """The ledger's line of an addition, with the hash that an audit compares."""
    path = batch_dir / job_id / additions.FOLDER / name
    addition = Addition.model_validate(atomic.read_json(path))
    ledger.append(
        batch_dir, "added", by=addition.by, job_id=job_id, file=f"{additions.FOLDER}/{name}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        steps=[f"{job_id}/{step.step_id}" for step in addition.steps],
    )  # fmt: skip


def _complete(ctx: Context, batch_id: str) -> None:
    book = Book(ctx, batch_id)
    jobs = [batches.read_job(path) for path in batches.job_dirs(ctx.layout, batch_id)]
    index.write(book.batch_dir, jobs)
    told = {
        (event["job_id"], event["file"])
        for _, event in ledger.read(book.batch_dir)
        if event["event"] == "added"
    }
    for job in jobs:
        names = additions.names(book.batch_dir / job.job_id)
        for name in names:
            if (job.job_id, f"{additions.FOLDER}/{name}") not in told:
                _tell(book.batch_dir, job.job_id, name)
        if not names:
            continue
        for step in job.steps:
            if attempts.newest(book.step_dir(job, step)) is None:
                book.place(job, step)
    book.save()
