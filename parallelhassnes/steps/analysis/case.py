"""One trial to be analysed, with the other trials of its job that have ended by now."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.analysis.record import TrialRef
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.trial_data.trial_files import TrialFiles


@dataclass(frozen=True)
class Case:
    """What an engine is given to look at."""

    files: TrialFiles
    others: tuple[TrialFiles, ...] = ()
    """Ended trials of the same job, the attempt of each that counts."""

    @property
    def reward(self) -> float | None:
        return self.files.facts.reward

    @property
    def scored(self) -> bool:
        return self.files.facts.result == "scored"

    @property
    def passed(self) -> bool:
        return self.files.facts.passed is True

    @property
    def failed(self) -> bool:
        """Whether it was scored and did not pass; False where that is not decided."""
        return self.files.facts.passed is False

    @cached_property
    def exception(self) -> tuple[str, str, str] | None:
        """Type, message and class of the exception that ended the trial or stands beside its reward."""
        found = safe_read.mapping(self.files.trial.get("exception"))
        if not found:
            for step in safe_read.sequence(self.files.trial.get("steps")):
                found = safe_read.mapping(safe_read.mapping(step).get("exception")) or found
        name = safe_read.text(found.get("type"), 200)
        if name is None:
            return None
        return name, safe_read.text(found.get("message"), 4000) or "", str(found.get("class") or "")

    @property
    def failure_class(self) -> str | None:
        return self.files.failure_class

    def passes_of(self, agent: str) -> list[bool]:
        """Tell whether each decided trial of an agent in the job has passed, this one included."""
        found = [each.facts for each in (self.files, *self.others) if each.agent == agent]
        return [fact.passed for fact in found if fact.passed is not None]


def case_of(job_dir: Path, job: JobSpec, trial: StepSpec) -> Case | None:
    """Return the case of a trial step; None where no attempt of it has finished."""
    steps = [step for step in job.steps if step.kind == "trial"]
    found: dict[str, TrialFiles] = {}
    reports = facts.of_steps(job_dir, steps)
    for step, report in zip(steps, reports, strict=True):
        if report.attempt is not None:
            found[step.step_id] = TrialFiles(job_dir / report.attempt, step)
    own = found.pop(trial.step_id, None)
    task = trial.spec.get("task_name")
    others = tuple(each for each in found.values() if each.step.spec.get("task_name") == task)
    return None if own is None else Case(own, others)


def reference(case: Case, job: JobSpec) -> TrialRef:
    """Tell which trial the case is about."""
    files = case.files
    name = files.attempt_dir.name
    return TrialRef(
        batch_id=job.batch_id,
        job_id=job.job_id,
        step_id=files.step.step_id,
        attempt=name,
        run_id=name.partition("_")[2],
        agent=files.agent,
        model=files.facts.model,
        task=safe_read.text(files.step.spec.get("task_name")),
        reward=case.reward,
    )
