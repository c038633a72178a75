"""The baseline gate: a task whose baselines come out wrong costs nothing more, and a retry that mends it lets the rest start."""

import json
import signal

import pytest
from harness import make_task
from stores import SUPPORT, attempt_dirs, context, idle, put, read, states, wait_for

from parallelhassnes.actions import cancel_retry
from parallelhassnes.errors import InvalidInput
from parallelhassnes.execute import processes
from parallelhassnes.refs import Found
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.views import explain

ENVIRONMENT = "temp_environment:TempEnvironment"


@pytest.fixture
def sweep(root, monkeypatch):
    """Submits a gated sweep of one task with the scripted agent, which always solves it; the batch id."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    (root / "script").mkdir()
    (root / "script" / "words").write_text("ok")

    def submit(ctx, **task):
        path = make_task(root, **task)
        agent = {
            "import_path": "scripted_agent:ScriptedAgent",
            "kwargs": {"script": str(root / "script")},
            "n_trials": 2,
        }
        table = {
            "spec_version": "2.0",
            "baseline_gate": True,
            "analysis": "rules",
            "retry": {"max_attempts": 1},
            "sweep": {"path": str(path), "agents": [agent], "environment": ENVIRONMENT},
        }
        return put(ctx, json.dumps(table).encode())

    return submit


def run(ctx):
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch to end")


AGENTS = ("ScriptedAgent.1", "ScriptedAgent.2")


def test_a_sound_task_is_tried_after_its_baselines(root, sweep):
    ctx = context(root)
    batch = sweep(ctx)
    run(ctx)
    found = states(ctx, batch)
    assert {step: found[f"hello/{step}"] for step in ("oracle.1", "nop.1", "baseline", *AGENTS)} == {
        step: ["succeeded"] for step in ("oracle.1", "nop.1", "baseline", *AGENTS)
    }
    times = {p.parents[1].name: read(p / "state.json") for p in attempt_dirs(ctx, batch)}
    assert times["baseline"]["ended_at"] < min(times[a]["started_at"] for a in AGENTS)
    assert max(times[b]["ended_at"] for b in ("oracle.1", "nop.1")) < times["baseline"]["started_at"]


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ({"solution": "true"}, "oracle.1 has reward 0 and must pass"),
        ({"test": "echo 1 > /logs/verifier/reward.txt"}, "nop.1 has reward 1 and must not pass"),
        ({"test": "exit 0"}, "oracle.1 was not scored (verifier)"),
    ],
)
def test_a_broken_task_costs_nothing_more(root, sweep, task, why):
    ctx = context(root)
    batch = sweep(ctx, **task)
    run(ctx)
    found = states(ctx, batch)
    assert found["hello/verdict"] == ["succeeded"]
    assert not any(f"hello/{agent}" in found for agent in AGENTS)
    assert not (root / "script" / "run0").exists(), "the agent was run"
    lines = {step.step: step for step in explain.explain(ctx, batch).steps}
    for agent in AGENTS:
        assert lines[f"hello/{agent}"].state == "blocked"
        assert f"baseline: {why}" in lines[f"hello/{agent}"].why[0]
        assert lines[f"hello/{agent}.rules"].state == "blocked"
    verdict = read(ctx.layout.job(batch, "hello") / "verdict.json")
    assert verdict["task_broken"] is True
    before = read(ctx.layout.job(batch, "hello") / "current.json")
    rebuild(ctx)
    assert read(ctx.layout.job(batch, "hello") / "current.json") == before
    assert idle(ctx)


def test_a_mended_baseline_unblocks_the_rest(root, sweep):
    ctx = context(root)
    flag = root / "mended"
    batch = sweep(ctx, solution=f"test -e {flag} && echo hi > /app/out")
    run(ctx)
    assert "hello/ScriptedAgent.1" not in states(ctx, batch)
    flag.touch()
    cancel_retry.retry(ctx, Found(batch_id=batch, job_id="hello", step_id="oracle.1"))
    wait_for(lambda: idle(ctx), "the retry to end")
    found = states(ctx, batch)
    assert found["hello/baseline"] == ["failed", "succeeded"]
    assert all(found[f"hello/{agent}"] == ["succeeded"] for agent in AGENTS)
    assert all(found[f"hello/{agent}.rules"] == ["succeeded"] for agent in AGENTS)
    verdict = read(ctx.layout.job(batch, "hello") / "verdict.json")
    assert verdict["counts"]["passes"] >= 3


def test_the_gate_survives_a_kill_of_everything(root, sweep):
    ctx = context(root)
    batch = sweep(
        ctx, test="sleep 1; [ -f /app/out ] && echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt"
    )
    tick(ctx)

    def live():
        found = [p for p in attempt_dirs(ctx, batch) if not (p / "seal.json").exists()]
        return [read(p / "state.json") for p in found if (p / "state.json").exists()]

    running = wait_for(lambda: [s for s in live() if s["status"] == "running"], "a baseline to run")
    for state in running:
        for pid in (state["pid"], state.get("worker_pid")):
            processes.send(pid, None, signal.SIGKILL)  # the worker dies with its supervisor
    assert not any(f"hello/{agent}" in states(ctx, batch) for agent in AGENTS)
    operate_until_idle(ctx)
    cancel_retry.retry(ctx, Found(batch_id=batch, job_id="hello"), cancel_retry.Only(lost=True))
    wait_for(lambda: idle(ctx), "what was lost to be done again")
    found = states(ctx, batch)
    assert found["hello/baseline"][-1] == "succeeded"
    assert all(found[f"hello/{agent}"] == ["succeeded"] for agent in AGENTS)


def operate_until_idle(ctx):
    def done():
        tick(ctx)
        return idle(ctx)

    wait_for(done, "repair")


def test_jobs_that_are_written_out_need_their_baselines(root):
    ctx = context(root)
    path = str(make_task(root))
    step = {"kind": "trial", "task": {"path": path}, "environment": ENVIRONMENT}
    oracle, nop, other = ({**step, "step_id": name, "agent": name} for name in ("oracle", "nop", "codex"))
    table = {"spec_version": "2.0", "baseline_gate": True}
    with pytest.raises(InvalidInput, match="has no trial of nop"):
        put(ctx, json.dumps({**table, "jobs": [{"steps": [oracle, other]}]}).encode())
    batch = put(ctx, json.dumps({**table, "jobs": [{"steps": [oracle, nop, other]}]}).encode())
    job = read(ctx.layout.job(batch, "job1") / "job.json")
    waits = {one["step_id"]: one.get("depends_on", []) for one in job["steps"]}
    assert waits == {"oracle": [], "nop": [], "codex": ["job1/baseline"], "baseline": ["job1/oracle", "job1/nop"]}
