"""``run``'s options become a table that can be read and submitted again."""

from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.errors import UserError
from parallelhassnes.tables.expand import expand_document
from parallelhassnes.tables.formats.request import RunRequest, merged, table_for


def ids(document: Any, root: Path) -> list[str]:
    made = expand_document(document, name="run", base_dirs=[root])
    return [step.step_id for step in made.jobs[0].steps]


def test_options_alone(root: Path) -> None:
    request = RunRequest(
        paths=("tasks/hello",),
        agents=("oracle", "terminus-2"),
        models=("openai/gpt-5.2", "o3"),
        n_trials=2,
        environment="sandbox",
        experiment="e",
        concurrency=3,
        limits={"openai/o3": 1},
        secrets=("OPENAI_API_KEY",),
        max_attempts=2,
        timeout_multiplier=2.0,
        agent_kwargs={"max_turns": 3},
    )
    document = table_for(request)
    assert ids(document, root) == [
        "oracle.1",
        "oracle.2",
        "terminus-2.openai-gpt-5.2.1",
        "terminus-2.openai-gpt-5.2.2",
        "terminus-2.o3.1",
        "terminus-2.o3.2",
        "verdict",
    ]
    made = expand_document(document, name="run", base_dirs=[root])
    assert (made.experiment, made.concurrency, made.limits) == ("e", 3, {"openai/o3": 1})
    assert made.jobs[0].steps[0].retry.max_attempts == 2
    assert made.jobs[0].steps[2].spec["config"]["timeout_multiplier"] == 2.0
    assert made.jobs[0].steps[2].spec["config"]["agent"]["kwargs"] == {"max_turns": 3}


def test_the_oracle_is_the_default_agent(root: Path) -> None:
    assert ids(table_for(RunRequest(paths=("tasks/hello", "tasks/world"))), root) == ["oracle.1", "verdict"]


def test_no_task_at_all() -> None:
    with pytest.raises(UserError, match="no task was named"):
        table_for(RunRequest())


ODDISH = {"agents": [{"name": "nop", "n_trials": 2}]}


def test_a_sweep_file_with_a_path_beside_it(root: Path) -> None:
    document = merged(ODDISH, RunRequest(paths=("tasks/hello",)), "s.yaml")
    assert document == {**ODDISH, "path": "tasks/hello"}
    assert ids(document, root) == ["nop.1", "nop.2", "verdict"]
    document = merged(ODDISH, RunRequest(paths=("tasks/hello",), n_trials=1, concurrency=2), "s.yaml")
    assert document["concurrency"] == 2
    assert ids(document, root) == ["nop.1", "verdict"]
    assert merged({**ODDISH, "path": "a"}, RunRequest(dataset="d@1"), "s") == {**ODDISH, "dataset": "d@1"}


def test_a_harbor_job_with_options(root: Path) -> None:
    job = {"datasets": [{"name": "swebench"}], "environment": {"type": "docker", "override_cpus": 2}}
    request = RunRequest(
        paths=("tasks",),
        agents=("nop",),
        n_trials=2,
        environment="sandbox",
        task_names=("hel*",),
        concurrency=2,
        max_attempts=3,
    )
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
    document = merged({"agents": [{"name": "nop"}], "n_attempts": 1}, RunRequest(paths=("tasks/hello",)), "j")
    assert ids(document, root) == ["nop.1", "verdict"]


def test_jobs_take_no_path(root: Path) -> None:
    with pytest.raises(UserError, match="no sweep that a path, -k could change"):
        merged({"jobs": []}, RunRequest(paths=("x",), n_trials=3), "t.json")


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (RunRequest(paths=("tasks/hello",), task_names=("hel*",)), ["hello"]),
        (RunRequest(paths=("tasks/hello", "tasks/world"), task_names=("world",)), ["org-world"]),
        (RunRequest(paths=("tasks/hello", "tasks"), exclude_task_names=("hello",)), ["org-world"]),
        (RunRequest(paths=("tasks/hello", "tasks/world"), n_tasks=1), ["hello"]),
    ],
)
def test_tasks_named_directly_are_filtered_too(root: Path, request_: RunRequest, kept: list[str]) -> None:
    made = expand_document(table_for(request_), name="run", base_dirs=[root])
    assert [job.job_id for job in made.jobs] == kept
    harbor = merged({"agents": [{"name": "oracle"}]}, request_, "job.yaml")
    made = expand_document(harbor, name="run", base_dirs=[root])
    if request_.n_tasks is None:  # Harbor's is one of each dataset, and each path is one
        assert [job.job_id for job in made.jobs] == kept


@pytest.mark.parametrize(
    ("paths", "options", "said"),
    [
        (("tasks/hello",), {"task_names": ("wor*",)}, "no task is named wor*; there are for example hello"),
        (
            ("tasks/hello",),
            {"exclude_task_names": ("h*",)},
            "every task is excluded by h*; change exclude_task_names (-x)",
        ),
        (
            ("tasks/hello", "tasks/world"),
            {"task_names": ("x",)},
            "no task is named x; there are for example hello, world",
        ),
        (("tasks",), {"task_names": ("hello",), "exclude_task_names": ("*",)}, "every task is excluded by *"),
    ],
)
def test_filters_that_leave_no_task_are_an_error(
    root: Path, paths: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        expand_document(table_for(RunRequest(paths=paths, **options)), name="run", base_dirs=[root])
    assert said in str(caught.value)
    harbor = merged({"agents": [{"name": "oracle"}]}, RunRequest(paths=paths, **options), "job.yaml")
    with pytest.raises(UserError, match=r"no task is named|every task is excluded"):
        expand_document(harbor, name="run", base_dirs=[root])


def test_tasks_that_a_harbor_job_names_are_filtered_too(root: Path) -> None:
    job = {"agents": [{"name": "oracle"}], "tasks": [{"path": "tasks/hello"}, {"path": "tasks/world"}]}
    made = expand_document(merged(job, RunRequest(task_names=("w*",)), "j"), name="run", base_dirs=[root])
    assert [job.job_id for job in made.jobs] == ["org-world"]
    with pytest.raises(UserError, match="-t and -x leave none of the file's tasks"):
        merged(job, RunRequest(exclude_task_names=("*",)), "j")


@pytest.mark.parametrize("file", [None, ODDISH, {"sweep": ODDISH}, {"agents": [{"name": "nop"}]}])
def test_a_model_that_no_agent_would_use_is_an_error(file: Any) -> None:
    for agents, said in (
        ((), "-m gpt-5: no agent is named that would use it; name one, for example -a terminus-2 -m gpt-5"),
        (("oracle",), "-m gpt-5: oracle takes no model; leave -m out, or name an agent that takes one"),
        (("oracle", "nop"), "-m gpt-5: oracle and nop take no model"),
    ):
        request = RunRequest(paths=("tasks/hello",), models=("gpt-5",), agents=agents)
        with pytest.raises(UserError) as caught:
            table_for(request) if file is None else merged(file, request, "f.yaml")
        assert said in str(caught.value)


def test_options_of_agents_reach_those_of_a_harbor_job_and_are_refused_where_there_are_none() -> None:
    request = RunRequest(agent_kwargs={"max_turns": 2}, agent_env={"A": "b"})
    (agent,) = merged({"agents": [{"name": "terminus-2"}], "datasets": []}, request, "j")["agents"]
    assert agent == {"name": "terminus-2", "kwargs": {"max_turns": 2}, "env": {"A": "b"}}
    with pytest.raises(UserError, match="has no sweep that --ae, --ak could change"):
        merged({"jobs": []}, request, "t.json")


def test_two_models_that_differ_by_case_have_columns_of_their_own(root: Path) -> None:
    request = RunRequest(paths=("tasks/hello",), agents=("terminus-2",), models=("o/GPT", "o/gpt"))
    assert ids(table_for(request), root) == ["terminus-2.o-GPT.1", "terminus-2.o-gpt-2.1", "verdict"]
