"""Asking Slurm: one call at a time, each with its own deadline, and None where nobody answers.

What the controller says is a hint: while it is down, or just back, it knows less than it did. So nothing is ended by it.
"""

import math
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.errors import UserError, why_not_started

ASK_SEC = 5.0
"""squeue by itself gives up after 9 to 18 seconds."""
_DO_SEC = 30.0
JOB_VARIABLE = "SLURM_JOB_ID"
_FORMAT = "%i|%j|%T|%r|%N"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_GONE = re.compile("Invalid job id|Job/step already completing or completed")


_CARRIED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "VIRTUAL_ENV")
"""Of the submitter's environment, for the script: what programs are found by, and no variable that may hold a secret."""
_END_SEC = 15
"""For a job to write down the ends of what it had to stop, besides their grace."""
LIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "SIGNALING", "STAGE_OUT", "REQUEUED"}
)
"""States of jobs that are not over."""


class Refused(UserError):
    """Slurm has not taken a job, for certain."""


class ClusterJob(NamedTuple):
    """A job, by the controller's word."""

    job_id: str
    name: str
    state: str
    reason: str
    """Why it is pending; ``None`` in Slurm's words where it is not."""
    node: str


def jobs(*, over: bool = False) -> list[ClusterJob] | None:
    """List this user's jobs in one call; None where nobody answers in time.

    Args:
        over: also those that have ended within the last minutes (``MinJobAge`` of Slurm).
    """
    states = ["--states=all"] if over else []
    said = _ask("squeue", "--noheader", f"--user={os.getuid()}", f"--format={_FORMAT}", *states)
    if said is None:
        return None
    rows = (line.split("|") for line in said.splitlines())
    return [ClusterJob(*row) for row in rows if len(row) == len(ClusterJob._fields)]


class OwnJob(NamedTuple):
    """The job that this process is in, by the controller's word."""

    state: str
    reason: str
    left_sec: float | None
    """Time until its end; None for no end."""


def own_job() -> OwnJob | None:
    """Tell of the job that this process is in; None where it is in none, or nobody answers."""
    job_id = os.environ.get(JOB_VARIABLE)
    said = _ask("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%r|%L") if job_id else None
    words = said.strip().split("|") if said else []
    return OwnJob(words[0], words[1], seconds(words[2])) if len(words) == len(OwnJob._fields) else None


def own_left_sec() -> float | None:
    """Time until the end of the job that this process is in; None where it is in none, has no end, or nobody answers."""
    job_id = os.environ.get(JOB_VARIABLE)
    if job_id is None:
        return None
    said = _ask("squeue", "--noheader", f"--jobs={job_id}", "--format=%L")
    return None if said is None else seconds(said.strip())


def seconds(text: str) -> float | None:
    """Read the seconds of ``days-hours:minutes:seconds`` as Slurm writes a time; None for ``UNLIMITED`` and the like."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:  # with days the first number is of hours, else the last one of seconds
        numbers += [0] * (3 - len(numbers))
    total = 0
    for number in numbers:
        total = total * 60 + number
    return float(total + 86_400 * int(days or 0))


def before_end_sec(grace_sec: float) -> int:
    """Tell how long before its end a job is told to end, in seconds."""
    return math.ceil(grace_sec) + _END_SEC


def batch_options(name: str, root: Path, log: Path, before_end: int) -> list[str]:
    """Options of sbatch for a job on one node that is told to end before its time is up, and never started again by Slurm.

    Args:
        log: what the job says is appended to it.
        before_end: seconds.
    """
    return [
        f"--job-name={name}",
        "--no-requeue",
        "--export=NIL",
        "--nodes=1",
        "--ntasks=1",
        f"--chdir={root}",
        f"--output={log}",
        "--open-mode=append",
        f"--signal=B:TERM@{before_end}",
    ]


def script(what: str, command: str) -> str:
    """Make the script of a job that becomes a program of ours; no secret is in it.

    Args:
        what: the job is, for whoever reads the script.
        command: as the shell takes it.
    """
    carried = [f"export {name}={shlex.quote(os.environ[name])}" for name in _CARRIED if name in os.environ]
    home = '[ -n "$HOME" ] || HOME=$(getent passwd "$(id -u)" | cut -d: -f6)'
    return "\n".join(["#!/bin/sh", f"# {what}", *carried, home, "export HOME", f"exec {command}", ""])


def submit(script: str, options: Sequence[str]) -> str:
    """Have a batch script be run; the job's id.

    Raises:
        Refused: it was not taken.
        UserError: Slurm does not answer; it may have been taken.
    """
    return _do(["sbatch", "--parsable", *options], script).strip().partition(";")[0]


def cancel(job_ids: Sequence[str], *, at_once: bool) -> None:
    """End jobs: pending ones go, running ones are told to end, and take their time unless ``at_once``.

    Raises:
        UserError: Slurm refuses, or does not answer.
    """
    calls = [[]] if at_once else [["--state=PENDING"], ["--state=RUNNING", "--signal=TERM", "--batch"]]
    for options in calls:
        try:
            _do(["scancel", *options, *job_ids])
        except Refused as error:  # of jobs that have ended since, or are in the other state
            if not _GONE.search(error.message):
                raise


def _do(argv: list[str], given: str = "") -> str:
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=_DO_SEC, check=False)
    except OSError as error:
        raise Refused(
            why_not_started(argv[0], error), fix="run this where Slurm's commands are, as on a login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{argv[0]} did not answer within {_DO_SEC:g} s", fix="see with squeue what came of it"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Refused(f"{argv[0]}: {said[-1].removeprefix(f'{argv[0]}: ').removeprefix('error: ')}")
    return done.stdout


def _ask(*argv: str) -> str | None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=ASK_SEC, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
