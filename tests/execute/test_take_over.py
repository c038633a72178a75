"""A supervisor whose attempt is sealed goes on with the next one, and harms none that it started before."""

import os
import signal

import pytest
from stores import attempt_dirs, context, idle, job, put, read, shell, states, step_of, table, wait_for

from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import locks, process_identity
from parallelhassnes.store.queue import tickets


def waits(step_id, path, *, then="true", **more):
    """A step that ends once there is a file; one that ended at once might do so in the pass that started it, which goes on then."""
    return shell(step_id, f"until [ -e {path} ]; do sleep 0.05; done; {then}", **more)


def running(ctx, batch, *steps):
    """Whether these run, so that the passes that started them are over."""
    return all(states(ctx, batch).get(f"j/{step}") == ["running"] for step in steps)


def supervisors(ctx, batch) -> dict[str, int]:
    return {step_of(p): read(p / "state.json")["pid"] for p in attempt_dirs(ctx, batch)}


def test_one_process_supervises_one_attempt_after_the_other(tmp_path):
    ctx = context(tmp_path, "concurrency = 1\n")
    go = tmp_path / "go"
    steps = [waits("s", go, then=f"echo word{n}") for n in range(5)]
    batch = put(ctx, table(*(job(f"j{n}", step) for n, step in enumerate(steps))))
    tick(ctx)
    go.touch()
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch) == {f"j{n}/s": ["succeeded"] for n in range(5)}
    assert len(set(supervisors(ctx, batch).values())) == 1
    for path in attempt_dirs(ctx, batch):
        assert (path / "stdout.log").read_text() == f"word{step_of(path)[1]}\n"


def test_what_it_started_before_lives_on_when_its_next_attempt_ends(tmp_path):
    ctx = context(tmp_path, "concurrency = 4\n")
    begin, go = tmp_path / "begin", tmp_path / "go"
    first = waits("a", begin)
    short = shell("b", "sleep 300 & echo forked away", depends_on=["a"])
    others = [waits(s, go, depends_on=["a"]) for s in "cd"]
    batch = put(ctx, table(job("j", first, short, *others)))
    tick(ctx)
    begin.touch()
    wait_for(lambda: states(ctx, batch).get("j/b") == ["succeeded"], "the one that ends first")
    wait_for(lambda: running(ctx, batch, *"cd"), "the others")
    found = supervisors(ctx, batch)
    assert found["j/b"] == found["j/a"], "it went on in the same process"
    assert len({*found.values()}) > 1, "a process goes on with one of them and forks for another"
    go.touch()
    wait_for(lambda: idle(ctx), "the others")
    assert states(ctx, batch) == {f"j/{s}": ["succeeded"] for s in "abcd"}


def test_what_others_started_meanwhile_lives_on_too(tmp_path):
    """A supervisor that has ended leaves behind what it started; none of it may fall to one that still runs."""
    ctx = context(tmp_path, "concurrency = 4\n")
    begin, first, short, second = (tmp_path / name for name in ("begin", "first", "short", "second"))
    steps = [
        waits("a", begin),
        waits("b", first, depends_on=["a"]),
        waits("c", short, depends_on=["a"]),
        shell("d", "true", depends_on=["c"]),
        waits("e", second, depends_on=["c"]),
    ]
    batch = put(ctx, table(job("j", *steps)))
    tick(ctx)
    begin.touch()
    wait_for(lambda: running(ctx, batch, *"bc"), "the two after the first")
    short.touch()
    wait_for(lambda: states(ctx, batch).get("j/d") == ["succeeded"], "the short ones")
    wait_for(lambda: running(ctx, batch, "e"), "the last one")
    found = supervisors(ctx, batch)
    assert found["j/a"] == found["j/b"], "the first went on"
    assert found["j/c"] == found["j/d"] != found["j/e"], "the second started another, and ended"
    wait_for(lambda: not process_identity.is_alive(found["j/d"], None), "the end of the second")
    first.touch()
    wait_for(lambda: states(ctx, batch)["j/b"] == ["succeeded"], "the end of the first")
    second.touch()
    wait_for(lambda: idle(ctx), "the rest")
    assert states(ctx, batch) == {f"j/{s}": ["succeeded"] for s in "abcde"}


def two_that_end_together(ctx, tmp_path, until):
    """Run two steps that end while ``tick.lock`` is held, until something is so; their batch, of which two steps are left, and their supervisors."""
    begin, go = tmp_path / "begin", tmp_path / "go"
    steps = [*(waits(s, begin) for s in "ab"), *(waits(s, go) for s in "cd")]
    batch = put(ctx, table(job("j", *steps)))
    tick(ctx)
    wait_for(lambda: running(ctx, batch, *"ab"), "the first two")
    found = supervisors(ctx, batch)
    with locks.held(ctx.layout.tick_lock):
        begin.touch()
        wait_for(lambda: len(tickets.ended(ctx.layout)) == 2, "two ends that nobody settles")
        until(found)
    return batch, found


def test_each_of_two_that_end_while_the_lock_is_held_goes_on_as_one_of_the_next(tmp_path):
    ctx = context(tmp_path, "concurrency = 2\n")
    batch, before = two_that_end_together(ctx, tmp_path, lambda _: None)
    wait_for(lambda: running(ctx, batch, *"cd"), "the next two")
    found = supervisors(ctx, batch)
    assert {found["j/c"], found["j/d"]} == {before["j/a"], before["j/b"]}
    assert not locks.is_waited_for(ctx.layout.tick_waiting)
    (tmp_path / "go").touch()
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch) == {f"j/{s}": ["succeeded"] for s in "abcd"}


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_what_is_left_to_one_that_dies_or_stands_still_as_it_waits_is_started_soon(tmp_path, signum):
    ctx = context(tmp_path, "concurrency = 2\n")
    # Another that waits, for whom more would be left.
    locks.queue_up(ctx.layout.tick_waiting)
    try:
        batch, before = two_that_end_together(ctx, tmp_path, lambda found: os.kill(found["j/a"], signum))
        wait_for(lambda: running(ctx, batch, *"cd"), "the next two, without a tick")
        found = supervisors(ctx, batch)
        assert before["j/b"] in (found["j/c"], found["j/d"])
        assert before["j/a"] not in (found["j/c"], found["j/d"])
    finally:
        locks.leave_queue()
        os.kill(before["j/a"], signal.SIGKILL)
    (tmp_path / "go").touch()
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch) == {f"j/{s}": ["succeeded"] for s in "abcd"}


def test_a_queue_is_seen_as_long_as_its_last_process_lives(tmp_path):
    path = tmp_path / "waiting"
    assert not locks.is_waited_for(path)
    locks.queue_up(path)
    locks.queue_up(path)
    assert locks.is_waited_for(path)
    if (child := os.fork()) == 0:
        locks.drop_held()  # as every process does that a supervisor starts
        signal.pause()
    locks.leave_queue()
    try:
        wait_for(lambda: not locks.is_waited_for(path), "the child to drop what is its parent's")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
