"""The total of a batch counts what was added to it, and its counts add up to it, in every view at every moment."""

import json

import pytest
from harness import make_task
from stores import SUPPORT, context, idle, program, put, started, wait_for

from parallelhassnes.actions.analyze import analyze
from parallelhassnes.actions.append import append
from parallelhassnes.admin.audit import verify
from parallelhassnes.schedule.additions import add_steps
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.tables.model import AnalysisPart
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.show import show
from parallelhassnes.views.system_scoreboard import system_scoreboard
from parallelhassnes.views.watch_model import Follower


@pytest.fixture
def ctx(root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    return context(root, "concurrency = 2\n")


@pytest.fixture
def batch(ctx):
    """Two tasks with nop and a verdict each, ended; the table has four steps."""
    root = ctx.layout.root
    for name in ("one", "two"):
        make_task(root / "tasks", name)
    sweep = {
        "path": str(root / "tasks"),
        "agents": [{"name": "nop"}],
        "environment": "temp_environment:TempEnvironment",
    }
    made = put(ctx, json.dumps({"spec_version": "2.0", "sweep": sweep}).encode())
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch to end")
    return made


def totals(ctx, batch) -> set[int]:
    """What each view says of the batch, after a look whether it adds up."""
    board = batch_scoreboard(ctx.layout, batch)
    (line,) = system_scoreboard(ctx.layout, snapshot=False).batches
    found = set()
    for view in (board, line):
        assert sum(view.counts.model_dump().values()) == view.steps_total
        found.add(view.steps_total)
    counts = show(ctx.layout, batch).counts
    assert sum(job.counts.succeeded for job in board.jobs) == board.counts.succeeded
    look = Follower(ctx, [batch]).look()
    assert look.waiting + look.tally["running"] + look.over == look.total
    return found | {sum(counts.model_dump().values()), look.total}


def test_the_total_before_during_and_after(ctx, batch):
    assert totals(ctx, batch) == {4}
    following = Follower(ctx, [batch])
    assert following.look().total == 4
    seen = []
    append(ctx, batch, 3)
    while not idle(ctx):
        seen += [step.step for step in following.look().running]
        assert totals(ctx, batch) == {10}
    assert following.look().total == 10
    assert {step.rpartition(".")[0] for step in seen} <= {"one/nop", "two/nop", ""}
    assert "one/nop" in {step.rpartition(".")[0] for step in seen}
    assert totals(ctx, batch) == {10}
    analyze(ctx, f"{batch}/one", [AnalysisPart(engine="rules")])
    wait_for(lambda: idle(ctx), "the analyses")
    assert totals(ctx, batch) == {14}
    rebuild(ctx)
    assert totals(ctx, batch) == {14}
    (line,) = json.loads(program(ctx.layout.root, "scoreboard", "--json").stdout)["batches"]
    assert (line["steps_total"], line["counts"]["succeeded"], line["state"]) == (14, 14, "done")


def test_one_who_watches_while_steps_are_added(ctx, batch):
    """A tick that shows its progress goes on when a batch that it follows grows, and ends with what was added."""
    gate = ctx.layout.root / "gate"
    script = f"until [ -e {gate} ]; do sleep 0.02; done"
    command = {"step_id": "a", "kind": "command", "command": ["sh", "-c", script]}
    newest = put(ctx, json.dumps({"spec_version": "2.0", "jobs": [{"job_id": "j", "steps": [command]}]}).encode())
    env = SUPPORT
    watching = started(ctx.layout.root, "tick", "--until-idle", env=env)
    try:
        wait_for(lambda: batch_scoreboard(ctx.layout, newest).counts.running, "the command")
        append(ctx, f"{batch}/two", 2)
    finally:
        gate.touch()
        out, err = watching.communicate(timeout=100)
    assert watching.returncode == 0, (out, err)
    board = batch_scoreboard(ctx.layout, batch)
    assert (board.counts.succeeded, board.steps_total) == (6, 6)


def test_a_rebuild_tells_of_additions_whose_mark_was_lost(ctx, batch, monkeypatch):
    def crash(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(add_steps.ledger, "append", crash)
        with pytest.raises(KeyboardInterrupt):
            append(ctx, batch, 1)
    for mark in ctx.layout.added.iterdir():
        mark.unlink()
    rebuild(ctx)
    assert totals(ctx, batch) == {6}
    tick(ctx)
    wait_for(lambda: idle(ctx), "what was added")
    assert verify.verify(ctx.layout).problems == []
    assert totals(ctx, batch) == {6}
