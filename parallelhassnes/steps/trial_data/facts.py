"""What a verdict knows of each trial step, read from the attempt of the step that counts."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import untrusted
from parallelhassnes.steps.failures import CLASSES, INFRASTRUCTURE_CLASSES, UNABLE

type Result = Literal["scored", "unscored", "infrastructure", "canceled", "skipped", "missing"]
"""``scored`` has a reward; ``unscored`` ran to an end without one, through task, agent, model or
verifier; ``infrastructure`` says nothing about any of these; ``skipped`` was not needed any more (``enough``); ``missing`` has no finished attempt."""

RESULTS: tuple[Result, ...] = (
    "scored", "unscored", "infrastructure", "canceled", "skipped", "missing",
)  # fmt: skip
PASS_REWARD = 1.0
"""A trial passes with exactly this reward; anything else that is scored does not pass."""


@dataclass(frozen=True)
class TrialFacts:
    """One trial step, as the attempt of it that counts reports it."""

    step_id: str
    result: Result
    attempt: str | None = None
    """The attempt's directory, relative to the job's."""
    failure_class: str | None = None
    reward: float | None = None
    agent: str | None = None
    agent_version: str | None = None
    model: str | None = None
    task_name: str | None = None
    task_checksum: str | None = None
    task_source: str | None = None
    cost_usd: float | None = None
    tokens: tuple[int | None, int | None, int | None] = (None, None, None)
    """Input (cache included), cache, output."""
    duration_sec: float | None = None
    exception: str | None = None
    """Type of the exception beside, or instead of, the reward."""
    exception_class: str | None = None
    superseded: int = 0
    """Finished attempts of the step that another one stands for; they are kept, and count nowhere else."""

    @property
    def passed(self) -> bool:
        return self.result == "scored" and self.reward == PASS_REWARD


def of_steps(job_dir: Path, steps: Sequence[StepSpec]) -> list[TrialFacts]:
    """The facts of these trial steps of a job, in their order."""
    targets = {step.step_id for step in steps if step.retry.top_up is not None}
    reports = trial_reports(job_dir, [step.step_id for step in steps], targets)
    trials = [planned(found, step) for found, step in zip(reports, steps, strict=True)]
    said = untrusted.read_object(job_dir / "overrides.json") or {}
    skipped = untrusted.mapping(said.get("enough"))
    return [
        replace(each, result="skipped") if each.result == "missing" and skipped.get(each.step_id) else each
        for each in trials
    ]  # fmt: skip


def trial_reports(
    job_dir: Path, step_ids: Iterable[str], targets: Collection[str] = ()
) -> Iterable[TrialFacts]:
    """The facts of each step, in the order asked for; ``missing`` where no attempt has finished.

    Of the attempts that have both ``state.json`` and ``final.json`` the newest scored one counts, or where none is
    scored the newest: a score gives way to nothing but another score, so that no retry can make a result disappear.
    Names of attempts sort by time.

    Args:
        targets: steps that have to be scored (``n_valid``), for which a score without a token is none.
    """
    for step_id in step_ids:
        finished = list(_finished(job_dir, step_id, step_id in targets))
        if not finished:
            yield TrialFacts(step_id, "missing")
            continue
        counts = next((fact for fact in finished if fact.result == "scored"), finished[0])
        yield replace(counts, superseded=len(finished) - 1)


def planned(facts: TrialFacts, step: StepSpec) -> TrialFacts:
    """The same facts, with what only the plan knows filled in: whose trial a missing one would have been."""
    config = untrusted.mapping(step.spec.get("config"))
    agent = untrusted.mapping(config.get("agent"))
    filled = {
        "agent": untrusted.text(agent.get("name")) or untrusted.text(agent.get("import_path")),
        "model": untrusted.text(agent.get("model_name")),
        "task_name": untrusted.text(step.spec.get("task_name")),
        "task_source": untrusted.text(untrusted.mapping(config.get("task")).get("source")),
    }
    known = dict(vars(facts))
    return TrialFacts(**{**known, **{k: v for k, v in filled.items() if known[k] is None}})


def _finished(job_dir: Path, step_id: str, target: bool) -> Iterator[TrialFacts]:
    """Every finished attempt, newest first."""
    attempts = job_dir / "steps" / step_id / "attempts"
    try:
        names = sorted((path.name for path in attempts.iterdir()), reverse=True)
    except OSError:
        return
    for name in names:
        state = untrusted.read_object(attempts / name / "state.json")
        report = untrusted.read_object(attempts / name / "final.json")
        if state is not None and report is not None:
            place = (attempts / name).relative_to(job_dir).as_posix()
            yield _facts(step_id, place, state, report, target)


def _facts(
    step_id: str, place: str, state: dict[str, Any], report: dict[str, Any], target: bool
) -> TrialFacts:
    trial = untrusted.mapping(report.get("trial"))
    task, agent = untrusted.mapping(trial.get("task")), untrusted.mapping(trial.get("agent"))
    tokens = untrusted.mapping(trial.get("tokens"))
    exception = untrusted.mapping(trial.get("exception"))
    status = state.get("status")
    failure = untrusted.mapping(report.get("failure")).get("class")
    failure = failure if failure in CLASSES else None
    reward = untrusted.number(trial.get("reward")) if status == "succeeded" else None
    if target and is_silent(trial):
        reward = None
    return TrialFacts(
        step_id=step_id,
        result="infrastructure"
        if _refused_by_environment(trial)
        else _result(status, failure, reward),
        attempt=place,
        failure_class=failure,
        reward=None if reward is None else float(reward),
        agent=untrusted.text(agent.get("name")),
        agent_version=untrusted.text(agent.get("version")),
        model=untrusted.text(agent.get("model")),
        task_name=untrusted.text(task.get("name")),
        task_checksum=untrusted.text(task.get("checksum")),
        task_source=untrusted.text(task.get("source")),
        cost_usd=untrusted.number(trial.get("cost_usd")),
        tokens=(
            untrusted.whole(tokens.get("input")),
            untrusted.whole(tokens.get("cache")),
            untrusted.whole(tokens.get("output")),
        ),
        duration_sec=untrusted.number(untrusted.mapping(trial.get("timings_sec")).get("total")),
        exception=untrusted.text(exception.get("type"), 200),
        exception_class=exception["class"] if exception.get("class") in CLASSES else None,
    )


def _refused_by_environment(trial: Mapping[str, Any]) -> bool:
    """Whether the environment could not do what the task asks: its limit, not the task's fault."""
    exception = untrusted.mapping(trial.get("exception"))
    if exception.get("class") != "task_definition":
        return False
    if exception.get("type") == "SandboxBuildFailedError" and trial.get("environment") == "sandbox":
        return True
    return re.search(UNABLE, untrusted.text(exception.get("message")) or "") is not None


def _result(status: object, failure: str | None, reward: float | None) -> Result:
    if status == "canceled":
        return "canceled"
    if status == "lost" or (status == "failed" and failure in INFRASTRUCTURE_CLASSES):
        return "infrastructure"
    return "unscored" if reward is None else "scored"


def is_valid(attempt_dir: Path) -> bool:
    """Whether the report of a succeeded attempt has a reward that counts towards a target of scored trials (``n_valid``)."""
    trial = untrusted.mapping(
        (untrusted.read_object(attempt_dir / "final.json") or {}).get("trial")
    )
    return untrusted.number(trial.get("reward")) is not None and not is_silent(trial)


def is_silent(trial: Mapping[str, Any]) -> bool:
    """Whether an agent with a model has counted its tokens and they are none: it has never spoken to its model.

    A trial that does not count its tokens (null) is believed.
    """
    tokens = untrusted.mapping(trial.get("tokens"))
    agent = untrusted.mapping(trial.get("agent"))
    counted = [untrusted.whole(tokens.get(name)) for name in ("input", "output")]
    return bool(agent.get("model")) and counted == [0, 0]
