"""A fact has one function that derives it: a batch's state, a key's limit, what there is to cancel, what is newest."""

import json

from stores import command, context, idle, job, program, put, shell, table, wait_for
from written import ZERO, Left, Writer

from parallelhassnes.actions import pause_resume
from parallelhassnes.actions.cancel_retry import cancel, retry
from parallelhassnes.refs import Found, newest_attempt
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.evidence import ledger
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.explain import explain
from parallelhassnes.views.show import show
from parallelhassnes.views.system_scoreboard import system_scoreboard

CLOSED = "k has a limit of 0 (configured), so nothing starts on it; `parallelhassnes limit k N` allows N at a time"


def states(ctx, batch):
    """The batch's state as each view has it."""
    (line,) = [one for one in system_scoreboard(ctx.layout).batches if one.batch_id == batch]
    return {line.state, batch_scoreboard(ctx.layout, batch).state, show(ctx.layout, batch).state}


def test_what_was_skipped_leaves_a_batch_done_in_every_view(root):
    writer = Writer(context(root))
    agents = [{"name": "terminus-2", "model_name": "openai/x", "n_trials": 3}]
    batch = writer.submit(["alpha"], agents, sweep={"enough": {"successes": 1}})
    writer.go_on(lambda _name, _number: Left())
    board = batch_scoreboard(writer.ctx.layout, batch)
    assert (board.counts.succeeded, board.counts.canceled) == (2, 2)
    assert states(writer.ctx, batch) == {"done"}
    pause_resume.drain(writer.ctx, None)
    retry(writer.ctx, Found(batch_id=batch, job_id="alpha", step_id=show_skipped(writer, batch)))
    cancel(writer.ctx, Found(batch_id=batch))
    assert states(writer.ctx, batch) == {"canceled"}


def show_skipped(writer, batch):
    """A step that was skipped."""
    found = [line for line in show(writer.ctx.layout, batch).steps if line.state == "canceled"]
    return found[0].step.partition("/")[2]


def test_a_limit_of_0_is_said_by_every_view_and_an_operators_limit_opens_the_key(root):
    ctx = context(root, "[limits]\nk = 0\n")
    batch = put(ctx, table(job("j", shell("s", "true", queue_key="k"))))
    tick(ctx)
    (line,) = [key for key in system_scoreboard(ctx.layout).queue if key.queue_key == "k"]
    assert (line.limit, line.limit_why, line.paused) == (0, "configured", CLOSED)
    assert states(ctx, batch) == {"blocked"}
    (step,) = explain(ctx, batch).steps
    assert (step.state, step.why[0]) == ("blocked", f"blocked: {CLOSED}")
    assert "nothing starts: configured" in program(root, "scoreboard").stdout
    pause_resume.limit(ctx, "k", 2)
    wait_for(lambda: idle(ctx), "the step")
    (line,) = [key for key in system_scoreboard(ctx.layout).queue if key.queue_key == "k"] or [None]
    assert line is None
    assert states(ctx, batch) == {"done"}


def test_the_limit_in_force_is_the_strictest_of_all_tables_there_and_says_whose(root):
    ctx = context(root, "concurrency = 5\n[limits]\nk = 4\n")
    go = root / "go"
    wait = f"until test -e {go}; do sleep 0.02; done"
    first = put(ctx, table(job("j", shell("s", wait, queue_key="k")), limits={"k": 1}))
    tick(ctx)
    second = put(ctx, table(job("j", shell("s", "true", queue_key="k"))))
    tick(ctx)
    (line,) = system_scoreboard(ctx.layout).queue
    assert (line.live, line.limit, line.limit_why) == (1, 1, f"by the table of {first}")
    (step,) = explain(ctx, second).steps
    assert f"k is full: 1 of 1 live (by the table of {first})" in step.why
    go.touch()
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the end")


def test_of_what_is_over_there_is_nothing_to_cancel(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", shell("bad", "exit 1"), command("never", "true", depends_on=["bad"]))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the end")
    before = ledger.size(ctx.layout.batch(batch)), states(ctx, batch)
    for target in (batch, f"{batch}/j", f"{batch}/j/bad"):
        said = program(root, "cancel", target)
        assert said.stdout == f"nothing to cancel: {target} is over\n"
    document = json.loads(program(root, "cancel", batch, "--json").stdout)
    assert (document["ok"], document["changed"], document["steps"]) == (True, False, [])
    assert (ledger.size(ctx.layout.batch(batch)), states(ctx, batch)) == before
    assert not (ctx.layout.batch(batch) / "control.json").exists()
    assert "1 not started" in program(root, "cancel", f"{batch}/j/never").stdout


def test_the_newest_attempt_is_of_a_step_that_works_not_of_the_verdict(root):
    writer = Writer(context(root))
    batch = writer.submit(["alpha"], [{"name": "nop"}])
    writer.go_on(lambda _name, _number: ZERO)
    found = newest_attempt(writer.ctx.layout, "latest")
    kinds = {line.step: line.kind for line in show(writer.ctx.layout, batch).steps}
    assert set(kinds.values()) == {"trial", "verdict"}
    assert kinds[f"{found.job_id}/{found.step_id}"] == "trial"
