"""``run``'s options become a table that can be read and submitted again."""

from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.errors import UserError
from parallelhassnes.tables.expand import expand_document
from parallelhassnes.tables.request import RunRequest, merged, table_for


def ids(document: Any, root: Path) -> list[str]:
    made = expand_document(document, name="run", base_dirs=[root])
    return [step.step_id for step in made.jobs[0].steps]


def test_options_alone(root: Path) -> None:
    request = RunRequest(
        paths=("tasks/hello",), agents=("oracle", "terminus-2"), models=("openai/gpt-5.2", "o3"),
        n_trials=2, environment="sandbox", experiment="e", concurrency=3, limits={"openai/o3": 1},
        secrets=("OPENAI_API_KEY",), max_attempts=2, timeout_multiplier=2.0, agent_kwargs={"max_turns": 3},
    )  # fmt: skip
    document = table_for(request)
    assert ids(document, root) == [
        "oracle.1", "oracle.2", "terminus-2.openai-gpt-5.2.1", "terminus-2.openai-gpt-5.2.2",
        "terminus-2.o3.1", "terminus-2.o3.2", "verdict",
    ]  # fmt: skip
    made = expand_document(document, name="run", base_dirs=[root])
    assert (made.experiment, made.concurrency, made.limits) == ("e", 3, {"openai/o3": 1})
    assert made.jobs[0].steps[0].retry.max_attempts == 2
    assert made.jobs[0].steps[2].spec["config"]["timeout_multiplier"] == 2.0
    assert made.jobs[0].steps[2].spec["config"]["agent"]["kwargs"] == {"max_turns": 3}


def test_the_oracle_is_the_default_agent(root: Path) -> None:
    assert ids(table_for(RunRequest(paths=("tasks/hello", "tasks/world"))), root) == [
        "oracle.1",
        "verdict",
    ]


def test_no_task_at_all() -> None:
    with pytest.raises(UserError, match="no task was named"):
        table_for(RunRequest())


ODDISH = {"agents": [{"name": "nop", "n_trials": 2}]}


def test_a_sweep_file_with_a_path_beside_it(root: Path) -> None:
    document = merged(ODDISH, RunRequest(paths=("tasks/hello",)), "s.yaml")
    assert document == {**ODDISH, "path": "tasks/hello"}
    assert ids(document, root) == ["nop.1", "nop.2", "verdict"]
    document = merged(
        ODDISH, RunRequest(paths=("tasks/hello",), n_trials=1, concurrency=2), "s.yaml"
    )
    assert document["concurrency"] == 2
    assert ids(document, root) == ["nop.1", "verdict"]
    assert merged({**ODDISH, "path": "a"}, RunRequest(dataset="d@1"), "s") == {
        **ODDISH,
        "dataset": "d@1",
    }


def test_a_harbor_job_with_options(root: Path) -> None:
    job = {
        "datasets": [{"name": "swebench"}],
        "environment": {"type": "docker", "override_cpus": 2},
    }
    request = RunRequest(
        paths=("tasks",), agents=("nop",), n_trials=2, environment="sandbox", task_names=("hel*",),
        concurrency=2, max_attempts=3,
    )  # fmt: skip
    document = merged(job, request, "job.yaml")
    assert job["datasets"] == [{"name": "swebench"}]
    made = expand_document(document, name="run", base_dirs=[root])
    assert [job.job_id for job in made.jobs] == ["hello"]
    assert [step.step_id for step in made.jobs[0].steps] == ["nop.1", "nop.2", "verdict"]
    assert made.concurrency == 2
    assert made.jobs[0].steps[0].retry.max_attempts == 3
    environment = made.jobs[0].steps[0].spec["config"]["environment"]
    assert environment["override_cpus"] == 2
    with pytest.raises(UserError, match="no place for limits"):
        merged(job, RunRequest(limits={"a": 1}), "job.yaml")


def test_a_harbor_job_without_tasks_takes_a_single_task_folder(root: Path) -> None:
    document = merged(
        {"agents": [{"name": "nop"}], "n_attempts": 1}, RunRequest(paths=("tasks/hello",)), "j"
    )
    assert ids(document, root) == ["nop.1", "verdict"]


def test_jobs_take_no_path(root: Path) -> None:
    with pytest.raises(UserError, match="no sweep that a path, -n could change"):
        merged({"jobs": []}, RunRequest(paths=("x",), n_trials=3), "t.json")
