"""Reading the write-once records of batches and jobs, and the small files that operators replace.

``job.json`` and ``batch_meta.json`` never change once they are there, so what was parsed is kept; a
forked supervisor inherits it.
"""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from parallelhassnes import packed
from parallelhassnes.plan import BatchMeta, JobSpec, StepSpec
from parallelhassnes.store import additions, atomic, attempts, earlier_batches, members, rooted
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import Control, Overrides, Ticket, dump, now_text

JOB, META, CONTROL, OVERRIDES = ("job.json", "batch_meta.json", "control.json", "overrides.json")

TABLE = "launch_table.json"
"""The table as submitted, where that is JSON."""
JOB_HASHES = "jobs.sha256"
"""``<job_id> <SHA-256>`` of each ``job.json``, in the table's order; the hash of it all stands in the ledger."""
DERIVED = ("index.json", "scoreboard.batch.json", "scoreboard.shown.json", "spans.batch.json", "trials.batch.json")
"""What is made anew from the rest of a batch's folder."""
FILES = frozenset({META, JOB_HASHES, ledger.LEDGER, *packed.FILES, *DERIVED})
"""What is in a batch's folder besides its table, its jobs, and what its ledger names."""


def read_job(job_dir: Path) -> JobSpec:
    """Return the job with everything that was added to it.

    Raises:
        FileNotFoundError: there is no such batch.
        CorruptFile: the batch is there, and the job is not, or cannot be read.
    """
    return _read_job(job_dir, additions.names(job_dir))


def read_step(layout: Layout, ticket: Ticket) -> tuple[JobSpec, StepSpec]:
    """Return the step of a ticket, and its job.

    Raises:
        Torn: there is none.
        CorruptFile: the job cannot be read.
    """
    job_dir = layout.job(ticket.batch_id, ticket.job_id)
    if not (job_dir / JOB).is_file():  # what was parsed is kept, so that alone would not tell
        raise tickets.Torn(f"{job_dir / JOB}: is gone")
    job = read_job(job_dir)
    if ticket.step_id not in job.places:
        raise tickets.Torn(f"{job_dir / JOB}: has no step {ticket.step_id}, for which there is a ticket")
    return job, job.step(ticket.step_id)


@lru_cache(maxsize=64)
def _read_job(job_dir: Path, added: tuple[str, ...]) -> JobSpec:
    try:
        document = rooted.unfold(atomic.read_json(job_dir / JOB), job_dir.parents[2])
    except FileNotFoundError:
        if (job_dir.parent / META).exists():
            read_batch(job_dir.parent)
            raise atomic.CorruptFile(f"{job_dir / JOB}: is gone") from None
        raise
    job = atomic.parse(JobSpec, document, job_dir / JOB)
    return additions.merged(job, job_dir, added) if added else job


@lru_cache(maxsize=64)
def read_batch(batch_dir: Path) -> BatchMeta:
    document = rooted.unfold(atomic.read_json(batch_dir / META), batch_dir.parents[1])
    if earlier_batches.is_one(document):
        raise earlier_batches.EarlierBatch(batch_dir, document)
    return atomic.parse(BatchMeta, document, batch_dir / META)


def judged(batch_dir: Path) -> list[str]:
    """Return ``batch/job/step/attempt`` of what a batch judges, if it is a regrade.

    Raises:
        CorruptFile: its table does not say.
    """
    if read_batch(batch_dir).regrade is None:
        return []
    try:
        return [str(trial["regrade"]["attempt"]) for trial in atomic.read_json(batch_dir / TABLE)["trials"]]
    except FileNotFoundError:
        raise atomic.CorruptFile(f"{batch_dir / TABLE}: is gone") from None
    except (KeyError, TypeError):
        raise atomic.CorruptFile(f"{batch_dir / TABLE}: is no table of a regrade") from None


def read_about(batch_dir: Path) -> dict[str, Any]:
    """Return ``batch_meta.json`` as it is, for views that look at thousands of batches; what every batch says of itself is in it."""
    document: dict[str, Any] = atomic.read_json(batch_dir / META)
    if earlier_batches.is_one(document):
        return earlier_batches.about(batch_dir, document)
    for key, kind in (("batch_id", str), ("created_at", str), ("steps_total", int), ("job_ids", list)):
        if not isinstance(document.get(key), kind):
            raise atomic.CorruptFile(f"{batch_dir / META}: /{key}: is missing or of the wrong type")
    return document


def read_control(batch_dir: Path) -> Control:
    path = f"{batch_dir}/{CONTROL}"
    document = atomic.read_json_or_none(path)
    return Control() if document is None else atomic.parse(Control, document, path)


def write_control(layout: Layout, batch_id: str, control: Control) -> None:
    """Replace what operators have said of the batch; the caller holds ``tick.lock``, and a line of the ledger follows."""
    ledger.replace_json(layout.batch(batch_id), CONTROL, dump(control))
    tickets.announce(layout, batch_id)


def read_overrides(job_dir: Path) -> Overrides:
    path = f"{job_dir}/{OVERRIDES}"
    document = atomic.read_json_or_none(path)
    return Overrides() if document is None else atomic.parse(Overrides, document, path)


def write_overrides(job_dir: Path, overrides: Overrides) -> None:
    """As ``write_control``, of a job's steps."""
    ledger.replace_json(job_dir.parent, f"{job_dir.name}/{OVERRIDES}", dump(overrides))


def strangers(layout: Layout, known: Collection[str]) -> list[str]:
    """Return the folders of ``runs/`` that hold attempts and are no batch among the known: their ``batch_meta.json`` is gone."""
    found = []
    for name in members.names(layout.runs):
        if name[0] != "_" and name not in known:
            with members.apart(layout.batch(name)):
                if any(layout.batch(name).glob("*/steps")):
                    found.append(name)
    return found


def job_dirs(layout: Layout, batch_id: str) -> list[Path]:
    """Return the folders of the batch's jobs, in the table's order."""
    batch_dir = layout.batch(batch_id)
    return [batch_dir / job_id for job_id in read_batch(batch_dir).job_ids]


def ask_to_end(step_dir: Path, run_id: str) -> None:
    """Have the supervisor of a live attempt end it; it looks at every heartbeat and signal. As ``write_control``."""
    document = {"schema_version": 1, "run_id": run_id, "at": now_text()}
    batch_dir = step_dir.parents[2]
    ledger.replace_json(batch_dir, (step_dir / attempts.CANCEL).relative_to(batch_dir).as_posix(), document)
