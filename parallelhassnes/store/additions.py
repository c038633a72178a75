"""Steps that a job has got since it was accepted: ``job.json`` stays as it was written.

    <job>/additions/<number>.json   W   steps, in the order in which they were added; 0001, 0002 …
    _queue/added/<batch_id>         D   the batch's additions have not all got their tickets yet

Written under ``tick.lock``: the mark first, then the files, then for each a line of the ledger with its hash, then index
and tickets, then the mark goes. A crash between any two leaves the mark, and the next pass does the rest.
"""

from pathlib import Path

from parallelhassnes.plan import Addition, JobSpec
from parallelhassnes.store import atomic

FOLDER = "additions"


def names(job_dir: Path) -> tuple[str, ...]:
    """The additions of a job, oldest first."""
    try:
        return tuple(sorted(p.name for p in (job_dir / FOLDER).iterdir() if p.name[0] != "."))
    except FileNotFoundError:
        return ()


def merged(job: JobSpec, job_dir: Path, found: tuple[str, ...]) -> JobSpec:
    """The job with its additions; a verdict also waits for the trials and analyses that were added."""
    added = [
        step
        for name in found
        for step in Addition.model_validate(atomic.read_json(job_dir / FOLDER / name)).steps
    ]
    mine = f"{job.job_id}/"
    judged = tuple(f"{mine}{step.step_id}" for step in added if step.kind in ("trial", "analysis"))
    steps = [
        step.model_copy(update={"depends_on": (*step.depends_on, *judged)})
        if step.kind == "verdict"
        else step
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
        update={
            "steps": (*steps, *added),
            "dependents": {step_id: tuple(refs) for step_id, refs in dependents.items()},
        }
    )


def next_name(job_dir: Path) -> str:
    return f"{len(names(job_dir)) + 1:04d}.json"
