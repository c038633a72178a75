"""The Docker engine may go away; what needs it waits."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness import make_task
from stores import CHECKOUT, context, environment, idle, job, program, put, shell, states, table, wait_for

from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps.trial import leftovers


@pytest.fixture
def place():
    """Where a socket can be: its path must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="engine-") as folder:
        yield Path(folder, "docker.sock")


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_trials_wait_for_the_engine_instead_of_failing_one_by_one(root, place, monkeypatch):
    """The engine is away when they could start, and comes back; nobody ticks then."""
    ctx = context(root)
    there = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
    agents = [{"name": "nop", "n_trials": 2}]
    sweep = {"path": str(make_task(root)), "agents": agents, "environment": "docker"}
    batch = put(ctx, json.dumps({"spec_version": "2.0", "sweep": sweep}).encode())
    beside = put(ctx, table(job("j", shell("s", "true"))))
    named = {
        "step_id": "t",
        "kind": "trial",
        "task": {"path": str(root / "hello")},
        "agent": {"name": "nop"},
        "environment": {"type": "docker"},
        "env": {"DOCKER_HOST": f"unix://{there}"},
    }
    elsewhere = put(ctx, table(job("j", named)))
    try:
        tick(ctx)
        wait_for(lambda: states(ctx, beside) == {"j/s": ["succeeded"]}, "what needs no engine")
        wait_for(lambda: states(ctx, elsewhere) == {"j/t": ["succeeded"]}, "what names an engine")
        why = f"no Docker engine answers at {place}: No such file or directory"
        assert f"trials in docker wait: {why}" in program(root, "tick").stdout
        assert why in program(root, "tick", "--quiet").stderr
        assert "trials in docker wait: no Docker engine" in program(root, "scoreboard").stdout
        assert why in program(root, "explain", f"{batch}/hello/nop.1").stdout
        assert states(ctx, batch) == {}
        with subprocess.Popen(
            [sys.executable, "-m", "parallelhassnes", "tick", "--until-idle", "--root", str(root)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=CHECKOUT,
        ) as watching:
            assert f"held: trials in docker wait: {why}\n" in iter(watching.stderr.readline, "")
            watching.send_signal(signal.SIGINT)
            watching.communicate()
        place.symlink_to(there)
        wait_for(lambda: idle(ctx), "the trials, without another tick", 200)
        found = states(ctx, batch)
        assert [found[f"hello/nop.{n}"] for n in (1, 2)] == [["succeeded"], ["succeeded"]]
        assert json.loads(program(root, "scoreboard", "--json").stdout)["waiting"] == []
    finally:  # or the waker would look for the engine for ever
        program(root, "cancel", batch, check=False)


def test_what_can_be_told_of_an_engine(place, tmp_path):
    ask = {"DOCKER_HOST": f"unix://{place}"}
    assert leftovers.engine_trouble(ask) == f"no Docker engine answers at {place}: No such file or directory"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        assert leftovers.engine_trouble(ask) == f"no Docker engine answers at {place}: Connection refused"
        server.listen()
        assert leftovers.engine_trouble(ask) == f"the Docker engine at {place} has said nothing for 2 s"
    (tmp_path / "config.json").write_text('{"currentContext": "elsewhere"}')
    for unknown in (
        {"DOCKER_HOST": "ssh://somebody@elsewhere"},
        {"DOCKER_HOST": f"unix:///{'x' * 200}"},
        {"DOCKER_CONTEXT": "elsewhere"},
        {"DOCKER_CONFIG": str(tmp_path)},
    ):
        assert leftovers.engine_trouble(unknown) is None
