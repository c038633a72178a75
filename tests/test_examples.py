"""The example tasks, run by Harbor itself in Docker: each agent gets the rewards that examples/README.md says."""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import yaml
from harbor.models.job.config import JobConfig
from harbor.models.task.task import Task
from harbor.models.trial.config import AgentConfig, EnvironmentConfig, TaskConfig, TrialConfig
from harbor.models.trial.result import TrialResult
from harbor.trial.trial import Trial

type Rewards = dict[str, float]


class Case(NamedTuple):
    agent: str
    rewards: tuple[Rewards, ...]
    """What the trial may end with; more than one where the task is flaky on purpose."""
    env: Mapping[str, str] = MappingProxyType({})


PASS: Rewards = {"reward": 1}
FAIL: Rewards = {"reward": 0}
ORDINARY = (Case("oracle", (PASS,)), Case("nop", (FAIL,)))

EXPECTED: dict[str, tuple[Case, ...]] = {
    "hello": ORDINARY,
    "leap-years": (*ORDINARY, Case("oracle", (FAIL,), {"LEAP_RULE": "simple"})),
    "config-repair": (
        Case("oracle", ({"reward": 1, "settings": 1, "listed": 1},)),
        Case("nop", ({"reward": 0.125, "settings": 0.25, "listed": 0},)),
        Case("oracle", ({"reward": 0.375, "settings": 0.75, "listed": 0},), {"EFFORT": "half"}),
    ),
    "changelog-steps": ORDINARY,
    "greet-script": ORDINARY,
    "offline-report": ORDINARY,
    "slow": (Case("oracle", (PASS,), {"SLOW_SEC": "1"}), Case("nop", (FAIL,))),
    "flaky-tests": (Case("oracle", (PASS, FAIL)), Case("nop", (FAIL,))),
    "broken-oracle": (Case("oracle", (FAIL,)), Case("nop", (FAIL,))),
}


def test_every_task_is_expected_and_listed(examples: Path) -> None:
    tasks = {path.name for path in (examples / "tasks").iterdir()}
    assert tasks == set(EXPECTED)
    readme = (examples / "README.md").read_text()
    assert {name for name in tasks if f"`tasks/{name}`" in readme} == tasks


@pytest.mark.parametrize("name", EXPECTED)
def test_task_is_fit_for_every_environment(examples: Path, name: str) -> None:
    task = Task(examples / "tasks" / name)
    dockerfile = (task.paths.environment_dir / "Dockerfile").read_text()
    assert {line.split()[0] for line in dockerfile.splitlines()} <= {"FROM", "WORKDIR", "ENV", "COPY"}
    assert sorted(path.name for path in task.paths.environment_dir.iterdir()) != []
    scripts = [*task.task_dir.rglob("solve.sh"), *task.task_dir.rglob("test.sh")]
    assert scripts
    for script in scripts:
        assert script.read_text().startswith("#!/bin/sh\n")


def test_harbor_job_names_the_tasks(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(examples.parent)
    text = (examples / "harbor_job.yaml").read_text()
    config = JobConfig.model_validate(yaml.safe_load(text))
    tasks = asyncio.run(config.datasets[0].get_task_configs())
    assert {task.path.name for task in tasks if task.path} == set(EXPECTED) - {"slow"}


async def _trials(task: Path, cases: tuple[Case, ...], trials_dir: Path, overlay: Path) -> list[TrialResult]:
    async def run(number: int, case: Case) -> TrialResult:
        config = TrialConfig(
            task=TaskConfig(path=task),
            trial_name=f"{task.name}-{number}-{secrets.token_hex(4)}",
            trials_dir=trials_dir,
            agent=AgentConfig(name=case.agent, env=dict(case.env)),
            environment=EnvironmentConfig(extra_docker_compose=[overlay]),
        )
        return await (await Trial.create(config)).run()

    return await asyncio.gather(*(run(number, case) for number, case in enumerate(cases)))


@pytest.mark.docker
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", EXPECTED)
def test_rewards_in_docker(examples: Path, tmp_path: Path, name: str) -> None:
    task = examples / "tasks" / name
    if name == "offline-report":
        # Harbor's Docker environment takes the network away with an image that it pulls; without a registry there is
        # none. The rest of the task is tested here, its network where the sandbox environment is.
        task = _with_network(task, tmp_path / "task" / name)
    overlay = tmp_path / "stop-at-once.yaml"
    overlay.write_text("services: {main: {stop_grace_period: 0s}}\n")

    results = asyncio.run(_trials(task, EXPECTED[name], tmp_path / "trials", overlay))

    for case, result in zip(EXPECTED[name], results, strict=True):
        assert result.exception_info is None
        assert result.verifier_result is not None
        assert result.verifier_result.rewards in case.rewards, case


def _with_network(task: Path, copy: Path) -> Path:
    for source in task.rglob("*"):
        if source.is_file():
            target = copy / source.relative_to(task)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    config = copy / "task.toml"
    text = config.read_text()
    assert 'network_mode = "no-network"' in text
    config.write_text(text.replace('network_mode = "no-network"', ""))
    return copy


def test_ctrf_and_steps_are_written(examples: Path) -> None:
    values: dict[str, Any] = {name: Task(examples / "tasks" / name).config.steps for name in EXPECTED}
    assert [step.name for step in values.pop("changelog-steps")] == ["draft", "release"]
    assert not any(values.values())
