"""The kind ``verdict`` itself: ``work`` writes ``verdict.json`` into the attempt, ``conclude`` publishes it."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parallelhassnes.formatting import counted
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import safe_read, step_types
from parallelhassnes.steps.step_types import Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.trial_data.facts import TrialFacts
from parallelhassnes.steps.trial_data.trial_files import TrialFiles
from parallelhassnes.steps.verdict import analysis_results, flakiness, judge
from parallelhassnes.steps.verdict.judge import VERDICT_FILE
from parallelhassnes.store import atomic, batches


class VerdictKind:
    """Counts and compares the trials of its job."""

    name = "verdict"

    def preload(self, step: StepSpec) -> None:
        if step.spec.get("engine"):
            import parallelhassnes.steps.verdict.narrative  # noqa: F401
        with contextlib.suppress(ImportError):  # ``work`` says so
            if step.spec.get("engine") == "api":
                import openai.resources.chat.completions  # noqa: F401 - it takes two seconds

    def deadline_sec(self, attempt: StepAttempt) -> float | None:
        return 600.0 + float(attempt.step.spec.get("timeout_sec") or 0.0)

    def work(self, attempt: StepAttempt) -> int:
        job = batches.read_job(attempt.job_dir)
        found = compute(attempt.job_dir, job, attempt.step, attempt.batch_id)
        atomic.write_json(attempt.dir / VERDICT_FILE, found, durable=False)
        if attempt.step.spec.get("engine"):
            atomic.write_json(attempt.dir / VERDICT_FILE, _with_prose(found, attempt), durable=False)
        return 0

    def phase(self, attempt: StepAttempt) -> str | None:  # noqa: ARG002 - it is over before anybody asks
        return "verdict"

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        verdict = safe_read.read_object(attempt.dir / VERDICT_FILE)
        try:
            return _outcome(verdict) if verdict is not None else _without_verdict(end)
        except (KeyError, TypeError):
            return step_types.broken(f"{VERDICT_FILE} is no verdict")

    def sweep(self, attempt: StepAttempt) -> list[str]:  # noqa: ARG002 - nothing was started
        return []


def compute(job_dir: Path, job: JobSpec, step: StepSpec, batch_id: str) -> dict[str, Any]:
    """Return the verdict on a job as its trials and analyses stand, without prose; what ``work`` writes and an audit compares."""
    trials = facts.of_steps(job_dir, trial_steps(job, step))
    said = analysis_results.of_job(job_dir, job, {fact.step_id: fact.attempt for fact in trials})
    return judge.judge(batch_id, job.job_id, trials, _actions(job_dir, trials, job), said)


def _actions(job_dir: Path, trials: Sequence[TrialFacts], job: JobSpec) -> dict[str, tuple[str, ...]]:
    """step_id → the commands of each scored trial of an agent, where comparing them can tell something."""
    if not flakiness.may_differ(trials):
        return {}
    return {
        fact.step_id: tuple(
            command.text for command in TrialFiles(job_dir / fact.attempt, job.step(fact.step_id)).commands
        )
        for fact in trials
        if fact.result == "scored" and fact.attempt is not None
    }


def _with_prose(found: dict[str, Any], attempt: StepAttempt) -> dict[str, Any]:
    """Return the verdict with what the engine wrote, or with a warning that it wrote nothing; all else as it was."""
    from parallelhassnes.steps.analysis.engine import EngineFailed
    from parallelhassnes.steps.verdict import narrative

    try:
        said = narrative.write(found, attempt.step.spec, attempt.dir, os.environ)
    except EngineFailed as error:
        warning = f"no prose: {error.line} ({error.failure_class})"
        return {**found, "warnings": [*found["warnings"], warning]}
    return {**found, "prose": said}


def _outcome(verdict: dict[str, Any]) -> Outcome:
    counts = verdict["counts"]
    part = {
        "task_quality": verdict["task_quality"],
        "task_broken": verdict["task_broken"],
        "scored": counts["scored"],
        "passes": counts["passes"],
        "steps": counts["n"],
    }
    artifact = {"path": VERDICT_FILE, "kind": "report", "description": "the job's verdict"}
    read = [trial["attempt"] for trial in verdict["trials"] if trial["attempt"]]
    return Outcome(
        "succeeded",
        _summary(verdict),
        None,
        {
            "verdict": part,
            "artifacts": [artifact],
            "files_read": [f"../../../../{place}/final.json" for place in read],
            "files_written": [VERDICT_FILE],
        },
        {VERDICT_FILE: verdict},
    )


def trial_steps(job: JobSpec, step: StepSpec) -> list[StepSpec]:
    """Return the trials that a verdict is about: those of its job that it depends on, or all where it names none."""
    trials = [other for other in job.steps if other.kind == "trial"]
    named = {name.removeprefix(f"{job.job_id}/") for name in step.depends_on}
    return [trial for trial in trials if trial.step_id in named] or trials


def _without_verdict(end: WorkerEnd) -> Outcome:
    line = f"no verdict was written (exit code {end.exit_code}); see stderr.log"
    return step_types.stopped(end) or step_types.broken(line, f"The worker ended, and {line}.")


def _summary(verdict: dict[str, Any]) -> str:
    counts = verdict["counts"]
    said = f"{counts['passes']} of {counts['scored']} scored trials passed ({counts['n']} planned)"
    others = {name: counts[name] for name in ("unscored", "infrastructure", "canceled", "skipped", "missing")}
    said += "".join(f", {count} {name}" for name, count in others.items() if count)
    if counts["undecided"]:
        said += f", {counts['undecided']} undecided"
    if counts["superseded"]:
        said += f"; {counted(counts['superseded'], 'earlier attempt')} superseded"
    quality = {
        "good": "The task is good",
        "needs_review": "The task needs review",
        "broken": "The task is broken",
        "unknown": "Whether the task is good is not known",
    }
    return f"{said}. {quality[verdict['task_quality']]}: {'; '.join(verdict['reasons'])}."
