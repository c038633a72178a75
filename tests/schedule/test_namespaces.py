"""A root that a host and a container tick, under one host name: neither takes the other's live attempts for dead."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import (
    CHECKOUT,
    attempt_dirs,
    context,
    environment,
    idle,
    job,
    program,
    put,
    read,
    shell,
    states,
    table,
    wait_for,
)

from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import process_identity
from parallelhassnes.store.records import AttemptState

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.namespaces,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a pid namespace with its own /proc"),
]
FAST = "durable = false\n"
INSIDE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
HIDDEN = ("unshare", "--pid", "--fork", "--kill-child")
"""As INSIDE, with the host's ``/proc``, in which the container's processes have other pids."""


@contextmanager
def ticking(ctx: Context, *inside: str) -> Iterator["subprocess.Popen[str]"]:
    """A tick that waits, in a pid namespace of its own; killed with all that is in there at the end."""
    container = subprocess.Popen(
        [
            *inside,
            sys.executable,
            "-m",
            "parallelhassnes",
            "tick",
            "--until-idle",
            "--quiet",
            "--root",
            str(ctx.layout.root),
        ],
        env=environment(),
        cwd=CHECKOUT,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield container
    finally:
        if container.poll() is None:
            kill_inside(container)


def kill_inside(container: "subprocess.Popen[str]") -> None:
    """Kill the first process of the namespace, and so the kernel all others."""
    for pid in processes.children(container.pid):
        os.kill(pid, signal.SIGKILL)
    container.wait(60)


def tick_inside(ctx: Context, *inside: str) -> None:
    command = [*inside, sys.executable, "-m", "parallelhassnes", "tick", "--root", str(ctx.layout.root)]
    subprocess.run(command, env=environment(), cwd=CHECKOUT, check=True, capture_output=True)


def beats(ctx: Context, batch: str) -> int:
    attempts = list(attempt_dirs(ctx, batch))
    return read(attempts[-1] / "state.json")["heartbeat"]["count"] if attempts else 0


def waiting(ctx: Context) -> str:
    script = f"touch {ctx.layout.root}/begun; until [ -e {ctx.layout.root}/go ]; do sleep 0.02; done"
    return put(ctx, table(job("j", shell("s", script))))


@pytest.mark.parametrize("inside", [INSIDE, HIDDEN], ids=["own /proc", "the host's /proc"])
def test_ticks_of_the_host_leave_the_live_attempts_of_a_container_alone(root, inside):
    ctx = context(root, FAST)
    batch = waiting(ctx)
    with ticking(ctx, *inside) as container:
        wait_for((root / "begun").exists, "the attempt in the container")
        wait_for(lambda: beats(ctx, batch), "its heartbeat")
        for _ in range(3):
            before = beats(ctx, batch)
            assert "had died" not in program(root, "tick").stderr
            wait_for(lambda before=before: beats(ctx, batch) > before, "it to go on")
        (attempt,) = attempt_dirs(ctx, batch)
        state = AttemptState(**read(attempt / "state.json"))
        assert state.supervisor_lives() is None
        assert process_identity.is_of_this_kernel(state.pid_table)
        (running,) = json.loads(program(root, "scoreboard", batch, "--json").stdout)["running"]
        assert running["alive"] is None
        program(root, "doctor", "--reap", check=False)
        assert states(ctx, batch) == {"j/s": ["running"]}
        (root / "go").touch()
        assert container.wait(60) == 0
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_ticks_of_a_container_leave_the_live_attempts_of_the_host_alone_also_where_a_lock_was_removed(root):
    ctx = context(root, FAST)
    batch = waiting(ctx)
    program(root, "tick")
    wait_for((root / "begun").exists, "the attempt")
    wait_for(lambda: beats(ctx, batch), "its heartbeat")
    tick_inside(ctx, *INSIDE)
    (ctx.layout.step(batch, "j", "s") / "step.lock").unlink()
    tick_inside(ctx, *INSIDE)  # the lock is free, the heartbeat is not: it lives
    before = beats(ctx, batch)
    wait_for(lambda: beats(ctx, batch) > before, "it to go on")
    (root / "go").touch()
    wait_for(lambda: states(ctx, batch) == {"j/s": ["succeeded"]}, "its end")


def test_a_cancel_from_the_host_reaches_an_attempt_in_a_container(root):
    ctx = context(root, FAST)
    batch = waiting(ctx)
    with ticking(ctx, *INSIDE) as container:
        wait_for((root / "begun").exists, "the attempt in the container")
        wait_for(lambda: beats(ctx, batch), "its heartbeat")
        program(root, "cancel", batch)
        container.wait(60)
    assert states(ctx, batch) == {"j/s": ["canceled"]}


def test_what_a_container_leaves_as_it_dies_is_ended_by_the_host(root):
    ctx = context(root, FAST)
    batch = waiting(ctx)
    with ticking(ctx, *INSIDE) as container:
        wait_for((root / "begun").exists, "the attempt in the container")
        wait_for(lambda: beats(ctx, batch), "its heartbeat")
        kill_inside(container)
    (root / "go").touch()

    def ended() -> bool:
        program(root, "tick")
        return idle(ctx) and states(ctx, batch)["j/s"][-1] == "succeeded"

    wait_for(ended, "the host to end it and try again", 90)
    assert states(ctx, batch) == {"j/s": ["lost", "succeeded"]}


def test_a_tick_leaves_what_a_process_of_another_namespace_is_writing(root):
    ctx = context(root, FAST)
    code = (
        "import sys; from parallelhassnes.store import atomic; from pathlib import Path;"
        "atomic.set_temp(Path(sys.argv[1])); p = atomic.temp_path('x'); p.write_text('half'); print(p, flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [*INSIDE, sys.executable, "-c", code, str(ctx.layout.temp)],
        env=environment(),
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        half = Path(writer.stdout.readline().strip())
        program(root, "tick")
        assert half.read_text() == "half"
    then = time.time() - 4000
    os.utime(half, (then, then))
    program(root, "tick")
    assert not half.exists()


def test_records_of_earlier_versions_go_by_the_hosts_name():
    earlier = {"status": "running", "run_id": "r", "heartbeat": {"count": 0, "at": "2026-01-01T00:00:00Z"}}
    pid, started = os.getpid(), process_identity.start_time(os.getpid())
    here = AttemptState(**earlier, host=os.uname().nodename, pid=pid, pid_start=started)
    assert here.supervisor_lives() is True
    assert here.model_copy(update={"pid_start": 1}).supervisor_lives() is False
    assert here.model_copy(update={"host": "another"}).supervisor_lives() is None
    assert here.model_copy(update={"pid_table": "another boot/1"}).supervisor_lives() is None
    assert here.model_copy(update={"pid_table": process_identity.table()}).supervisor_lives() is True
