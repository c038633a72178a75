"""A trial in Docker whose supervisor and worker are killed: the tick removes all of it, and nothing else's."""

import os
import re
import signal
import subprocess

import pytest
from harness import make_task
from stores import attempt_dirs, context, idle, job, program, put, read, started, states, table, wait_for

from parallelhassnes.admin import clean_up
from parallelhassnes.execute import processes
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps.trial import image
from parallelhassnes.store import identity, process_identity


def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60).stdout.split()


def of_run(run_id):
    """Containers, networks and images that name the run."""
    seen = docker("ps", "-a", "--format", "{{.Names}}") + docker("network", "ls", "--format", "{{.Name}}")
    seen += docker("image", "ls", "--format", "{{.Repository}}")
    return [name for name in seen if run_id in name]


def running_trial(root):
    """A Docker trial that has reached its agent: context, batch, state."""
    ctx = context(root)
    task = make_task(root, "task", solution="sleep 300")
    trial = {
        "step_id": "t",
        "kind": "trial",
        "task": {"path": str(task)},
        "agent": {"name": "oracle"},
        "environment": {"type": "docker"},
    }
    batch = put(ctx, table(job("j", trial), retry={"max_attempts": 1}))
    started(root, "tick").communicate()

    def at_work():
        for path in attempt_dirs(ctx, batch):
            state = read(path / "state.json")
            if state.get("phase") == "agent" and of_run(state["run_id"]):
                return state
        return None

    return ctx, batch, wait_for(at_work, "the agent", 90)


def kill(state):
    for pid in (state["pid"], state["worker_pid"]):
        processes.send(pid, None, signal.SIGKILL)
    wait_for(lambda: not process_identity.is_alive(state["worker_pid"], None), "its death")


@pytest.fixture
def neighbour():
    """A container and a network of somebody else, with Compose's labels and ours, of another store."""
    name = f"neighbour-{os.getpid()}"
    project = ("--label", "com.docker.compose.project=other__abcdefghijkl__env")
    docker("network", "create", *project, name)
    docker(
        "create",
        "--name",
        name,
        *project,
        "--label",
        "parallelhassnes.store=another",
        "--label",
        "parallelhassnes.run=abcdefghijkl",
        "debian:bookworm-slim",
        "true",
    )
    yield name
    docker("rm", "--force", name)
    docker("network", "rm", name)


@pytest.mark.docker
def test_a_tick_removes_what_a_killed_docker_trial_left(root, neighbour):
    ctx, batch, state = running_trial(root)
    kill(state)
    assert len(of_run(state["run_id"])) >= 2

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "the repair", 90)
    assert states(ctx, batch) == {"j/t": ["lost"]}
    assert of_run(state["run_id"]) == []
    assert docker("ps", "-a", "--filter", f"name={neighbour}", "--format", "{{.Names}}") == [neighbour]
    assert docker("network", "ls", "--filter", f"name={neighbour}", "--format", "{{.Name}}") == [neighbour]


@pytest.mark.docker
def test_doctor_shows_and_reaps_what_no_attempt_of_the_store_knows_any_more(root, neighbour, tmp_path):
    ctx, batch, state = running_trial(root)
    assert clean_up.find(ctx) == []
    other = context(tmp_path)
    kill(state)
    # Somebody deletes the batch: no tick will ever find the container by its attempt.
    subprocess.run(["rm", "-r", str(ctx.layout.batch(batch)), str(ctx.layout.running)], check=True)
    ctx.layout.running.mkdir()
    assert clean_up.find(other) == []
    shown = program(root, "doctor", check=False).stdout
    assert state["run_id"] in shown
    assert "doctor --reap" in shown
    assert re.search(rf"image +{image.repository(ctx.layout.runs)}:\w+ \([\d.]+ [KMG]?B\)", shown)
    there = dict(line.split("=") for line in docker("system", "df", "--format", "{{slice .Type 0 5}}={{.Size}}"))
    assert ("build cache" in shown) == (there["Build"] != "0B")
    assert docker("ps", "-q", "--filter", f"label=parallelhassnes.run={state['run_id']}")
    program(root, "doctor", "--reap", check=False)
    assert not docker("ps", "-aq", "--filter", f"label=parallelhassnes.run={state['run_id']}")
    assert docker("ps", "-a", "--filter", f"name={neighbour}", "--format", "{{.Names}}") == [neighbour]
    assert not docker("image", "ls", "--quiet", image.repository(ctx.layout.runs))
    for kind in ("network", "image"):
        for left in of_run(state["run_id"]):
            docker(kind, "rm", left)


def test_a_process_of_a_dead_attempt_is_found_by_its_mark(root):
    ctx = context(root)
    mark = {
        processes.RUN_ID_VARIABLE: "deadbeef0001",
        "PARALLELHASSNES_ATTEMPT_DIR": f"{ctx.layout.runs}/b/j/steps/s/attempts/a",
    }
    with subprocess.Popen(["sleep", "300"], env={**os.environ, **mark}) as process:
        wait_for(lambda: clean_up.find(ctx), "the process")
        (left,) = clean_up.reap(ctx)
        assert (left.what, left.name, left.removed) == ("process", str(process.pid), True)
        assert process.wait(60) == -signal.SIGKILL
    assert clean_up.find(ctx) == []


def test_a_store_keeps_its_id(root):
    ctx = context(root)
    first = identity.store_id(ctx.layout.runs)
    assert first == identity.store_id(ctx.layout.runs)
    assert len(first) == 12
