"""Asking Slurm: one call at a time, each with its own deadline, and None where nobody answers.

What the controller says is a hint: while it is down, or just back, it knows less than it did. So nothing is ended by it.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from parallelhassnes.errors import UserError

ASK_SEC = 5.0
"""squeue by itself gives up after 9 to 18 seconds."""
_DO_SEC = 30.0
JOB_VARIABLE = "SLURM_JOB_ID"
_FORMAT = "%i|%j|%T|%r|%N"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_GONE = re.compile("Invalid job id|Job/step already completing or completed")


class Refused(UserError):
    """Slurm has not taken a job, for certain."""


class ClusterJob(NamedTuple):
    """A job that is pending or running, by the controller's word."""

    job_id: str
    name: str
    state: str
    reason: str
    """Why it is pending; ``None`` in Slurm's words where it is not."""
    node: str


def jobs() -> dict[str, ClusterJob] | None:
    """This user's jobs by their names, in one call; None where nobody answers in time."""
    said = _ask("squeue", "--noheader", f"--user={os.getuid()}", f"--format={_FORMAT}")
    if said is None:
        return None
    rows = (line.split("|") for line in said.splitlines())
    return {row[1]: ClusterJob(*row) for row in rows if len(row) == len(ClusterJob._fields)}


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
    except FileNotFoundError:
        raise Refused(
            f"there is no program {argv[0]}", fix="run this where Slurm's commands are, as on a login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{argv[0]} did not answer within {_DO_SEC:g} s", fix="see with squeue what came of it"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Refused(f"{argv[0]}: {said[-1].removeprefix(f'{argv[0]}: ')}")
    return done.stdout


def _ask(*argv: str) -> str | None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=ASK_SEC, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
