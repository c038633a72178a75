"""What a command costs, with every process that comes of it, detached ones too.

The meter is a process of its own that adopts orphans (``PR_SET_CHILD_SUBREAPER``), so whatever descends from
the command is reaped by it in the end and counted in its ``RUSAGE_CHILDREN``. Work that somebody else's
daemon does for the command (a Docker engine) is not counted, on no side.

    python -m benchmarks.meter OUT LOG SAMPLE COMMAND…

Memory is sampled only if asked for: reading it takes time that a timed run must not pay.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_SEC = 0.05


class Usage(BaseModel):
    """The cost of one run of one command."""

    exit_code: int
    wall_sec: float
    """Until the command itself returned."""
    settled_sec: float
    """Until the last process that came of it had ended."""
    cpu_sec: float
    """User and system time of the whole tree."""
    peak_pss_bytes: int | None = None
    """Largest sum of the proportional set sizes of the tree; None where it was not sampled."""


class CommandFailed(Exception):
    """A measured command did not do its work; the message holds the end of its log."""


def measure(command: Sequence[str], log: Path, environ: Mapping[str, str], *, memory: bool = False) -> Usage:
    """Run the command to the end of its last descendant.

    Args:
        log: receives its stdout and stderr.
        memory: sample its memory; the times are then of no use.

    Raises:
        CommandFailed: it ended with another exit code than 0.
    """
    out = log.with_suffix(".usage.json")
    meter = [sys.executable, "-m", "benchmarks.meter", str(out), str(log), str(int(memory))]
    subprocess.run([*meter, *command], check=True, env=environ)
    usage = Usage.model_validate_json(out.read_bytes())
    if usage.exit_code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise CommandFailed(f"exit code {usage.exit_code} of {' '.join(command)}\n{tail}")
    return usage


def main(out: str, log: str, sample: str, *command: str) -> None:
    """Be the meter."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    with Path(log).open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    peak = 0
    wall, code = 0.0, -1
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG if sample == "1" else 0)
        except ChildProcessError:
            break
        if ended == process.pid:
            wall, code = time.monotonic() - began, os.waitstatus_to_exitcode(status)
            process.returncode = code
        elif not ended:
            peak = max(peak, tree_pss())
            time.sleep(_SAMPLE_SEC)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = Usage(
        exit_code=code,
        wall_sec=wall,
        settled_sec=time.monotonic() - began,
        cpu_sec=used.ru_utime + used.ru_stime,
        peak_pss_bytes=peak or None,
    )
    Path(out).write_text(json.dumps(usage.model_dump()) + "\n", encoding="utf-8")


def tree_pss() -> int:
    """Proportional set size of all descendants of this process together, in bytes."""
    total, left = 0, children(os.getpid())
    while left:
        pid = left.pop()
        left += children(pid)
        total += rollup(pid, "Pss")
    return total


def children(pid: int) -> list[int]:
    """Direct children of every thread of a process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
            found += map(int, text.split())
    except OSError:
        return found
    return found


def rollup(pid: int, *fields: str) -> int:
    """Sum of the named fields of ``smaps_rollup``, in bytes; 0 where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    wanted = {f"{field}:" for field in fields}
    return sum(int(line.split()[1]) << 10 for line in lines if line.split()[0] in wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
