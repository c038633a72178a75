"""From a case to its record: the rules first, then the engine that was asked for; quotes looked up, contradictions refused.

An answer that contradicts the verified reward is refused and the engine asked once more, with the reason; if it
stays with it, the analysis needs attention.
"""

from parallelhassnes.steps import untrusted
from parallelhassnes.steps.analysis import evidence, known, rules
from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.analysis.record import Analysis, Answer, EngineRef, TrialRef
from parallelhassnes.steps.analysis.taxonomy import contradiction
from parallelhassnes.steps.kinds import Attempt


class EngineFailed(Exception):
    """An engine came to no answer: the analysis is missing, which says nothing about the trial."""

    def __init__(self, failure_class: str, line: str, evidence: str = "") -> None:
        super().__init__(line)
        self.failure_class, self.line, self.evidence = failure_class, line, evidence


def analyse(attempt: Attempt, case: Case, trial: TrialRef) -> Analysis:
    """The analysis of a case by the engine that the attempt's step names.

    Raises:
        EngineFailed: the engine did not answer, or not in its schema.
    """
    name = untrusted.text(attempt.step.spec.get("engine")) or "rules"
    if name != "rules":
        raise EngineFailed("task_definition", f"there is no engine {name}")
    answer = rules.decide(case)
    return _record(case, trial, EngineRef(name="rules", version=rules.VERSION), answer)


def _record(case: Case, trial: TrialRef, engine: EngineRef, answer: Answer) -> Analysis:
    found, struck, confidence = evidence.look_up(case.files, answer.evidence, answer.confidence)
    refused = contradiction(answer.outcome, case.reward, scored=case.scored)
    return Analysis(
        trial=trial, engine=engine, status="needs_attention" if refused else "done",
        outcome=answer.outcome, subtype=answer.subtype, evidence=found, struck=struck,
        root_cause=answer.root_cause, recommendation=answer.recommendation, confidence=confidence,
        contradiction=refused, facts=tuple(known.facts(case)),
    )  # fmt: skip
