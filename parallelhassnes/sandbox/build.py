"""From a task's definition to a running sandbox: root folder, files, mounts, engine."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.sandbox import keeper, network, owners
from parallelhassnes.sandbox.box import Box, SandboxError
from parallelhassnes.sandbox.engines import choice, spaces
from parallelhassnes.sandbox.engines.blueprint import Blueprint, Engine
from parallelhassnes.sandbox.engines.spaces import Spaces
from parallelhassnes.sandbox.image import copying
from parallelhassnes.sandbox.image.dockerfile import Image
from parallelhassnes.sandbox.network import Network
from parallelhassnes.sandbox.root_layout import Mount, RootFolder, containers_mask, inside

TESTS = "/tests"
VERIFIER_LOGS = "/logs/verifier"
STANDARD = ("/app", TESTS, "/solution", "/logs")
FOLDERS = ("shared", "shared-verifier", "tests", "agents-tests", "agents-verifier", "empty")
"""Beside the root folder: those of the keepers, what only a verifier sees, what the agent sees there instead."""
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")


class Bind(NamedTuple):
    """A folder or file of the host that the sandbox is to have at ``target``."""

    source: str
    target: str
    read_only: bool
    is_the_trials: bool = False
    """The folder lies in the trial's own, so that whom it belongs to is ours to say."""


class Task(NamedTuple):
    """What a sandbox is made from."""

    context: Path
    """The folder of the Dockerfile."""
    image: Image
    workdir: str
    binds: Sequence[Bind]
    hide: Iterable[str]
    show: Sequence[str]
    network: network.Mode
    host_ports: Sequence[int] = ()
    """Ports of the host's loopback that are found at the sandbox's own."""
    covered: bool = False
    """What is the verifier's lies below covers, which ``verification.py`` takes away for it."""


class Built(NamedTuple):
    """A running sandbox, and how it was made."""

    box: Box
    engine: Engine
    spaces: Spaces
    network: Network
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

    async def stop(self) -> None:
        """End it, with everything in it."""
        await self.box.stop()
        await self.network.stop()
        self.spaces.close()


async def build(task: Task, scratch: Path, *, engine: str = "auto") -> Built:
    """Make a sandbox in ``scratch``, an empty folder. Raises CopyError for the task, SandboxError for the host."""
    owner = spaces.new_owner()
    try:
        given = spaces.make(owner, network=task.network != "host")
    except OSError as error:
        raise SandboxError(f"no user namespace: {error}; {choice.advice()}") from error
    async with contextlib.AsyncExitStack() as on_failure:
        on_failure.callback(given.close)
        joined = Network(given, scratch, task.host_ports, wanted=task.network == "private")
        on_failure.push_async_callback(joined.stop)
        with containers_mask():
            layout = lay_out(task, scratch, owner)
        blueprint = Blueprint(
            scratch / "root",
            layout.mounts,
            scratch,
            given,
            layout.shown,
            layout.root.in_memory,
            [*layout.root.places.values()],
            network.own_addresses(),
        )
        box, made_by = await _start(engine, blueprint, joined)
        on_failure.push_async_callback(box.stop)
        await joined.begin()
        on_failure.pop_all()
    mounted = frozenset({*(mount.target for mount in layout.mounts), *layout.root.in_memory, "/proc", "/dev"})
    return Built(box, made_by, given, joined, scratch, layout.path, mounted)


async def _start(engine: str, blueprint: Blueprint, joined: Network) -> tuple[Box, Engine]:
    failures: list[str] = []
    shared, owner = blueprint.scratch / "shared", blueprint.spaces.owner
    for way in choice.usable(engine):
        try:
            with joined.trigger() as trigger:
                launch = way.launch(blueprint._replace(trigger=trigger))
                box = await Box.start(way.name, launch, shared, owner)
        except SandboxError as error:
            failures.append(str(error))
        else:
            return box, way
    raise SandboxError("; ".join([*failures, choice.advice()]))


class _Layout(NamedTuple):
    root: RootFolder
    mounts: list[Mount]
    shown: list[tuple[str, str]]
    path: list[str]


def lay_out(task: Task, scratch: Path, owner: int | None) -> _Layout:
    """Put the root folder and the folders beside it together, and give them to the sandbox."""
    for folder in FOLDERS:
        (scratch / folder).mkdir()
    (scratch / "nothing").touch()
    (scratch / "nothing").chmod(0o444)  # whatever the umask is, also to the sandbox's users
    shown, path = _interpreter(task.show)
    hidden = {*map(os.path.realpath, task.hide), str(scratch)}
    root = RootFolder(scratch / "root", hidden, shown)
    for folder in (*STANDARD, task.workdir, *task.image.volumes):
        root.folder(folder)
    for copy in task.image.copies:
        copying.copy(task.context, copy, root)
    if task.covered:
        # What the image has there is below the covers, too: for both, and the verifier's is nobody else's.
        shutil.copytree(root.place(TESTS), scratch / "agents-tests", symlinks=True, dirs_exist_ok=True)
        root.bind(str(scratch / "shared-verifier"), keeper.INSIDE, read_only=True)
        root.bind(str(scratch / "tests"), TESTS, read_only=False)
        root.bind(str(scratch / "agents-tests"), TESTS, read_only=False)
    root.bind(str(scratch / "shared"), keeper.INSIDE, read_only=True)
    for bind in task.binds:
        root.bind(bind.source, bind.target, read_only=bind.read_only)
        if task.covered and bind.target == VERIFIER_LOGS:
            root.bind(str(scratch / "agents-verifier"), bind.target, read_only=False)
    if task.network == "private" and network.resolver_is_local():
        (scratch / "resolv.conf").write_text(f"nameserver {network.RESOLVER}\n", encoding="ascii")
        root.bind(str(scratch / "resolv.conf"), "/etc/resolv.conf", read_only=True)
    mounts = root.finish(scratch / "nothing")
    if owner is None:
        return _Layout(root, mounts, [], path)
    places = [(folder, str(scratch / f"shown-{n}")) for n, folder in enumerate(shown)]
    for _, place in places:
        Path(place).mkdir()
    for given in FOLDERS:
        os.chown(scratch / given, owner, owner)
    for given in ("root", "agents-tests"):
        owners.give(scratch / given, owner)
    for bind in task.binds:
        if bind.is_the_trials and not bind.read_only:
            owners.give(Path(bind.source), owner)
    own = str(scratch)
    mounts = [m if inside(m.source, own) else _from(m, places) for m in mounts]
    return _Layout(root, mounts, places, path)


def _from(mount: Mount, places: Sequence[tuple[str, str]]) -> Mount:
    """Return the mount with its source where a shown folder is mounted first."""
    for path, place in places:
        if mount.kind == "ro" and inside(mount.source, path):
            return mount._replace(source=place + mount.source[len(path.rstrip("/")) :])
    return mount


def _interpreter(show: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell where the host's only Python lies in a hidden place (a home folder), show that, and what to add to PATH."""
    real = [os.path.realpath(folder) for folder in show]
    if any(Path(python).exists() for python in _PYTHONS) or shutil.which("python3") is None:
        return real, []
    prefix = str(Path(sys.base_prefix).resolve())
    return [*real, prefix], ([] if inside(prefix, "/usr") else [f"{prefix}/bin"])
