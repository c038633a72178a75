"""Who keeps which descriptor: no detached child a step's lock, no supervisor what its caller passed in."""

import os
import signal
import subprocess
import sys

import pytest
from stores import CHECKOUT, attempt_dirs, context, environment, idle, job, put, read, shell, states, table, wait_for

from parallelhassnes.execute import processes
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import process_identity


def test_a_detached_child_of_a_dead_worker_does_not_keep_its_step(root):
    """Out of the worker's group, session and environment: nothing names the attempt but the lock that it holds."""
    ctx = context(root)
    pids = root / "pids"
    away = f"test -e {pids} && exit 0; (env -i setsid sh -c 'echo $$ > {pids}; exec sleep 300' &); sleep 300"
    batch = put(ctx, table(job("j", shell("s", away)), retry={"max_attempts": 2, "backoff_sec": 0}))
    tick(ctx)
    (path,) = wait_for(lambda: list(attempt_dirs(ctx, batch)), "the attempt")
    wait_for(lambda: pids.exists() and pids.read_text().strip(), "its detached child")
    child = int(pids.read_text())
    lock = path.parents[1] / "step.lock"
    assert child in processes.inheritors(lock)
    os.kill(read(path / "state.json")["pid"], signal.SIGKILL)

    def over():
        tick(ctx)
        return idle(ctx)

    wait_for(over, "the repair and the retry")
    assert not process_identity.is_alive(child, None)
    assert processes.inheritors(lock) == []
    assert states(ctx, batch) == {"j/s": ["lost", "succeeded"]}


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_a_caller_passes_in_is_not_kept(root, start):
    ctx = context(root)
    go, lock = root / "go", root / "cron.lock"
    step = shell("s", f"ls -l /proc/self/fd >&2; until test -e {go}; do sleep 0.05; done")
    batch = put(ctx, table(job("j", step, shell("t", "true", depends_on=["s"]))))
    ticking = [sys.executable, "-m", "parallelhassnes", "tick", "--root", str(root)]
    done = subprocess.run(
        ["flock", "-n", str(lock), *ticking],
        env=environment({"PARALLELHASSNES_START": start}),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: "fd" in said(ctx, batch), "what the worker has open")
    assert "cron.lock" not in said(ctx, batch)
    assert subprocess.run(["flock", "-n", str(lock), "true"]).returncode == 0
    go.touch()
    wait_for(lambda: idle(ctx), "the end")
    assert states(ctx, batch) == {"j/s": ["succeeded"], "j/t": ["succeeded"]}


def said(ctx, batch):
    return "".join(
        (path / "stderr.log").read_text() for path in attempt_dirs(ctx, batch) if (path / "stderr.log").exists()
    )
