"""The kind ``baseline``: the gate in front of a task's other trials.

It waits for the end of the task's ``oracle`` and ``nop`` trials and succeeds if all of them came out as they
must: the task's own solution passes, and doing nothing fails. What waits for its success starts then, and else never;
when a baseline is retried the gate looks again.

    <attempt>/baseline.json     written by the worker, by rename
"""

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import safe_read, step_types
from parallelhassnes.steps.step_types import Failure, Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial_data import facts, rewards
from parallelhassnes.steps.verdict.quality import TASKS_FAULT
from parallelhassnes.steps.verdict.verdict_step import trial_steps
from parallelhassnes.store import atomic, batches

FILE = "baseline.json"
AGENTS = ("oracle", "nop")


class BaselineKind:
    """Looks whether a task's baselines came out as they must."""

    name = "baseline"

    def preload(self, step: StepSpec) -> None:  # noqa: ARG002 - it needs nothing that is slow to import
        return

    def deadline_sec(self, attempt: StepAttempt) -> float | None:  # noqa: ARG002 - it only reads small files
        return 600.0

    def work(self, attempt: StepAttempt) -> int:
        job = batches.read_job(attempt.job_dir)
        trials = facts.of_steps(attempt.job_dir, trial_steps(job, attempt.step))
        wrong, open_ones = look(trials)
        atomic.write_json(attempt.dir / FILE, {"wrong": wrong, "open": open_ones}, durable=False)
        return 0

    def phase(self, attempt: StepAttempt) -> str | None:  # noqa: ARG002 - it is over before anybody asks
        return "baseline"

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        found = safe_read.read_object(attempt.dir / FILE)
        if found is None:
            line = f"the baselines were not looked at (exit code {end.exit_code}); see stderr.log"
            return step_types.stopped(end) or step_types.broken(line, f"The worker ended, and {line}.")
        wrong, open_ones = _lines(found.get("wrong")), _lines(found.get("open"))
        report = {"files_written": [FILE]}
        if wrong:
            line = "; ".join(wrong)
            said = f"The task is not fit to be tried: {line}."
            return Outcome("failed", said, Failure("task_definition", line), report)
        if open_ones:
            line = "; ".join(open_ones)
            said = f"Whether the task is fit to be tried is not known: {line}."
            return Outcome("needs_attention", said, Failure("infrastructure", line), report)
        return Outcome("succeeded", "oracle passes and nop does not.", None, report)

    def sweep(self, attempt: StepAttempt) -> list[str]:  # noqa: ARG002 - nothing was started
        return []


def look(trials: list[facts.TrialFacts]) -> tuple[list[str], list[str]]:
    """Tell what came out wrong, and what came to no result; a line each."""
    wrong: list[str] = []
    open_ones: list[str] = []
    for agent in AGENTS:
        own = [trial for trial in trials if trial.agent == agent]
        if not own:
            open_ones.append(f"{agent} was not run")
        for trial in own:
            if trial.undecided is not None:
                open_ones.append(f"{trial.step_id} is {trial.undecided}")
            elif trial.reward is not None:
                if trial.passed != (agent == "oracle"):
                    must = "must pass" if agent == "oracle" else "must not pass"
                    line = f"{trial.step_id} has reward {trial.reward:g} and {must}"
                    (open_ones if is_unsure(trial) else wrong).append(line)
            elif trial.result == "unscored" and agent == "oracle" and trial.failure_class in TASKS_FAULT:
                wrong.append(f"{trial.step_id} was not scored ({trial.failure_class})")
            elif trial.result != "skipped":
                open_ones.append(f"{trial.step_id} has no score ({trial.failure_class or trial.result})")
    return wrong, open_ones


def is_unsure(trial: facts.TrialFacts) -> bool:
    """Tell whether the reward is one that a person has to judge: a part of it, or above a scale that nobody has named."""
    reward = trial.reward or 0.0
    if trial.agent == "oracle":
        return reward > 0
    return trial.by_default and not rewards.passes(1.0, reward)


def _lines(value: object) -> list[str]:
    return [line for each in safe_read.sequence(value) if (line := safe_read.text(each, 300))]
