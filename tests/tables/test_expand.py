"""Good tables: what comes out of our own shape."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from stores import python

from parallelhassnes.config import RetryConfig
from parallelhassnes.plan import LEFT_OPEN, SANDBOX, AgentPlan, Plan, ResumeFrom, Retry, TopUp, TrialSpec
from parallelhassnes.tables.expand import expand
from parallelhassnes.tables.expanders.expansion import TableDefaults

from .conftest import Expand, Reject, command, make_task, table, trial

EXAMPLE = {
    "$schema": "../schemas/launch_table.schema.json",
    "spec_version": "2.0",
    "experiment": "nightly",
    "labels": {"team": "a"},
    "concurrency": 4,
    "limits": {"OpenAI/GPT-5.2": 3},
    "secrets": ["OPENAI_API_KEY"],
    "retry": {"max_attempts": 3},
    "jobs": [
        {
            "job_id": "j1",
            "steps": [
                {
                    "step_id": "prepare",
                    "kind": "command",
                    "command": ["sh", "-c", "true"],
                    "queue_key": "prep",
                    "timeout_sec": 60,
                    "env": {"A": "1"},
                },
                {
                    "step_id": "t1",
                    "kind": "trial",
                    "task": {"path": "tasks/hello"},
                    "agent": {"name": "oracle"},
                    "environment": {"type": "sandbox"},
                    "depends_on": ["prepare"],
                },
                {"step_id": "verdict", "kind": "verdict"},
            ],
        }
    ],
    "sweep": {
        "path": "tasks",
        "agents": [{"name": "oracle", "n_trials": 2}, {"name": "nop"}],
        "environment": "sandbox",
    },
}


def steps_of(plan: Plan) -> dict[str, list[str]]:
    return {job.job_id: [step.step_id for step in job.steps] for job in plan.jobs}


def test_the_example_of_the_issue(plan: Expand, root: Path) -> None:
    made = plan(EXAMPLE)
    assert made.table_format == "parallelhassnes-2"
    assert (made.experiment, made.labels, made.concurrency) == ("nightly", {"team": "a"}, 4)
    assert made.limits == {"openai/gpt-5.2": 3}
    assert made.secrets == ("OPENAI_API_KEY",)
    swept = ["oracle.1", "oracle.2", "nop.1", "verdict"]
    assert steps_of(made) == {"j1": ["prepare", "t1", "verdict"], "hello": swept, "org-world": swept}
    assert [job.first_seq for job in made.jobs] == [0, 3, 7]
    job = made.jobs[0]
    prepare, t1, verdict = job.steps
    assert prepare.spec == {"command": ["sh", "-c", "true"]}
    assert (prepare.queue_key, prepare.timeout_sec, prepare.env) == ("prep", 60, {"A": "1"})
    assert (t1.queue_key, t1.label, t1.depends_on) == ("agent:oracle", "oracle", ("j1/prepare",))
    assert (verdict.depends_on, verdict.after, verdict.queue_key) == (("j1/t1",), "end", "verdict")
    assert job.dependents == {"prepare": ("j1/t1",), "t1": ("j1/verdict",)}
    spec = TrialSpec.model_validate(t1.spec)
    assert spec.config["task"] == {"path": str(root / "tasks" / "hello")}
    assert spec.config["environment"] == {"import_path": SANDBOX}
    assert spec.task_name == "hello"
    assert spec.task_checksum.startswith("sha256:")
    world = made.jobs[2]
    assert [TrialSpec.model_validate(step.spec).repeat for step in world.steps[:2]] == [1, 2]
    assert world.steps[0].spec["task_name"] == "org/world"
    assert world.steps[3].depends_on == ("org-world/oracle.1", "org-world/oracle.2", "org-world/nop.1")
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_every_config_is_taken_by_harbor(plan: Expand) -> None:
    from harbor.models.trial.config import TrialConfig

    for job in plan(EXAMPLE).jobs:
        for step in job.steps:
            if step.kind == "trial":
                config = TrialConfig.model_validate({**step.spec["config"], "trial_name": "x"})
                assert config.agent.name == step.label


def test_harbors_types_pass_through(plan: Expand) -> None:
    agent = {
        "name": "terminus-2",
        "model_name": "openai/gpt-5.2",
        "kwargs": {"max_turns": 3, "model_info": {"max_input_tokens": 9}},
        "env": {"OPENAI_API_KEY": "${OPENAI_API_KEY}", "AUTHOR": "7", "B": "${B:-b}"},
        "override_timeout_sec": 9.5,
    }
    made = plan(
        table(
            trial(
                agent=agent,
                environment={"type": "podman", "override_cpus": 2, "env": {"TOKEN": "${T}"}},
                verifier={"override_timeout_sec": 5.0},
                artifacts=["/app/x", {"source": "/app/y", "destination": "y"}],
                agent_timeout_multiplier=2.0,
            )
        )
    )
    (step,) = made.jobs[0].steps
    config = step.spec["config"]
    assert config["agent"] == agent
    assert config["environment"]["type"] == "podman"
    assert config["environment"]["override_cpus"] == 2
    assert config["verifier"] == {"override_timeout_sec": 5.0}
    assert config["artifacts"][0] == "/app/x"
    assert config["agent_timeout_multiplier"] == 2.0
    assert (step.queue_key, step.label) == ("openai/gpt-5.2", "terminus-2 · openai/gpt-5.2")
    assert made.secrets == ("OPENAI_API_KEY", "T")


def test_environments(plan: Expand) -> None:
    def environment(raw: Any, default: str = "docker") -> dict[str, Any]:
        made = plan(table(trial(environment=raw)), defaults=TableDefaults(environment=default))
        found: dict[str, Any] = made.jobs[0].steps[0].spec["config"]["environment"]
        return found

    assert environment(None) == {"type": "docker"}
    assert environment(None, "sandbox") == {"import_path": SANDBOX}
    assert environment({"override_cpus": 1}, "sandbox") == {"import_path": SANDBOX, "override_cpus": 1}
    assert environment("daytona", "sandbox") == {"type": "daytona"}
    assert environment({"type": "sandbox", "unsupported": "skip", "engine": "unshare"}) == {
        "import_path": SANDBOX,
        "kwargs": {"unsupported": "skip", "engine": "unshare"},
    }
    assert environment("my.module:Mine") == {"import_path": "my.module:Mine"}
    assert environment({"import_path": "my.module:Mine"}) == {"import_path": "my.module:Mine"}


def test_ids_and_kinds_have_defaults(plan: Expand) -> None:
    made = plan({"jobs": [{"steps": [command(), {"prompt": "x"}]}, {"steps": [{"command": ["a"]}]}]})
    assert steps_of(made) == {"job1": ["c1", "step2"], "job2": ["step1"]}
    assert [step.kind for step in made.jobs[0].steps] == ["command", "agent"]
    assert made.jobs[0].steps[1].queue_key == "agent:codex"


def test_depends_on_across_jobs(plan: Expand) -> None:
    made = plan(
        {
            "jobs": [
                {"job_id": "late", "steps": [command(depends_on=["early/c1"])]},
                {"job_id": "early", "steps": [command()]},
            ]
        }
    )
    assert made.jobs[0].steps[0].depends_on == ("early/c1",)
    assert made.jobs[1].dependents == {"c1": ("late/c1",)}


def test_a_verdict_over_named_steps(plan: Expand) -> None:
    made = plan(table(trial(), trial(step_id="t2"), {"kind": "verdict", "depends_on": ["t2"]}))
    assert made.jobs[0].steps[2].depends_on == ("j1/t2",)
    assert made.jobs[0].steps[2].after == "end"
    assert [step.spec["repeat"] for step in made.jobs[0].steps[:2]] == [1, 2]


def test_retries_are_taken_from_the_nearest_and_left_open_where_none_says_anything(plan: Expand) -> None:
    classes = {"agent_timeout": {"retry": True}}
    made = plan(
        table(
            command(retry={"max_attempts": 1}),
            command("b"),
            command("c", retry={"classes": classes}),
            retry={"backoff_sec": 2},
        )
    )
    assert [step.retry for step in made.jobs[0].steps] == [
        Retry(max_attempts=1, backoff_sec=2, open=("classes",)),
        Retry(backoff_sec=2, open=("max_attempts", "classes")),
        Retry(backoff_sec=2, classes=classes, open=("max_attempts", "classes")),
    ]
    assert plan(table(command())).jobs[0].steps[0].retry == LEFT_OPEN


def test_what_is_open_is_the_configurations_and_what_a_table_says_stays() -> None:
    config = RetryConfig(
        max_attempts=7,
        backoff_sec=1,
        classes={"agent_timeout": {"retry": True, "max_attempts": 4}, "verifier": {"retry": False}},
    )
    said = Retry(
        max_attempts=2,
        classes={"agent_timeout": {"max_attempts": 9}},
        top_up=TopUp(extra=3),
        open=("backoff_sec", "classes"),
    )
    assert said.under(config) == Retry(
        max_attempts=2,
        backoff_sec=1,
        top_up=TopUp(extra=3),
        classes={"agent_timeout": {"retry": True, "max_attempts": 9}, "verifier": {"retry": False}},
    )
    filled_in = Retry(backoff_sec=3)  # as earlier versions wrote it
    assert filled_in.under(config) == filled_in
    assert LEFT_OPEN.under(config) == Retry(**config.model_dump())


def test_aliases_of_the_configuration(plan: Expand) -> None:
    defaults = TableDefaults(aliases={"prep": "Other Key", "agent:oracle": "local"})
    made = plan(table(command(queue_key="Prep"), trial(), limits={"prep": 1}), defaults=defaults)
    assert [step.queue_key for step in made.jobs[0].steps] == ["other-key", "local"]
    assert made.limits == {"other-key": 1}


def test_a_path_is_looked_for_in_order(root: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    make_task(there / "t")
    here.mkdir()
    data = json.dumps(table(trial(task={"path": "t"}))).encode()
    found = expand(data, name="x.json", base_dirs=[here, there]).jobs[0].steps[0]
    assert found.spec["config"]["task"]["path"] == str(there / "t")
    make_task(here / "t")
    found = expand(data, name="x.json", base_dirs=[here, there]).jobs[0].steps[0]
    assert found.spec["config"]["task"]["path"] == str(here / "t")


def test_a_missing_path_says_where_was_looked(reject: Reject, root: Path) -> None:
    (problem,) = reject(table(trial(task={"path": "nowhere"})))
    assert problem.message == f"task nowhere does not exist; looked in {root}"


def test_agent_steps_keep_their_fields(plan: Expand, root: Path) -> None:
    (root / "work").mkdir()
    (root / "work" / "p.md").write_text("Do it.")
    made = plan(
        {
            "spec_version": "2.0",
            "working_root": "work",
            "execution_policy": {"sandbox": "read-only", "model": "gpt-5.2"},
            "packs": {"p": {"append_prompt": "z"}},
            "jobs": [
                {
                    "labels": {"area": "x"},
                    "steps": [
                        {"prompt_ref": "p.md", "pack_id": "p", "timeouts": {"step_timeout_seconds": 60}},
                        {
                            "prompt": "go on",
                            "execution_policy": {"sandbox": "workspace-write"},
                            "resume_from": {"step_id": "step1"},
                        },
                    ],
                }
            ],
        }
    )
    first, second = made.jobs[0].steps
    assert first.spec["prompt_ref"] == str(root / "work" / "p.md")
    assert first.spec["append_prompt"] == "z"
    assert first.spec["labels"] == {"area": "x"}
    assert (first.timeout_sec, first.queue_key, first.label) == (60, "openai/gpt-5.2", "codex · gpt-5.2")
    assert second.depends_on == ("job1/step1",)
    assert first.spec["execution_policy"] == {"sandbox": "read-only"}
    assert (second.spec["model"], "execution_policy" in second.spec) == ("gpt-5.2", False)
    assert AgentPlan.model_validate(second.spec).resume_from == ResumeFrom(step_id="step1")


def test_yaml_takes_words_for_words(plan: Expand) -> None:
    text = b"""
jobs:
- job_id: on
  labels: {date: 2026-01-14, answer: yes, clock: 1:30, version: 010}
  steps:
  - {step_id: no, command: [echo, yes], env: &env {A: off, <<: {B: b}}}
  - {step_id: y, command: [echo], env: *env, timeout_sec: 1.5}
"""
    made = plan(text, "t.yaml")
    assert steps_of(made) == {"on": ["no", "y"]}
    assert made.jobs[0].labels == {"date": "2026-01-14", "answer": "yes", "clock": "1:30", "version": "010"}
    assert made.jobs[0].steps[1].env == {"A": "off", "B": "b"}


def test_a_byte_order_mark_and_an_unnamed_input(plan: Expand) -> None:
    assert plan(b"\xef\xbb\xbf" + json.dumps(EXAMPLE).encode(), "-").jobs
    assert plan(b"jobs:\n- steps:\n  - command: [a]\n", "-").jobs


def test_nothing_heavy_is_imported_to_look_at_commands(root: Path) -> None:
    code = (
        "import sys, pathlib, parallelhassnes.tables.expand as e, parallelhassnes.tables.formats.request\n"
        'e.expand(b\'{"jobs":[{"steps":[{"command":["true"]}]}]}\', name=\'t\', base_dirs=[pathlib.Path()])\n'
        "print([m for m in sys.modules if m.split('.')[0] in ('harbor', 'litellm', 'httpx')])"
    )
    done = python(code)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("shape", ["sweep", "steps"])
def test_a_hundred_thousand_steps(shape: str, root: Path) -> None:
    if shape == "sweep":
        document: Any = {"sweep": {"path": "tasks", "agents": [{"name": "nop", "n_trials": 50_000}]}}
    else:
        chain = [command(f"c{n}", depends_on=[f"c{n - 1}"] if n else []) for n in range(50_000)]
        trials = [trial(step_id=f"t{n}") for n in range(50_000)]
        document = table(*chain, *trials)
    data = json.dumps(document).encode()
    start = time.process_time()
    made = expand(data, name="t.json", base_dirs=[root])
    spent = time.process_time() - start
    assert sum(len(job.steps) for job in made.jobs) >= 100_000
    # Only a guard against quadratic work; the figure itself is a matter for the benchmarks.
    assert spent < 60
