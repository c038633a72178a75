"""What each pass of a run costs in operations: ``python -m benchmarks.passes OUT MOST COMMAND…``.

Runs ``parallelhassnes COMMAND…`` with every pass of every process that comes of it counted, a line of JSON each in OUT; from
the MOST-th on the runner is drained, so that no more start. Operations do not depend on how fast or busy the machine is.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

_FILES = frozenset(
    {
        "open", "stat", "lstat", "fstat", "listdir", "scandir", "rename", "unlink", "remove", "mkdir", "rmdir", "utime", "link",
        "read", "write", "pread", "pwrite", "fsync", "ftruncate", "truncate", "access", "replace",
    }
)  # fmt: skip
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


def _moved() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"]) + int(fields["wchar"])


def _instrument(out: Path, most: int) -> None:
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
        sys.setprofile(counting.event)
        try:
            whole(ctx, started)
        finally:
            sys.setprofile(None)
            if os.getpid() == pid:
                _write(
                    out,
                    counting.counts,
                    len(started),
                    _moved() - moved,
                    time.process_time() - began,
                )
        if sum(1 for _ in out.open()) >= most:
            drain = ctx.layout.runners / ctx.config.runner_id / "drain"
            drain.parent.mkdir(parents=True, exist_ok=True)
            drain.touch()

    os.listdir = listdir
    tick.settle_ended = settle_ended
    tick._pass = counted


def _write(out: Path, counts: Counter[str], launched: int, moved: int, cpu_sec: float) -> None:
    cost = Cost(
        counts["settled"], launched, counts["files"], counts["listed"], moved, counts["calls"], round(cpu_sec * 1000, 2)
    )  # fmt: skip
    with out.open("a") as stream:
        stream.write(json.dumps(cost._asdict()) + "\n")


def main(out: str, most: str, *command: str) -> None:
    from parallelhassnes.cli.app import main as program

    _instrument(Path(out), int(most))
    sys.argv = ["parallelhassnes", *command]
    program()


if __name__ == "__main__":
    main(*sys.argv[1:])
