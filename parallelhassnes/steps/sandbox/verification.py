"""A place for the verifier that the agent's processes cannot reach.

When Harbor brings the tests, a second keeper is started in the sandbox: with its processes, network, users and files, so that a
server which the agent has left running is there to be tested, but in a mount namespace of its own. There the covers are taken from
``/logs/verifier`` and ``/tests``: the agent never sees the folders below them, nor the scripts by which the verifier is run. The
verifier's processes have one capability that the agent's have not (``wake_alarm``, which is of no use to either): that is why the
kernel lets none of the agent's look at their memory, descriptors, environment or root (ptrace's rule). Afterwards every
process in that mount namespace is killed, and what in ``/logs/verifier`` is no plain file or folder goes, before Harbor reads it.

``isolated`` is this; ``clean`` kills the agent's processes first; ``shared`` is Harbor's way: one place for both.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from parallelhassnes.steps.sandbox import kernel, seccomp, unshare
from parallelhassnes.steps.sandbox.blueprint import CAPABILITIES, Launch
from parallelhassnes.steps.sandbox.box import Box
from parallelhassnes.steps.sandbox.build import TESTS, VERIFIER_LOGS, Built
from parallelhassnes.steps.sandbox.keeper import INSIDE, KEEPER

type Way = Literal["isolated", "clean", "shared"]
WAYS: tuple[Way, ...] = ("isolated", "clean", "shared")
MORE = "wake_alarm"
"""The capability that sets the verifier apart."""
BECOME = (f"--inh-caps=+{MORE}", f"--ambient-caps=+{MORE}")
"""What a verifier that runs as another user than root is started with in addition, to keep it."""
_COVERED = (VERIFIER_LOGS, TESTS, INSIDE)
_KILL_SEC = 5.0
_KINDS = {stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


async def start(built: Built) -> Box:
    """Start the verifier's keeper. Raises SandboxError."""
    keeper = built.box.processes()[0]
    handles = [
        os.open(f"/proc/{keeper}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        for name in ("pid", "ipc", "uts", "mnt")
    ]
    launch = Launch(KEEPER, lambda: _prepare(built, handles, program), own=handles)
    program = seccomp.program()
    return await Box.start(
        "a verifier's", launch, built.scratch / "shared-verifier", built.spaces.owner
    )


def _prepare(built: Built, handles: list[int], program: bytes) -> None:
    kernel.die_with_parent()
    given = built.spaces
    if given.owner is None:
        os.setns(given.user, os.CLONE_NEWUSER)
    if given.network is not None:
        os.setns(given.network, os.CLONE_NEWNET)
    for handle in handles:
        os.setns(handle)
    # From here on the file system is the agent's: nothing may be imported or executed with our rights.
    kernel.unshare_mounts()
    for target in _COVERED:
        kernel.unmount(target)
    unshare.stay_behind()
    unshare.confine(given.user, given.owner, (*CAPABILITIES, MORE), program)


async def stop(box: Box) -> None:
    """End the verifier's keeper and everything that it has started."""
    keepers = box.processes()
    try:
        # Open until the end: the kernel gives the number of a namespace that is gone to the next one.
        held = os.open(f"/proc/{keepers[0]}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except (IndexError, OSError):  # it has ended, and there is nothing to tell its processes by
        await box.stop()
        return
    try:
        await box.stop()
        place = os.fstat(held).st_ino
        await asyncio.to_thread(_kill_while, lambda pid: _inode(pid, "mnt") == place)
    finally:
        os.close(held)


def kill_agents(built: Built) -> None:
    """Kill every process of the sandbox but its keeper."""
    keeper = built.box.processes()[0]
    place = _inode(keeper, "pid")
    _kill_while(lambda pid: pid != keeper and place is not None and _inode(pid, "pid") == place)


def clear(folder: Path) -> None:
    """Empty a folder of the verifier's on the host, and open it to every user of the sandbox; no process of an agent reaches it."""
    for path in list(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    folder.chmod(0o777)


def sweep(folder: Path) -> dict[str, str]:
    """Remove what is neither a plain file nor a folder, at and below ``folder``; returns name → what it was."""
    gone: dict[str, str] = {}
    for place, _, _, handle in os.fwalk(folder, follow_symlinks=False):
        for name in os.listdir(handle):
            mode = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                os.unlink(name, dir_fd=handle)
                kind = _KINDS.get(stat.S_IFMT(mode), "device")
                gone[str(Path(place, name).relative_to(folder))] = kind
    return gone


def _inode(pid: int, name: str) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/{name}").stat().st_ino
    except OSError:  # it has ended, or is another user's
        return None


def _kill_while(wanted: Callable[[int], bool]) -> None:
    """Kill the processes that are wanted until there is none."""
    deadline = time.monotonic() + _KILL_SEC
    found = True
    while found and time.monotonic() < deadline:
        found = False
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                try:
                    if wanted(pid) and not _is_dead(pid):
                        found = True
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                finally:
                    os.close(handle)


def _is_dead(pid: int) -> bool:
    """Whether it has ended and only waits to be reaped."""
    return (
        Path(f"/proc/{pid}/stat")
        .read_text(encoding="utf-8", errors="replace")
        .rpartition(")")[2]
        .split()[0]
        in "ZX"
    )
