"""Reading the write-once records of batches and jobs, and the small files that operators replace.

``job.json`` and ``batch_meta.json`` never change once they are there, so what was parsed is kept; a
forked supervisor inherits it.
"""

from functools import lru_cache
from pathlib import Path

from parallelhassnes.plan import BatchMeta, JobSpec
from parallelhassnes.store import additions, atomic, rooted
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import Control, Current, Overrides, dump

JOB, META, CURRENT, CONTROL, OVERRIDES = (
    "job.json", "batch_meta.json", "current.json", "control.json", "overrides.json",
)  # fmt: skip


def read_job(job_dir: Path) -> JobSpec:
    """The job with everything that was added to it."""
    return _read_job(job_dir, additions.names(job_dir))


@lru_cache(maxsize=64)
def _read_job(job_dir: Path, added: tuple[str, ...]) -> JobSpec:
    document = rooted.unfold(atomic.read_json(job_dir / JOB), job_dir.parents[2])
    job = JobSpec.model_validate(document)
    return additions.merged(job, job_dir, added) if added else job


@lru_cache(maxsize=64)
def read_batch(batch_dir: Path) -> BatchMeta:
    document = atomic.read_json(batch_dir / META)
    return BatchMeta.model_validate(rooted.unfold(document, batch_dir.parents[1]))


def read_current(job_dir: Path) -> Current:
    document = atomic.read_json_or_none(job_dir / CURRENT)
    return Current() if document is None else Current.model_validate(document)


def write_current(job_dir: Path, current: Current) -> None:
    atomic.write_json(job_dir / CURRENT, dump(current), durable=False)


def read_control(batch_dir: Path) -> Control:
    document = atomic.read_json_or_none(batch_dir / CONTROL)
    return Control() if document is None else Control.model_validate(document)


def write_control(batch_dir: Path, control: Control) -> None:
    atomic.write_json(batch_dir / CONTROL, dump(control))


def read_overrides(job_dir: Path) -> Overrides:
    document = atomic.read_json_or_none(job_dir / OVERRIDES)
    return Overrides() if document is None else Overrides.model_validate(document)


def write_overrides(job_dir: Path, overrides: Overrides) -> None:
    atomic.write_json(job_dir / OVERRIDES, dump(overrides))


def job_dirs(layout: Layout, batch_id: str) -> list[Path]:
    """The folders of the batch's jobs, in the table's order."""
    batch_dir = layout.batch(batch_id)
    return [batch_dir / job_id for job_id in read_batch(batch_dir).job_ids]
