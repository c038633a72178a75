"""Whether an attempt still moves: its phase, the size of what it writes, the CPU time of its processes.

What is looked at is what a worker cannot help but change while it does something. A container's CPU time
is not seen from here, but its agent and verifier write into the attempt's folder.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.execute import processes
from parallelhassnes.store.attempts import LOGS
from parallelhassnes.store.records import now_text

_MAX_ENTRIES = 2000
"""Files looked at in one beat; a trial with more is judged by these and by its CPU time."""
_CPU_SEC = 1.0
"""CPU time that counts as a movement: a process that only waits uses some too."""


class Seen(NamedTuple):
    """One look."""

    phase: str | None
    bytes: int
    """Size of the worker's logs and of what the trial or the agent wrote."""
    cpu_sec: float


class MovementWatch:
    """Remembers when an attempt last moved, by this process's own clock."""

    def __init__(self, attempt_dir: Path, worker: int) -> None:
        self._dir, self._worker = attempt_dir, worker
        self._mark = Seen(None, 0, 0.0)
        self._moved = time.monotonic()
        self.moved_at = now_text()
        """When it last moved."""

    def look(self, phase: str | None) -> Seen:
        """Look now; ``still_sec`` and ``moved_at`` follow from it."""
        seen = Seen(phase, written_bytes(self._dir), _cpu_sec(self._worker))
        mark = self._mark
        # A process of the tree that ended takes its share with it, so less is a movement too.
        if seen[:2] != mark[:2] or abs(seen.cpu_sec - mark.cpu_sec) >= _CPU_SEC:
            self._mark, self._moved, self.moved_at = seen, time.monotonic(), now_text()
        return seen

    def still_sec(self) -> float:
        """Seconds since the last movement that a look has seen."""
        return time.monotonic() - self._moved


def written_bytes(attempt_dir: Path) -> int:
    """Bytes in the worker's logs and in the folder of the trial or the agent."""
    total = 0
    for name in LOGS:
        try:
            total += os.stat(f"{attempt_dir}/{name}").st_size  # noqa: PTH116 - hot path
        except OSError:  # not there, or closed to us by the worker
            continue
    left = _MAX_ENTRIES
    folders = [f"{attempt_dir}/trial", f"{attempt_dir}/agent"]
    while folders and left > 0:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # not there yet, or gone while we looked
            continue
    return total


def _cpu_sec(pid: int) -> float:
    """CPU time of a process, its live descendants and those that it has waited for; 0 where it cannot be seen."""
    ticks, look = 0, [pid]
    while look:
        one = look.pop()
        try:
            with open(f"/proc/{one}/stat", "rb") as stream:  # noqa: PTH123 - hot path
                ticks += sum(int(field) for field in stream.read().rpartition(b")")[2].split()[11:15])
        except (OSError, ValueError):
            continue
        look += processes.children(one)
    return ticks / os.sysconf("SC_CLK_TCK")
