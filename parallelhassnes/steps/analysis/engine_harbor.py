"""The engine ``harbor``: Harbor's own ``analyze`` rubric, run as a Harbor trial over the trial's folder and its task.

``agent`` (``claude-code``), ``model``, ``environment`` (``docker``, or ``sandbox``). Harbor's rubric asks two questions, was
the reward earned and does the instruction suffice, so what it can tell is coarse: ``tampered``, ``underspecified``,
``solved`` or ``other``. It quotes nothing that could be looked up, which bounds the confidence. Of a trial without a
reward it says nothing. The wrapper task and its trial stay below ``engine/`` of the analysis's attempt.
"""

import asyncio
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes.plan import SANDBOX
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.analysis.engine import EngineFailed, Question, Reply
from parallelhassnes.steps.failure_evidence import verdict_of
from parallelhassnes.steps.trial import preload
from parallelhassnes.steps.usage import Tokens, Usage

if TYPE_CHECKING:
    from harbor.models.trial.result import TrialResult

AGENT = "claude-code"
RESULT = "analysis.json"
CONFIDENCE = 0.6


class HarborEngine:
    """Runs Harbor's rubric."""

    def ask(self, question: Question) -> Reply:
        if not question.case.scored:
            line = "Harbor's rubric says nothing about a trial without a reward"
            raise EngineFailed("agent_error", line)
        preload.set_harbor_environment(os.environ)
        task = _wrapper(question)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what agents import
            result = asyncio.run(_run(question, task))
        if result.exception_info is not None:
            found = result.exception_info
            verdict = verdict_of(
                found.exception_type,
                found.exception_message,
                "agent",
                found.exception_traceback,
                [question.folder / question.name / "agent"],
            )
            said = verdict.said or found.exception_message
            line = f"{found.exception_type}: {safe_read.first_line(said)}"
            raise EngineFailed(verdict.failure_class, line, said)
        found_at = question.folder / question.name / "artifacts" / RESULT
        document = safe_read.read_object(found_at)
        read, cached, written, cost = result.compute_token_cost_totals()
        return Reply(
            None if document is None else translated(document, passed=question.case.passed),
            question.settings.get("model"),
            f"{question.settings.get('agent') or AGENT} on Harbor's rubric",
            Usage(cost, Tokens(read, cached, written)),
        )


def translated(document: dict[str, Any], *, passed: bool) -> dict[str, Any] | None:
    """Return Harbor's checks as an answer; None where they are not of its shape."""
    checks = safe_read.mapping(document.get("checks"))
    hacking = safe_read.mapping(checks.get("reward_hacking"))
    specified = safe_read.mapping(checks.get("task_specification"))
    if not hacking.get("outcome") or not specified.get("outcome"):
        return None
    if passed:
        bad, what = hacking["outcome"] == "fail", hacking
        said = ("bad_success", "tampered") if bad else ("good_success", "solved")
    else:
        bad, what = specified["outcome"] == "fail", specified
        said = ("bad_failure", "underspecified") if bad else ("good_failure", "other")
    summary = safe_read.text(document.get("summary"), 1500) or ""
    explained = safe_read.text(what.get("explanation"), 1500) or ""
    return {
        "outcome": said[0],
        "subtype": said[1],
        "evidence": [],
        "root_cause": f"{summary} {explained}".strip(),
        "recommendation": "Look at Harbor's explanation.",
        "confidence": CONFIDENCE,
    }


def _wrapper(question: Question) -> Path:
    """Return Harbor's task around the trial, with what the rules have found."""
    from harbor.analyze import analyzer
    from harbor.analyze.models import build_analyze_response_model, load_rubric

    rubric = load_rubric(analyzer.DEFAULT_RUBRIC_PATH)
    files = question.case.files
    task = analyzer.assemble_analyze_task(
        trial_dir=files.attempt_dir / "trial",
        task_dir=files.task_dir,
        rubric=rubric,
        template=(analyzer.PROMPTS_DIR / "analyze.txt").read_text(encoding="utf-8"),
        output_schema=build_analyze_response_model(rubric).model_json_schema(),
        dest=question.folder / "task",
    )
    sure = "\n".join(f"- {fact}" for fact in question.facts)
    with (task / "instruction.md").open("a", encoding="utf-8") as stream:
        stream.write(f"\nWhat is sure about the trial:\n{sure}\n")
    return task


async def _run(question: Question, task: Path) -> "TrialResult":
    from harbor.models.trial.config import TrialConfig
    from harbor.trial.trial import Trial

    settings = question.settings
    agent = settings.get("agent") or AGENT
    named = {"import_path": agent} if ":" in agent else {"name": agent}
    environment: dict[str, Any] = {"type": settings.get("environment") or "docker"}
    if environment["type"] == "sandbox":
        environment = {"import_path": SANDBOX, "kwargs": {"unsupported": "skip"}}
    config = TrialConfig.model_validate(
        {
            "task": {"path": str(task)},
            "agent": {**named, "model_name": settings.get("model")},
            "environment": environment,
            "trial_name": question.name,
            "trials_dir": str(question.folder),
        }
    )
    return await (await Trial.create(config)).run()
