"""explain: why a step is where it is."""

import json
import re

from stores import command, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.actions import pause_resume
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.queue import delayed, tickets
from parallelhassnes.views.explain import explain


def why(ctx, batch, step):
    found = {one.step: one for one in explain(ctx, f"{batch}/{step}").steps}[step]
    return found.state, " / ".join(found.why)


def test_it_names_the_dependency_the_limit_the_end_and_who_paused(root):
    ctx = context(root, "concurrency = 5\n[limits]\nslow = 1\n")
    go = root / "go"
    hold_on = f"until test -e {go}; do sleep 0.02; done"
    batch = put(
        ctx,
        table(
            job(
                "a",
                shell("first", hold_on, queue_key="slow"),
                shell("second", "true", queue_key="slow"),
                command("after", "true", depends_on=["first"]),
            ),
            job("b", shell("bad", "exit 3"), command("never", "true", depends_on=["bad"])),
            job("c", shell("gone", "exit 1")),
        ),
    )
    tick(ctx)
    wait_for(
        lambda: len(tickets.running(ctx.layout)) == 1 and not tickets.ended(ctx.layout),
        "all but the first to be settled",
    )
    assert why(ctx, batch, "a/first")[0] == "running"
    state, text = why(ctx, batch, "a/second")
    assert state == "ready"
    assert "slow is full: 1 of 1 live (configured)" in text
    assert why(ctx, batch, "a/after") == ("blocked", "blocked: waiting for a/first")
    state, text = why(ctx, batch, "b/bad")
    assert state == "failed"
    assert "no other attempt: agent_error is not retried" in text
    assert "b/bad failed" in why(ctx, batch, "b/never")[1]
    pause_resume.pause(ctx, batch, "lunch")
    state, text = why(ctx, batch, "a/second")
    assert state == "blocked"
    assert "paused by" in text
    assert "lunch" in text
    pause_resume.resume(ctx, batch)
    pause_resume.drain(ctx, None, "reboot")
    assert "is draining" in why(ctx, batch, "a/second")[1]
    pause_resume.undrain(ctx)
    pause_resume.limit(ctx, "slow", 2)
    go.touch()
    wait_for(lambda: idle(ctx), "the rest")
    document = json.loads(program(root, "explain", batch, "--json").stdout)
    assert {step["step"] for step in document["steps"]} == {"b/bad", "b/never", "c/gone"}


def test_it_says_until_when_a_retry_is_delayed(root):
    ctx = context(root)
    retry = {"classes": {"agent_error": {"retry": True, "backoff_sec": 500}}}
    batch = put(ctx, table(job("j", shell("s", "exit 1")), retry=retry))
    tick(ctx)
    wait_for(lambda: delayed.every(ctx.layout) and not tickets.ended(ctx.layout), "the settled failure")
    state, text = why(ctx, batch, "j/s")
    assert state == "ready"
    (delay,) = re.findall(r"another attempt: agent_error: again after (\d+) s", text)
    assert 500 <= int(delay) <= 600
    assert "1 of 3 attempts used" in text
    assert "its backoff ends at" in text
    program(root, "cancel", batch)
    assert why(ctx, batch, "j/s")[0] == "failed"
    assert idle(ctx)
