"""Batches of the earlier ParallelHassnes, which an upgraded root holds: shown as what they are, never changed.

    batch_<time>_<hex>/batch_meta.json                       the launch table as it was accepted
    …/<job_id>/steps/<step_id>/attempts/<run>/state.json     status, ended_at
    …/<job_id>/steps/<step_id>/attempts/<run>/final.json     summary

Its folder has neither index nor ledger nor seals.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.states import TERMINAL
from parallelhassnes.store import atomic, members

HELD = "made by the earlier ParallelHassnes: shown as it is, nothing of it starts"
_TIME = re.compile(r"\d{8}T\d{6}Z")


class EarlierBatch(atomic.CorruptFile):
    """A batch of the earlier ParallelHassnes, where one of ours is wanted."""

    def __init__(self, batch_dir: Path, document: dict[str, Any]) -> None:
        self.document = document
        super().__init__(
            f"{batch_dir}: is a batch of the earlier ParallelHassnes, which can be looked at and is not counted"
        )


class EarlierStep(NamedTuple):
    """One step of such a batch."""

    job_id: str
    step_id: str
    depends_on: list[str]
    """``job_id/step_id`` each."""
    attempts: int
    status: str = ""
    """How its newest attempt ended; ``lost`` where that has no end, empty where there is none."""
    attempt: str = ""
    at: str = ""
    summary: str = ""


def is_one(document: Any) -> bool:
    """Tell whether a ``batch_meta.json`` is the earlier project's."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("jobs"), list)
        and "created_at" not in document
        and ("launch_table_sha256" in document or "submitted_at" in document)
    )


def check_ours(meta: Path) -> None:
    """Raises EarlierBatch where the ``batch_meta.json`` is the earlier project's."""
    document = atomic.read_derived(meta)
    if is_one(document):
        raise EarlierBatch(meta.parent, document)


def about(batch_dir: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Tell what such a batch says of itself, as ``batches.read_about`` has it."""
    jobs = [job_id for job_id, _ in _jobs(document)]
    steps = sum(len(own) for _, own in _jobs(document))
    return {
        "batch_id": batch_dir.name,
        "created_at": str(document.get("submitted_at") or ""),
        "job_ids": jobs,
        "steps_total": steps,
        "goal": str(document.get("batch_goal_summary") or ""),
    }


def steps(batch_dir: Path, document: dict[str, Any]) -> Iterator[EarlierStep]:
    """Yield every step, in the table's order."""
    for job_id, own in _jobs(document):
        for step in own:
            step_id = str(step.get("step_id") or "")
            waits = step.get("depends_on")
            refs = [str(name) for name in waits] if isinstance(waits, list) else []
            yield _step(batch_dir, job_id, step_id, [f"{job_id}/{ref}" for ref in refs])


def _jobs(document: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for job in document["jobs"]:
        if isinstance(job, dict):
            own = job.get("steps")
            found = [s for s in own if isinstance(s, dict)] if isinstance(own, list) else []
            yield str(job.get("job_id") or ""), found


def _step(batch_dir: Path, job_id: str, step_id: str, depends_on: list[str]) -> EarlierStep:
    folder = batch_dir / job_id / "steps" / step_id / "attempts"
    runs = sorted(members.names(folder), key=lambda name: (_TIME.findall(name) or [""])[-1])
    if not runs:
        return EarlierStep(job_id, step_id, depends_on, 0)
    state = atomic.read_derived(folder / runs[-1] / "state.json")
    said = atomic.read_derived(folder / runs[-1] / "final.json").get("summary")
    status = state.get("status")
    return EarlierStep(
        job_id,
        step_id,
        depends_on,
        len(runs),
        status if status in TERMINAL else "lost",
        runs[-1],
        str(state.get("ended_at") or state.get("started_at") or ""),
        said if isinstance(said, str) else "",
    )
