"""Analyses as steps: they start when their trial has ended for good, again when it is retried, and never without a trial."""

import pytest
from harness import make_task
from stores import SUPPORT, context, idle, job, put, read, shell, states, table, wait_for

from parallelhassnes.actions import cancel_retry
from parallelhassnes.refs import Found
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.views import explain

ENVIRONMENT = "temp_environment:TempEnvironment"


@pytest.fixture
def trial(root, monkeypatch):
    """A trial step of the task that the scripted agent solves or not, word by word."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    task = make_task(root)

    def make(words, step_id="t", **more):
        script = root / step_id
        script.mkdir()
        (script / "words").write_text(words)
        agent = {"import_path": "scripted_agent:ScriptedAgent", "kwargs": {"script": str(script)}}
        return {
            "step_id": step_id,
            "kind": "trial",
            "task": {"path": str(task)},
            "environment": ENVIRONMENT,
            "agent": agent,
            **more,
        }

    return make


def run(ctx):
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch to end")


def said(ctx, batch, step="t.rules"):
    """Outcome and subtype of each attempt of an analysis, oldest first."""
    found = sorted(ctx.layout.step(batch, "j", step).glob("attempts/*/final.json"))
    records = [read(path).get("analysis", {}) for path in found]
    return [(record.get("outcome"), record.get("subtype")) for record in records]


def test_a_failed_trial_is_analysed_and_the_verdict_waits_for_it(root, trial):
    ctx = context(root)
    steps = [trial("crash"), {"step_id": "verdict", "kind": "verdict"}]
    batch = put(ctx, table(job("j", *steps), analysis="rules", retry={"max_attempts": 1}))
    run(ctx)
    assert states(ctx, batch) == {"j/t": ["failed"], "j/t.rules": ["succeeded"], "j/verdict": ["succeeded"]}
    assert said(ctx, batch) == [("good_failure", "agent_crash")]
    verdict = next(ctx.layout.step(batch, "j", "verdict").glob("attempts/*"))
    analysis = next(ctx.layout.step(batch, "j", "t.rules").glob("attempts/*"))
    assert read(verdict / "state.json")["started_at"] > read(analysis / "state.json")["ended_at"]


def test_a_retried_trial_is_analysed_anew_and_judged_anew(root, trial):
    ctx = context(root)
    steps = [trial("crash ok"), {"step_id": "verdict", "kind": "verdict"}]
    batch = put(ctx, table(job("j", *steps), analysis="rules", retry={"max_attempts": 1}))
    run(ctx)
    cancel_retry.retry(ctx, Found(batch_id=batch, job_id="j", step_id="t"))
    wait_for(lambda: idle(ctx), "the retry to end")
    assert said(ctx, batch) == [("good_failure", "agent_crash"), ("unknown", "unknown")]
    assert states(ctx, batch)["j/verdict"][-1] == "succeeded"
    job_dir = ctx.layout.job(batch, "j")
    assert read(job_dir / "verdict.json")["counts"]["passes"] == 1


def test_no_trial_no_analysis_but_a_verdict(root, trial):
    ctx = context(root)
    steps = [shell("first", "exit 3"), trial("ok", depends_on=["first"]), {"step_id": "verdict", "kind": "verdict"}]
    batch = put(ctx, table(job("j", *steps), analysis="rules", retry={"max_attempts": 1}))
    run(ctx)
    assert states(ctx, batch) == {"j/first": ["failed"], "j/verdict": ["succeeded"]}
    lines = {step.step: step for step in explain.explain(ctx, batch).steps}
    assert lines["j/t.rules"].state == "blocked"
    assert "j/first failed" in lines["j/t.rules"].why[0]
    before = read(ctx.layout.job(batch, "j") / "current.json")
    rebuild(ctx)
    assert read(ctx.layout.job(batch, "j") / "current.json") == before


def test_a_retry_of_what_blocked_the_trial_brings_its_analysis_back(root, trial):
    ctx = context(root)
    flag = root / "flag"
    steps = [
        shell("first", f"test -e {flag}"),
        trial("zero", depends_on=["first"]),
        {"step_id": "verdict", "kind": "verdict"},
    ]
    batch = put(ctx, table(job("j", *steps), analysis="rules", retry={"max_attempts": 1}))
    run(ctx)
    flag.touch()
    cancel_retry.retry(ctx, Found(batch_id=batch, job_id="j", step_id="first"))
    wait_for(lambda: idle(ctx), "the retry to end")
    assert states(ctx, batch)["j/t.rules"] == ["succeeded"]
    assert read(ctx.layout.job(batch, "j") / "verdict.json")["counts"]["scored"] == 1
