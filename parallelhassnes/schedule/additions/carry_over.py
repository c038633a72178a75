"""Attempts that a batch gets instead of making them: what a rerun takes over, byte for byte, what is reused, and what was imported.

    runs/<old>/…/attempts/<name>                        ──linked──▶  runs/<new>/…/attempts/<name>   ledger: ``carried``, with ``source``
    _system/imports/<batch_id>/<job>/<step>/attempts/…  ──linked──▶  runs/<batch_id>/…/attempts/…   ledger: ``carried``, with ``imported``

Done at ingest before ``batch_meta.json`` makes the batch one; to a batch that is there an import adds as ``store.additions`` says. Each attempt appears
whole, by rename, so a redo after a crash finds it or makes it. The line names where it comes from and the hash of its seal; what it
has cost stays in the ledger of the batch that paid for it, or with the program that ran it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parallelhassnes.names import run_id_of
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule.job_state import JobState, publish, published, ran_under, step_facts
from parallelhassnes.schedule.rules.step_state import stand
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.archives import unpacking
from parallelhassnes.store.evidence import ledger, removals, seal
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import Overrides, now_text


def take_over(layout: Layout, batch_id: str, jobs: Sequence[JobSpec], source: str, carry: Mapping[str, str]) -> bool:
    """Give the steps of a new batch the attempts that are named for them; whether there were any.

    Args:
        source: the batch that is run again.
        carry: as ``ingest.Submission``.
    """
    found = False
    for job in jobs:
        for step in job.steps:
            name = carry.get(f"{job.job_id}/{step.step_id}")
            if name is None:
                continue
            place, _, attempt = name.rpartition("/")
            origin = {"source": place, "reused": True} if place else {"source": f"{source}/{job.job_id}/{step.step_id}"}
            folder = layout.step(*str(origin["source"]).split("/")) / "attempts" / attempt
            is_whole = not place or removals.of_attempt(folder) is None  # what is reused must be as it was
            if is_whole and attempts.is_sealed(folder):  # else it was deleted meanwhile: the step runs anew
                take(layout, batch_id, job, step, folder, **origin)
                found = True
    return found


def take_in(layout: Layout, batch_id: str, jobs: Sequence[JobSpec], by: str) -> None:
    """Give the steps of a new batch what was imported for them; a trial of which the source has nothing is not to start by itself."""
    for job in jobs:
        without: list[str] = []
        for step in job.steps:
            folder = layout.imports / batch_id / job.job_id / step.step_id
            names = attempts.names(folder)
            for name in names:
                take_imported(layout, batch_id, job, step, folder / "attempts" / name)
            if step.kind == "trial" and not names:
                without.append(step.step_id)
        if without:
            hold_back(layout, job, without, by)


def take_imported(layout: Layout, batch_id: str, job: JobSpec, step: StepSpec, folder: Path) -> None:
    """Give a step an imported attempt."""
    take(layout, batch_id, job, step, folder, imported=_origin(folder))


def _origin(folder: Path) -> dict[str, Any] | None:
    """Return what the ledger says of where an attempt was imported from; None of one that was made here."""
    meta = (safe_read.read_object(folder / attempts.META) or {}).get("imported")
    names = ("source", "job_id", "trial", "result_sha256")
    return {name: meta.get(name) for name in names} if isinstance(meta, dict) else None


def complete(book: JobState, jobs: Sequence[JobSpec]) -> None:
    """Give imported attempts that were added to a batch their lines in the ledger and their place in ``current.json``, where they lack one."""
    told = {event.get("run_id") for _, event in ledger.read(book.batch_dir)}
    for job in jobs:
        for step in job.steps:
            newest = attempts.newest(book.step_dir(job, step)) if step.kind == "trial" else None
            now = book.current(job.job_id).get(step.step_id)
            if newest is None or (now is not None and now.attempt == newest.name and now.run_id in told):
                continue
            origin = _origin(newest.dir)
            if origin is not None and attempts.is_sealed(newest.dir):
                if run_id_of(newest.name) not in told:
                    tell(book.ctx.layout, book.batch_id, job, step, newest.dir, imported=origin)
                book.look_again(job, step)
                book.spread(job, step)


def hold_back(layout: Layout, job: JobSpec, step_ids: Sequence[str], by: str) -> None:
    """Say of trials that the source has not run them, and that they start here only where somebody asks for it (``retry``)."""
    ledger.append(
        layout.batch(job.batch_id),
        "canceled",
        by=by,
        reason="planned and not run where the batch was imported from",
        target=f"{job.batch_id}/{job.job_id}",
        attempts=[],
        steps=[f"{job.job_id}/{step_id}" for step_id in step_ids],
    )
    job_dir = layout.job(job.batch_id, job.job_id)
    before = batches.read_overrides(job_dir)
    canceled = before.canceled | dict.fromkeys(step_ids, now_text())
    batches.write_overrides(job_dir, before.model_copy(update={"canceled": canceled}))


def take(layout: Layout, batch_id: str, job: JobSpec, step: StepSpec, folder: Path, **origin: Any) -> None:
    """Give a step a sealed attempt from elsewhere, and the ledger its line; again after a crash. One whose files were removed stays one."""
    step_dir, batch_dir = layout.step(batch_id, job.job_id, step.step_id), layout.batch(batch_id)
    adopted = unpacking.adopt(folder, step_dir)
    tell(layout, batch_id, job, step, adopted, **origin)
    gone = removals.of_attempt(folder)
    if gone is not None:
        removals.bury(
            batch_dir,
            gone.rule,
            gone.says,
            {adopted.relative_to(batch_dir).as_posix(): gone},
            by=gone.by,
            archive=gone.archive,
            archived_as=gone.archive and (gone.archived_as or gone.batch_id),
        )


def tell(layout: Layout, batch_id: str, job: JobSpec, step: StepSpec, adopted: Path, **origin: Any) -> None:
    """Write the ledger's line of such an attempt, the newest of its step."""
    report = safe_read.read_object(adopted / attempts.FINAL) or {}
    publish(layout.job(batch_id, job.job_id), adopted)
    now = stand(adopted.parents[1], step, Overrides())
    assert now is not None  # noqa: S101 - it was adopted just now
    ledger.append(
        layout.batch(batch_id),
        "carried",
        job_id=job.job_id,
        step_id=step.step_id,
        run_id=now.run_id,
        attempt=now.attempt,
        number=now.number,
        status=now.status,
        failure=now.failure.model_dump(exclude_none=True) if now.failure else None,
        ended_at=now.ended_at,
        published=published(adopted) or None,
        **origin,
        **seal.recorded(adopted),
        **ran_under(attempts.read_meta(adopted)),
        **{**step_facts(step), **ended_line.line(step, now.status, report)},
    )
