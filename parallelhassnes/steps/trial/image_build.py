"""Building the image that a trial starts from, in its worker; ``trial_image`` says which files that leaves.

An image that could not be built is left to Harbor to build, and so to fail with Harbor's own words.
"""

import asyncio
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import deadline as trial_deadline
from parallelhassnes.steps.trial import image, leftovers, task
from parallelhassnes.store import locks

LOG = "image_build.log"
_CHUNK = 1 << 20
_LOOK_SEC = 0.05


def shareable(config: dict[str, Any]) -> Path | None:
    """The folder that the trial's image is built from; None where the task says more about it than a Dockerfile."""
    directory = task.task_dir(config)
    environment = safe_read.mapping(task.task_toml(config).get("environment"))
    if directory is None or environment.get("docker_image"):
        return None
    context = directory / "environment"
    if (context / "docker-compose.yaml").exists() or not (context / "Dockerfile").is_file():
        return None
    return context.resolve()


async def provide(attempt: StepAttempt) -> str | None:
    """The tag of the image that the trial is to start from, built if it is not there; None to leave it to Harbor."""
    config = attempt.step.spec["config"]
    context = shareable(config)
    if context is None:
        return None
    runs = attempt.job_dir.parent.parent
    digest = await asyncio.to_thread(content_hash, context)
    deadline = time.monotonic() + trial_deadline.build_sec(config)
    lock = await _claim(image.lock_path(runs, digest), deadline)
    if lock is None:
        return None
    try:
        record = image.note(runs, digest, f"{attempt.batch_id}/{attempt.job_id}")
        known = await asyncio.to_thread(leftovers.docker, "image", "inspect", record.tag)
        if known is None and not await _build(attempt, context, record.tag, deadline):
            return None
        return record.tag
    finally:
        os.close(lock)


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
    """Wait for whoever builds; None if that takes longer than a build may."""
    while (lock := locks.claim(path)) is None:
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_LOOK_SEC)
    return lock


async def _build(attempt: StepAttempt, context: Path, tag: str, deadline: float) -> bool:
    """Build by Compose, as Harbor does, so that the same builder reads the Dockerfile; whether it went well."""
    plan = {"services": {"main": {"image": tag, "build": {"context": str(context)}}}}
    plan_file = attempt.dir / "tmp" / "image.yaml"
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
