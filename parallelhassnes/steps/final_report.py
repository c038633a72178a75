"""The report of an attempt, ``final.json``: made from an outcome, checked against its schema, read for other steps.

The schema is ``run_report.schema.json`` at the top level of the repository; the file of that name in
this package is a copy for installed use, and a test holds the two equal.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import Outcome, StepAttempt
from parallelhassnes.store import attempts

SCHEMA_VERSION = "2.0.0"
SCHEMA_FILE = "run_report.schema.json"
COMMON = ("summary", "files_read", "files_written", "artifacts")
"""The keys that any kind of step may say something under."""
EMPTY: Mapping[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "status": "succeeded",
    "summary": "",
    "files_read": [],
    "files_written": [],
    "artifacts": [],
}
MAX_SUMMARY = 4000


def build(attempt: StepAttempt, outcome: Outcome) -> dict[str, Any]:
    """Return the report of an attempt, valid against the schema where the kind's own part is valid."""
    report = {
        **EMPTY,
        "status": outcome.status,
        "summary": safe_read.text(outcome.summary, MAX_SUMMARY) or "",
        "attempt": {
            "batch_id": attempt.batch_id,
            "job_id": attempt.job_id,
            "step_id": attempt.step.step_id,
            "kind": attempt.step.kind,
            "run_id": attempt.run_id,
            "number": attempt.number,
        },
    }
    if outcome.failure is not None:
        report["failure"] = {"class": outcome.failure.failure_class, "line": outcome.failure.line}
        if outcome.failure.guessed:
            report["failure"]["guessed"] = True
    return {**report, **outcome.report}


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    loaded: dict[str, Any] = json.loads(files(__package__).joinpath(SCHEMA_FILE).read_text("utf-8"))
    return loaded


def validate(report: object) -> list[str]:
    """Return every way in which ``report`` is not a valid report, as ``pointer: what is wrong``; empty where the report is valid.

    The first call in a process imports jsonschema (0.2 s of CPU): for reports that others wrote, not for our own.
    """
    return problems(report, schema())


def problems(document: object, against: Mapping[str, Any]) -> list[str]:
    """Return every violation of a JSON Schema (2020-12), in the order of the document."""
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(dict(against)).iter_errors(document)
    found = sorted(errors, key=lambda error: [str(part) for part in error.absolute_path])
    return [f"/{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


MAX_TEXT = 1 << 20


def of(attempt_dir: Path) -> dict[str, Any]:
    """Return ``report``, ``text`` and ``status`` of an ended attempt, as templates and conditions see them.

    ``report`` is the run report with the agent's own report laid over it, so that a key of the step's schema is
    found at the top.
    """
    report = safe_read.read_object(attempt_dir / attempts.FINAL) or {}
    own = safe_read.mapping(safe_read.mapping(report.get("agent")).get("report"))
    text = safe_read.read_bytes(attempt_dir / attempts.FINAL_TEXT, MAX_TEXT) or b""
    return {
        "report": {**report, **own},
        "text": text.decode("utf-8", "replace").rstrip("\n"),
        "status": report.get("status"),
    }
