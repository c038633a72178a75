"""Steps that a job has got since it was accepted: ``job.json`` stays as it was written.

    <job>/additions/<number>.json   W   steps, in the order in which they were added; 0001, 0002 …; paths as in ``job.json``
    _queue/added/<batch_id>         D   the batch's additions have not all got their tickets yet

Written under ``tick.lock``: the mark first, then the files, then for each a line of the ledger with its hash, then index
and tickets, then the mark goes. A crash between any two leaves the mark, and the next pass does the rest. A rerun's are written at its ingest, before
``batch_meta.json``, and need no mark.

Attempts that ``import`` adds to steps of a batch go the same way: the mark, then each attempt's folder by rename, then their lines and
``current.json``, then the mark goes.
"""

import os
from pathlib import Path

from parallelhassnes.plan import Addition, JobSpec
from parallelhassnes.store import atomic, rooted

FOLDER = "additions"


def names(job_dir: Path) -> tuple[str, ...]:
    """Return the additions of a job, oldest first."""
    try:
        return tuple(sorted(name for name in os.listdir(f"{job_dir}/{FOLDER}") if name[0] != "."))
    except FileNotFoundError:
        return ()


def read(job_dir: Path, name: str) -> Addition:
    document = atomic.read_json(job_dir / FOLDER / name)
    return atomic.parse(Addition, rooted.unfold(document, job_dir.parents[2]), job_dir / FOLDER / name)


def write(job_dir: Path, name: str, addition: Addition) -> None:
    slim = addition.model_dump(mode="json", exclude_defaults=True) | {"schema_version": 1}
    (job_dir / FOLDER).mkdir(exist_ok=True)
    atomic.write_text(job_dir / FOLDER / name, rooted.dumps(slim, job_dir.parents[2]))


def merged(job: JobSpec, job_dir: Path, found: tuple[str, ...]) -> JobSpec:
    """Return the job with its additions; a verdict also waits for the trials and analyses that were added."""
    added = [step for name in found for step in read(job_dir, name).steps]
    mine = f"{job.job_id}/"
    judged = tuple(f"{mine}{step.step_id}" for step in added if step.kind in ("trial", "analysis"))
    steps = [
        step.model_copy(update={"depends_on": (*step.depends_on, *judged)}) if step.kind == "verdict" else step
        for step in job.steps
    ]
    dependents = {step_id: list(refs) for step_id, refs in job.dependents.items()}
    for step in added:
        for wanted in step.depends_on:
            dependents.setdefault(wanted.removeprefix(mine), []).append(f"{mine}{step.step_id}")
    for verdict in (step for step in steps if step.kind == "verdict"):
        for wanted in judged:
            refs = dependents.setdefault(wanted.removeprefix(mine), [])
            refs.append(f"{mine}{verdict.step_id}")
    return job.model_copy(
        update={"steps": (*steps, *added), "dependents": {step_id: tuple(refs) for step_id, refs in dependents.items()}}
    )


def name_of(number: int) -> str:
    """Return the file of a job's addition, counted from 1."""
    return f"{number:04d}.json"
