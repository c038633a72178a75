"""What each pass of a run costs in operations: ``python -m benchmarks.passes OUT MOST counted|timed COMMAND…``.

Runs ``parallelhassnes COMMAND…`` with every pass of every process that comes of it counted, a line of JSON each in OUT; from
the MOST-th on the runner is drained, so that no more start. Operations do not depend on how fast or busy the machine is; counting
them takes longer than they do, so times are taken by a run of their own, which counts none.
"""

import json
import os
import resource
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

_FILES = frozenset(
    {
        "open",
        "stat",
        "lstat",
        "fstat",
        "listdir",
        "scandir",
        "rename",
        "unlink",
        "remove",
        "mkdir",
        "rmdir",
        "utime",
        "link",
        "read",
        "write",
        "pread",
        "pwrite",
        "fsync",
        "ftruncate",
        "truncate",
        "access",
        "replace",
    }
)
_OS = ("posix", "_io", "io")


class Cost(NamedTuple):
    """Of one pass, and of what its process does right after it."""

    settled: int
    launched: int
    files: int
    """Calls that ask the file system for something."""
    listed: int
    """Names in the folders that were listed."""
    moved: int
    """Bytes read and written."""
    calls: int
    """Python functions called."""
    cpu_ms: float
    """Processor time of the pass alone."""
    pid: int
    whole_ms: float
    """Processor time of its process so far, its workers' included: a supervisor goes on as the next attempt."""


def per_attempt(costs: list[Cost]) -> list[float]:
    """Milliseconds of processor time from one pass of a process to its next: of whole attempts, their workers' included."""
    return [after.whole_ms - before.whole_ms for before, after in pairwise(costs) if before.pid == after.pid]


def read(out: Path) -> list[Cost]:
    """The passes of a run, in order of their ends."""
    return [Cost(**json.loads(line)) for line in out.read_text().splitlines()]


class _Counting:
    """Counts in this process and, after a fork, in the child for itself."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def event(self, _frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.counts["calls"] += 1
        elif event == "c_call" and argument.__module__ in _OS and argument.__name__ in _FILES:
            self.counts["files"] += 1


def _used() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    every = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in every)


def _moved() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"]) + int(fields["wchar"])


def _instrument(out: Path, most: int, *, counts: bool) -> None:
    """Have every pass of this process and its forks counted."""
    from parallelhassnes.schedule import settle, tick

    counting = _Counting()
    # ruff: noqa: SLF001 - the whole of a pass, and nothing beside it
    listed, whole, settled = os.listdir, tick._pass, settle.settle_ended

    def listdir(folder: Any = ".") -> list[str]:
        found: list[str] = listed(folder)
        counting.counts["listed"] += len(found)
        return found

    def settle_ended(ctx: Any) -> int:
        count = settled(ctx)
        counting.counts["settled"] += count
        return count

    def counted(ctx: Any, started: list[Any]) -> None:
        pid = os.getpid()
        counting.counts.clear()
        moved, began = _moved(), time.process_time()
        if counts:
            sys.setprofile(counting.event)
        try:
            whole(ctx, started)
        finally:
            sys.setprofile(None)
            if os.getpid() == pid:
                _write(out, counting.counts, len(started), _moved() - moved, time.process_time() - began)
        if sum(1 for _ in out.open()) >= most:
            drain = ctx.layout.runners / ctx.config.runner_id / "drain"
            drain.parent.mkdir(parents=True, exist_ok=True)
            drain.touch()

    os.listdir = listdir
    tick.settle_ended = settle_ended
    tick._pass = counted


def _write(out: Path, counts: Counter[str], launched: int, moved: int, cpu_sec: float) -> None:
    cost = Cost(
        counts["settled"],
        launched,
        counts["files"],
        counts["listed"],
        moved,
        counts["calls"],
        round(cpu_sec * 1000, 2),
        os.getpid(),
        round(_used() * 1000, 2),
    )
    with out.open("a") as stream:
        stream.write(json.dumps(cost._asdict()) + "\n")


def main(out: str, most: str, how: str, *command: str) -> None:
    from parallelhassnes.cli.app import main as program

    _instrument(Path(out), int(most), counts=how == "counted")
    sys.argv = ["parallelhassnes", *command]
    program()


if __name__ == "__main__":
    main(*sys.argv[1:])
