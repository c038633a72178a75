"""The kind ``command``: any program.

``spec["command"]`` is its argument vector, ``spec["working_directory"]`` where it runs (default: the
fresh directory ``work`` of the attempt). Exit code 0 is success. A program that wants to say more
writes a JSON object to the file that ``PARALLELHASSNES_REPORT`` names; its ``summary``, ``files_read``,
``files_written`` and ``artifacts`` become those of the report.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import final_report, safe_read
from parallelhassnes.steps.step_types import Failure, Outcome, StepAttempt, WorkerEnd

NOT_FOUND, NOT_RUNNABLE = 127, 126
REPORT_VARIABLE = "PARALLELHASSNES_REPORT"
REPORT_FILE = "command_report.json"
ERROR_FILE = "command_error.txt"
"""Written by us if the program could not be started; tells its own exit code 127 from ours."""
MAX_REPORT_BYTES = 1 << 20
TAIL_LINES, TAIL_BYTES = 5, 4096


class CommandKind:
    """Runs a program in place of the worker."""

    name = "command"

    def preload(self, step: StepSpec) -> None:  # noqa: ARG002 - any program may write a report
        final_report.schema()

    def deadline_sec(self, attempt: StepAttempt) -> float | None:  # noqa: ARG002 - a program has no limit of its own
        return None

    def work(self, attempt: StepAttempt) -> int:
        """Become the program; returns only if it cannot be started."""
        command, directory = _command(attempt), _directory(attempt)
        os.environ[REPORT_VARIABLE] = str(attempt.dir / REPORT_FILE)
        os.environ["PWD"] = str(directory)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            if directory.parent == attempt.dir:
                directory.mkdir(exist_ok=True)
            os.chdir(directory)
            _become(command)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            (attempt.dir / ERROR_FILE).write_text(f"cannot run {command[:1]}: {error}\n", encoding="utf-8")
            return NOT_FOUND if missing else NOT_RUNNABLE

    def phase(self, attempt: StepAttempt) -> str | None:  # noqa: ARG002 - we cannot look into a program
        return "command"

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        failure = _failure(attempt, end)
        command = {"command": _command(attempt), "exit_code": end.exit_code}
        own = _own_report(attempt)
        summary = own.pop("summary", "")
        if failure is None:
            said = summary or "The command ended with exit code 0."
            return Outcome("succeeded", said, None, {**own, "command": command})
        tail = _tail(attempt.dir / "stderr.log")
        more = f"It said: {tail}" if tail and not failure.line.endswith(tail) else ""
        said = " ".join(filter(None, (f"The command {failure.line}.", summary, more)))
        status = {"canceled": "canceled", "lost": "lost"}.get(failure.failure_class, "failed")
        return Outcome(status, said, failure, {**own, "command": command})  # type: ignore[arg-type]

    def sweep(self, attempt: StepAttempt) -> list[str]:  # noqa: ARG002 - its processes end with the group
        return []


def _become(command: list[str]) -> NoReturn:
    if not command:
        raise ValueError("the command is empty")
    found = shutil.which(command[0])  # a look at each folder costs less than an exec that fails
    os.execvpe(found or command[0], command, os.environ)  # noqa: S606 - no shell is the point


def _command(attempt: StepAttempt) -> list[str]:
    return [str(part) for part in safe_read.sequence(attempt.step.spec.get("command"))]


def _directory(attempt: StepAttempt) -> Path:
    wanted = attempt.step.spec.get("working_directory")
    return Path(wanted) if isinstance(wanted, str) and wanted else attempt.dir / "work"


def _failure(attempt: StepAttempt, end: WorkerEnd) -> Failure | None:
    match end.reason:
        case "canceled":
            return Failure("canceled", "was canceled")
        case "timeout":
            return Failure("agent_timeout", "ran past the step's deadline")
        case "lost":
            return Failure("lost", "was lost: its supervisor died")
        case _:
            return _exit_failure(attempt, end.exit_code)


def _exit_failure(attempt: StepAttempt, code: int | None) -> Failure | None:
    if code == 0:
        return None
    refused = safe_read.read_bytes(attempt.dir / ERROR_FILE, 1000)
    if refused is not None:
        return Failure("task_definition", safe_read.first_line(refused.decode("utf-8", "replace")))
    if code is None:
        return Failure("lost", "ended unseen")
    if code < 0:
        return Failure("agent_error", f"was killed by signal {-code}")
    last = _tail(attempt.dir / "stderr.log", 1) or _tail(attempt.dir / "stdout.log", 1)
    return Failure("agent_error", f"ended with exit code {code}{f': {last}' if last else ''}")


def _own_report(attempt: StepAttempt) -> dict[str, Any]:
    """Tell what the program reports of itself; nothing where it is not of the report's shape."""
    found = safe_read.read_object(attempt.dir / REPORT_FILE, MAX_REPORT_BYTES) or {}
    own = {key: found[key] for key in final_report.COMMON if key in found}
    return own if own and not final_report.validate({**final_report.EMPTY, **own}) else {}


def _tail(path: Path, count: int = TAIL_LINES) -> str:
    """Return the last lines of a log, as one."""
    data = safe_read.read_bytes(path, TAIL_BYTES, end=True) or b""
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return safe_read.text(" / ".join(lines[-count:]), 1000) or ""
