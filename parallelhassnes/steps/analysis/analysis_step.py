"""The kind ``analysis`` itself: ``work`` writes ``analysis.json`` into its own attempt, ``conclude`` reports it.

``spec`` holds ``trial`` (the step that it is about), ``engine`` and what the engine needs. The trial's attempt is
read, never written: it is sealed.

The rules come first, then the engine that was asked for. An answer that cannot be taken (it contradicts the verified reward,
or is not of the schema) is refused and the engine asked once more, with the reason. One that contradicts again needs
attention and decides nothing; one that is still not of the schema is a failure of the engine.
"""

import contextlib
import os
from typing import Any

from pydantic import ValidationError

from parallelhassnes.formatting import counted
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import safe_read, step_types
from parallelhassnes.steps.analysis import asking, material, proof, rules
from parallelhassnes.steps.analysis.case import Case, case_of, reference
from parallelhassnes.steps.analysis.engine import (
    AnalysisEngine,
    EndpointEngine,
    EngineFailed,
    ProgramEngine,
    Question,
    Reply,
)
from parallelhassnes.steps.analysis.record import Analysis, Answer, EngineRef, TrialRef
from parallelhassnes.steps.step_types import Failure, Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial import leftovers, trial_paths
from parallelhassnes.steps.usage import Usage
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.records import dump

ANALYSIS_FILE = "analysis.json"
ERROR_FILE = "analysis_error.json"
EXIT_FAILED = 1


class AnalysisKind:
    """Has an engine classify a trial."""

    name = "analysis"

    def preload(self, step: StepSpec) -> None:
        with contextlib.suppress(EngineFailed, ImportError):  # ``work`` says so
            _engine(safe_read.text(step.spec.get("engine")) or "rules")
            if step.spec.get("engine") == "api":
                import openai.resources.chat.completions  # noqa: F401 - it takes two seconds

    def deadline_sec(self, attempt: StepAttempt) -> float | None:  # noqa: ARG002
        return DEADLINE_SEC

    def work(self, attempt: StepAttempt) -> int:
        job = batches.read_job(attempt.job_dir)
        trial = _trial(job, attempt.step)
        case = None if trial is None else case_of(attempt.job_dir, job, trial)
        if case is None:
            return _fail(attempt, "task_definition", "there is no ended attempt of its trial to look at")
        try:
            made = analyse(attempt, case, reference(case, job))
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
        """Return other engines end with the worker's process group; Harbor's trial may leave a container."""
        return leftovers.sweep(attempt) if attempt.step.spec.get("engine") == "harbor" else []


def _trial(job: JobSpec, step: StepSpec) -> StepSpec | None:
    """Return the trial step that an analysis step is about."""
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


TIMES = 2
FOLDER = "engine"
DEADLINE_SEC = 1800.0
_MARGIN_SEC = 30.0
"""What an engine is given less than the step, so that its end can still be written down."""


def _engine(name: str) -> AnalysisEngine:
    """Return the engine of that name; raises EngineFailed where there is none."""
    match name:
        case "codex" | "claude":
            return ProgramEngine(name)
        case "api":
            return EndpointEngine()
        case "harbor":
            from parallelhassnes.steps.analysis.engine_harbor import HarborEngine

            return HarborEngine()
    raise EngineFailed("task_definition", f"there is no engine {name}")


def analyse(attempt: StepAttempt, case: Case, trial: TrialRef) -> Analysis:
    """Return the analysis of a case by the engine that the attempt's step names.

    Raises:
        EngineFailed: the engine did not answer, or not in its schema.
    """
    spec = attempt.step.spec
    name = safe_read.text(spec.get("engine")) or "rules"
    facts = known_facts(case)
    proven = rules.decide(case)
    if name == "rules" or (spec.get("only_unknown") and proven.outcome != "unknown"):
        by = EngineRef(name="rules", version=rules.VERSION)
        return _made(case, trial, by, proven, facts)
    limit = attempt.step.timeout_sec or DEADLINE_SEC
    asked = _Asked(_engine(name), case, facts, attempt, (limit - _MARGIN_SEC) / TIMES)
    return asked.until_taken(name, trial)


def known_facts(case: Case) -> list[str]:
    """Tell what is sure about the trial, a line each, whether or not it decides anything."""
    files = case.files
    fact = files.facts
    reward = fact.undecided or ("not scored" if case.reward is None else f"verified reward {case.reward:g}")
    if case.scored and len(fact.rewards) > 1:
        some = list(fact.rewards.items())[:20]
        reward += f" (all rewards: {', '.join(f'{name} {value:g}' for name, value in some)})"
    elif case.failed or case.passed:
        reward += ", a pass" if case.passed else ", no pass"
    lines = [f"{reward}; the attempt's status is {files.status}"]
    if case.exception is not None:
        lines.append(
            f"an exception ended it or stands beside the reward: {proof.said(case)} (class {case.exception[2]})"
        )
    if files.steps:
        lines.append(
            f"the agent took {counted(len(files.steps), 'step')} and ran {counted(len(files.commands), 'command')}"
        )
    elif files.agent not in ("oracle", "nop"):
        lines.append("there is no trajectory")
    lines += [
        f"step {command.step} read below /tests or /solution: {proof.short(command.text)}"
        for command in proof.read_secrets(case)[:5]
    ]
    writes = [command for command in files.commands if proof.WRITE.search(command.text)]
    lines += [
        f"step {command.step} wrote below /tests or /logs/verifier: {proof.short(command.text)}"
        for command in writes[:5]
    ]
    for agent, must in (("oracle", "must pass"), ("nop", "must not pass")):
        own = [other.facts for other in case.others if other.agent == agent and other.facts.decided]
        if own:
            passed = sum(fact.passed is True for fact in own)
            lines.append(f"{agent} ({must}) passed {passed} of {counted(len(own), 'trial')} of this task")
    answer = rules.decide(case)
    if answer.outcome != "unknown":
        lines.append(f"the rules conclude {answer.outcome}/{answer.subtype}: {answer.root_cause}")
    return lines


class _Asked:
    """The exchange with one engine."""

    def __init__(
        self, asks: AnalysisEngine, case: Case, facts: list[str], attempt: StepAttempt, timeout_sec: float
    ) -> None:
        self.engine, self.case, self.facts = asks, case, facts
        self.spec, self.folder = attempt.step.spec, attempt.dir / FOLDER
        self.name = trial_paths.trial_name(attempt)
        self.timeout_sec = max(timeout_sec, 1.0)
        self.material = material.material(case, self.spec.get("max_input_tokens") or material.DEFAULT_TOKENS)
        self.replies: list[Reply] = []

    def until_taken(self, name: str, trial: TrialRef) -> Analysis:
        refused, read = "", asking.Read(None, "it was not asked")
        for _ in range(TIMES):
            read = self._ask(refused)
            refused = read.problem
            if not refused:
                break
        by = EngineRef(
            name=name,  # type: ignore[arg-type]
            model=self.replies[-1].model or self.spec.get("model"),
            version=self.replies[-1].version,
        )
        if read.answer is None:
            raise EngineFailed("agent_error", f"{name} gave no usable answer: {refused}")
        made = _made(self.case, trial, by, read.answer, self.facts)
        used = sum((reply.used for reply in self.replies), Usage())
        spent = {"asked": len(self.replies), "tokens": used.tokens, "cost_usd": used.cost_usd}
        if refused:
            # What it said is in the words; as an outcome nobody is to count it.
            spent |= {
                "status": "needs_attention",
                "outcome": "unknown",
                "subtype": "unknown",
                "confidence": 0.0,
                "contradiction": refused,
            }
        return made.model_copy(update=spent)

    def _ask(self, refused: str) -> asking.Read:
        folder = self.folder / str(len(self.replies) + 1)
        folder.mkdir(parents=True)
        question = Question(
            prompt=asking.question(self.facts, self.material, refused),
            schema=asking.SCHEMA,
            facts=self.facts,
            case=self.case,
            name=self.name,
            folder=folder,
            settings=self.spec,
            environ=dict(os.environ),
            timeout_sec=self.timeout_sec,
        )
        self.replies.append(self.engine.ask(question))
        return asking.read(self.replies[-1].document, self.case)


def _made(case: Case, trial: TrialRef, by: EngineRef, answer: Answer, facts: list[str]) -> Analysis:
    found, struck, confidence = proof.look_up(case.files, answer.evidence, answer.confidence)
    return Analysis(
        trial=trial,
        engine=by,
        outcome=answer.outcome,
        subtype=answer.subtype,
        evidence=found,
        struck=struck,
        root_cause=answer.root_cause,
        recommendation=answer.recommendation,
        confidence=confidence,
        facts=tuple(fact[:4000] for fact in facts),
    )
