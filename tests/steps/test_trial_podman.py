"""Trials in real containers of Podman: what died under a trial is asked of this engine as it is of Docker."""

import json
import subprocess

import pytest
from harness import finish, fork_worker, make_attempt, make_task, run, trial_spec, until, wait

from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial import leftovers

pytestmark = pytest.mark.podman

HUNGRY = "tail /dev/zero"
"""Keeps all that it reads in memory, for it waits for the end of a line."""


@pytest.fixture(autouse=True)
def _without_docker(monkeypatch):
    """Podman reads what Docker's variable names, and refuses to start where that is not there."""
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)


def podman(*arguments):
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def podman_attempt(tmp_path, solution, main="", test=None):
    compose = f"services:\n  main:\n    mem_limit: 64m\n    memswap_limit: 64m\n{main}"
    made = make_task(tmp_path, solution=solution, test=test, **{"environment/docker-compose.yaml": compose})
    return make_attempt(tmp_path, "trial", trial_spec(made, "oracle", {"type": "podman"}))


def containers(attempt):
    shown = podman("ps", "--all", "--format", f'{{{{.ID}}}}|{{{{index .Labels "{leftovers.PROJECT_LABEL}"}}}}')
    return [line.partition("|")[0] for line in shown if attempt.run_id in line]


@pytest.mark.parametrize("how", ["kill", "rm"])
def test_a_container_that_dies_under_a_trial_is_the_hosts_fault(tmp_path, how):
    attempt = podman_attempt(tmp_path, "touch /logs/agent/begun; exec sleep 60")
    pid = fork_worker(attempt)
    until(lambda: [*attempt.dir.glob("trial/agent/begun")], 90)
    (container,) = containers(attempt)
    podman(*(("kill", container) if how == "kill" else ("rm", "--force", container)))
    _, report = finish(attempt, WorkerEnd(wait(pid), "exited"))
    assert report["failure"]["class"] == "infrastructure"
    expected = "it ended with exit code 137, killed" if how == "kill" else "the container is gone"
    assert expected in report["failure"]["line"]
    assert containers(attempt) == []


def test_a_container_that_the_kernel_kills_for_want_of_memory_is_the_hosts_fault(tmp_path):
    waits = f"while [ ! -e /go ]; do sleep 0.1; done; exec {HUNGRY}"
    main = f"    command: {json.dumps(['sh', '-c', waits])}\n"
    attempt = podman_attempt(tmp_path, "touch /go; sleep 60", main)
    _, outcome, report = run(attempt, 120)
    assert report["failure"]["class"] == "infrastructure", outcome
    # Under control groups of version 1, Podman does not say that it was for want of memory.
    assert "it ended with exit code 137, " in report["failure"]["line"]


def test_a_process_that_is_killed_in_a_container_that_lives_on_is_the_tasks_affair(tmp_path):
    attempt = podman_attempt(tmp_path, "true", test=f"exec {HUNGRY}")
    _, outcome, report = run(attempt, 120)
    assert report["failure"]["class"] == "verifier", outcome
