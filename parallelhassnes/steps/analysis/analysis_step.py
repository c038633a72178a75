"""The kind ``analysis`` itself: ``work`` writes ``analysis.json`` into its own attempt, ``conclude`` reports it.

``spec`` holds ``trial`` (the step that it is about), ``engine`` and what the engine needs. The trial's attempt is
read, never written: it is sealed.
"""

import contextlib
from typing import Any

from pydantic import ValidationError

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import safe_read, step_types
from parallelhassnes.steps.analysis import analyse
from parallelhassnes.steps.analysis.case import case_of, reference
from parallelhassnes.steps.analysis.engine import EngineFailed, engine
from parallelhassnes.steps.analysis.record import Analysis
from parallelhassnes.steps.step_types import Failure, Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial import leftovers
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.records import dump

ANALYSIS_FILE = "analysis.json"
ERROR_FILE = "analysis_error.json"
EXIT_FAILED = 1


class AnalysisKind:
    """Has an engine classify a trial."""

    name = "analysis"

    def preload(self, step: StepSpec) -> None:
        with contextlib.suppress(EngineFailed):  # ``work`` says so
            engine(safe_read.text(step.spec.get("engine")) or "rules")
        if step.spec.get("engine") == "api":
            import openai.resources.chat.completions  # noqa: F401 - it takes two seconds

    def deadline_sec(self, attempt: StepAttempt) -> float | None:  # noqa: ARG002
        return analyse.DEADLINE_SEC

    def work(self, attempt: StepAttempt) -> int:
        job = batches.read_job(attempt.job_dir)
        trial = _trial(job, attempt.step)
        case = None if trial is None else case_of(attempt.job_dir, job, trial)
        if case is None:
            return _fail(attempt, "task_definition", "there is no ended attempt of its trial to look at")
        try:
            made = analyse.analyse(attempt, case, reference(case, job))
        except EngineFailed as error:
            return _fail(attempt, error.failure_class, error.line, error.evidence)
        atomic.write_json(attempt.dir / ANALYSIS_FILE, dump(made), durable=False)
        return 0

    def phase(self, attempt: StepAttempt) -> str | None:
        return safe_read.text(attempt.step.spec.get("engine")) or "rules"

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        document = safe_read.read_object(attempt.dir / ANALYSIS_FILE)
        if document is None:
            return _without(attempt, end)
        try:
            made = Analysis.model_validate(document)
        except ValidationError as error:
            line = f"{ANALYSIS_FILE} is no analysis: {error.errors(include_url=False, include_input=False)[0]['msg']}"
            return step_types.broken(line)
        return _outcome(made)

    def sweep(self, attempt: StepAttempt) -> list[str]:
        """Other engines end with the worker's process group; Harbor's trial may leave a container."""
        return leftovers.sweep(attempt) if attempt.step.spec.get("engine") == "harbor" else []


def _trial(job: JobSpec, step: StepSpec) -> StepSpec | None:
    """The trial step that an analysis step is about."""
    named = safe_read.text(step.spec.get("trial"))
    return job.step(named) if named in job.places else None


def _outcome(made: Analysis) -> Outcome:
    who = f"{made.engine.name}{f' · {made.engine.model}' if made.engine.model else ''}"
    summary = f"{who}: {made.outcome}/{made.subtype} ({made.confidence:.2f}). {made.root_cause}"
    folder = f"../../../{made.trial.step_id}/attempts/{made.trial.attempt}"
    read = dict.fromkeys(quote.file for quote in made.evidence if not quote.file.startswith("task/"))
    report: dict[str, Any] = {
        "analysis": dump(made),
        "artifacts": [{"path": ANALYSIS_FILE, "kind": "report", "description": "the analysis"}],
        "files_read": [f"{folder}/{name}" for name in read],
        "files_written": [ANALYSIS_FILE],
    }
    if made.status == "needs_attention":
        failure = None
        return Outcome("needs_attention", f"{summary} {made.contradiction}.", failure, report)
    return Outcome("succeeded", summary, None, report)


def _without(attempt: StepAttempt, end: WorkerEnd) -> Outcome:
    stopped = step_types.stopped(end)
    if stopped is not None:
        return stopped
    if end.reason == "timeout":
        line = "the engine did not answer within the step's deadline"
        return Outcome("failed", f"Not analysed: {line}.", Failure("agent_timeout", line))
    said = safe_read.read_object(attempt.dir / ERROR_FILE)
    if said is None:
        line = f"the worker ended with exit code {end.exit_code} and left no analysis; see stderr.log"
        return step_types.broken(line, f"Not analysed: {line}.")
    line = safe_read.text(said.get("line"), 500) or "no reason given"
    evidence = safe_read.text(said.get("evidence"), 4000) or ""
    failure = Failure(safe_read.text(said.get("class")) or "internal", line, evidence)
    return Outcome("failed", f"Not analysed: {line}.", failure)


def _fail(attempt: StepAttempt, failure_class: str, line: str, evidence: str = "") -> int:
    document = {"class": failure_class, "line": line, "evidence": evidence}
    atomic.write_json(attempt.dir / ERROR_FILE, document, durable=False)
    return EXIT_FAILED
