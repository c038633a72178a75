"""The kind ``trial``: one Harbor trial."""

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import (
    trial_deadline,
    trial_outcome,
    trial_paths,
    trial_preload,
    trial_sweep,
    untrusted,
)
from parallelhassnes.steps.kinds import Attempt, Outcome, WorkerEnd


class TrialKind:
    """Runs ``TrialSpec.config`` as a Harbor trial in ``<attempt>/trial``."""

    name = "trial"

    def preload(self, step: StepSpec) -> None:
        trial_preload.preload()
        config = untrusted.mapping(step.spec.get("config"))
        agent = untrusted.mapping(config.get("agent")).get("name")
        if isinstance(agent, str):
            trial_preload.preload_agent(agent)

    def deadline_sec(self, attempt: Attempt) -> float | None:
        config = untrusted.mapping(attempt.step.spec.get("config"))
        return trial_deadline.deadline_sec(dict(config))

    def phase_deadline_sec(self, attempt: Attempt, phase: str) -> float | None:
        config = untrusted.mapping(attempt.step.spec.get("config"))
        return trial_deadline.phase_deadline_sec(dict(config), phase)

    def work(self, attempt: Attempt) -> int:
        from parallelhassnes.steps import trial_worker

        return trial_worker.work(attempt)

    def phase(self, attempt: Attempt) -> str | None:
        return trial_paths.read_phase(attempt)

    def conclude(self, attempt: Attempt, end: WorkerEnd) -> Outcome:
        return trial_outcome.conclude(attempt, end)

    def sweep(self, attempt: Attempt) -> list[str]:
        return trial_sweep.sweep(attempt)
