"""Kernel locks on files that are never unlinked.

A lock belongs to the open file description: every process that inherits the descriptor holds it, and
the kernel frees it when the last of them closes it or dies. Two uses:

* ``claim``: a lock that is handed on to children by the descriptor (``step.lock``). It is let go by closing,
  never by unlocking, so it stays with whatever child still has it.
* ``hold``: a lock of this process alone (``tick.lock``). Forked children drop their copies
  (``drop_held``), and ``release`` does nothing in a process that does not hold it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

_held: set[int] = set()


def claim(path: Path | str) -> int | None:
    """Take a lock that can be handed on; the locked descriptor, or None where somebody else holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if lock_descriptor(handle, blocking=False):
            return handle
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def hold(path: Path | str) -> int | None:
    """Take a lock for this process alone; None where somebody else holds it."""
    handle = claim(path)
    if handle is not None:
        _held.add(handle)
    return handle


def release(handle: int) -> None:
    """Free a lock that this process holds."""
    if handle in _held:
        _held.discard(handle)
        unlock_descriptor(handle)
        os.close(handle)


def is_held(path: Path | str) -> bool:
    """Whether somebody holds the lock now; a missing file is held by nobody."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not lock_descriptor(handle, blocking=False)
    finally:
        os.close(handle)


def drop_held() -> None:
    """In a forked child: close the copies of the parent's own locks, which stay the parent's."""
    for handle in _held:
        os.close(handle)
    _held.clear()


@contextmanager
def held(path: Path | str) -> Iterator[None]:
    """Hold the lock for a block, waiting for it as long as it takes."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        lock_descriptor(handle, blocking=True, poll_interval=0.005)
    except BaseException:
        os.close(handle)
        raise
    _held.add(handle)
    try:
        yield
    finally:
        release(handle)
