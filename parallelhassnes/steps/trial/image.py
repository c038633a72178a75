"""One Docker image per distinct task environment, shared by the trials of this store that need it.

By itself Compose builds an image for every trial and Harbor removes it with the trial, so that each builds
again and, where the layers go too, one may lose what it is about to start from. Files, in ``runs/_system/images``:

    <hash>.lock    held by who looks, builds or removes; a dead builder frees it
    <hash>.json    A: the tag, and the jobs whose trials need it; written before the build

``<hash>`` is of the environment folder's content. A crash after the record leaves one without an image: the
next trial builds it, or ``remove_unneeded`` drops the record. The building is in ``trial_image_build``.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from parallelhassnes.plan import Record
from parallelhassnes.steps.trial import leftovers
from parallelhassnes.store import atomic, locks, members
from parallelhassnes.store.identity import store_id
from parallelhassnes.store.records import dump


class ImageRecord(Record):
    """``<hash>.json``."""

    schema_version: Literal[1] = 1
    tag: str
    jobs: list[str]
    """``batch_id/job_id`` of the jobs whose trials have started from it or were about to."""


def folder(runs: Path) -> Path:
    return runs / "_system" / "images"


def repository(runs: Path) -> str:
    """What the names of this store's images are before the colon."""
    return f"parallelhassnes-{store_id(runs)}"


def lock_path(runs: Path, digest: str) -> Path:
    """The lock of this hash's image and record; makes its folder."""
    folder(runs).mkdir(parents=True, exist_ok=True)
    return folder(runs) / f"{digest}.lock"


def note(runs: Path, digest: str, job: str) -> ImageRecord:
    """Write down that the job needs the image of this hash; the caller holds its lock."""
    path = folder(runs) / f"{digest}.json"
    record = _read(path) or ImageRecord(tag=f"{repository(runs)}:{digest}", jobs=[])
    if job not in record.jobs:
        record = record.model_copy(update={"jobs": [*record.jobs, job]})
        atomic.write_json(path, dump(record))
    return record


def remove_unneeded(runs: Path, is_over: Callable[[str, str], bool]) -> list[str]:
    """Remove the images that no job needs any more; their tags.

    Args:
        is_over: whether none of this job's (batch_id, job_id) trials runs or may still start.
    """
    removed = []
    for path, record in records(runs):
        if not all(is_over(*job.split("/", 1)) for job in record.jobs):
            continue
        lock = locks.claim(path.with_suffix(".lock"))
        if lock is None:
            continue
        try:
            removed += _remove(path, is_over)
        finally:
            os.close(lock)
    return removed


def remove(tag: str) -> bool:
    """Remove the image with its layers, unless something else needs those; whether it went."""
    return leftovers.docker("image", "rm", tag) is not None


def records(runs: Path) -> Iterator[tuple[Path, ImageRecord]]:
    """Every image that this store has built or is building."""
    for name in atomic.json_files(f"{runs}/_system/images"):
        path = Path(name)
        record = _read(path)
        if record is not None:
            yield path, record


def _remove(path: Path, is_over: Callable[[str, str], bool]) -> list[str]:
    """Look again under the lock, then remove image and record; an image that cannot go keeps its record."""
    record = _read(path)
    if record is None or not all(is_over(*job.split("/", 1)) for job in record.jobs):
        return []
    gone = remove(record.tag)
    if not gone and leftovers.docker("image", "ls", "--quiet", record.tag) != "":
        return []
    path.unlink(missing_ok=True)
    return [record.tag] if gone else []


def _read(path: Path) -> ImageRecord | None:
    with members.apart(path):
        if members.is_there(path):
            return atomic.read_record(ImageRecord, path)
    return None
