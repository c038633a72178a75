"""Adding steps to jobs that were accepted before, and imported attempts to their steps; ``store.additions`` says what is written, and in
which order.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from parallelhassnes.plan import Addition, JobSpec, StepSpec
from parallelhassnes.schedule import quarantine
from parallelhassnes.schedule.additions import carry_over
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState
from parallelhassnes.store import additions, attempts, batches, index, members
from parallelhassnes.store.archives import packing
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import now_text


def add(ctx: Context, batch_id: str, steps: Mapping[str, Sequence[StepSpec]]) -> None:
    """Add these steps (job id → steps) to a batch; the caller holds ``tick.lock``."""
    batch_dir = ctx.layout.batch(batch_id)
    packing.check_unpacked(batch_dir)
    by = ledger.person()
    (ctx.layout.added / batch_id).touch()
    for job_id, own in steps.items():
        job_dir = batch_dir / job_id
        name = additions.name_of(len(additions.names(job_dir)) + 1)
        additions.write(job_dir, name, Addition(at=now_text(), by=by, steps=tuple(own)))
    complete(ctx)


def add_attempts(ctx: Context, batch_id: str, staged: Iterable[tuple[Path, Path]]) -> None:
    """Add imported attempts to steps of a batch that was imported; the caller holds ``tick.lock``.

    Args:
        staged: a sealed attempt's folder, and the step's.
    """
    packing.check_unpacked(ctx.layout.batch(batch_id))
    (ctx.layout.added / batch_id).touch()
    for folder, step_dir in staged:
        attempts.adopt(folder, step_dir)
    complete(ctx)


def add_at_ingest(batch_dir: Path, steps: Mapping[str, Sequence[Sequence[StepSpec]]], by: str) -> None:
    """Give the jobs of a batch that is being made (job id → additions) what its predecessor's have got; again after a crash."""
    for job_id, every in steps.items():
        for number, own in enumerate(every, 1):
            name = additions.name_of(number)
            addition = Addition(at=now_text(), by=by, steps=tuple(own))
            additions.write(batch_dir / job_id, name, addition)
            _tell(batch_dir, job_id, name)


def is_wanted(ctx: Context) -> bool:
    """Tell whether there is anything for ``complete`` to do."""
    return ctx.layout.added.is_dir() and bool(members.names(ctx.layout.added))


def complete(ctx: Context) -> None:
    """Give additions their place in index and queue, where a crash has kept them from it; under ``tick.lock``."""
    for name in members.names(ctx.layout.added):
        mark = ctx.layout.added / name
        if quarantine.is_deleted(ctx, name):
            with members.apart(mark):
                if mark.is_file() and not mark.stat().st_size:
                    mark.unlink()
            continue
        with members.apart(mark, partial(quarantine.note, ctx, name)):
            _complete(ctx, name)
            mark.unlink(missing_ok=True)


def _tell(batch_dir: Path, job_id: str, name: str) -> None:
    """Write the ledger's line of an addition, with the hash that an audit compares."""
    path = batch_dir / job_id / additions.FOLDER / name
    addition = additions.read(batch_dir / job_id, name)
    ledger.append(
        batch_dir,
        "added",
        by=addition.by,
        job_id=job_id,
        file=f"{additions.FOLDER}/{name}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        steps=[f"{job_id}/{step.step_id}" for step in addition.steps],
        trials=trials(addition.steps),
    )


def trials(steps: Iterable[StepSpec]) -> dict[str, int]:
    """Return column of a scoreboard → trials that are planned of it, as the ledger has them from the start."""
    return dict(Counter(step.label for step in steps if step.kind == "trial"))


def _complete(ctx: Context, batch_id: str) -> None:
    book = JobState(ctx, batch_id)
    jobs = [batches.read_job(path) for path in batches.job_dirs(ctx.layout, batch_id)]
    index.write(book.batch_dir, jobs)
    if batches.read_batch(book.batch_dir).imported is not None:
        carry_over.complete(book, jobs)
    for job in tell(book.batch_dir, jobs):
        for step in job.steps:
            if attempts.newest(book.step_dir(job, step)) is None:
                book.place(job, step)
    book.save(whole=True)


def tell(batch_dir: Path, jobs: Sequence[JobSpec]) -> list[JobSpec]:
    """Write the ledger's lines that are missing; the jobs that were added to."""
    found = [(job, additions.names(batch_dir / job.job_id)) for job in jobs]
    found = [(job, names) for job, names in found if names]
    if found:
        told = {
            (event["job_id"], event["file"]) for _, event in ledger.read(batch_dir) if event.get("event") == "added"
        }
        for job, names in found:
            for name in names:
                if (job.job_id, f"{additions.FOLDER}/{name}") not in told:
                    _tell(batch_dir, job.job_id, name)
    return [job for job, _ in found]
