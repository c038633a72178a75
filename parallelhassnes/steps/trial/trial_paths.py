"""Where a trial attempt keeps its files, and what the trial is called.

Written by the worker, in this order: ``trial/`` (Harbor's own directory), ``tmp/<trial name>`` (a link
to it, because Harbor's directory is always called like its trial), ``tmp/phase`` (replaced at each
change), then Harbor's files with ``trial/result.json`` last, or ``worker_error.json`` where Harbor
could not make or end a trial. A crash anywhere leaves some of them; ``conclude`` reads what is there.
"""

import re
from pathlib import Path
from typing import Any

from parallelhassnes.plan import TrialSpec, is_sandbox
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.failures import Phase
from parallelhassnes.steps.step_types import StepAttempt

NOT_OF_A_NAME = r"[^a-z0-9]+"
TRIAL_DIR = "trial"
ERROR_FILE = "worker_error.json"
MAX_NAME = 48
"""Harbor makes the name of a separate verifier's Compose project from the first 51 characters at least
of the trial's name; the whole name must be in it, so that ``sweep`` finds it."""


def trial_dir(attempt: StepAttempt) -> Path:
    return attempt.dir / TRIAL_DIR


def tmp_dir(attempt: StepAttempt) -> Path:
    return attempt.dir / "tmp"


def phase_file(attempt: StepAttempt) -> Path:
    return tmp_dir(attempt) / "phase"


def error_file(attempt: StepAttempt) -> Path:
    return attempt.dir / ERROR_FILE


def spec_of(attempt: StepAttempt) -> TrialSpec:
    """Return the step's ``TrialSpec``; raises ``pydantic.ValidationError`` where the plan is not one."""
    return TrialSpec(**attempt.step.spec)


def trial_name(attempt: StepAttempt) -> str:
    """Return the trial's name: a short form of the task's, then the run id; lowercase and unique.

    It becomes part of the name of a Compose project, so only letters, digits, ``_`` and ``-`` are in
    it, at most ``MAX_NAME`` of them.
    """
    run_id = re.sub(NOT_OF_A_NAME, "", attempt.run_id.lower())
    task = str(attempt.step.spec.get("task_name", "")).rsplit("/", 1)[-1].lower()
    room = max(0, MAX_NAME - len(run_id) - 2)
    short = re.sub(NOT_OF_A_NAME, "-", task)[:room].strip("-")
    return f"{short}__{run_id}" if short else run_id


def environment_of(config: dict[str, Any]) -> str:
    """Return the type or the import path of a trial's environment; ours is ``sandbox``, Harbor's default ``docker``."""
    environment = safe_read.mapping(config.get("environment"))
    if is_sandbox(environment.get("import_path")):
        return "sandbox"
    return str(environment.get("import_path") or environment.get("type") or "docker")


def read_phase(attempt: StepAttempt) -> Phase | None:
    """Tell what the worker last wrote to ``tmp/phase``; None before its first word and after clearing up."""
    data = safe_read.read_bytes(phase_file(attempt), 64)
    match data:
        case b"create":
            return "create"
        case b"environment_setup":
            return "environment_setup"
        case b"agent":
            return "agent"
        case b"verifier":
            return "verifier"
        case _:
            return None
