"""From a task's definition to a running sandbox: root folder, files, mounts, engine."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.steps.sandbox import copying, engines, keeper
from parallelhassnes.steps.sandbox.blueprint import Blueprint
from parallelhassnes.steps.sandbox.box import Box, SandboxError
from parallelhassnes.steps.sandbox.dockerfile import Image
from parallelhassnes.steps.sandbox.layout import RootFolder, guarded, inside

STANDARD = ("/app", "/tests", "/solution", "/logs")
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")


class Bind(NamedTuple):
    """A folder or file of the host that the sandbox is to have at ``target``."""

    source: str
    target: str
    read_only: bool


class Task(NamedTuple):
    """What a sandbox is made from."""

    context: Path
    """The folder of the Dockerfile."""
    image: Image
    workdir: str
    binds: Sequence[Bind]
    hide: Iterable[str]
    show: Sequence[str]
    network: bool


class Built(NamedTuple):
    """A running sandbox, and how it was made."""

    box: Box
    way: engines.Way
    scratch: Path
    """The folder that holds all of it; outside of the sandbox's sight."""
    path: Sequence[str]
    """Folders to add at the end of PATH."""
    mounted: frozenset[str]
    """Where something of the host is mounted; all other paths lie in the root folder."""

    @property
    def root(self) -> Path:
        """The root folder."""
        return self.scratch / "root"


async def build(task: Task, scratch: Path, *, engine: str = "auto") -> Built:
    """Make a sandbox in ``scratch``, an empty folder. Raises CopyError for the task, SandboxError for the host."""
    for folder in ("shared", "empty"):
        (scratch / folder).mkdir()
    (scratch / "nothing").touch()
    shown, path = _interpreter(task.show)
    hidden = {*guarded(), *map(os.path.realpath, task.hide), str(scratch)}
    root = RootFolder(scratch / "root", hidden, shown)
    for folder in (*STANDARD, task.workdir, *task.image.volumes):
        root.folder(folder)
    for copy in task.image.copies:
        copying.copy(task.context, copy, root)
    root.bind(str(scratch / "shared"), keeper.INSIDE, read_only=True)
    for bind in task.binds:
        root.bind(bind.source, bind.target, read_only=bind.read_only)
    mounts = root.finish(scratch / "empty", scratch / "nothing")
    failures: list[str] = []
    for way in engines.ways(engine):
        blueprint = Blueprint(root.path, mounts, scratch, task.network, way.user_namespace)
        try:
            box = await Box.start(way.engine, blueprint, scratch / "shared")
        except SandboxError as error:
            failures.append(str(error))
            continue
        mounted = frozenset(mount.target for mount in mounts) | {"/proc", "/dev"}
        return Built(box, way, scratch, path, mounted)
    raise SandboxError("; ".join([*failures, engines.advice()]))


def _interpreter(show: Sequence[str]) -> tuple[list[str], list[str]]:
    """Where the host's only Python lies in a hidden place (a home folder), show that, and what to add to PATH."""
    real = [os.path.realpath(folder) for folder in show]
    if any(Path(python).exists() for python in _PYTHONS) or shutil.which("python3") is None:
        return real, []
    prefix = str(Path(sys.base_prefix).resolve())
    return [*real, prefix], ([] if inside(prefix, "/usr") else [f"{prefix}/bin"])
