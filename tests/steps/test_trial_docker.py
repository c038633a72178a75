"""Trials in real Docker containers: what they are called, and that nothing of them stays."""

import json
import os
import signal
import subprocess

import pytest
from harness import finish, fork_worker, make_attempt, make_task, run, trial_spec, until, wait

from parallelhassnes.steps import registry
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial import image, leftovers
from parallelhassnes.store import space

pytestmark = [pytest.mark.docker, pytest.mark.harbor]

DOCKERFILE = "FROM debian:bookworm-slim\nWORKDIR /app\n"
DOCKER = {"type": "docker"}


@pytest.fixture(autouse=True)
def _no_image_stays(tmp_path):
    """No tick clears up behind these workers, which run without a store."""
    yield
    for folder in tmp_path.rglob("_system/images"):
        image.remove_unneeded(folder.parent.parent, lambda *_: True)


def docker(*arguments):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def left_of(attempt):
    """Containers and networks whose Compose project is one of this attempt's."""
    return [
        name
        for kind in (("ps", "-a"), ("network", "ls"), ("volume", "ls"))
        for name in docker(
            *kind, "--format", '{{.Label "com.docker.compose.project"}}', "--filter", f"label={leftovers.PROJECT_LABEL}"
        )
        if attempt.run_id in name
    ]


def docker_attempt(tmp_path, agent="oracle", **task):
    made = make_task(tmp_path, **{"environment/Dockerfile": DOCKERFILE}, **task)
    return make_attempt(tmp_path, "trial", trial_spec(made, agent, DOCKER))


def running_container(attempt):
    return docker("ps", "-q", "--filter", f"label=parallelhassnes.run={attempt.run_id}")


def start_and_reach_the_agent(attempt):
    pid = fork_worker(attempt)
    until(lambda: registry.kind("trial").phase(attempt) == "agent", 90)
    (container,) = until(lambda: running_container(attempt))
    return pid, container


def test_a_trial_in_docker(tmp_path):
    attempt = docker_attempt(tmp_path)
    code, outcome, report = run(attempt, 120)
    assert (code, outcome.status) == (0, "succeeded"), outcome
    assert report["trial"]["reward"] == 1.0
    assert report["trial"]["environment"] == "docker"
    assert left_of(attempt) == []
    config = json.loads((attempt.dir / "trial" / "config.json").read_text())
    assert not config.get("environment", {}).get("extra_docker_compose")
    told = subprocess.check_output(["docker", "info", "--format", "{{.DockerRootDir}}"], text=True)
    assert space.docker_root(tmp_path).read_text() == told
    assert "auto_mounting" not in config.get("environment", {}).get("kwargs", {})


def test_a_multi_step_trial_in_docker(tmp_path):
    files = {}
    for name in ("one", "two"):
        files[f"steps/{name}/instruction.md"] = "go"
        files[f"steps/{name}/solution/solve.sh"] = f"#!/bin/bash\necho {name} >> /app/out\n"
        files[f"steps/{name}/tests/test.sh"] = "#!/bin/bash\nwc -l < /app/out > /logs/verifier/reward.txt\n"
    attempt = docker_attempt(tmp_path, toml='[[steps]]\nname="one"\n[[steps]]\nname="two"\n', **files)
    _, outcome, report = run(attempt, 120)
    assert outcome.status == "succeeded", outcome
    assert [step["reward"] for step in report["trial"]["steps"]] == [1.0, 2.0]
    assert left_of(attempt) == []


def test_a_task_with_its_own_compose_file(tmp_path):
    compose = "services:\n  main:\n    environment:\n      HELLO: there\n"
    attempt = docker_attempt(
        tmp_path, solution='[ "$HELLO" = there ] && touch /app/out', **{"environment/docker-compose.yaml": compose}
    )
    _, _, report = run(attempt, 120)
    assert report["trial"]["reward"] == 1.0


def test_a_task_without_an_environment_is_the_tasks_fault(tmp_path):
    task = make_task(tmp_path)
    (task / "environment" / "Dockerfile").unlink()
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, "oracle", DOCKER))
    _, outcome, _ = run(attempt)
    assert outcome.failure.failure_class == "task_definition", outcome


def test_labels_and_a_cancel_that_leaves_nothing(tmp_path):
    attempt = docker_attempt(tmp_path, solution="sleep 100")
    pid, container = start_and_reach_the_agent(attempt)
    (shown,) = json.loads(subprocess.check_output(["docker", "inspect", container]))
    labels = shown["Config"]["Labels"]
    assert labels["parallelhassnes.batch"] == "batch"
    assert labels["parallelhassnes.job"] == "job"
    assert labels["parallelhassnes.step"] == "s1"
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert wait(pid) == 143
    assert left_of(attempt) == []
    outcome, _ = finish(attempt, WorkerEnd(143, "canceled"))
    assert outcome.status == "canceled"
    assert (attempt.dir / "trial" / "result.json").exists()


def test_sweeping_after_a_kill_removes_ours_and_nothing_else(tmp_path):
    own_image = {"environment/docker-compose.yaml": "services:\n  main:\n    tty: true\n"}
    attempt, other = (docker_attempt(tmp_path / "a", solution="sleep 100", **own_image), docker_attempt(tmp_path / "b"))
    neighbour = f"neighbour-{attempt.run_id}"
    docker("network", "create", "--label", f"{leftovers.PROJECT_LABEL}={neighbour}", neighbour)
    try:
        pid, container = start_and_reach_the_agent(attempt)
        os.killpg(pid, signal.SIGKILL)
        assert wait(pid) == -9
        assert registry.kind("trial").sweep(other) == []
        assert container in docker("ps", "-q")
        removed = registry.kind("trial").sweep(attempt)
        assert len(removed) == 3
        assert removed[0].startswith("container hello__")
        assert removed[1].startswith("network hello__")
        assert removed[2].startswith("image hello__")
        assert registry.kind("trial").sweep(attempt) == []
        assert docker("network", "ls", "-q", "--filter", f"name={neighbour}")
    finally:
        docker("network", "rm", neighbour)


@pytest.mark.parametrize("how", ["kill", "rm"])
def test_a_container_that_dies_under_a_trial_is_the_hosts_fault(tmp_path, how):
    attempt = docker_attempt(tmp_path, solution="touch /logs/agent/begun; exec sleep 60")
    pid, container = start_and_reach_the_agent(attempt)
    docker(*(("kill", container) if how == "kill" else ("rm", "--force", container)))
    _, report = finish(attempt, WorkerEnd(wait(pid), "exited"))
    assert report["failure"]["class"] == "infrastructure"
    expected = "it ended with exit code 137, killed" if how == "kill" else "the container is gone"
    assert expected in report["failure"]["line"]
    assert left_of(attempt) == []


def test_a_process_that_is_killed_in_a_container_that_lives_on_is_the_tasks_affair(tmp_path):
    attempt = docker_attempt(tmp_path, solution="true", test="kill -9 $$")
    _, outcome, report = run(attempt, 120)
    assert report["failure"]["class"] == "verifier", outcome


HUNGRY = "tail /dev/zero"
"""Keeps all that it reads in memory, for it waits for the end of a line."""


def small_attempt(tmp_path, solution, main=""):
    """In a container with little memory; ``main`` is a line of the Compose file about its first program."""
    compose = f"services:\n  main:\n    mem_limit: 64m\n    memswap_limit: 64m\n{main}"
    return docker_attempt(tmp_path, solution=solution, **{"environment/docker-compose.yaml": compose})


def test_a_container_that_the_kernel_kills_for_want_of_memory_is_the_hosts_fault(tmp_path):
    waits = f"while [ ! -e /go ]; do sleep 0.1; done; exec {HUNGRY}"
    main = f"    command: {json.dumps(['sh', '-c', waits])}\n"
    attempt = small_attempt(tmp_path, "touch /go; sleep 60", main)
    _, outcome, report = run(attempt, 120)
    assert report["failure"]["class"] == "infrastructure", outcome
    assert "exit code 137, out of memory" in report["failure"]["line"]
    assert left_of(attempt) == []


def test_a_process_that_is_killed_for_want_of_memory_in_a_container_that_lives_on_is_the_tasks_affair(tmp_path):
    attempt = small_attempt(tmp_path, f"{HUNGRY}; touch /app/out")
    _, outcome, report = run(attempt, 120)
    assert (outcome.status, report["trial"]["reward"]) == ("succeeded", 1.0), outcome
    attempt = small_attempt(tmp_path / "tests", "true")
    (tmp_path / "tests" / "hello" / "tests" / "test.sh").write_text(f"#!/bin/bash\nexec {HUNGRY}\n")
    _, outcome, report = run(attempt, 120)
    assert report["failure"]["class"] == "verifier", outcome


def test_the_logs_of_a_live_and_of_a_killed_trial_are_there(tmp_path):
    """Since 0.25 Harbor leaves them inside of the container until a phase has ended, unless it is asked not to."""
    attempt = docker_attempt(tmp_path, solution="echo hello-from-inside >/logs/agent/own.txt\nsleep 100")
    pid, _ = start_and_reach_the_agent(attempt)
    log = attempt.dir / "trial" / "agent" / "own.txt"
    until(lambda: log.exists() and "hello-from-inside" in log.read_text())
    os.killpg(pid, signal.SIGKILL)
    assert wait(pid) == -9
    registry.kind("trial").sweep(attempt)
    assert "hello-from-inside" in log.read_text()
    assert left_of(attempt) == []


def test_a_table_may_leave_the_logs_inside(tmp_path):
    made = make_task(tmp_path, **{"environment/Dockerfile": DOCKERFILE})
    for asked in (False, True):
        environment = {**DOCKER, "kwargs": {"auto_mounting": asked}}
        attempt = make_attempt(tmp_path / str(asked), "trial", trial_spec(made, "oracle", environment))
        _, outcome, report = run(attempt, 120)
        assert (outcome.status, report["trial"]["reward"]) == ("succeeded", 1.0), outcome
