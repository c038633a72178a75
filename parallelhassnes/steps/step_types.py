"""What a kind of step is: the Protocol that ``trial``, ``command``, ``verdict`` … fulfil.

A kind is code of two processes. ``work`` runs in the worker, which may crash, hang or be killed at
any instruction; everything else runs in the attempt's supervisor (or, after its death, in a tick
that repairs), must be quick and must cope with whatever a dead worker left in the attempt's
directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from parallelhassnes.plan import StepSpec
from parallelhassnes.states import EndStatus
from parallelhassnes.store.records import LiveRecord


@dataclass(frozen=True)
class StepAttempt:
    """What a kind is told about the attempt that it works for."""

    dir: Path
    """The attempt's directory; ``dir/tmp`` is its TMPDIR and is removed before the seal."""
    job_dir: Path
    batch_id: str
    job_id: str
    run_id: str
    """Lowercase letters and digits, unique in the store and beyond."""
    number: int
    """1 for the first attempt of the step."""
    step: StepSpec
    stand_in: bool = False
    """Agents are answered by the deterministic stand-in instead of being run."""


type EndReason = Literal["exited", "timeout", "canceled", "lost", "stuck", "job_time_limit", "elsewhere"]


@dataclass(frozen=True)
class WorkerEnd:
    """How the worker ended."""

    exit_code: int | None
    """The exit status; negative for a signal, as in ``subprocess``; None where nobody could see it."""
    reason: EndReason
    """Why the worker ended: by itself, by the supervisor's deadline, by a cancel, unseen, stopped because nothing of it
    moved any more, or because the cluster's job that it was in was out of time; ``elsewhere`` where another program ran it, and only
    its files are here. ``finish`` tells a kind of step ``lost`` in the place of ``stuck``."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt did not succeed."""

    failure_class: str
    """``infrastructure``, ``task_definition``, ``agent_timeout`` … ; see ``steps.failures``."""
    line: str
    """One line for a scoreboard."""
    evidence: str = ""
    """What the class was derived from, in the words of whoever said it; cut before it is written."""
    guessed: bool = False
    """The class was guessed from where the attempt stood: nobody named the cause."""


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to."""

    status: EndStatus
    summary: str
    """One or two plain sentences; becomes ``final.txt`` and the report's ``summary``."""
    failure: Failure | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    """The kind's own part of the report, namespaced: ``{"trial": {...}}``; also ``files_read``, ``files_written``,
    ``artifacts`` where the kind knows them."""
    publish: Mapping[str, Any] = field(default_factory=dict)
    """File name → JSON document that ``settle`` writes into the job's directory (``verdict.json``)."""


class Kind(Protocol):
    """One kind of step. Implementations are stateless."""

    name: str

    def preload(self, step: StepSpec) -> None:
        """Import what ``work`` on such a step needs, in the process that will fork workers; quick when done before.

        All of ours that the attempt needs up to its seal is among it: the package's files may be away, or another
        version's, while the attempt runs (an upgrade). Where they are away now, this raises before there is an attempt.
        """

    def deadline_sec(self, attempt: StepAttempt) -> float | None:
        """Return the seconds that this attempt may take at most, where its step names none; None for no end."""

    def work(self, attempt: StepAttempt) -> int:
        """Do the work, in the worker's process; return its exit code.

        The working directory is ``attempt.dir``, stdout and stderr are its log files, ``os.environ`` holds only what
        the step may see, SIGTERM and SIGINT have their default action.
        """

    def phase(self, attempt: StepAttempt) -> str | None:
        """Tell where the work stands, for the heartbeat: ``environment_setup``, ``agent`` …; cheap, called every beat."""

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        """Read what the worker left and say what it came to; never raises for what a worker can leave."""

    def sweep(self, attempt: StepAttempt) -> list[str]:
        """Remove what a dead worker may have left outside its process tree (containers, networks); idempotent.

        Returns one line per thing removed.
        """


@runtime_checkable
class ShowsItself(Protocol):
    """What a kind may do besides: say what its attempt is doing."""

    def live(self, attempt: StepAttempt) -> LiveRecord | None:
        """Tell what the attempt is doing; cheap, called every beat."""


@runtime_checkable
class WarmsUp(Protocol):
    """What a kind may do besides: run code in the process that will fork many workers, which then share what that changes."""

    def warm_up(self) -> None:
        """Run what ``work`` will run; after ``preload``, quick when done before, and never raises.

        It starts no thread and no process, leaves no event loop, and nothing of it stays on the disk.
        """


@runtime_checkable
class LimitsPhases(Protocol):
    """What a kind may do besides: set a limit to each phase of its work."""

    def phase_deadline_sec(self, attempt: StepAttempt, phase: str) -> float | None:
        """Return the seconds that the attempt may stay in this phase; None for no end."""


def stopped(end: WorkerEnd) -> Outcome | None:
    """Canceled or lost; None where the worker ended by itself or at its deadline."""
    match end.reason:
        case "canceled":
            return Outcome("canceled", "Canceled.", Failure("canceled", "canceled"))
        case "lost":
            return Outcome("lost", "Lost.", Failure("lost", "its supervisor died"))
        case _:
            return None


def broken(line: str, said: str = "") -> Outcome:
    """Failed in a way that only we can mend.

    Args:
        said: the summary, where it is not just the line.
    """
    return Outcome("failed", said or f"{line}.", Failure("internal", line))
