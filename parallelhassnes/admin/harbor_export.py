"""Which Harbor jobs a batch amounts to, from the plan and the results in its store."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from parallelhassnes.plan import StepSpec, TrialSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.evidence import removals

if TYPE_CHECKING:
    from harbor.models.job.config import JobConfig
    from harbor.models.trial.config import TrialConfig
    from harbor.models.trial.result import TrialResult

PER_TRIAL = {"task", "agent", "trial_name", "trials_dir", "job_id", "source_trial"}
"""The keys of a ``TrialConfig`` that are not settings which all trials of a Harbor job share."""


class FoundTrial(NamedTuple):
    """A trial step that has a result."""

    directory: Path
    """Harbor's directory of the trial."""
    config: "TrialConfig"
    """As the plan has it: without what the worker added."""
    result: "TrialResult"
    retries: int
    """Attempts before it, which the job of Harbor would have deleted."""


def find_trials(batch_dir: Path) -> tuple[list[FoundTrial], list[str]]:
    """For each trial step its newest attempt with a result; and a line for each step that has none."""
    found: list[FoundTrial] = []
    skipped: list[str] = []
    for job_dir, step in _trial_steps(batch_dir):
        trial = next(_with_result(job_dir, step), None)
        if trial is None:
            skipped.append(f"{job_dir.name}/{step.step_id}: {_why_none(job_dir, step)}")
        elif trial.config.source_trial is not None:
            skipped.append(f"{job_dir.name}/{step.step_id}: a regrade belongs to another job")
        else:
            found.append(trial)
    return found, skipped


def _trial_steps(batch_dir: Path) -> Iterator[tuple[Path, StepSpec]]:
    for path in sorted(batch_dir.glob("*/job.json")):
        job = batches.read_job(path.parent)
        for step in job.steps:
            if step.kind == "trial":
                yield path.parent, step


def _why_none(job_dir: Path, step: StepSpec) -> str:
    """Tell why a trial step has nothing to export."""
    step_dir = job_dir / "steps" / step.step_id
    for name in reversed(attempts.names(step_dir)):
        if (gone := removals.of_attempt(step_dir / "attempts" / name)) is not None:
            return gone.line
    return "no attempt has a result"


def _with_result(job_dir: Path, step: StepSpec) -> Iterator[FoundTrial]:
    from harbor.models.trial.config import TrialConfig
    from harbor.models.trial.result import TrialResult

    step_dir = job_dir / "steps" / step.step_id
    for number, name in reversed(list(enumerate(attempts.names(step_dir)))):
        attempt = step_dir / "attempts" / name
        if removals.of_attempt(attempt) is not None:  # what is left of it is about to go
            continue
        text = safe_read.read_bytes(attempt / "trial" / "result.json", safe_read.MAX_JSON_BYTES)
        if not text:
            continue
        try:
            result = TrialResult.model_validate_json(text)
        except ValidationError:
            continue
        config = TrialConfig.model_validate(TrialSpec(**step.spec).config)
        yield FoundTrial(attempt / "trial", config, result, number)


def group(found: Sequence[FoundTrial]) -> list[list[FoundTrial]]:
    """Return the trials by Harbor job: with the same settings, and each task with the same agents as often."""
    agents: dict[tuple[str, str], Counter[str]] = {}
    for trial in found:
        agents.setdefault((_settings(trial), _key(trial.config.task)), Counter())[_key(trial.config.agent)] += 1
    groups: dict[tuple[str, str], list[FoundTrial]] = {}
    for trial in found:
        settings = _settings(trial)
        row = json.dumps(sorted(agents[settings, _key(trial.config.task)].items()))
        groups.setdefault((settings, row), []).append(trial)
    return list(groups.values())


def job_config(trials: Sequence[FoundTrial], jobs_dir: Path, name: str, metrics: list[Any]) -> "JobConfig":
    """Return the Harbor job that is planned as exactly these trials, which are one of ``group``'s groups."""
    from harbor.models.job.config import JobConfig

    first = trials[0].config
    settings = {field: getattr(first, field) for field in type(first).model_fields if field not in PER_TRIAL}
    tasks = {_key(trial.config.task): trial.config.task for trial in trials}
    agents = {_key(trial.config.agent): trial.config.agent for trial in trials}
    times = Counter(_key(trial.config.agent) for trial in trials if _key(trial.config.task) == next(iter(tasks)))
    attempts = gcd(*times.values())
    limits = [agent.n_concurrent or 1 for agent in agents.values()]
    return JobConfig(
        job_name=name,
        jobs_dir=jobs_dir,
        n_attempts=attempts,
        n_concurrent_trials=max(4, *limits),
        tasks=list(tasks.values()),
        agents=[agents[key] for key, count in times.items() for _ in range(count // attempts)],
        metrics=metrics,
        **settings,
    )


def metrics_of(batch_dir: Path) -> list[Any]:
    """Return the metrics of the Harbor job config that the batch came from, if it came from one."""
    meta = safe_read.read_object(batch_dir / "batch_meta.json") or {}
    return safe_read.sequence(safe_read.mapping(meta.get("harbor_job")).get("metrics"))


def deleted_elsewhere(batch_dir: Path) -> int:
    """Return the retries of the Harbor job that the batch was imported from."""
    meta = safe_read.read_object(batch_dir / "batch_meta.json") or {}
    return safe_read.whole(safe_read.mapping(meta.get("imported")).get("retries")) or 0


def _settings(trial: FoundTrial) -> str:
    return json.dumps(trial.config.model_dump(mode="json", exclude=PER_TRIAL), sort_keys=True)


def _key(model: Any) -> str:
    return json.dumps(model.model_dump(mode="json"), sort_keys=True)
