"""A machine that goes on from a snapshot of its memory beside its original: one of both ends, and nothing that both ran counts."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from stores import wait_for

from parallelhassnes.store import decider, hosts
from tests.hosts.judge import judge
from tests.hosts.lab import Lab
from tests.hosts.scenarios import CAPACITY, TOML, Round

pytestmark = [pytest.mark.timeout(200), pytest.mark.hosts]
STEPS, STEP_SEC = 12, 2.0


def loops(host):
    """Processes of the host that call themselves its runner, as seen from outside."""
    title = f"parallelhassnes runner {host.name} of ".encode()
    found = []
    for pid in host.pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                found.append(pid)
    return found


def said(lab):
    return "\n".join(path.read_text() for path in lab.folder.glob("runner.*.log"))


def running_twice(lab, host):
    """What still runs there of what both have run."""
    marks = [f"PARALLELHASSNES_RUN_ID={run_id}".encode() for run_id in hosts.run_twice(lab.ctx.layout)]
    found = []
    for pid in host.pids():
        with contextlib.suppress(OSError):
            own = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found += [mark for mark in marks if mark in own]
    return found


def decides(lab, host):
    right = decider.right(lab.ctx.layout)
    return right is not None and right.runner == host.name and not right.given_up


@pytest.mark.parametrize("deciding", [True, False])
def test_one_of_two_ends_and_what_both_may_run_is_run_again(deciding):
    """Be it the host that decides or another one."""
    with Lab("same", TOML) as lab:
        story = Round(lab, ("h1", "h2"))
        copied, other = story.hosts
        lab.join(copied, other)
        program = (sys.executable, "-m", "tests.hosts.copied_runner", str(lab.root), str(CAPACITY))
        starts = {copied: lambda: copied.popen(*program), other: lambda: lab.runner(other, "--capacity", str(CAPACITY))}
        first, second = (copied, other) if deciding else (other, copied)
        starts[first]()
        wait_for(lambda: decides(lab, first), "the right")
        starts[second]()
        wait_for(lambda: hosts.beat_of(lab.ctx.layout, second.name), "both to beat")
        lab.submit(other, STEPS, STEP_SEC)
        wait_for(lambda: {ran.host for ran in lab.witness.runs()} == {"h1", "h2"}, "both to be at work")
        (runner,) = wait_for(lambda: len(found := loops(copied)) == 1 and found, "the one loop")
        os.kill(runner, signal.SIGUSR1)
        wait_for(lambda: "another process beats as h1: is this machine a copy" in said(lab), "one to see the other")
        wait_for(lambda: not running_twice(lab, copied), "what may run twice to be ended")
        lab.witness.befell("cut", copied.name)
        wait_for(lambda: len(loops(copied)) == 1, "one to end")
        story.steps = STEPS
        wait_for(lambda: story.at_rest() and story.ran() == STEPS, "the work to be done", 100)
        assert len(loops(copied)) == 1, said(lab)
        assert said(lab).count("another process beats") == 1
        found = judge(lab.witness, lab.disk, (copied, other), steps=STEPS)
        assert not found.faults, (found, said(lab))
        assert found.statuses["lost"] >= 1


def test_a_loop_that_begins_beside_one_that_beats_as_it_does_nothing():
    """As by cron's tick on a copied machine, whose own loop has ended; its locks are its own."""
    with Lab("same", TOML) as lab:
        host, other = lab.host("h1"), lab.host("h2")
        lab.join(host, other)
        lab.runner(host, "--capacity", "1")
        wait_for(lambda: hosts.beat_of(lab.ctx.layout, "h1"), "it to beat")
        lock = lab.disk / "runners" / "h1" / "loop.lock"
        lock.rename(lock.with_name("loop.lock.original"))
        done = host.ours("runner", "--name", "h1", root=lab.root)
        assert "another process beats as h1: is this machine a copy" in done.stderr + done.stdout
        assert len(loops(host)) == 1
