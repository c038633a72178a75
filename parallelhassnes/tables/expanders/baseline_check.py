"""The baseline gate: a task's ``oracle`` and ``nop`` trials first, then a step that looks at them, then the others."""

from typing import Any

from parallelhassnes.plan import Retry, StepSpec
from parallelhassnes.tables.model import Sweep, SweepAgent

STEP_ID = KIND = "baseline"
AGENTS = ("oracle", "nop")


def with_baselines(sweep: Sweep) -> Sweep:
    """Return the sweep with a trial of each baseline that it lacks."""
    named = {agent.name for agent in sweep.agents}
    missing = [SweepAgent(name=name) for name in AGENTS if name not in named]
    return sweep.model_copy(update={"agents": [*missing, *sweep.agents]}) if missing else sweep


def lacking(steps: list[StepSpec]) -> list[str]:
    """Return the baselines that no trial among these is of."""
    found = {_agent(step) for step in steps}
    return [name for name in AGENTS if name not in found]


def gate(job_id: str, steps: list[StepSpec], retry: Retry) -> list[StepSpec]:
    """Return the job's trials behind a gate, which stands last; every other step stays as it is, in its place."""
    first = [step for step in steps if _agent(step) in AGENTS]
    made = [
        step.model_copy(update={"depends_on": (*step.depends_on, f"{job_id}/{STEP_ID}")})
        if step.kind == "trial" and step not in first
        else step
        for step in steps
    ]
    looks = StepSpec(
        step_id=STEP_ID,
        kind=KIND,
        queue_key=KIND,
        after="end",
        retry=retry,
        depends_on=tuple(f"{job_id}/{step.step_id}" for step in first),
    )
    return [*made, looks]


def _agent(step: StepSpec) -> Any:
    if step.kind != "trial":
        return None
    return step.spec["config"]["agent"].get("name")
