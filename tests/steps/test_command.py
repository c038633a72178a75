"""The kinds ``command`` and ``agent``, with real programs."""

import os
import signal

import pytest
from harness import finish, fork_worker, make_attempt, run, until, wait

from parallelhassnes.errors import UserError
from parallelhassnes.steps import final_report, registry
from parallelhassnes.steps.step_types import WorkerEnd


def command(tmp_path, *argv, **spec):
    return make_attempt(tmp_path, "command", {"command": list(argv), **spec})


def test_exit_code_zero_is_success(tmp_path):
    attempt = command(tmp_path, "sh", "-c", "pwd; echo $A")
    code, outcome, final = run(attempt)
    assert (code, outcome.status) == (0, "succeeded")
    assert final["command"] == {"command": ["sh", "-c", "pwd; echo $A"], "exit_code": 0}
    assert (attempt.dir / "stdout.log").read_text().splitlines()[0] == str(attempt.dir / "work")


def test_another_exit_code_is_a_failure_that_quotes_stderr(tmp_path):
    _, outcome, final = run(command(tmp_path, "sh", "-c", "echo first >&2; echo broken pump >&2; exit 3"))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "agent_error")
    assert outcome.failure.line == "ended with exit code 3: broken pump"
    assert "broken pump" in final["summary"]


@pytest.mark.parametrize("argv", [["no-such-program-here"], ["/etc/passwd"], []])
def test_a_program_that_cannot_be_run_is_the_tables_fault(tmp_path, argv):
    code, outcome, _ = run(command(tmp_path, *argv))
    assert code in (126, 127)
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "task_definition")


def test_its_own_exit_code_127_is_its_own(tmp_path):
    _, outcome, _ = run(command(tmp_path, "sh", "-c", "exit 127"))
    assert outcome.failure.failure_class == "agent_error"


def test_the_working_directory(tmp_path):
    attempt = command(tmp_path, "pwd", working_directory=str(tmp_path))
    run(attempt)
    assert (attempt.dir / "stdout.log").read_text().strip() == str(tmp_path)
    _, outcome, _ = run(command(tmp_path, "pwd", working_directory=str(tmp_path / "none")))
    assert outcome.failure.failure_class == "task_definition"


@pytest.mark.parametrize(
    ("written", "summary"),
    [
        ('{"summary":"all is well","files_written":["a"],"status":"failed"}', "all is well"),
        ('{"summary":"x","files_written":"a"}', "The command ended with exit code 0."),
        ("[1]", "The command ended with exit code 0."),
        ("{", "The command ended with exit code 0."),
    ],
)
def test_a_report_of_its_own(tmp_path, written, summary):
    program = f"printf %s '{written}' > $PARALLELHASSNES_REPORT"
    _, outcome, final = run(command(tmp_path, "sh", "-c", program))
    assert outcome.status == "succeeded"
    assert final["status"] == "succeeded"
    assert final["summary"] == summary


@pytest.mark.parametrize(
    ("reason", "status", "failure_class"),
    [("canceled", "canceled", "canceled"), ("timeout", "failed", "agent_timeout"), ("lost", "lost", "lost")],
)
def test_a_stopped_command(tmp_path, reason, status, failure_class):
    attempt = command(tmp_path, "sh", "-c", "touch started; exec sleep 60")
    pid = fork_worker(attempt)
    until((attempt.dir / "work" / "started").exists)
    os.kill(pid, signal.SIGTERM)
    code = wait(pid)
    outcome, _ = finish(attempt, WorkerEnd(code, reason))
    assert (code, outcome.status, outcome.failure.failure_class) == (-15, status, failure_class)


def test_the_stand_in_is_deterministic_and_marked(tmp_path):
    spec = {"prompt": "Fix the build."}
    _, outcome, first = run(make_attempt(tmp_path / "a", "agent", spec, stand_in=True))
    _, _, second = run(make_attempt(tmp_path / "b", "agent", spec, stand_in=True))
    _, _, other = run(make_attempt(tmp_path / "c", "agent", {"prompt": "No."}, stand_in=True))
    assert outcome.status == "succeeded"
    assert first["stand_in"] is True
    assert first["agent"] == second["agent"] != other["agent"]
    assert first["summary"].startswith("Stand-in: no agent was run.")


def test_unknown_kinds_are_named_with_the_known_ones():
    with pytest.raises(UserError, match="unknown kind of step 'trail'; use one of agent, analysis"):
        registry.kind("trail")


def test_the_schema_in_the_package_is_that_of_the_repository(request):
    top = request.config.rootpath / final_report.SCHEMA_FILE
    packaged = request.config.rootpath / "parallelhassnes" / "steps" / final_report.SCHEMA_FILE
    assert packaged.read_bytes() == top.read_bytes()


def test_every_violation_of_the_schema_is_reported():
    found = final_report.validate({**final_report.EMPTY, "status": "ok", "artifacts": [{"path": 1}], "x": 1})
    assert len(found) == 5
    assert any(line.startswith("/artifacts/0/path: ") for line in found)
