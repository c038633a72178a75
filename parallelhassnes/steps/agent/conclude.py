"""What an agent's attempt is doing, and what it came to, from the files that its worker leaves."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from parallelhassnes.plan import AgentPlan
from parallelhassnes.states import EndStatus
from parallelhassnes.steps import safe_read, step_types
from parallelhassnes.steps.agent import files
from parallelhassnes.steps.agent.adapters.agent_cli import Transcript
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import HOME, read_events, used_so_far
from parallelhassnes.steps.step_types import Failure, Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.usage import Tokens


class EventFollower:
    """Reads an attempt's events from where it last stopped.

    Raises:
        ValidationError: the step's plan is not one.
    """

    def __init__(self, attempt: StepAttempt) -> None:
        plan = AgentPlan.model_validate(attempt.step.spec)
        self._attempt_dir = attempt.dir
        self._dir = files.folder(attempt.dir)
        self._cli = agent(plan.agent, plan.command, plan.program)
        self._reader = self._cli.reader()
        self._offset = 0

    def look(self) -> Transcript:
        """Tell what the events have told until now; what was used is that of this attempt alone."""
        self._offset = read_events(self._dir / self._cli.events_file, self._offset, self._reader)
        said = self._reader.transcript
        resumed = files.read_run(self._attempt_dir).resumed
        before = Tokens() if resumed is None else resumed.tokens_before
        return replace(said, used=used_so_far(self._cli, said, self._dir / HOME, before))


def look(attempt: StepAttempt) -> Transcript:
    """Tell what an attempt's events tell, from the first; nothing where its plan is not one."""
    try:
        return EventFollower(attempt).look()
    except ValidationError:
        return Transcript()


FAILED = frozenset({"failed", "failure", "error"})
ATTENTION = frozenset({"needs_attention", "blocked", "needs_review"})
_COMMON = ("files_read", "files_written", "artifacts")


def conclude(attempt: StepAttempt, end: WorkerEnd) -> Outcome:
    """Return the outcome of an attempt; one whose worker was killed is told from its events."""
    facts = files.read_outcome(attempt.dir)
    run = files.read_run(attempt.dir)
    status, failure = _stopped(facts, end) if facts is None or not facts.complete else judge(facts)
    return Outcome(status, _summary(facts, status, failure), failure, _report(attempt, facts, run, status))


def _stopped(facts: files.OutcomeFacts | None, end: WorkerEnd) -> tuple[EndStatus, Failure]:
    """Tell what an attempt came to whose worker did not get to its end."""
    match end.reason:
        case "canceled":
            return "canceled", Failure("canceled", "was canceled")
        case "timeout":
            return "failed", Failure("agent_timeout", "the agent ran past the step's deadline")
        case "lost" | "stuck":
            return "lost", Failure("lost", "was lost: its supervisor died")
        case _ if facts is not None or (end.exit_code or 0) < 0:
            return "failed", Failure("infrastructure", "its worker was stopped from outside")
        case _:
            line = f"its worker ended with exit code {end.exit_code}; see stderr.log"
            return "failed", Failure("internal", line)


def judge(facts: files.OutcomeFacts) -> tuple[EndStatus, Failure | None]:
    """Tell what an attempt came to whose worker got to its end."""
    if facts.failure is not None:
        return "failed", facts.failure
    if facts.problems:
        return "needs_attention", Failure("agent_error", _problem_line(facts.problems))
    word = _word(facts.report)
    if word in FAILED:
        return "failed", Failure("agent_error", f"the agent reports that it failed: {_said(facts)}")
    if word in ATTENTION:
        return "needs_attention", Failure("agent_error", f"the agent asks for attention: {_said(facts)}")
    for each in facts.artifacts:
        if each.problems:
            line = f"expected artifact {each.name}: {each.problems[0]}"
            return "failed", Failure("agent_error", line)
    return "succeeded", None


def _problem_line(problems: list[str]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"the report is not valid: {problems[0]}{more}"


def _word(report: Any) -> str:
    status = safe_read.mapping(report).get("status")
    return status.lower() if isinstance(status, str) else ""


def _said(facts: files.OutcomeFacts) -> str:
    summary = safe_read.mapping(facts.report).get("summary")
    return safe_read.first_line(summary) if isinstance(summary, str) else "it does not say why"


def _summary(facts: files.OutcomeFacts | None, status: EndStatus, failure: Failure | None) -> str:
    text = facts.text if facts is not None else ""
    summary = safe_read.mapping(facts.report if facts else None).get("summary")
    if isinstance(summary, str) and summary.strip() and facts is not None and not facts.problems:
        said = summary
    elif text.strip():
        said = f"The agent said: {text}"
    else:
        said = ""
    if failure is None:
        return said or "The agent ended without a word."
    return f"{failure.line[0].upper()}{failure.line[1:]}. {said}".strip() if status != "succeeded" else said


def _report(
    attempt: StepAttempt, facts: files.OutcomeFacts | None, run: files.RunFacts, status: EndStatus
) -> Mapping[str, Any]:
    own = facts or _from_events(attempt)
    spec = attempt.step.spec
    document: dict[str, Any] = {
        "agent": str(spec.get("agent") or "codex"),
        "version": run.version or None,
        "model": own.model,
        "thread_id": own.thread_id,
        "prompt_sha256": run.prompt_sha256 or None,
        "tokens": own.tokens._asdict(),
        "cost_usd": own.cost_usd,
        "tool_calls": own.tool_calls,
        "turns": own.turns,
        "exit_code": own.exit_code,
        "seconds": own.seconds,
        "report": own.report,
        "problems": own.problems,
        "artifacts": [each.model_dump() for each in own.artifacts],
        "workspace": run.workspace.model_dump(exclude_none=True) if run.workspace else None,
        "resumed": run.resumed.model_dump(exclude_none=True) if run.resumed else None,
    }
    made: dict[str, Any] = {"agent": document}
    if status == "succeeded" and not spec.get("output_schema"):  # it fits the common schema
        made |= {name: own.report[name] for name in _COMMON if name in own.report}
    return made


def _from_events(attempt: StepAttempt) -> files.OutcomeFacts:
    """Tell what the events tell of a run whose worker was killed."""
    said = look(attempt)
    return files.OutcomeFacts(
        complete=False,
        text=safe_read.text(said.message, files.MOST_TEXT) or "",
        thread_id=said.thread_id,
        model=said.model,
        cost_usd=said.used.cost_usd,
        tool_calls=said.tool_calls,
        tokens=said.used.tokens,
    )


def stand_in(attempt: StepAttempt, end: WorkerEnd) -> Outcome:
    """Return the outcome in a dry run (``tick --no-codex``): a report made from the prompt alone, always the same, and marked as such."""
    stopped = step_types.stopped(end)
    if stopped is not None:
        return stopped
    if end.exit_code != 0:
        return step_types.broken(f"the stand-in ended with exit code {end.exit_code}")
    digest = hashlib.sha256(_prompt_text(attempt.step.spec).encode("utf-8", "replace")).hexdigest()
    summary = f"Stand-in: no agent was run. The prompt's SHA-256 begins with {digest[:12]}."
    agent = {"prompt_sha256": digest, "answer": f"stand-in-{digest[:16]}"}
    return Outcome("succeeded", summary, None, {"agent": agent, "stand_in": True})


def _prompt_text(spec: dict[str, Any]) -> str:
    """Return the prompt; where the step has it elsewhere (a file), what the step says about that."""
    prompt = spec.get("prompt")
    return prompt if isinstance(prompt, str) and prompt else json.dumps(spec, sort_keys=True)
