"""Kernel locks on files that are never unlinked.

A lock belongs to the open file description: every process that inherits the descriptor holds it, and
the kernel frees it when the last of them closes it or dies. Two uses:

* ``claim``: a lock that is handed on to children by the descriptor (``step.lock``). It is let go by closing,
  never by unlocking, so it stays with whatever child still has it.
* ``hold``: a lock of this process alone (``tick.lock``). Forked children drop their copies
  (``drop_held``), and ``release`` does nothing in a process that does not hold it.
"""

import contextlib
import fcntl
import os
import secrets
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parallelhassnes.errors import StoreBusy

PATIENCE_SEC = 60.0
"""Far longer than a pass takes: whoever holds a lock for so long is stopped, or hangs."""
_PAUSE_SEC, _MOST_PAUSE_SEC = 0.001, 0.04
_held: set[int] = set()
_queued: list[int] = []
_inherited: list[int] = []


def _lock(handle: int) -> bool:
    """Lock the file of a descriptor; False where somebody else has."""
    from filelock import lock_descriptor  # by then: most of what only looks asks for no lock

    return lock_descriptor(handle, blocking=False)


def claim(path: Path | str) -> int | None:
    """Take a lock that can be handed on; the locked descriptor, or None where somebody else holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if _lock(handle):
            return handle
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def hold(path: Path | str) -> int | None:
    """Take a lock for this process alone, be it one that it was started with (``inherit``); None where somebody else holds it."""
    given = next((each for each in _inherited if is_current(each, path)), None)
    if given is not None:
        _inherited.remove(given)
    handle = claim(path) if given is None else given
    if handle is not None:
        _held.add(handle)
    return handle


def inherit(handle: int) -> None:
    """Have the next ``hold`` of a file be by this descriptor, by which it was locked before this process began."""
    os.set_inheritable(handle, False)
    _inherited.append(handle)


def queue_up(waiting: Path | str) -> None:
    """Say, by a shared lock of a file, that this process is about to wait for another lock (``hold_in_turn``).

    Who holds that can tell (``is_waited_for``), and may leave to us what we have asked for.
    """
    handle = os.open(waiting, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _held.add(handle)
    _queued.append(handle)
    with contextlib.suppress(BlockingIOError):  # somebody looks whether anybody waits, and sees nobody
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def leave_queue() -> None:
    """Undo ``queue_up``."""
    while _queued:
        handle = _queued.pop()
        _held.discard(handle)
        os.close(handle)


def hold_in_turn(path: Path | str, patience_sec: float) -> int | None:
    """As ``hold``, but wait for a while where this process has queued up, and leave the queue.

    Once nobody can see us wait any more the lock is tried again: who has not seen us holds it still, and looks after it has let go.
    """
    handle = hold(path)
    try:
        deadline, pause = time.monotonic() + patience_sec, _PAUSE_SEC
        while handle is None and _queued and time.monotonic() < deadline:
            select.select((), (), (), pause)
            pause = min(1.5 * pause, _MOST_PAUSE_SEC)
            handle = hold(path)
    finally:
        leave_queue()
    return hold(path) if handle is None else handle


def is_waited_for(waiting: Path | str) -> bool:
    """Tell whether a process has queued up by this file."""
    return is_held(waiting)


def release(handle: int) -> None:
    """Free a lock that this process holds."""
    if handle in _held:
        _held.discard(handle)
        from filelock import unlock_descriptor

        unlock_descriptor(handle)
        os.close(handle)


def take_away(path: Path) -> int:
    """Put a new file in the place of a lock's, and hold that: who holds the old one, on a host that is silent, holds nothing.

    What is written in it stays. Never done on a root of one host.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")  # pids of other hosts are the same numbers
    handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        if not _lock(handle):
            raise BlockingIOError(f"{fresh}: is locked")
        with contextlib.suppress(FileNotFoundError):
            os.write(handle, path.read_bytes())
        fresh.rename(path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def is_current(handle: int, path: Path | str) -> bool:
    """Tell whether the lock's file is still the one that this descriptor is of."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))  # noqa: PTH116 - beside a descriptor's
    except FileNotFoundError:
        return False


def is_held(path: Path | str) -> bool:
    """Tell whether somebody holds the lock now; a missing file is held by nobody."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def drop_held() -> None:
    """In a forked child: close the copies of the parent's own locks, which stay the parent's."""
    for handle in _held:
        os.close(handle)
    _held.clear()
    _queued.clear()


@contextmanager
def held(path: Path | str, patience_sec: float | None = None) -> Iterator[None]:
    """Hold the lock for a block.

    Args:
        patience_sec: how long to wait for it; ``PATIENCE_SEC`` where nothing is said.

    Raises:
        StoreBusy: somebody else has had it for all that time.
    """
    handle = _wait_for(path, PATIENCE_SEC if patience_sec is None else patience_sec)
    _held.add(handle)
    try:
        yield
    finally:
        release(handle)


def _wait_for(path: Path | str, patience_sec: float) -> int:
    """Return the locked descriptor of the file that has that name by then (``take_away``)."""
    deadline = time.monotonic() + patience_sec
    while (handle := claim(path)) is None or not is_current(handle, path):
        if handle is not None:
            os.close(handle)
        if time.monotonic() > deadline:
            pid = holder(path)
            who = "another process" if pid is None else f"process {pid}"
            raise StoreBusy(
                f"{who} has held {path} for {patience_sec:g} s",
                fix="try again later" if pid is None else f"if it is stopped, kill -CONT {pid}; else try again later",
            )
        time.sleep(0.005)
    return handle


def holder(path: Path | str) -> int | None:
    """Return the process that took the lock, where the kernel tells (Linux): ``1: FLOCK  ADVISORY  WRITE 42 fd:00:1234 0 EOF``."""
    try:
        inode = str(os.stat(path).st_ino)  # noqa: PTH116 - a path of either kind
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        if "->" not in fields and fields[5].rpartition(":")[2] == inode and int(fields[4]) > 0:
            return int(fields[4])
    return None
