"""The user and network namespaces of a sandbox, made before it, and which users of the host its users are.

Started by root, a sandbox's users 0 to 65535 are a range of the host's numbers that belongs to nobody: root in it is a user of
the host who owns nothing. Workers have ranges of their own, by their process ids, so that two trials hardly ever share one. What
such a trial is to write must belong to the range (``Spaces.owner``), and is taken back at its end. Started by an ordinary user, root
in it is this user, and there is no other.

A child that only waits is in the namespaces from its start, and holds them until we have opened them.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from parallelhassnes.sandbox.engines import kernel

_RANGE = 1 << 16
_FIRST = 1 << 30
_RANGES = 1 << 14


@dataclass
class Spaces:
    """Open namespaces; for the engines to enter."""

    user: int
    network: int | None
    """None: the host's network."""
    owner: int | None
    """The host's user who is root inside; None where that is who runs this process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for handle in (self.user, *([] if self.network is None else [self.network])):
            os.close(handle)


@functools.cache
def _maps_ranges() -> bool:
    """Tell whether this process is root over the numbers of which the ranges are taken."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= _FIRST and first + count >= _FIRST + _RANGES * _RANGE:
            return True
    return False


def new_owner() -> int | None:
    """Return the first of this process's range; None for an ordinary user, and for root of a container without such numbers."""
    return _FIRST + os.getpid() % _RANGES * _RANGE if _maps_ranges() else None


def make(owner: int | None, *, network: bool) -> Spaces:
    """Make a user namespace, and with ``network`` a network namespace of its own. Raises OSError."""
    wanted = os.CLONE_NEWUSER | (os.CLONE_NEWNET if network else 0)
    user, group, count = (owner, owner, _RANGE) if owner is not None else (os.geteuid(), os.getegid(), 1)
    with kernel.sleeper(wanted) as holder:
        place = Path("/proc", str(holder))
        if owner is None:
            (place / "setgroups").write_text("deny", encoding="ascii")
        (place / "uid_map").write_text(f"0 {user} {count}", encoding="ascii")
        (place / "gid_map").write_text(f"0 {group} {count}", encoding="ascii")
        space = os.open(place / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        own = os.open(place / "ns/net", os.O_RDONLY | os.O_CLOEXEC) if network else None
        return Spaces(space, own, owner)
