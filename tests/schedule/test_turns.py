"""Whose turn it is: the order on disk is a hint that may be lost, is obeyed at any length, and what it passes over waits."""

import shutil
import time

import pytest
from stores import attempt_dirs, command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.actions import pause_resume
from parallelhassnes.actions.cancel_retry import cancel
from parallelhassnes.refs import Found
from parallelhassnes.schedule import queue_order as order
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.schedule.tick import run_pass, tick
from parallelhassnes.store import batches
from parallelhassnes.store.queue import queue_keys, tickets, turns
from parallelhassnes.store.queue.queue_keys import Breaker


def starts(ctx, batch_ids):
    """The batches in the order in which their first attempts were made."""
    made = {b: min(read(path / "meta.json")["created_at"] for path in attempt_dirs(ctx, b)) for b in batch_ids}
    return sorted(batch_ids, key=made.__getitem__)


def small(name="s"):
    return table(job("j", command(name, "true")))


def occupied(ctx, go):
    """A batch whose only step holds the only slot until ``go`` is there."""
    batch = put(ctx, table(job("j", shell("s", f"until [ -e {go} ]; do sleep 0.02; done")), priority=9))
    tick(ctx)
    wait_for(lambda: tickets.running(ctx.layout), "the slot to be taken")
    return batch


@pytest.mark.parametrize("lost", ["all", "one", "a folder"])
def test_turns_that_were_lost_are_found_as_in_a_store_of_an_earlier_version(root, lost):
    ctx = context(root)
    made = [put(ctx, small()) for _ in range(5)]
    if lost == "all":
        shutil.rmtree(ctx.layout.turns)
    else:
        (folder,) = ctx.layout.turns.glob("*/new")
        shutil.rmtree(folder) if lost == "a folder" else (folder / made[2]).unlink()
    program(root, "tick")
    wait_for(lambda: idle(ctx), "five batches")
    assert [states(ctx, batch) for batch in made] == [{"j/s": ["succeeded"]}] * 5
    assert not list(turns.in_order(ctx.layout, "command"))


def test_a_turn_that_leads_to_nothing_is_removed(root):
    ctx = context(root)
    for number in range(3):
        turns.announce(ctx.layout, "command", f"20261121T00000{number}Z-mmmmmmmm")
    batch = put(ctx, small())
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    wait_for(lambda: not [p for p in ctx.layout.turns.rglob("*") if p.is_file()], "stale turns to go")


def test_a_priority_that_is_set_while_batches_wait_is_obeyed(root, tmp_path):
    ctx = context(root, "concurrency = 1\n")
    first = occupied(ctx, tmp_path / "go")
    made = [put(ctx, small()) for _ in range(6)]
    tick(ctx)  # each has its place
    pause_resume.priority(ctx, made[4], 5)
    pause_resume.priority(ctx, made[1], -5)
    pause_resume.priority(ctx, made[5], 5)
    (tmp_path / "go").touch()
    wait_for(lambda: idle(ctx), "seven batches")
    assert starts(ctx, [first, *made]) == [first, *(made[n] for n in (4, 5, 0, 2, 3, 1))]


def test_more_paused_batches_than_a_pass_looks_at_hide_nothing_and_go_on_when_they_may(root, monkeypatch):
    monkeypatch.setattr(turns, "_LOOKS", 3)
    ctx = context(root, "concurrency = 1\n")
    made = [put(ctx, small()) for _ in range(8)]
    for batch in made[:7]:
        pause_resume.pause(ctx, batch)
    tick(ctx)
    wait_for(lambda: states(ctx, made[7]), "the one that may start")
    wait_for(lambda: not tickets.running(ctx.layout) and not tickets.ended(ctx.layout), "its end")
    assert not any(states(ctx, batch) for batch in made[:7])
    pause_resume.resume(ctx, made[3])
    wait_for(lambda: states(ctx, made[3]) == {"j/s": ["succeeded"]}, "the one that was resumed")
    for batch in made[:7]:
        pause_resume.resume(ctx, batch)
    wait_for(lambda: idle(ctx), "all of them")
    assert all(states(ctx, batch) == {"j/s": ["succeeded"]} for batch in made)


def test_the_limit_of_a_table_whose_turn_is_far_off_holds_for_those_before_it(root, tmp_path):
    ctx = context(root, "concurrency = 4\n")
    seen = tmp_path / "seen"
    seen.mkdir()
    script = f"touch {seen}/$PARALLELHASSNES_STEP_ID; ls {seen} | wc -l >> {tmp_path}/most; sleep 0.1; rm {seen}/$PARALLELHASSNES_STEP_ID"
    made = [put(ctx, table(job("j", *(shell(f"b{b}s{n}", script, queue_key="k") for n in range(3))))) for b in range(2)]
    made.append(put(ctx, table(job("j", shell("last", script, queue_key="k")), limits={"k": 1}, priority=-1)))
    program(root, "tick")
    wait_for(lambda: idle(ctx), "seven steps")
    assert starts(ctx, made)[-1] == made[2]
    assert set((tmp_path / "most").read_text().split()) == {"1"}


def test_batches_that_have_been_served_come_after_those_that_have_not_and_take_turns(root):
    ctx = context(root, "concurrency = 1\n")
    made = [put(ctx, table(job("j", *(command(f"s{n}", "true") for n in range(3))))) for _ in range(3)]
    program(root, "tick")
    wait_for(lambda: idle(ctx), "nine steps")
    order = sorted(
        (read(path / "meta.json")["created_at"], batch) for batch in made for path in attempt_dirs(ctx, batch)
    )
    assert [batch for _, batch in order] == made * 3


def test_a_turn_that_was_noted_under_a_clock_that_was_ahead_is_placed_anew(root, tmp_path):
    ctx = context(root, "concurrency = 1\n")
    occupied(ctx, tmp_path / "go")
    made = [put(ctx, small()) for _ in range(3)]
    tick(ctx)
    (turn,) = (turn for turn in turns.in_order(ctx.layout, "command") if turn.batch_id == made[0])
    ahead = time.time() + 400 * 86400
    turns.move(turn, turns.place(ctx.layout, "command", made[0], priority=0, served=ahead, arrival=""))
    (tmp_path / "go").touch()
    wait_for(lambda: idle(ctx), "the batches")
    assert starts(ctx, made) == made


def refused(ctx, key, mark=""):
    """Have the key paused for a credential, for longer than a test takes."""
    now = time.time()
    pause = Breaker(failure_class="auth", line="no", attempt="b/j/s/a", at=now, interval_sec=900, probe_at=now + 900)
    queue_keys.write(ctx.layout, queue_keys.read(ctx.layout, key).with_breaker(mark, pause))


@pytest.fixture
def looked(monkeypatch):
    """The batches that passes of this process look at."""
    found, look = [], order.KeyLanes._look

    def noted(line, turn):
        found.append(turn.batch_id)
        return look(line, turn)

    monkeypatch.setattr(order.KeyLanes, "_look", noted)
    return found


def test_what_waits_behind_a_higher_priority_is_not_looked_at(root, tmp_path, looked):
    ctx = context(root, "concurrency = 2\n")
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    first = put(ctx, table(job("j", *(shell(f"s{n}", wait) for n in range(3))), priority=5))
    others = [put(ctx, small()) for _ in range(8)]
    tick(ctx)
    assert set(states(ctx, first)) == {"j/s0", "j/s1"}
    assert len(set(looked)) <= 2, "the second start of a batch looks no further than the first of a lower priority"
    (tmp_path / "go").touch()
    wait_for(lambda: idle(ctx), "all of them")
    assert all(states(ctx, batch) == {"j/s": ["succeeded"]} for batch in others)


def test_a_pass_looks_at_a_few_of_those_that_a_paused_key_refuses_and_all_go_on_after_it(root, monkeypatch, looked):
    monkeypatch.setattr(turns, "_LOOKS", 3)
    ctx = context(root, "concurrency = 2\n")
    made = [put(ctx, table(job("j", shell("s", "true", queue_key="k")))) for _ in range(12)]
    refused(ctx, "k")
    tick(ctx)
    assert set(looked) == set(made), "each once, in case that it has another credential"
    assert set(queue_keys.read(ctx.layout, "k").breakers[""].batches) == set(made)
    other = put(ctx, small())
    looked.clear()
    program(root, "tick", "--until-idle", "--fail-on", "never")  # its passes look, not ours
    assert states(ctx, other) == {"j/s": ["succeeded"]}
    before = queue_keys.read(ctx.layout, "k")
    run_pass(ctx)  # as a supervisor's end has it, without a tick's look at everything
    assert len(set(looked)) <= 3
    assert queue_keys.read(ctx.layout, "k") == before
    assert not any(states(ctx, batch) for batch in made)
    pause_resume.resume(ctx, "k")
    wait_for(lambda: idle(ctx), "all of them")
    assert all(states(ctx, batch) == {"j/s": ["succeeded"]} for batch in made)


def test_a_step_with_a_credential_of_its_own_starts_behind_any_number_of_refused_ones(root, monkeypatch):
    monkeypatch.setenv("API_KEY", "k" * 24)
    ctx = context(root, "concurrency = 2\n")
    many = [shell(f"a{n:03d}", "true", queue_key="k") for n in range(40)]
    own = [shell(f"b{n}", "true", queue_key="k", env={"X_KEY": "${API_KEY}"}) for n in range(6)]
    batch = put(ctx, table(job("j", *many, *own)))
    step = batches.read_job(ctx.layout.job(batch, "j")).step("a000")
    refused(ctx, "k", credentials.of_step(ctx, credentials.given(ctx, batch), step).mark)

    def all_own():
        run_pass(ctx)
        return len(states(ctx, batch)) == 6

    wait_for(all_own, "the steps that are given another key")
    assert {key[:3] for key in states(ctx, batch)} == {"j/b"}
    cancel(ctx, Found(batch_id=batch), "")  # nobody is to wait for the next probe
    wait_for(lambda: idle(ctx), "the rest to be canceled")
