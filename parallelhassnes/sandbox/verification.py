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
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from parallelhassnes import walk
from parallelhassnes.sandbox import owners
from parallelhassnes.sandbox.box import Box
from parallelhassnes.sandbox.build import TESTS, VERIFIER_LOGS, Built
from parallelhassnes.sandbox.engines import kernel, seccomp, unshare
from parallelhassnes.sandbox.engines.blueprint import CAPABILITIES, SandboxLaunch
from parallelhassnes.sandbox.engines.trigger import Trigger
from parallelhassnes.sandbox.keeper import INSIDE, keeper_argv

type Way = Literal["isolated", "clean", "shared"]
WAYS: tuple[Way, ...] = ("isolated", "clean", "shared")
MORE = "wake_alarm"
"""The capability that sets the verifier apart."""
BECOME = (f"--inh-caps=+{MORE}", f"--ambient-caps=+{MORE}")
"""What a verifier that runs as another user than root is started with in addition, to keep it."""
_COVERED = (VERIFIER_LOGS, TESTS, INSIDE)
_KILL_SEC = 5.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_MOST_TOLD = 1000
_DEEP = 16
_KINDS = {stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


async def start(built: Built) -> Box:
    """Start the verifier's keeper. Raises SandboxError."""
    keeper = built.box.processes()[0]
    handles = [
        os.open(f"/proc/{keeper}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("pid", "ipc", "uts", "mnt")
    ]
    program = seccomp.program()
    with built.network.trigger() as trigger:
        launch = SandboxLaunch(
            keeper_argv(), lambda: _prepare(built, handles, program, trigger), own=handles, leaves_it=True
        )
        return await Box.start("a verifier's", launch, built.scratch / "shared-verifier", built.spaces.owner)


def _prepare(built: Built, handles: list[int], program: bytes, trigger: Trigger | None) -> None:
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
    unshare.leave_behind()
    unshare.confine(given, (*CAPABILITIES, MORE), program, trigger)


async def stop(box: Box) -> None:
    """End the verifier's keeper and everything that it has started."""
    with contextlib.ExitStack() as held:
        try:
            # Open until the end: the kernel gives the number of a namespace that is gone to the next one.
            keeper = box.processes()[0]
            place = _held(held, f"/proc/{keeper}/ns/mnt", os.O_RDONLY)
            proc = _held(held, _own_proc(keeper), _FOLDER)
        except (IndexError, OSError):  # it has ended, and there is nothing to tell its processes by
            await box.stop()
            return
        await box.stop()
        number = os.fstat(place).st_ino
        await asyncio.to_thread(_kill_while, proc, lambda _, found: found == number)


def kill_agents(built: Built) -> None:
    """Kill every process of the sandbox but its keeper."""
    with contextlib.ExitStack() as held:
        proc = _held(held, _own_proc(built.box.processes()[0]), _FOLDER)
        _kill_while(proc, lambda pid, _: pid != "1")


def _own_proc(keeper: int) -> str:
    """Return the ``/proc`` of the sandbox, as the host reaches it."""
    return str(Path("/proc", str(keeper), "root", "proc"))


def _held(stack: contextlib.ExitStack, path: str, flags: int) -> int:
    handle = os.open(path, flags | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    return handle


def clear(folder: Path) -> None:
    """Empty a folder of the verifier's on the host, and open it to every user of the sandbox; no process of an agent reaches it."""
    top = walk.open_folder(folder)
    try:
        for name in os.listdir(top):
            with contextlib.suppress(OSError):
                walk.remove(top, name)
        os.fchmod(top, 0o777)
    finally:
        os.close(top)


def sweep(folder: Path) -> dict[str, str]:
    """Remove what is neither a plain file nor a folder, at and below ``folder``.

    Returns:
        Name → what it was, of ``_MOST_TOLD`` of them.
    """
    gone: dict[str, str] = {}
    for entry in owners.everything(folder):
        if entry.is_file or entry.is_folder:
            continue
        with contextlib.suppress(OSError):
            os.unlink(entry.name, dir_fd=entry.folder)
            if len(gone) < _MOST_TOLD:
                name = entry.path if entry.depth <= _DEEP else f"…/{entry.name}"
                gone[name] = _KINDS.get(stat.S_IFMT(entry.info.st_mode), "device")
    return gone


def _kill_while(proc: int, wanted: Callable[[str, int], bool]) -> None:
    """Kill the processes of a sandbox that are wanted until there is none.

    Args:
        proc: the sandbox's own ``/proc``, open, which lists no others.
        wanted: of a process's number there and the number of its mount namespace.
    """
    deadline = time.monotonic() + _KILL_SEC
    found = True
    while found and time.monotonic() < deadline:
        found = False
        for pid in [name for name in os.listdir(proc) if name.isdigit()]:
            with contextlib.suppress(OSError), contextlib.ExitStack() as held:  # it has ended
                handle = os.open(pid, _FOLDER | os.O_CLOEXEC, dir_fd=proc)
                held.callback(os.close, handle)
                # Of one that has ended and only waits to be reaped there is none.
                place = os.stat("ns/mnt", dir_fd=handle).st_ino
                if wanted(pid, place):
                    found = True
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
