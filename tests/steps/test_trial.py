"""The kind ``trial``, with real Harbor trials in an environment made of a directory."""

import contextlib
import json
import os
import re
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from harbor.trial.trial import Trial
from harness import TEMP, finish, fork_worker, make_attempt, make_task, run, trial_spec, until, wait
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelhassnes.plan import StepSpec
from parallelhassnes.sandbox import limits
from parallelhassnes.steps import registry
from parallelhassnes.steps.step_types import StepAttempt, WorkerEnd
from parallelhassnes.steps.trial import trial_paths

pytestmark = pytest.mark.harbor

SLOW = "echo $$ > /app/pid; exec sleep 60"


def phase_of(attempt):
    return registry.kind("trial").phase(attempt)


def result_of(attempt):
    return json.loads((attempt.dir / "trial" / "result.json").read_text())


def test_a_passing_trial(tmp_path):
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path)))
    code, outcome, report = run(attempt)
    assert (code, outcome.status, outcome.failure) == (0, "succeeded", None)
    trial = report["trial"]
    assert trial["reward"] == 1.0
    assert trial["rewards"] == {"reward": 1.0}
    assert trial["task"]["name"] == "hello"
    assert trial["agent"]["name"] == "oracle"
    assert {"environment_setup", "agent_execution", "verifier", "total"} <= set(trial["timings_sec"])
    assert trial["trial_name"] == f"hello__{attempt.run_id}"
    assert (attempt.dir / "stdout.log").read_bytes() == b""
    assert (attempt.dir / "stderr.log").read_bytes() == b""


def test_harbor_records_what_the_table_asked_for_and_where_the_trial_lies(tmp_path):
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path)))
    run(attempt)
    result = result_of(attempt)
    assert result["trial_uri"] == (attempt.dir / "trial").resolve().as_uri()
    assert result["config"]["trials_dir"] == str(attempt.dir)
    assert result["config"]["environment"]["extra_docker_compose"] == []
    assert (attempt.dir / "trial").is_dir()
    assert not (attempt.dir / "trial").is_symlink()


def test_a_zero_reward_is_a_success_of_the_harness(tmp_path):
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path), "nop"))
    _, outcome, report = run(attempt)
    assert outcome.status == "succeeded"
    assert report["trial"]["reward"] == 0.0


def test_fractions_and_ctrf(tmp_path):
    test = (
        """echo '{"reward": 0.25, "style": 0.5}' > /logs/verifier/reward.json\n"""
        """echo '{"results":{"summary":{"tests":4,"passed":1,"failed":3}}}' > /logs/verifier/ctrf.json"""
    )
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path, test=test)))
    _, outcome, report = run(attempt)
    assert outcome.status == "succeeded"
    assert report["trial"]["rewards"] == {"reward": 0.25, "style": 0.5}
    assert report["trial"]["reward"] == 0.25
    assert report["trial"]["tests"] == {"passed": 1, "failed": 3, "total": 4}


def test_a_multi_step_trial(tmp_path):
    steps = '[[steps]]\nname = "one"\n[[steps]]\nname = "two"\n'
    files = {}
    for name, reward in (("one", 1), ("two", 0)):
        files[f"steps/{name}/instruction.md"] = "go"
        files[f"steps/{name}/solution/solve.sh"] = "#!/bin/bash\ntrue\n"
        files[f"steps/{name}/tests/test.sh"] = f"#!/bin/bash\necho {reward} > /logs/verifier/reward.txt\n"
    task = make_task(tmp_path, toml=steps, **files)
    attempt = make_attempt(tmp_path, "trial", trial_spec(task))
    _, outcome, report = run(attempt)
    assert outcome.status == "succeeded", outcome
    assert report["trial"]["reward"] == 0.5
    assert [(s["name"], s["reward"]) for s in report["trial"]["steps"]] == [("one", 1.0), ("two", 0.0)]


def test_an_agent_timeout_beside_a_reward_is_a_success(tmp_path):
    reward = "echo 1 > /logs/verifier/reward.txt"  # however far the solution came
    task = make_task(tmp_path, solution="sleep 30", test=reward)
    spec = trial_spec(task, {"name": "oracle", "override_timeout_sec": 1})
    _, outcome, report = run(make_attempt(tmp_path, "trial", spec))
    assert outcome.status == "succeeded"
    assert report["trial"]["reward"] == 1.0
    assert report["trial"]["exception"]["type"] == "AgentTimeoutError"
    assert report["trial"]["exception"]["class"] == "agent_timeout"


@pytest.mark.parametrize(
    ("test", "exception"),
    [
        ("true", "RewardFileNotFoundError"),
        ("touch /logs/verifier/reward.txt", "RewardFileEmptyError"),
        ("echo x > /logs/verifier/reward.txt", "VerifierOutputParseError"),
    ],
)
def test_a_verifier_that_gives_no_reward(tmp_path, test, exception):
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path, test=test)))
    code, outcome, report = run(attempt)
    assert code == 0
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "verifier")
    assert report["trial"]["exception"]["type"] == exception
    assert report["trial"]["reward"] is None


@pytest.mark.parametrize(
    ("change", "failure_class"),
    [
        ({"task": {"path": "/nonexistent/task"}}, "task_definition"),
        ({"agent": {"name": "no-such-agent"}}, "task_definition"),
        ({"task": {}}, "task_definition"),
        ({"environment": {"import_path": "no.such:Thing"}}, "task_definition"),
    ],
)
def test_a_trial_that_cannot_be_made(tmp_path, change, failure_class):
    spec = trial_spec(make_task(tmp_path))
    spec["config"] |= change
    attempt = make_attempt(tmp_path, "trial", spec)
    code, outcome, report = run(attempt)
    assert code == 1
    assert (outcome.status, outcome.failure.failure_class) == ("failed", failure_class), outcome
    assert report["trial"]["exception"]["message"]
    assert (attempt.dir / "stderr.log").read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_cancels_and_later_ones_are_ignored(tmp_path, number):
    task = make_task(tmp_path, solution=SLOW)
    environment = {**TEMP, "kwargs": {"stop_when": str(tmp_path / "signaled")}}
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, environment=environment))
    pid = fork_worker(attempt)
    until(lambda: phase_of(attempt) == "agent")
    os.kill(pid, number)
    until((attempt.dir / "trial" / "stopping").exists)
    for again in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, again)
    (tmp_path / "signaled").touch()
    assert wait(pid) == 143
    assert (attempt.dir / "trial" / "stopped").exists()
    outcome, report = finish(attempt, WorkerEnd(143, "canceled"))
    assert outcome.status == "canceled"
    assert report["failure"]["line"] == "canceled during agent"
    outcome, _ = finish(attempt, WorkerEnd(143, "timeout"))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "agent_timeout")


def test_a_signal_while_the_environment_stops_leaves_nothing(tmp_path):
    environment = {**TEMP, "kwargs": {"stop_when": str(tmp_path / "signaled")}}
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path), environment=environment))
    pid = fork_worker(attempt)
    until((attempt.dir / "trial" / "stopping").exists)
    os.kill(pid, signal.SIGTERM)
    (tmp_path / "signaled").touch()
    assert wait(pid) in (0, 143)
    assert (attempt.dir / "trial" / "stopped").exists()
    assert list((attempt.dir / "tmp").glob("env-*")) == []
    outcome, _ = finish(attempt, WorkerEnd(0, "canceled"))
    assert outcome.status == "succeeded"


def test_a_killed_worker(tmp_path):
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path, solution=SLOW)))
    pid = fork_worker(attempt)
    until(lambda: phase_of(attempt) == "agent")
    (child,) = until(lambda: list((attempt.dir / "tmp").glob("env-*/app/pid")))
    until(lambda: child.read_text().strip())
    os.kill(pid, signal.SIGKILL)
    os.kill(int(child.read_text()), signal.SIGKILL)  # a real sandbox ends with its worker
    code = wait(pid)
    assert code == -9
    outcome, _ = finish(attempt, WorkerEnd(code, "exited"))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "infrastructure")
    outcome, _ = finish(attempt, WorkerEnd(None, "lost"))
    assert (outcome.status, outcome.failure.failure_class) == ("lost", "lost")


def test_temporary_files_lie_in_the_attempt_even_if_the_parent_used_others(tmp_path):
    assert tempfile.gettempdir()
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path, solution=SLOW)))
    pid = fork_worker(attempt)
    until(lambda: list((attempt.dir / "tmp").glob("env-*/app/pid")))
    assert len(list((attempt.dir / "tmp").glob("env-*"))) == 1
    os.kill(pid, signal.SIGTERM)
    wait(pid)
    assert list((attempt.dir / "tmp").glob("env-*")) == []


@settings(deadline=None)
@given(st.text(max_size=80), st.from_regex(r"[a-z0-9]{8,40}", fullmatch=True))
def test_trial_names_are_lowercase_short_and_unique(task, run_id):
    step = StepSpec(step_id="s", kind="trial", queue_key="k", spec={"task_name": task})
    attempt = StepAttempt(Path("/a"), Path("/j"), "b", "j", run_id, 1, step)
    name = trial_paths.trial_name(attempt)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)
    assert len(name) <= trial_paths.MAX_NAME
    assert name.endswith(run_id)
    assert verifier_session(Trial._separate_verifier_session_id, name).startswith(name + "__")


def verifier_session(session_id, name):
    """What Harbor calls the environment of a separate verifier of the trial ``name``."""
    trial = SimpleNamespace(config=SimpleNamespace(trial_name=name))
    return session_id(trial, "a-step-with-a-long-name" * 3)


def test_a_trial_directory_is_never_used_again(tmp_path):
    attempt = make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path, test="true")))
    (attempt.dir / "trial" / "verifier").mkdir(parents=True)
    (attempt.dir / "trial" / "verifier" / "reward.txt").write_text("1")
    code, outcome, _ = run(attempt)
    assert (code, outcome.status) == (1, "failed")


def test_a_secret_of_the_agent_does_not_stay_in_the_trial_directory(tmp_path):
    task = make_task(tmp_path, solution='touch /app/out; echo "key $MY_API_KEY"')
    agent = {"name": "oracle", "env": {"MY_API_KEY": "${MY_API_KEY}"}}
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, agent), env={"MY_API_KEY": "sesame-4711"})
    _, outcome, _ = run(attempt)
    assert outcome.status == "succeeded"
    kept = [p for p in attempt.dir.rglob("*") if p.is_file() and b"sesame-4711" in p.read_bytes()]
    assert kept == []


SANDBOX = {"import_path": "parallelhassnes.sandbox.environment:SandboxEnvironment"}


def status_of(pid):
    """Fields of ``/proc/PID/stat`` from the third on: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def processes_of(parent):
    """The processes below a process, itself left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):  # it has ended
            if int(status_of(pid)[1]) == parent:
                found += [pid, *processes_of(pid)]
    return found


@pytest.mark.namespaces
def test_a_sandbox_that_is_killed_under_a_trial_is_the_hosts_fault(tmp_path):
    task = make_task(tmp_path, solution="touch /logs/agent/begun; exec sleep 60")
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, environment=SANDBOX))
    pid = fork_worker(attempt)
    until((attempt.dir / "trial" / "agent" / "begun").exists)
    for child in processes_of(pid):
        with contextlib.suppress(ProcessLookupError):  # it went with its parent
            os.kill(child, signal.SIGKILL)
    _, report = finish(attempt, WorkerEnd(wait(pid), "exited"))
    assert report["failure"]["class"] == "infrastructure"
    assert "the sandbox died under the trial" in report["failure"]["line"]


@pytest.mark.bubblewrap
def test_a_sandbox_is_dead_when_its_keeper_is_however_long_the_process_around_it_takes(tmp_path):
    """Giving back its memory took longer than Harbor needs to go on with what cannot work any more."""
    task = make_task(tmp_path, solution="touch /logs/agent/begun; exec sleep 60")
    attempt = make_attempt(
        tmp_path, "trial", trial_spec(task, environment={**SANDBOX, "kwargs": {"engine": "bubblewrap"}})
    )
    pid = fork_worker(attempt)
    until((attempt.dir / "trial" / "agent" / "begun").exists)
    _, keeper, *_ = (child for child in processes_of(pid) if b"echo ready" in command_of(child))
    around = int(status_of(keeper)[1])
    os.kill(around, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    _, report = finish(attempt, WorkerEnd(wait(pid), "exited"))
    assert report["failure"]["class"] == "infrastructure"
    assert "the sandbox died under the trial" in report["failure"]["line"]


@pytest.mark.namespaces
def test_a_process_that_is_killed_in_a_sandbox_that_lives_on_is_the_tasks_affair(tmp_path):
    task = make_task(tmp_path, solution="true", test="kill -9 $$")
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, environment=SANDBOX))
    _, outcome, report = run(attempt)
    assert report["failure"]["class"] == "verifier", outcome


@pytest.mark.namespaces
@pytest.mark.timeout(400)  # the kernel looks for memory for a long time before it kills, and longer on a busy machine
def test_a_process_that_is_killed_for_want_of_memory_in_a_sandbox_is_the_tasks_affair(tmp_path):
    if "memory" not in limits.parents():
        pytest.skip("no control group may be written here, so no sandbox has a limit")
    hungry = "tail /dev/zero"  # keeps all that it reads, for it waits for the end of a line
    toml = "[environment]\nmemory_mb = 64\n"
    for number, (solution, test) in enumerate(((f"{hungry}; touch /app/out", None), ("true", f"exec {hungry}"))):
        task = make_task(tmp_path / str(number), solution=solution, test=test, toml=toml)
        attempt = make_attempt(tmp_path / str(number), "trial", trial_spec(task, environment=SANDBOX))
        _, outcome, report = run(attempt, timeout=190)
        assert "by control group" in report["trial"]["sandbox"]["limits"]["memory_mb"]
        if test is None:
            assert (outcome.status, report["trial"]["reward"]) == ("succeeded", 1.0), outcome
        else:
            assert report["failure"]["class"] == "verifier", outcome
