"""What a rerun takes over from the batch before: sealed attempts, byte for byte, with their seals.

    runs/<old>/…/attempts/<name>  ──linked──▶  runs/<new>/…/attempts/<name>     ledger of the new batch: ``carried``

Done at ingest before ``batch_meta.json`` makes the batch one. Each attempt appears whole, by rename, so a redo after
a crash finds it or makes it. The line names where it comes from and the hash of its seal; what it has cost stays in
the ledger of the batch that paid for it.
"""

from collections.abc import Mapping, Sequence

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule.job_state import publish, published, step_facts
from parallelhassnes.schedule.rules.step_state import stand
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import attempts, seal
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import Overrides


def take_over(layout: Layout, batch_id: str, jobs: Sequence[JobSpec], source: str, carry: Mapping[str, str]) -> bool:
    """Give the steps of a new batch the attempts that are named for them; whether there were any."""
    found = False
    for job in jobs:
        for step in job.steps:
            name = carry.get(f"{job.job_id}/{step.step_id}")
            if name is not None:
                found = _one(layout, batch_id, job, step, source, name) or found
    return found


def _one(layout: Layout, batch_id: str, job: JobSpec, step: StepSpec, source: str, name: str) -> bool:
    folder = layout.step(source, job.job_id, step.step_id) / "attempts" / name
    if not attempts.is_sealed(folder):  # it was deleted meanwhile: the step runs anew
        return False
    step_dir = layout.step(batch_id, job.job_id, step.step_id)
    adopted = attempts.adopt(folder, step_dir)
    report = safe_read.read_object(adopted / attempts.FINAL) or {}
    publish(layout.job(batch_id, job.job_id), adopted)
    now = stand(step_dir, step, Overrides())
    assert now is not None  # noqa: S101 - it was adopted just now
    ledger.append(
        layout.batch(batch_id),
        "carried",
        job_id=job.job_id,
        step_id=step.step_id,
        run_id=now.run_id,
        attempt=name,
        number=now.number,
        status=now.status,
        failure=now.failure.model_dump(exclude_none=True) if now.failure else None,
        ended_at=now.ended_at,
        source=f"{source}/{job.job_id}/{step.step_id}",
        published=published(adopted) or None,
        **seal.recorded(adopted),
        **{**step_facts(step), **ended_line.line(step, now.status, report)},
    )
    return True
