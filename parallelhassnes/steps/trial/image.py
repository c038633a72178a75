"""One Docker image per distinct task environment, shared by the trials of this store that need it.

By itself Compose builds an image for every trial and Harbor removes it with the trial, so that each builds
again and, where the layers go too, one may lose what it is about to start from. Files, in ``runs/_system/images``:

    <hash>.lock    held by who looks, builds or removes; a dead builder frees it
    <hash>.json    A: the tag, and the jobs whose trials need it; written before the build

``<hash>`` is of the environment folder's content. A crash after the record leaves one without an image: the
next trial builds it, in its worker, or ``remove_unneeded`` drops the record. What could not be built is left to Harbor to
build, and so to fail with Harbor's own words.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from parallelhassnes.plan import Record
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import deadline as trial_deadline
from parallelhassnes.steps.trial import leftovers, task
from parallelhassnes.store import atomic, locks, members, space
from parallelhassnes.store.identity import store_id
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump


class ImageRecord(Record):
    """``<hash>.json``."""

    schema_version: Literal[1] = 1
    tag: str
    jobs: list[str]
    """``batch_id/job_id`` of the jobs whose trials have started from it or were about to."""


def folder(runs: Path) -> Path:
    return Layout(runs.parent).images


def repository(runs: Path) -> str:
    """Tell what the names of this store's images are before the colon."""
    return f"parallelhassnes-{store_id(runs)}"


def lock_path(runs: Path, digest: str) -> Path:
    """Return the lock of this hash's image and record; makes its folder."""
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
    """Return every image that this store has built or is building."""
    for name in atomic.json_files(str(folder(runs))):
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


LOG = "image_build.log"
_CHUNK = 1 << 20
_LOOK_SEC = 0.05


def shareable(config: dict[str, Any]) -> Path | None:
    """Return the folder that the trial's image is built from; None where the task says more about it than a Dockerfile."""
    directory = task.task_dir(config)
    environment = safe_read.mapping(task.task_toml(config).get("environment"))
    if directory is None or environment.get("docker_image"):
        return None
    context = directory / "environment"
    if (context / "docker-compose.yaml").exists() or not (context / "Dockerfile").is_file():
        return None
    return context.resolve()


async def provide(attempt: StepAttempt) -> str | None:
    """Return the tag of the image that the trial is to start from, built if it is not there; None to leave it to Harbor."""
    config = attempt.step.spec["config"]
    context = shareable(config)
    if context is None:
        return None
    runs = attempt.job_dir.parent.parent
    digest = await asyncio.to_thread(content_hash, context)
    deadline = time.monotonic() + trial_deadline.build_sec(config)
    lock = await _claim(lock_path(runs, digest), deadline)
    if lock is None:
        return None
    try:
        record = note(runs, digest, f"{attempt.batch_id}/{attempt.job_id}")
        known = await asyncio.to_thread(leftovers.docker, "image", "inspect", record.tag)
        if known is None and not await _build(attempt, context, record.tag, deadline):
            return None
        return record.tag
    finally:
        os.close(lock)


def note_data_root(runs: Path) -> None:
    """Write down where Docker keeps images and containers, so that passes watch the space there; once for a store."""
    place = space.docker_root(runs)
    if place.exists():
        return
    named = (leftovers.docker("info", "--format", "{{.DockerRootDir}}") or "").strip()
    if named:
        with contextlib.suppress(OSError):
            atomic.write_text(place, named + "\n", durable=False)


def content_hash(context: Path) -> str:
    """Of names, modes and content of everything in the folder: what an image built from it depends on."""
    digest = hashlib.sha256()
    for path in sorted(context.rglob("*")):
        info = path.lstat()
        name = os.fsencode(path.relative_to(context))
        digest.update(b"%d %o %s\0" % (len(name), info.st_mode, name))
        if stat.S_ISLNK(info.st_mode):
            digest.update(os.fsencode(path.readlink()))
        elif stat.S_ISREG(info.st_mode):
            digest.update(b"%d\0" % info.st_size)
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()[:24]


async def _claim(path: Path, deadline: float) -> int | None:
    """Wait for whoever builds; None after the longest time that a build may take."""
    while (lock := locks.claim(path)) is None:
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_LOOK_SEC)
    return lock


async def _build(attempt: StepAttempt, context: Path, tag: str, deadline: float) -> bool:
    """Build by Compose, as Harbor does, so that the same builder reads the Dockerfile; whether it went well."""
    plan = {"services": {"main": {"image": tag, "build": {"context": str(context)}}}}
    plan_file = attempt.dir / "tmp" / "yaml"
    plan_file.write_text(json.dumps(plan), encoding="utf-8")
    with (attempt.dir / LOG).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "docker",
            "compose",
            "--project-name",
            tag.partition(":")[0],
            "--file",
            str(plan_file),
            "build",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await process.wait() == 0
        except TimeoutError:
            return False
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
