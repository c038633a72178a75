"""pause, resume, close, reopen, drain, undrain, limit, priority: files that the passes obey while ticks run."""

import json

import pytest
from stores import command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.actions import pause_resume
from parallelhassnes.errors import UnknownId
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.queue import queue_keys, tickets


def held_open(root, count, **more):
    """A table of jobs that run until the file ``go`` is there."""
    loop = f"until test -e {root / 'go'}; do sleep 0.02; done"
    return table(*(job(f"j{n}", shell("s", loop, **more)) for n in range(count)))


def events(folder):
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("stop", "go_on", "field"), [("pause", "resume", "paused"), ("close", "reopen", "closed")])
def test_a_held_batch_ends_what_runs_starts_nothing_and_goes_on_at_once(root, stop, go_on, field):
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, held_open(root, 3))
    tick(ctx)
    wait_for(lambda: tickets.running(ctx.layout), "the first")
    said = [program(root, stop, batch, "--reason", "not now").stdout for _ in range(2)]
    assert "as before" not in said[0]
    assert "as before" in said[1]
    (root / "go").touch()
    wait_for(lambda: not tickets.running(ctx.layout), "the end of the first")
    for _ in range(2):
        program(root, "tick")
    rebuild(ctx)
    program(root, "tick")
    assert states(ctx, batch) == {"j0/s": ["succeeded"]}
    assert "not now" in read(ctx.layout.batch(batch) / "control.json")[field]["reason"]
    assert "not now" in program(root, "scoreboard", batch).stdout
    program(root, "run", "examples/tasks/hello", "-e", "sandbox", "-q")  # does not wait for it
    program(root, go_on, batch)  # no tick after it
    wait_for(lambda: idle(ctx), "the rest")
    assert states(ctx, batch) == {f"j{n}/s": ["succeeded"] for n in range(3)}
    past = {"pause": "paused", "close": "closed", "resume": "resumed", "reopen": "reopened"}
    logged = [e for e in events(ctx.layout.batch(batch)) if e["event"] in past.values()]
    assert [e["event"] for e in logged] == [past[stop], past[go_on]]
    assert logged[0]["reason"] == "not now"
    assert "@" in logged[0]["by"]


def test_a_paused_queue_key_holds_its_steps_in_every_batch_and_no_others(root):
    ctx = context(root)
    hold_key = shell("s", "true", queue_key="my/model")
    first = put(ctx, table(job("a", hold_key, command("free", "true"))))
    program(root, "pause", "My/Model", "--reason", "bill")
    second = put(ctx, table(job("b", hold_key)))
    tick(ctx)
    wait_for(lambda: not tickets.running(ctx.layout) and states(ctx, first), "the free one")
    assert states(ctx, first) == {"a/free": ["succeeded"]}
    assert states(ctx, second) == {}
    assert "my/model is paused" in program(root, "tick").stdout
    assert "my/model is paused" in program(root, "scoreboard").stdout
    program(root, "resume", "my/model")
    wait_for(lambda: idle(ctx), "both")
    assert states(ctx, second) == {"b/s": ["succeeded"]}
    said = [e["event"] for e in events(ctx.layout.system) if e["event"].startswith("key_")]
    assert said == ["key_paused", "key_resumed"]


def test_drain_starts_nothing_and_undrain_everything(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    program(root, "drain", "--reason", "reboot")
    tick(ctx)
    assert states(ctx, batch) == {}
    assert "draining" in program(root, "scoreboard").stdout
    program(root, "tick", "--until-idle", "-q", "--fail-on", "never")  # does not wait for it
    program(root, "undrain")
    wait_for(lambda: idle(ctx), "the step")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_a_limit_is_in_force_at_once_and_replaces_the_configured_one(root):
    ctx = context(root, "concurrency = 8\n[limits]\nslow = 1\n")
    put(ctx, held_open(root, 6, queue_key="slow"))
    tick(ctx)
    assert len(tickets.running(ctx.layout)) == 1
    program(root, "limit", "slow=3")
    assert len(tickets.running(ctx.layout)) == 3
    program(root, "limit", "slow=1")
    program(root, "tick")
    assert len(tickets.running(ctx.layout)) == 3, "what runs goes on"
    program(root, "limit", "slow=")
    program(root, "tick")
    assert len(tickets.running(ctx.layout)) == 3
    assert queue_keys.read(ctx.layout, "slow").limit is None
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "all six")
    assert len(queue_keys.read(ctx.layout, "slow").history) == 3


def test_priority_can_be_changed_while_things_run(root):
    ctx = context(root, "concurrency = 1\n")
    low = put(ctx, held_open(root, 2))
    tick(ctx)
    wait_for(lambda: tickets.running(ctx.layout), "the first")
    high = put(ctx, table(job("k", command("s", "true")), job("l", command("s", "true"))))
    program(root, "priority", high, "7")
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "all")
    order = sorted(
        (read(path / "meta.json")["created_at"], read(path / "meta.json")["batch_id"])
        for path in ctx.layout.runs.glob("*/*/steps/*/attempts/*")
    )
    assert [batch for _, batch in order] == [low, high, high, low]


@pytest.mark.parametrize(
    "words",
    [
        ("pause", "my/modle"),
        ("resume", "my/modle"),
        ("limit", "my/modle=3"),
        ("drain", "locla"),
        ("close", "x/y/z"),
        ("retry", "latest", "--class", "rate_limt"),
        ("limit", "my/model=x"),
    ],
    ids=" ".join,
)
def test_unknown_things_are_refused_with_the_nearest_known(root, words):
    ctx = context(root)
    put(ctx, table(job("j", command("s", "true", queue_key="my/model"))))
    done = program(root, *words, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    near = {"my/modle": "my/model", "locla": "local", "rate_limt": "rate_limit"}
    for wrong, right in near.items():
        if any(wrong in word for word in words):
            assert f"did you mean {right}?" in done.stderr


def test_the_functions_say_whether_anything_changed(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    assert pause_resume.pause(ctx, batch).changed
    assert not pause_resume.pause(ctx, batch).changed
    assert pause_resume.resume(ctx, batch).changed
    assert not pause_resume.resume(ctx, batch).changed
    with pytest.raises(UnknownId):
        pause_resume.pause(ctx, "nothing")
    wait_for(lambda: idle(ctx), "the step")
