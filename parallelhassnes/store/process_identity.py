"""Which process a record speaks of, and whether it lives.

A pid is a number in one table of processes, and is reused. So a record keeps with it when the process started, and which
table that was: the start of the host (``boot_id``) and the pid namespace. A container on this host has a table of its
own, under this host's name as often as not. What stands in a table that cannot be looked into neither lives nor is dead: its
lock and its heartbeat say so.
"""

import functools
import os
import platform
import sys
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
IS_LINUX = sys.platform == "linux"


def boot_id() -> str:
    """Tell what names this start of the host; the same text for ever where the system does not tell."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"


@functools.cache
def table() -> str:
    """Return the table that this process's pid is a number in: ``<boot id>/<inode of the pid namespace>``.

    Empty where ``/proc`` shows another one, as below ``unshare --pid`` without ``--mount-proc``: nobody can look into it.
    """
    if not IS_LINUX:
        return f"{boot_id()}/{platform.node()}"
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - not of the link itself
        shown = os.readlink("/proc/self")  # noqa: PTH115 - a name in /proc
    except OSError:
        return ""
    return f"{boot_id()}/{namespace}" if shown == str(os.getpid()) else ""


def namespace() -> str:
    """Return inode of the pid namespace, for names of files of this host; 0 where ``/proc`` shows another one."""
    return table().rpartition("/")[2] or "0"


def is_ours(of: str | None, host: str) -> bool:
    """Tell whether pids of a record can be looked up here.

    Args:
        of: the record's table; None in those of earlier versions, which go by the host's name alone.
    """
    return host == platform.node() if of is None else bool(of) and of == table()


def is_of_this_kernel(of: str | None) -> bool:
    """Tell whether the table is one of this start of this host, be it ours or a container's: its locks and clock are ours."""
    return of is not None and of.partition("/")[0] in (boot_id(), "")


def lives(pid: int | None, started: int | None, of: str | None, host: str) -> bool | None:
    """Tell whether the very process still runs; None where that cannot be seen from here."""
    return is_alive(pid, started) if is_ours(of, host) else None


def start_time(pid: int) -> int | None:
    """Start of the process in clock ticks since boot; None where there is none (or no ``/proc``)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:  # noqa: PTH123 - hot path
            return int(stream.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def is_alive(pid: int | None, started: int | None) -> bool:
    """Tell whether the very process of our table still runs; a zombie has ended."""
    if pid is None:
        return False
    if not IS_LINUX:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:  # noqa: PTH123 - hot path
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and (started is None or int(fields[19]) == started)
