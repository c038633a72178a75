"""Tables of the three formats that users have, taken as they are."""

from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.errors import InvalidInput
from parallelhassnes.plan import LEFT_OPEN, SANDBOX, AgentPlan, Retry
from parallelhassnes.tables.expand import expand_document
from parallelhassnes.tables.expanders.expansion import TableDefaults

from .conftest import Expand, Reject, make_task

pytestmark = pytest.mark.harbor

EARLIER = {
    "working_root": "/nowhere/on/this/machine",
    "batch_goal_summary": "A short goal.",
    "concurrency": 10,
    "execution_policy": {
        "sandbox": "read-only",
        "approval_policy": "never",
        "skip_git_repo_check": True,
        "web_search_enabled": False,
        "model_reasoning_effort": "high",
        "capture_events_jsonl": True,
        "add_dirs": ["/x"],
    },
    "timeouts": {"step_timeout_seconds": 14400},
    "retries": {"max_attempts": 1},
    "workspace_policy": {"mode": "shared"},
    "jobs": [
        {
            "job_id": "job_demo",
            "working_directory": ".",
            "steps": [
                {"step_id": "step1", "prompt": "Produce a report.", "timeout_seconds": 1200},
                {
                    "step_id": "step2",
                    "resume_from": {"step_id": "step1", "selector": "latest_successful"},
                    "prompt_ref": "inputs/second.md",
                    "append_prompt": "And then stop.",
                    "retry_policy": {"max_attempts": 2, "retry_on_statuses": ["failed"]},
                },
            ],
        },
        {"working_directory": "/elsewhere", "steps": [{"prompt": "x"}, {"prompt": "y"}]},
    ],
}


def test_a_table_of_the_earlier_parallelhassnes(plan: Expand) -> None:
    made = plan(EARLIER)
    assert made.table_format == "parallelhassnes-1"
    assert (made.goal, made.concurrency) == ("A short goal.", 10)
    first, second = made.jobs[0].steps
    assert (first.kind, first.queue_key, first.timeout_sec) == ("agent", "agent:codex", 1200)
    assert first.retry.max_attempts == 1
    assert first.spec["execution_policy"]["sandbox"] == "read-only"
    assert AgentPlan.model_validate(first.spec).workspace_policy.mode == "shared"
    assert second.depends_on == ("job_demo/step1",)
    assert (second.timeout_sec, second.retry.max_attempts) == (14400, 2)
    assert second.spec["prompt_ref"] == "/nowhere/on/this/machine/inputs/second.md"
    assert [step.depends_on for step in made.jobs[1].steps] == [(), ()]
    assert made.jobs[1].job_id == "job2"
    assert any("/nowhere/on/this/machine does not exist" in line for line in made.warnings)


def test_what_the_harness_wrote_into_an_earlier_table_is_left_out(plan: Expand) -> None:
    made = plan({**EARLIER, "spec_version": "1.0.0", "batch_id": "b1", "default_pack_id": None})
    assert any("/batch_id" in line for line in made.warnings)


def test_an_earlier_table_with_its_folder_here_is_looked_at(reject: Reject, root: Path) -> None:
    (problem,) = reject({**EARLIER, "working_root": str(root)})
    assert problem.pointer == "/jobs/0/steps/1/prompt_ref"


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"jobs": [{"steps": [{"prompt": "x", "depend_on": ["a"]}]}]}, "/jobs/0/steps/0/depend_on"),
        ({"jobs": [{"steps": [{"prompt": "x", "pack_id": "p"}]}]}, "/jobs/0/steps/0/pack_id"),
        ({"jobs": [{"steps": [{"prompt": "x", "timeout_seconds": "x"}]}]}, "/jobs/0/steps/0/timeout_seconds"),
        ({"timeouts": {"step_timeout_seconds": "1h"}}, "/timeouts/step_timeout_seconds"),
        ({"retries": {"max_attempts": True}}, "/retries/max_attempts"),
    ],
)
def test_an_earlier_table_that_is_wrong(change: dict[str, Any], at: str, reject: Reject) -> None:
    assert at in [problem.pointer for problem in reject({**EARLIER, **change})]


ODDISH = b"""
agents:
  - name: oracle
    model_name: default
    n_trials: 2
  - name: claude-code
    model_name: claude-sonnet-4-5
    n_trials: 3
    env: {CUSTOM_VAR: "value"}
    kwargs: {max_thinking_tokens: 8000}
    timeout_minutes: 120
path: tasks
task_names: ["*"]
exclude_task_names: ["*-slow"]
n_tasks: 10
environment: daytona
priority: high
experiment_id: exp_123
"""


def test_an_oddish_sweep(plan: Expand, root: Path) -> None:
    make_task(root / "tasks" / "very-slow")
    made = plan(ODDISH, "sweep.yaml")
    assert made.table_format == "oddish-sweep"
    assert (made.experiment, made.priority) == ("exp_123", 100)
    assert [job.job_id for job in made.jobs] == ["hello", "org-world"]
    steps = made.jobs[0].steps
    prefix = "claude-code.claude-sonnet-4-5"
    assert [step.step_id for step in steps] == [
        "oracle.1",
        "oracle.2",
        f"{prefix}.1",
        f"{prefix}.2",
        f"{prefix}.3",
        "verdict",
    ]
    assert (steps[0].queue_key, steps[0].label) == ("agent:oracle", "oracle")
    assert steps[2].queue_key == "anthropic/claude-sonnet-4-5"
    assert steps[2].label == "claude-code · claude-sonnet-4-5"
    assert steps[2].spec["config"]["agent"] == {
        "name": "claude-code",
        "model_name": "claude-sonnet-4-5",
        "override_timeout_sec": 7200.0,
        "env": {"CUSTOM_VAR": "value"},
        "kwargs": {"max_thinking_tokens": 8000},
    }
    assert steps[2].spec["config"]["environment"] == {"type": "daytona"}
    assert steps[2].spec["config"]["task"]["source"] == "tasks"


def test_oddish_overrides(plan: Expand) -> None:
    made = plan(
        {
            "agents": [{"name": "nop"}, {"name": "nop", "kwargs": {"a": 1}}],
            "path": "tasks/hello",
            "disable_verification": True,
            "override_cpus": 2,
            "override_gpus": 0,
            "force_build": True,
        }
    )
    steps = made.jobs[0].steps
    assert [step.step_id for step in steps] == ["nop.1", "nop-2.1", "verdict"]
    assert [step.label for step in steps[:2]] == ["nop", "nop #2"]
    config = steps[0].spec["config"]
    assert config["verifier"] == {"disable": True}
    assert config["environment"] == {"type": "docker", "override_cpus": 2, "override_gpus": 0, "force_build": True}


def test_an_oddish_sweep_that_is_wrong(reject: Reject) -> None:
    problems = reject(
        {"agents": [{"name": "nop", "n_trial": 3}, {"name": "nop", "n_concurrent": 4}], "path": "tasks", "n_task": 3}
    )
    assert {problem.pointer for problem in problems} == {"/agents/0/n_trial", "/agents/1/n_concurrent", "/n_task"}


HARBOR: dict[str, Any] = {
    "job_name": "night",
    "n_attempts": 2,
    "n_concurrent_trials": 3,
    "timeout_multiplier": 2.0,
    "retry": {"max_retries": 1, "min_wait_sec": 4.0},
    "environment": {"type": "docker", "delete": False},
    "agents": [{"name": "oracle", "n_concurrent": 2}, {"name": "terminus-2", "model_name": "openai/gpt-5.2"}],
    "datasets": [{"path": "tasks", "exclude_task_names": ["wor*"]}],
    "tasks": [{"path": "tasks/world"}],
    "metrics": [{"type": "max"}],
    "artifacts": ["/app/x"],
}


def test_a_harbor_job(plan: Expand, root: Path) -> None:
    made = plan(HARBOR)
    assert made.table_format == "harbor-job"
    assert (made.experiment, made.concurrency, made.limits) == ("night", 3, {"agent:oracle": 2})
    assert [job.job_id for job in made.jobs] == ["org-world", "hello"]
    steps = made.jobs[1].steps
    terminus = "terminus-2.openai-gpt-5.2"
    assert [step.step_id for step in steps] == ["oracle.1", "oracle.2", f"{terminus}.1", f"{terminus}.2", "verdict"]
    assert steps[0].retry == Retry(max_attempts=2, backoff_sec=4.0, open=("classes",))
    config = steps[0].spec["config"]
    assert config["task"] == {"path": str(root / "tasks" / "hello"), "source": "tasks"}
    assert config["agent"] == {"name": "oracle"}
    assert config["environment"] == {"type": "docker", "delete": False}
    assert (config["timeout_multiplier"], config["artifacts"]) == (2.0, ["/app/x"])
    assert steps[0].spec["task_checksum"].startswith("sha256:")
    assert made.harbor_job is not None
    assert made.harbor_job["metrics"][0]["type"] == "max"


def test_the_harbor_job_that_is_kept_is_one(plan: Expand) -> None:
    from harbor.models.job.config import JobConfig

    made = plan(HARBOR)
    config = JobConfig.model_validate(made.harbor_job)
    assert config.n_attempts == 2
    assert config.datasets[0].path is not None
    assert config.datasets[0].path.is_absolute()


def test_a_harbor_job_of_older_spelling(plan: Expand) -> None:
    made = plan({"orchestrator": {"n_concurrent_trials": 2}, "datasets": [{"path": "tasks"}]})
    assert made.concurrency == 2
    assert any("deprecated" in line for line in made.warnings)


def test_the_older_spelling_leaves_out_what_it_does_not_say(plan: Expand) -> None:
    """docs/launch-tables.md promises: without retry the configuration's holds, without a number there is none."""
    made = plan({"orchestrator": {"quiet": True}, "datasets": [{"path": "tasks"}]})
    assert made.concurrency is None
    assert made.jobs[0].steps[0].retry == LEFT_OPEN
    made = plan({"orchestrator": {"retry": {"max_retries": 4}}, "datasets": [{"path": "tasks"}]})
    assert made.jobs[0].steps[0].retry.max_attempts == 5


@pytest.mark.parametrize("inside", [False, True])
def test_the_retry_filters_of_a_harbor_job(plan: Expand, inside: bool) -> None:
    retry = {"retry": {"max_retries": 2, "include_exceptions": ["B", "A"], "exclude_exceptions": ["C"]}}
    made = plan({"datasets": [{"path": "tasks"}], **({"orchestrator": retry} if inside else retry)})
    found = made.jobs[0].steps[0].retry
    assert (found.max_attempts, found.only, found.never) == (3, ("A", "B"), ("C",))
    made = plan({"datasets": [{"path": "tasks"}], "retry": {"max_retries": 2}})
    assert (made.jobs[0].steps[0].retry.only, made.jobs[0].steps[0].retry.never) == ((), ())


def test_a_harbor_job_of_a_version_to_come(plan: Expand, reject: Reject) -> None:
    assert plan({"schema_version": 1, "datasets": [{"path": "tasks"}]}).jobs
    (problem,) = reject({"schema_version": 2, "datasets": [{"path": "tasks"}]})
    assert (problem.pointer, problem.message) == ("/schema_version", "2 is not known")


def test_a_harbor_job_in_the_sandbox(plan: Expand) -> None:
    made = plan({"environment": "sandbox", "tasks": [{"path": "tasks/hello"}]})
    assert made.jobs[0].steps[0].spec["config"]["environment"] == {"import_path": SANDBOX}


def test_a_harbor_job_that_is_wrong(reject: Reject, root: Path) -> None:
    (root / "tasks" / "world" / "task.toml").write_text("a = 1\nb = [\n")
    problems = reject(
        {
            "datasets": [{"path": "tasks", "task_name": ["*"]}, {"path": "nowhere"}],
            "agents": [{"name": "oracle", "modelname": "x"}, {"name": "oracel"}],
            "verifier": {"disable": "maybe", "env": {"API_KEY": "abcdefgh"}},
            "n_attempt": 3,
            "n_concurrent_trials": 0,
        }
    )
    assert {(problem.where, problem.pointer) for problem in problems} >= {
        ("table.json", "/datasets/0/task_name"),
        ("table.json", "/datasets/1/path"),
        ("table.json", "/agents/0/modelname"),
        ("table.json", "/agents/1/name"),
        ("table.json", "/verifier/disable"),
        ("table.json", "/verifier/env/API_KEY"),
        ("table.json", "/n_attempt"),
        ("table.json", "/n_concurrent_trials"),
    }
    assert any(problem.where.endswith("world/task.toml") for problem in problems)


@pytest.mark.parametrize(
    "document",
    [
        {"sweep": {"dataset": "hello-world@1.0", "agents": [{"name": "nop"}]}},
        {"datasets": [{"name": "hello-world"}]},
        {"tasks": [{"git_url": "https://example.invalid/x.git", "path": "a"}]},
        {"jobs": [{"steps": [{"task": {"name": "org/x"}, "agent": "nop"}]}]},
    ],
)
def test_without_a_network_nothing_is_downloaded(document: dict[str, Any], root: Path) -> None:
    with pytest.raises(InvalidInput, match="network is switched off"):
        expand_document(document, name="t.json", base_dirs=[root], defaults=TableDefaults(no_network=True))


def test_a_failed_download_is_one_line(reject: Reject, root: Path) -> None:
    missing = f"file://{root}/no-such-repository"
    (problem,) = reject({"jobs": [{"steps": [{"task": {"git_url": missing, "path": "a"}, "agent": "nop"}]}]})
    assert "git failed" in problem.message
