"""Every way of writing a table wrong that is known to have hurt: each is refused with place and reason."""

import json
from typing import Any

import pytest

from .conftest import Reject, command, table, trial

DEEP = b'{"jobs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 10)) for n in range(9)
)

BAD_BYTES: dict[str, tuple[bytes, str, str, str]] = {
    "bad JSON": (b'{\n "jobs": [,]}', "t.json", "line 2", "not JSON"),
    "cut off": (b'{"jobs": [', "t.json", "line 1", "not JSON"),
    "bad YAML": (b"jobs:\n  - a: [1\n", "t.yaml", "line 3", "not YAML"),
    "YAML with a tab": (b"jobs:\n\t- a: 1\n", "t.yaml", "line 2", "not YAML"),
    "empty": (b"", "t.json", "", "is empty"),
    "blank": (b" \n\t\n", "t.yaml", "", "is empty"),
    "YAML comment only": (b"# nothing\n", "t.yaml", "", "is empty"),
    "an array": (b"[]", "t.json", "", "must be an object, not an array"),
    "a string": (b'"jobs"', "t.json", "", "must be an object, not a string"),
    "a YAML word": (b"jobs\n", "t.yaml", "", "must be an object, not a string"),
    "NaN": (b'{"jobs": [], "priority": NaN}', "t.json", "/priority", "finite"),
    "Infinity": (b'{"jobs": [], "priority": -Infinity}', "t.json", "/priority", "finite"),
    "1e999": (b'{"jobs": [], "priority": 1e999}', "t.json", "/priority", "finite"),
    "YAML .nan": (b"jobs: []\npriority: .nan\n", "t.yaml", "/priority", "finite"),
    "a huge number": (b'{"a": ' + b"9" * 5000 + b"}", "t.json", "", "4,300 digits"),
    "deep JSON": (DEEP, "t.json", "", "nested more than"),
    "deep YAML": (b"[" * 50_000, "t.yaml", "line 1", "nested more than"),
    "somewhat deep": (b'{"jobs": %s1%s}' % (b"[" * 70, b"]" * 70), "t.json", "/jobs/0/0/0/0/0/0/0", "nested"),
    "100 MB": (b'{"jobs": "' + b"x" * 100_000_000 + b'"}', "t.json", "", "the largest table is 64"),
    "Latin-1": (b'{\n"goal": "caf\xe9"}', "t.json", "line 2", "is not UTF-8"),
    "UTF-16": ('{"jobs": []}'.encode("utf-16"), "t.json", "", "UTF-16"),
    "a null byte": (b'{"jobs":\n\0 []}', "t.json", "line 2", "null byte"),
    "a key twice": (b'{"jobs": [], "jobs": []}', "t.json", "/jobs", "stands twice"),
    "a YAML key twice": (b"jobs: []\njobs: []\n", "t.yaml", "line 2", "stands twice"),
    "a YAML key that is a number": (b"jobs: []\n1: x\n", "t.yaml", "line 2", "not a string"),
    "two YAML documents": (b"jobs: []\n---\njobs: []\n", "t.yaml", "line 2", "second document"),
    "alias bomb": (BOMB, "t.yaml", "line 7", "unfold"),
    "YAML that holds itself": (b"jobs: &a [*a]\n", "t.yaml", "line 1", "not defined before"),
    "YAML tag of Python": (b"jobs: !!python/object/apply:os.system [id]\n", "t.yaml", "line 1", "not YAML"),
    "half a character": (b'{"jobs": [], "experiment": "\\ud800"}', "t.json", "/experiment", "half"),
    "a null character": (b'{"jobs": [], "experiment": "\\u0000"}', "t.json", "/experiment", "null"),
}


@pytest.mark.parametrize("case", BAD_BYTES)
def test_bytes_that_are_no_table(case: str, reject: Reject) -> None:
    data, name, at, message = BAD_BYTES[case]
    (problem, *_) = reject(data, name)
    assert problem.where == name
    assert problem.pointer == at
    assert message in problem.message


STEP = "/jobs/0/steps/0"
LONG = "x" * 129
HUGE = "p" * (1024 * 1024 + 1)

BAD_TABLES: dict[str, tuple[Any, str, str]] = {
    "neither jobs nor sweep": ({"spec_version": "2.0"}, "/jobs", "is empty"),
    "nothing known": ({"hello": 1}, "", "no launch table"),
    "no jobs": ({"spec_version": "2.0", "jobs": []}, "/jobs", "is empty"),
    "jobs as an object": ({"jobs": {}}, "/jobs", "must be an array, not an object"),
    "jobs as a string": ({"jobs": "j1"}, "/jobs", "must be an array, not a string"),
    "jobs null": ({"jobs": None}, "/jobs", "must be an array, not null"),
    "a job as an array": ({"jobs": [[]]}, "/jobs/0", "must be an object, not an array"),
    "a job as a number": ({"jobs": [7]}, "/jobs/0", "must be an object, not a number"),
    "a job without steps": ({"jobs": [{"job_id": "a"}]}, "/jobs/0/steps", "is missing"),
    "steps empty": (table(), "/jobs/0/steps", "at least one step"),
    "steps as an object": ({"jobs": [{"steps": {}}]}, "/jobs/0/steps", "must be an array"),
    "a step as a string": (table("run"), STEP, "must be an object, not a string"),
    "a step that says nothing": (table({"step_id": "s"}), STEP, "says nothing to do"),
    "traversal id": (table(command("../../x")), STEP + "/step_id", "not a step id"),
    "absolute id": (table(command("/etc/passwd")), STEP + "/step_id", "not a step id"),
    "id with a slash": (table(command("a/b")), STEP + "/step_id", "not a step id"),
    "id of dots": (table(command("..")), STEP + "/step_id", "not a step id"),
    "hidden id": (table(command(".git")), STEP + "/step_id", "not a step id"),
    "empty id": (table(command("")), STEP + "/step_id", "not a step id"),
    "long id": (table(command(LONG)), STEP + "/step_id", "not a step id"),
    "number as id": (table(command(7)), STEP + "/step_id", "7 is not a step id"),  # type: ignore[arg-type]
    "null as id": (table(command(None)), STEP + "/step_id", "None is not"),  # type: ignore[arg-type]
    "job id with a newline": ({"jobs": [{"job_id": "a\nb", "steps": [command()]}]}, "/jobs/0/job_id", "not a job id"),
    "step id twice": (table(command(), command()), "/jobs/0/steps/1/step_id", "is taken"),
    "job id twice": ({"jobs": [{"job_id": "a", "steps": [command()]}] * 2}, "/jobs/1/job_id", "is taken by /jobs/0"),
    "job ids that differ by case": (
        {"jobs": [{"job_id": name, "steps": [command()]} for name in ("Job", "job")]},
        "/jobs/1/job_id",
        "job id 'job' is taken by /jobs/0 ('Job': many file systems take both for one name)",
    ),
    "job ids that differ by a dot at the end": (
        {"jobs": [{"job_id": name, "steps": [command()]} for name in ("job", "job.")]},
        "/jobs/1/job_id",
        "taken by /jobs/0 ('job'",
    ),
    "a job id that differs from a default by case": (
        {"jobs": [{"steps": [command()]}, {"job_id": "JOB1", "steps": [command()]}]},
        "/jobs/1/job_id",
        "taken by /jobs/0",
    ),
    "step ids that differ by case": (table(command("A.x"), command("a.X")), "/jobs/0/steps/1/step_id", "('A.x'"),
    "a job called like a file of the batch": (
        {"jobs": [{"job_id": "Ledger.jsonl", "steps": [command()]}]},
        "/jobs/0/job_id",
        "a file of the batch (ledger.jsonl)",
    ),
    "unknown kind": (table(command(kind="trail")), STEP + "/kind", "must be"),
    "unknown key": (table(command(depend_on=[])), STEP + "/depend_on", "unknown key"),
    "unknown key above": (table(command(), experimint="x"), "/experimint", "unknown key"),
    "unknown reference": (table(command(depends_on=["c2"])), STEP + "/depends_on/0", "not exist"),
    "unknown job": (table(command(depends_on=["j9/c1"])), STEP + "/depends_on/0", "not exist"),
    "self": (table(command(depends_on=["c1"])), STEP + "/depends_on/0", "waits for itself"),
    "self in full": (table(command(depends_on=["j1/c1"])), STEP + "/depends_on/0", "waits for itself"),
    "cycle": (table(command(depends_on=["c2"]), command("c2", depends_on=["c1"])), STEP + "/depends_on", "circle"),
    "cycle across jobs": (
        {
            "jobs": [
                {"job_id": "a", "steps": [command(depends_on=["b/c1"])]},
                {"job_id": "b", "steps": [command(depends_on=["a/c1"])]},
            ]
        },
        STEP + "/depends_on",
        "a/c1 → b/c1 → a/c1",
    ),
    "depends_on as a string": (table(command(depends_on="c2")), STEP + "/depends_on", "an array, not a string"),
    "depends_on of numbers": (table(command(depends_on=[1])), STEP + "/depends_on/0", "not a number"),
    "zero seconds": (table(command(timeout_sec=0)), STEP + "/timeout_sec", "greater than 0"),
    "negative seconds": (table(command(timeout_sec=-5)), STEP + "/timeout_sec", "greater than 0, not -5"),
    "true as seconds": (table(command(timeout_sec=True)), STEP + "/timeout_sec", "not a boolean"),
    "text as seconds": (table(command(timeout_sec="60")), STEP + "/timeout_sec", "not a string"),
    "no attempts": (table(command(retry={"max_attempts": 0})), STEP + "/retry/max_attempts", "equal to 1"),
    "half an attempt": (table(command(retry={"max_attempts": 1.5})), STEP + "/retry/max_attempts", "number"),
    "true as concurrency": (table(command(), concurrency=True), "/concurrency", "not a boolean"),
    "zero concurrency": (table(command(), concurrency=0), "/concurrency", "equal to 1"),
    "zero limit": (table(command(), limits={"openai/gpt-5.2": 0}), "/limits/openai~1gpt-5.2", "equal to 1"),
    "limits as an array": (table(command(), limits=["a"]), "/limits", "an object, not an array"),
    "priority out of range": (table(command(), priority=5000), "/priority", "equal to 1000"),
    "a later version": (table(command(), spec_version="3.0"), "/spec_version", "must be 2, 2.0 or 2.0.0"),
    "labels of numbers": (table(command(), labels={"a": 1}), "/labels/a", "a string, not a number"),
    "command as a string": (table(command(command="true")), STEP + "/command", "an array, not a string"),
    "command empty": (table(command(command=[])), STEP + "/command", "at least 1"),
    "env of numbers": (table(command(env={"A": 1})), STEP + "/env/A", "a string, not a number"),
    "env name": (table(command(env={"A B": "1"})), STEP + "/env/A B", "must be letters, digits and _"),
    "two things to do": (table(command(prompt="x")), STEP + "/command", "stands beside agent codex"),
    "missing prompt": (table({"step_id": "a", "kind": "agent"}), STEP + "/prompt", "is missing"),
    "blank prompt": (table({"prompt": " \n"}), STEP + "/prompt", "is blank"),
    "missing prompt file": (table({"prompt_ref": "nowhere.md"}), STEP + "/prompt_ref", "looked in"),
    "huge prompt": (table({"prompt": HUGE}), STEP + "/prompt", "1.0 MiB"),
    "missing working_root": (table({"prompt": "x"}, working_root="/no/such"), "/working_root", "not exist"),
    "unknown pack": (table({"prompt": "x", "pack_id": "p"}), STEP + "/pack_id", "unknown pack"),
    "unknown selector": (
        table({"prompt": "x"}, {"prompt": "y", "resume_from": {"step_id": "step1", "selector": "last"}}),
        "/jobs/0/steps/1/resume_from/selector",
        "unknown selector",
    ),
    "resume from nowhere": (
        table({"prompt": "x", "resume_from": {"step_id": "s9"}}),
        STEP + "/resume_from/step_id",
        "unknown step to resume",
    ),
    "verdict without trials": (table({"kind": "verdict"}), STEP, "has no trials"),
    "verdict over a command": (
        table(command(), {"kind": "verdict", "depends_on": ["c1"]}),
        "/jobs/0/steps/1",
        "has no trials",
    ),
    "missing task folder": (table(trial(task={"path": "tasks/hullo"})), STEP + "/task/path", "does not exist"),
    "not a task folder": (table(trial(task={"path": "tasks"})), STEP + "/task/path", "not a task folder"),
    "task key": (table(trial(task={"pth": "x"})), STEP + "/task/pth", "unknown key"),
    "task of two sources": (
        table(trial(task={"path": "tasks/hello", "name": "org/x"})),
        STEP + "/task",
        "Cannot set both",
    ),
    "package without org": (table(trial(task={"name": "x"})), STEP + "/task", "is no task"),
    "trial without agent": (table(trial(agent=None)), STEP + "/agent", "is missing"),
    "unknown agent": (table(trial(agent={"name": "oracel"})), STEP + "/agent/name", "unknown agent"),
    "agent key": (table(trial(agent={"name": "oracle", "modelname": "x"})), STEP + "/agent/modelname", "unknown"),
    "whole number": (table(command(), priority="high"), "/priority", "must be an integer, not a string"),
    "agent type": (
        table(trial(agent={"name": "oracle", "n_concurrent": "x"})),
        STEP + "/agent/n_concurrent",
        "integer",
    ),
    "unknown environment": (table(trial(environment="doker")), STEP + "/environment", "unknown environment"),
    "environment key": (
        table(trial(environment={"type": "docker", "override_cpu": 1})),
        STEP + "/environment/override_cpu",
        "unknown key",
    ),
    "sandbox key": (
        table(trial(environment={"type": "sandbox", "unsuported": "skip"})),
        STEP + "/environment/unsuported",
        "unknown key",
    ),
    "verifier key": (table(trial(verifier={"disabled": True})), STEP + "/verifier/disabled", "unknown key"),
    "artifact key": (
        table(trial(artifacts=[{"source": "/a", "destnation": "b"}])),
        STEP + "/artifacts/0/destnation",
        "unknown",
    ),
    "multiplier": (table(trial(timeout_multiplier=0)), STEP + "/timeout_multiplier", "greater than 0"),
    "sweep as an array": ({"sweep": []}, "/sweep", "an object, not an array"),
    "sweep without agents": ({"sweep": {"path": "tasks"}}, "/sweep/agents", "is missing"),
    "sweep of no agents": ({"sweep": {"path": "tasks", "agents": []}}, "/sweep/agents", "at least 1"),
    "sweep of nothing": ({"sweep": {"agents": [{"name": "oracle"}]}}, "/sweep", "neither path nor dataset"),
    "sweep of both": ({"sweep": {"path": "tasks", "dataset": "d", "agents": [{"name": "oracle"}]}}, "/sweep", "both"),
    "sweep path": ({"sweep": {"path": "task", "agents": [{"name": "nop"}]}}, "/sweep/path", "does not exist"),
    "sweep agent": ({"sweep": {"path": "tasks", "agents": ["oracle"]}}, "/sweep/agents/0", "not a string"),
    "sweep agent without a name": ({"sweep": {"path": "tasks", "agents": [{}]}}, "/sweep/agents/0", "names no agent"),
    "no trials": (
        {"sweep": {"path": "tasks", "agents": [{"name": "nop", "n_trials": 0}]}},
        "/sweep/agents/0/n_trials",
        "1",
    ),
    "a filter that nothing fits": (
        {"sweep": {"path": "tasks", "task_names": ["x*"], "agents": [{"name": "nop"}]}},
        "/sweep/task_names",
        "x*",
    ),
    "a filter that leaves nothing": (
        {"sweep": {"path": "tasks", "exclude_task_names": ["*"], "agents": [{"name": "nop"}]}},
        "/sweep/exclude_task_names",
        "excluded",
    ),
    "secret as a value": (table(command(), secrets=["OPENAI_API_KEY=abc"]), "/secrets/0", "not the name"),
    "secret in env": (
        table(command(env={"OPENAI_API_KEY": "abcdefgh"})),
        STEP + "/env/OPENAI_API_KEY",
        "a secret is written",
    ),
    "secret of an agent": (
        table(trial(agent={"name": "codex", "env": {"TOKEN": "abcdefgh"}})),
        STEP + "/agent/env/TOKEN",
        "secret",
    ),
    "secret in kwargs": (
        table(trial(agent={"name": "codex", "kwargs": {"api_key": "abcdefgh"}})),
        STEP + "/agent/kwargs/api_key",
        "secret",
    ),
    "secret by its look": (table(command(env={"X": "sk-" + "a1" * 20})), STEP + "/env/X", "looks like a secret"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_are_wrong(case: str, reject: Reject) -> None:
    document, at, message = BAD_TABLES[case]
    problems = reject(document)
    hits = [problem for problem in problems if problem.pointer == at]
    assert hits, [problem.line() for problem in problems]
    assert any(message in hit.message for hit in hits), [hit.line() for hit in hits]
    assert len(problems) <= 2, [problem.line() for problem in problems]


def test_everything_is_reported_at_once(reject: Reject) -> None:
    problems = reject(
        table(
            command("../x", timeout_sec=-1),
            trial(agent={"name": "orcle"}, environment="dcker", task={"path": "nowhere"}),
            command("b", depends_on=["b"]),
            secrets=["A=1"],
            concurency=1,
        )
    )
    assert {problem.pointer for problem in problems} == {
        "/concurency",
        "/secrets/0",
        STEP + "/step_id",
        STEP + "/timeout_sec",
        "/jobs/0/steps/1/agent/name",
        "/jobs/0/steps/1/environment",
        "/jobs/0/steps/1/task/path",
        "/jobs/0/steps/2/depends_on/0",
    }


def test_a_close_match_is_suggested(reject: Reject) -> None:
    problems = reject(table(command(timeout=5, depend_on=[]), trial(agent="oracel", step_id="x")))
    fixes = [problem.fix for problem in problems]
    assert "did you mean 'depends_on'?" in fixes
    assert "did you mean 'oracle'?" in fixes
    assert any("timeout" in fix for fix in fixes)


def test_no_message_repeats_a_secret(reject: Reject) -> None:
    secret = "sk-" + "Zq9" * 12
    problems = reject(
        table(
            command(env={"API_KEY": secret}),
            trial(agent={"name": "codex", "env": {"API_KEY": secret}, "kwargs": {"token": secret}}),
            secrets=[secret],
        )
    )
    assert secret not in json.dumps([problem.line() for problem in problems])


def test_many_problems_are_counted(reject: Reject) -> None:
    problems = reject(table(*[command(f"c{n}", timeout_sec=0) for n in range(500)]))
    assert len(problems) == 101
    assert problems[-1].message == "400 more problems not listed"
