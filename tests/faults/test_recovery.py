"""The whole machine dies; a driver dies beside a finished trial; readers look all the while."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from harness import make_task
from stores import attempt_dirs, context, idle, job, program, put, read, shell, started, states, table, wait_for

from parallelhassnes.execute import processes
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import process_identity
from parallelhassnes.store.queue import tickets
from tests.faults import invariants


def kill_everything(ctx, batch):
    """SIGKILL supervisors and workers, as a power cut does; returns the names of their attempts."""
    names = []
    for path in attempt_dirs(ctx, batch):
        state = read(path / "state.json")
        if state["status"] == "running":
            names.append(path.name)
            for pid in (state["pid"], state.get("worker_pid")):
                processes.send(pid, None, signal.SIGKILL)
            wait_for(lambda pid=state["pid"]: not process_identity.is_alive(pid, None), "its death")
    return names


def settled(ctx):
    def look():
        tick(ctx)
        return idle(ctx)

    return look


def test_after_the_whole_machine_died_the_next_tick_has_work_running_within_two_seconds(root):
    ctx = context(root, "concurrency = 4\n")
    wait = f"until test -e {root}/go; do sleep 0.02; done"
    batch = put(ctx, table(*(job(f"j{n}", shell("s", wait)) for n in range(4))))
    driver = started(root, "tick", "--until-idle", "--quiet")
    wait_for(
        lambda: sum(bool(read(path / "state.json").get("worker_pid")) for path in attempt_dirs(ctx, batch)) == 4,
        "four at work",
    )
    driver.kill()
    driver.communicate()
    dead = kill_everything(ctx, batch)
    assert len(dead) == 4
    began = time.monotonic()
    program(root, "scoreboard")
    usual = time.monotonic() - began  # what a start of the program takes on this machine just now
    began = time.monotonic()
    program(root, "tick")

    def again():
        found = [p for p in attempt_dirs(ctx, batch) if p.name not in dead]
        return any(read(p / "state.json").get("worker_pid") for p in found)

    wait_for(again, "work to run again")
    took = time.monotonic() - began
    print(f"running again after {took:.2f} s, the start of the program included")
    assert took < 2.0 * max(1.0, os.getloadavg()[0] / 2, 2 * usual)
    (root / "go").touch()
    wait_for(settled(ctx), "all four")
    assert states(ctx, batch) == {f"j{n}/s": ["lost", "succeeded"] for n in range(4)}
    assert invariants.broken(ctx) == []


def test_a_trial_that_had_its_result_is_kept_and_not_repeated(root):
    """Killed after Harbor wrote result.json and before the seal: the trial counts."""
    ctx = context(root)
    task = make_task(root, "task")
    trial = {
        "step_id": "t",
        "kind": "trial",
        "task": {"path": str(task)},
        "agent": {"name": "oracle"},
        "environment": {"type": "sandbox"},
    }
    batch = put(ctx, table(job("j", trial)))
    hold = root / "hold"
    process = started(root, "tick", env={"PYTHONPATH": f"{Path(__file__).parent}/late:{Path.cwd()}", "HOLD": str(hold)})
    process.communicate()
    (path,) = wait_for(lambda: list(attempt_dirs(ctx, batch)), "the attempt")

    def result():
        found = path / "trial" / "result.json"
        try:
            return json.loads(found.read_text()).get("verifier_result") if found.exists() else None
        except ValueError:
            return None

    wait_for(result, "the result")
    (killed,) = kill_everything(ctx, batch)
    assert not (path / "seal.json").exists()
    wait_for(settled(ctx), "the repair")
    assert states(ctx, batch) == {"j/t": ["succeeded"]}
    assert read(path / "final.json")["trial"]["reward"] == 1.0
    assert path.name == killed
    assert invariants.broken(ctx) == []


@pytest.mark.timeout(200)
def test_whoever_reads_while_a_batch_runs_sees_only_whole_files(root):
    ctx = context(root, "durable = false\nconcurrency = 4\n")
    (root / "parallelhassnes.toml").write_text("durable = false\nconcurrency = 4\nheartbeat_sec = 0.01\n")
    batch = put(
        ctx, table(*(job(f"j{n}", shell("a", "sleep 0.1"), shell("b", "exit 1", depends_on=["a"])) for n in range(40)))
    )
    driver = started(root, "tick", "--until-idle", "--quiet")
    looks, torn = 0, []
    while driver.poll() is None:
        for found in ctx.layout.runs.rglob("*.json"):
            if ctx.layout.temp in found.parents:  # what waits there for its rename is nobody's to read
                continue
            try:
                text = found.read_text()
            except FileNotFoundError:
                continue
            looks += 1
            try:
                json.loads(text)
            except ValueError:
                torn.append((found.relative_to(root), text[:80]))
        json.loads(program(root, "scoreboard", "--json").stdout)
    driver.communicate()
    assert looks > 50
    assert torn == []
    assert len(states(ctx, batch)) == 80
    assert not tickets.running(ctx.layout)
