"""Waiting for a lock that is not let go of."""

import signal
import subprocess
import sys
import time

import pytest
from stores import CHECKOUT, context, environment, job, put, shell, table

from parallelhassnes.actions.pause_resume import pause
from parallelhassnes.errors import StoreBusy
from parallelhassnes.store import locks

HOLDER = """
import sys
from parallelhassnes.store import locks
with locks.held(sys.argv[1]):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def stopped(root):
    """A process that holds ``tick.lock`` of a store and is stopped; the store's context, a batch, and the process."""
    ctx = context(root)
    batch_id = put(ctx, table(job("j", shell("s", "true"))))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ctx.layout.tick_lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
    )
    assert holder.stdout.readline() == "has it\n"
    holder.send_signal(signal.SIGSTOP)
    yield ctx, batch_id, holder
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a lock")
def test_who_waits_for_a_stopped_process_is_told_which(stopped, monkeypatch):
    ctx, batch_id, holder = stopped
    monkeypatch.setattr(locks, "PATIENCE_SEC", 0.3)
    with pytest.raises(StoreBusy, match=rf"process {holder.pid} has held .*tick.lock.*kill -CONT {holder.pid}"):
        pause(ctx, batch_id)
    assert not (ctx.layout.batch(batch_id) / "control.json").exists()


def test_who_waits_goes_on_as_soon_as_the_lock_is_free(stopped):
    ctx, batch_id, holder = stopped
    holder.send_signal(signal.SIGCONT)
    holder.stdin.close()
    began = time.monotonic()
    pause(ctx, batch_id)
    assert time.monotonic() - began < 30
    assert (ctx.layout.batch(batch_id) / "control.json").exists()
