"""A slot that is freed on a host which does not decide is filled by the next turn of the one that does, and the next there."""

import os
from dataclasses import replace
from math import inf
from pathlib import Path

import joined_hosts
import pytest
from joined_hosts import as_host, member

from parallelhassnes.schedule import runner_loop
from parallelhassnes.schedule.process import attempt_process
from parallelhassnes.schedule.tick import try_pass
from parallelhassnes.store import decider, hosts
from parallelhassnes.store.queue import handed, tickets

FREE_SEC = 0.3
"""For as long at most a slot may be free."""


@pytest.fixture
def taken(monkeypatch) -> list[tuple[attempt_process.Assignment, int]]:
    """What the loops start, with its lock, in place of the process."""
    found: list[tuple[attempt_process.Assignment, int]] = []
    monkeypatch.setattr(
        runner_loop, "start", lambda _ctx, assignment, lock, _then: found.append((assignment, os.dup(lock)))
    )
    return found


def ended(ctx, assignment, lock) -> None:
    """Be the attempt's process, to its end, with what it does for its host after that."""
    child = os.fork()
    if not child:
        code = 1
        try:
            attempt_process.run(ctx, assignment, lock, lambda ctx: None if try_pass(ctx) else os._exit(2))
            code = 0
        finally:
            os._exit(code)
    os.close(lock)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_freed_slot_is_filled_by_one_turn_of_each_host(root: Path, taken):
    ctx = joined_hosts.three(root, steps=4)
    (root / "parallelhassnes.toml").write_text("heartbeat_sec = 60\n")  # no beat moves meanwhile
    hosts.join(ctx.layout, member(ctx.layout, "h2", hosts.machine().boot_id))  # this process is both
    (ctx.layout.runners / "h1" / "drain").touch()  # it only decides
    acts = runner_loop.Acts(try_pass, try_pass, lambda _: None)
    first = runner_loop._Loop(ctx, acts, 1, None)
    other = runner_loop._Loop(replace(as_host(ctx, "h2"), options=ctx.options), acts, 1, None)
    decider.claim_right(ctx.layout, None)
    other.turn()  # it beats
    first.turn()
    other.turn()
    for number in range(1, 4):
        for loop in (first, other):  # none of what comes only now and then
            loop.next_beat = loop.next_tick = inf
        assert len(taken) == number
        assert handed.handed(ctx.layout, "h2") == [], "it has one slot"
        before, lock = taken[-1]
        ended(other.ctx, before, lock)
        assert [path.name for path in tickets.ended(ctx.layout)] == [before.ticket]
        first.turn()
        assert tickets.ended(ctx.layout) == []
        assert len(handed.handed(ctx.layout, "h2")) == 1
        other.turn()
    os.close(taken[-1][1])
    assert len({assignment.ticket for assignment, _ in taken}) == 4
    assert 2 * runner_loop.TURN_SEC < FREE_SEC, "so the two turns are the most of it"
