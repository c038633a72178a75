"""Processes: how they are started, and ending those that are left.

Who is who is ``store.process_identity``'s. Workers carry their attempt's run id in their environment, so what forked away
from its process group is found too.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import setproctitle

from parallelhassnes.store.process_identity import IS_LINUX, is_alive, table

RUN_ID_VARIABLE = "PARALLELHASSNES_RUN_ID"
OURSELVES = (sys.executable, "-P", "-m")
"""How a module of ours is started: nothing in the current folder is taken for a module of the library's; ``PYTHONPATH`` holds."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True) if IS_LINUX else None


def be_init() -> None:
    """Go on in a child where this is the first process of a container, which nobody else reaps for.

    The first process stays as what an init is: it collects whoever ends, hands signals on to the child, and ends with it.
    """
    if os.getpid() != 1 or not IS_LINUX:
        return
    ours = {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCHLD,
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    set_title("init")
    while True:
        told = signal.sigwaitinfo(ours)
        if told.si_signo != signal.SIGCHLD:
            if told.si_code <= 0:  # a terminal's Ctrl-C has reached the child by itself
                os.kill(child, told.si_signo)
            continue
        for pid, status in reaped():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


def reaped() -> Iterator[tuple[int, int]]:
    """Collect the children that have ended, adopted ones among them: the pid and the wait status of each."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def die_with_parent(parent: int) -> None:
    """Have the kernel SIGKILL this process when its parent dies; exits where that has happened already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def set_title(text: str) -> None:
    """Have ``ps`` show what this process is, instead of the command that it descends from."""
    setproctitle.setproctitle(f"parallelhassnes {text}")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none can slip away."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def leave_orphans() -> None:
    """Undo ``adopt_orphans``: orphans below this process become those of whoever is above it."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _has_table() -> bool:
    """Tell whether ``/proc`` shows processes by the pids that they have for us."""
    return IS_LINUX and bool(table())


def children(pid: int) -> list[int]:
    if not _has_table():
        return []
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as stream:  # noqa: PTH123 - hot path
            return [int(part) for part in stream.read().split()]
    except OSError:
        return []


def send(pid: int | None, started: int | None, signum: int) -> bool:
    """Signal the very process; False where it is gone."""
    if pid is None or not is_alive(pid, started):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
        return True
    return False


def kill_group(pgid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


def kill_descendants(deadline_sec: float = 5.0) -> int:
    """SIGKILL and reap every descendant of this process; how many there were. Needs ``adopt_orphans``.

    One that the kernel cannot end (stuck in a system call) is left at the deadline.
    """
    killed: set[int] = set()
    end = time.monotonic() + deadline_sec
    while True:
        for pid in children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return len(killed)
        if time.monotonic() > end:
            return len(killed)
        time.sleep(0.001)


def with_run_id(run_id: str) -> list[int]:
    """Return every process whose environment names the attempt; our own process is not one of them."""
    wanted = f"{RUN_ID_VARIABLE}={run_id}".encode()
    return [pid for pid, environment in environments() if wanted in environment]


def environments() -> Iterator[tuple[int, list[bytes]]]:
    """Yield every process but ours whose environment can be read, with that: ``NAME=value`` each, as it was started with."""
    for name in os.listdir("/proc") if _has_table() else ():
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as stream:  # noqa: PTH123
                yield int(name), stream.read().split(b"\0")


def close_inherited() -> None:
    """Close the descriptors that whoever started this program passed in, as ``flock LOCK parallelhassnes tick`` does.

    They are those that an exec would pass on; what this program opens itself is none of them. Standard streams stay.
    """
    for name in os.listdir("/proc/self/fd" if IS_LINUX else "/dev/fd"):
        handle = int(name)
        with contextlib.suppress(OSError):  # that of the listing itself
            if handle > 2 and os.get_inheritable(handle):
                os.close(handle)


def inheritors(lock: Path) -> list[int]:
    """Return the processes that hold the lock on this file by a descriptor that an exec passes on: a worker and what it started.

    A supervisor's, or that of a tick that repairs, is closed by an exec.
    """
    try:
        info = lock.stat()
    except OSError:
        return []
    ours = (info.st_dev, info.st_ino)
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _holds(pid, ours)] if _has_table() else []


def _holds(pid: str, file: tuple[int, int]) -> bool:
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            info = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116 - where a link leads, not that it is one
            if (info.st_dev, info.st_ino) == file:
                said = Path(f"/proc/{pid}/fdinfo/{name}").read_bytes()
                if b"lock:" in said and not _flags(said) & os.O_CLOEXEC:
                    return True
    except (OSError, ValueError):  # gone, or another user's
        return False
    return False


def _flags(fdinfo: bytes) -> int:
    return int(fdinfo.partition(b"flags:")[2].split()[0], 8)


def _with_descendants(pids: list[int]) -> list[int]:
    """Return the processes and all that descend from them, whatever their environment says: a container's is its own."""
    found, look = dict.fromkeys(pids), [*pids]
    while look:
        below = [pid for pid in children(look.pop()) if pid not in found]
        found.update(dict.fromkeys(below))
        look += below
    return [*found]


def kill_run(run_id: str) -> int:
    """SIGKILL whatever an attempt left behind, until nothing of it is found; how many were killed."""
    killed = 0
    for _ in range(20):
        left = [pid for pid in _with_descendants(with_run_id(run_id)) if pid != os.getpid() and is_alive(pid, None)]
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(0.01)
    return killed
