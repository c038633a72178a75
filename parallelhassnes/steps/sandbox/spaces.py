"""The user and network namespaces of a sandbox, made before it, and which users of the host its users are.

Started by root, a sandbox's users 0 to 65535 are a range of the host's numbers that belongs to nobody: root in it is a user of
the host who owns nothing. Workers have ranges of their own, by their process ids, so that two trials hardly ever share one. What
such a trial is to write must belong to the range (``Spaces.owner``), and is taken back at its end. Started by an ordinary user, root
in it is this user, and there is no other.

A process of util-linux's ``unshare`` makes the namespaces and holds them until we have opened them.
"""

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_RANGE = 1 << 16
_FIRST = 1 << 30
_RANGES = 1 << 14
PROGRAMS = ("unshare", "cat")


class NoNamespaces(OSError):
    """The namespaces could not be made; one line."""


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
    """Whether this process is root over the numbers of which the ranges are taken."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= _FIRST and first + count >= _FIRST + _RANGES * _RANGE:
            return True
    return False


def new_owner() -> int | None:
    """The first of this process's range; None for an ordinary user, and for root of a container without such numbers."""
    return _FIRST + os.getpid() % _RANGES * _RANGE if _maps_ranges() else None


def make(owner: int | None, *, network: bool, path: str) -> Spaces:
    """Make a user namespace, and with ``network`` a network namespace of its own. Raises NoNamespaces."""
    argv = ["unshare", "--user", *(["--net"] if network else [])]
    argv += ["cat"] if owner is not None else ["--map-root-user", "cat"]
    holder = subprocess.Popen(
        argv,
        env={"PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    with holder:  # the end of its input ends it
        assert holder.stdin and holder.stdout and holder.stderr  # noqa: S101, PT018 - they are pipes
        try:
            holder.stdin.write(b".")
            there = holder.stdout.read(1)
        except BrokenPipeError:
            there = b""
        if not there:
            said = " ".join(holder.stderr.read(4096).decode(errors="replace").split())
            raise NoNamespaces(said or "unshare could not make a user namespace")
        place = Path("/proc", str(holder.pid))
        if owner is not None:
            for name in ("uid_map", "gid_map"):
                (place / name).write_text(f"0 {owner} {_RANGE}", encoding="ascii")
        user = os.open(place / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        own = os.open(place / "ns/net", os.O_RDONLY | os.O_CLOEXEC) if network else None
        return Spaces(user, own, owner)
