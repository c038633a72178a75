"""From a case to its record: the rules first, then the engine that was asked for; quotes looked up, contradictions refused.

An answer that cannot be taken (it contradicts the verified reward, or is not of the schema) is refused and the engine
asked once more, with the reason. One that contradicts again needs attention and decides nothing; one that is still not of
the schema is a failure of the engine.
"""

import os

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.analysis import asking, material, proof, rules
from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.analysis.engine import AnalysisEngine, EngineFailed, Question, Reply, engine
from parallelhassnes.steps.analysis.record import Analysis, Answer, EngineRef, Tokens, TrialRef
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import trial_paths

TIMES = 2
FOLDER = "engine"
DEADLINE_SEC = 1800.0
_MARGIN_SEC = 30.0
"""What an engine is given less than the step, so that its end can still be written down."""


def analyse(attempt: StepAttempt, case: Case, trial: TrialRef) -> Analysis:
    """The analysis of a case by the engine that the attempt's step names.

    Raises:
        EngineFailed: the engine did not answer, or not in its schema.
    """
    spec = attempt.step.spec
    name = safe_read.text(spec.get("engine")) or "rules"
    facts = known_facts(case)
    proven = rules.decide(case)
    if name == "rules" or (spec.get("only_unknown") and proven.outcome != "unknown"):
        by = EngineRef(name="rules", version=rules.VERSION)
        return _record(case, trial, by, proven, facts)
    limit = attempt.step.timeout_sec or DEADLINE_SEC
    asked = _Asked(engine(name), case, facts, attempt, (limit - _MARGIN_SEC) / TIMES)
    return asked.until_taken(name, trial)


def known_facts(case: Case) -> list[str]:
    """What is sure about the trial, a line each, whether or not it decides anything."""
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
        lines.append(f"the agent took {len(files.steps)} steps and ran {len(files.commands)} commands")
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
            lines.append(f"{agent} ({must}) passed {passed} of {len(own)} trials of this task")
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
        made = _record(self.case, trial, by, read.answer, self.facts)
        spent = {"asked": len(self.replies), "tokens": self._tokens(), "cost_usd": self._cost()}
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

    def _tokens(self) -> Tokens:
        used = [reply.tokens for reply in self.replies]
        sums = {
            name: sum(known_ones)
            for name in Tokens.model_fields
            if (known_ones := [n for one in used if (n := getattr(one, name)) is not None])
        }
        return Tokens(**sums)

    def _cost(self) -> float | None:
        costs = [reply.cost_usd for reply in self.replies if reply.cost_usd is not None]
        return sum(costs) if costs else None


def _record(case: Case, trial: TrialRef, by: EngineRef, answer: Answer, facts: list[str]) -> Analysis:
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
