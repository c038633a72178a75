"""Trials in real containers of Podman: what died under a trial is asked of this engine as it is of Docker."""

import json
import subprocess
from dataclasses import replace

import pytest
from harness import finish, fork_worker, kill_group, make_attempt, make_task, run, trial_spec, until, wait
from stores import context

from parallelhassnes.admin import clean_up
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial import leftovers, trial_paths

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


def named_as_launched(attempt):
    """As a launch names an attempt: by a run id of twelve letters, which is what things in an engine are known by."""
    run_id = attempt.run_id[:12]
    folder = attempt.dir.rename(attempt.dir.with_name(f"20260101T000000Z_{run_id}"))
    return replace(attempt, run_id=run_id, dir=folder)


@pytest.mark.parametrize("way", ["repair", "reap"])
def test_what_a_killed_worker_leaves_is_removed_by_repair_and_by_reap(tmp_path, way):
    ctx = context(tmp_path)
    (tmp_path / "runs").mkdir(exist_ok=True)
    main = "    volumes: [kept:/kept]\nvolumes:\n  kept: {}\n"
    attempt = named_as_launched(podman_attempt(tmp_path / "runs", "touch /logs/agent/begun; exec sleep 60", main))

    def left():
        prefix = leftovers.project_prefix(trial_paths.trial_name(attempt))
        return {what for what, _, project in leftovers.of_projects("podman") if project.startswith(prefix)}

    pid = fork_worker(attempt)
    until(lambda: [*attempt.dir.glob("trial/agent/begun")], 90)
    kill_group(pid)
    assert left() >= {"container", "network", "volume"}
    if way == "repair":
        assert leftovers.sweep(attempt)
    else:
        found = [each for each in clean_up.reap(ctx) if each.engine == "podman"]
        assert {each.what for each in found} >= {"container", "network", "volume"}
        assert all(each.removed for each in found), found
    assert not left()
