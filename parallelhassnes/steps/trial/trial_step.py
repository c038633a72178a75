"""The kind ``trial``: one Harbor trial."""

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial import deadline, leftovers, outcome, trial_paths
from parallelhassnes.steps.trial import preload as trial_preload


class TrialKind:
    """Runs ``TrialSpec.config`` as a Harbor trial in ``<attempt>/trial``."""

    name = "trial"

    def preload(self, step: StepSpec) -> None:
        trial_preload.preload()
        config = safe_read.mapping(step.spec.get("config"))
        agent = safe_read.mapping(config.get("agent")).get("name")
        if isinstance(agent, str):
            trial_preload.preload_agent(agent)

    def deadline_sec(self, attempt: StepAttempt) -> float | None:
        config = safe_read.mapping(attempt.step.spec.get("config"))
        return deadline.deadline_sec(dict(config))

    def phase_deadline_sec(self, attempt: StepAttempt, phase: str) -> float | None:
        config = safe_read.mapping(attempt.step.spec.get("config"))
        return deadline.phase_deadline_sec(dict(config), phase)

    def work(self, attempt: StepAttempt) -> int:
        from parallelhassnes.steps.trial import trial_worker

        return trial_worker.work(attempt)

    def phase(self, attempt: StepAttempt) -> str | None:
        return trial_paths.read_phase(attempt)

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        return outcome.conclude(attempt, end)

    def sweep(self, attempt: StepAttempt) -> list[str]:
        return leftovers.sweep(attempt)
