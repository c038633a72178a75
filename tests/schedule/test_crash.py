"""What dies is ended, kept and, where that is the policy, run again; nothing is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from stores import (
    CHECKOUT,
    attempt_dirs,
    command,
    context,
    environment,
    idle,
    job,
    program,
    put,
    read,
    shell,
    started,
    states,
    table,
    wait_for,
)

from parallelhassnes.execute import processes
from parallelhassnes.schedule import repair
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import process_identity
from parallelhassnes.store.queue import tickets


def running_state(ctx, batch):
    """state.json of the one attempt, once its worker runs."""

    def look():
        for path in attempt_dirs(ctx, batch):
            state = read(path / "state.json")
            if state["status"] == "running" and state.get("worker_pid"):
                return state
        return None

    return wait_for(look, "a running attempt")


def said(path: Path):
    """The number that a worker wrote into a file."""
    return wait_for(lambda: path.exists() and path.read_text().strip(), str(path))


def test_the_worker_and_its_children_die_with_the_supervisor(root):
    ctx = context(root)
    pid_file = root / "pid"
    batch = put(
        ctx,
        table(
            job("j", shell("s", f"sleep 300 & echo $! > {pid_file}; setsid sleep 301 & wait")),
            retry={"max_attempts": 1},
        ),
    )
    tick(ctx)
    state = running_state(ctx, batch)
    child = int(said(pid_file))
    os.kill(state["pid"], signal.SIGKILL)

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "the repair")
    assert states(ctx, batch) == {"j/s": ["lost"]}
    path = next(attempt_dirs(ctx, batch))
    assert (path / "seal.json").exists()
    assert read(path / "final.json")["status"] == "lost"
    assert not process_identity.is_alive(state["worker_pid"], state["worker_start"])
    assert not process_identity.is_alive(child, None)
    assert not processes.with_run_id(state["run_id"])


def test_what_has_an_environment_of_its_own_dies_with_what_started_it(root):
    """As a container of Singularity, whose processes know nothing of the attempt: a session, a pid namespace and files of their own."""
    ctx = context(root)
    pid_file = root / "pid"
    close = 'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done'
    inside = "env -i setsid unshare --user --map-root-user --pid --fork sh -c 'sleep 300 & sleep 301'"
    step = command("s", "bash", "-c", 'bash -c "$1" & wait', "bash", f"{close}; {inside} & echo $! > {pid_file}; wait")
    batch = put(ctx, table(job("j", step), retry={"max_attempts": 1}))
    tick(ctx)
    state = running_state(ctx, batch)
    container = int(said(pid_file))
    below = wait_for(lambda: processes.children(container), "its first process")[0]
    for pid in (below, container):
        assert pid not in processes.with_run_id(state["run_id"])
    os.kill(state["pid"], signal.SIGKILL)

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "the repair")
    assert states(ctx, batch) == {"j/s": ["lost"]}
    assert not process_identity.is_alive(container, None)
    assert not process_identity.is_alive(below, None)


def test_a_worker_that_outlives_its_supervisor_is_ended_and_never_doubled(root):
    """The kernel's death signal is cleared by a set-uid exec or by prctl; then only the lock tells."""
    ctx = context(root)
    survive = "import ctypes, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); print('up', flush=True); time.sleep(300)"
    batch = put(
        ctx, table(job("j", command("s", "python3", "-c", survive)), retry={"max_attempts": 2, "backoff_sec": 0})
    )
    tick(ctx)
    state = running_state(ctx, batch)
    path = next(attempt_dirs(ctx, batch))
    assert said(path / "stdout.log") == "up"
    os.kill(state["pid"], signal.SIGKILL)
    wait_for(lambda: not process_identity.is_alive(state["pid"], state["pid_start"]), "its death")
    assert process_identity.is_alive(state["worker_pid"], state["worker_start"])

    def second():
        tick(ctx)
        return len(list(attempt_dirs(ctx, batch))) == 2

    wait_for(second, "the second attempt")
    assert not process_identity.is_alive(state["worker_pid"], state["worker_start"])
    program(root, "cancel", batch)
    wait_for(lambda: idle(ctx), "the end")


def test_a_killed_tick_loses_nothing(root):
    ctx = context(root, "concurrency = 2\n")
    batch = put(ctx, table(*(job(f"j{n}", shell("s", "sleep 0.05")) for n in range(12)), retry={"backoff_sec": 0}))
    process = started(root, "tick", "--until-idle", "--quiet")
    wait_for(lambda: tickets.running(ctx.layout), "the first attempts")
    process.kill()
    process.communicate()
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch, without the killed process")
    found = states(ctx, batch)
    assert len(found) == 12
    # The one attempt that was just being started when the kill came may be lost, and is repeated.
    assert sorted({tuple(each) for each in found.values()}) in (
        [("succeeded",)],
        [("lost", "succeeded"), ("succeeded",)],
    )


def test_everything_killed_at_once_is_taken_up_again(root):
    ctx = context(root, "concurrency = 4\n")
    flag = root / "go"
    batch = put(
        ctx,
        table(
            *(job(f"j{n}", shell("s", f"until test -e {flag}; do sleep 0.02; done")) for n in range(6)),
            retry={"max_attempts": 3, "backoff_sec": 0},
        ),
    )
    tick(ctx)
    wait_for(lambda: len(tickets.running(ctx.layout)) == 4, "four at once")
    for path in list(attempt_dirs(ctx, batch)):
        wait_for(lambda path=path: read(path / "state.json").get("worker_pid"), "its worker")
        state = read(path / "state.json")
        os.kill(state["pid"], signal.SIGKILL)  # first, or it would write down its worker's death
        with contextlib.suppress(ProcessLookupError):  # the worker dies with it
            os.kill(state["worker_pid"], signal.SIGKILL)
    flag.touch()

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "all six")
    found = states(ctx, batch)
    assert len(found) == 6
    assert {tuple(each) for each in found.values()} <= {("succeeded",), ("lost", "succeeded")}
    for path in attempt_dirs(ctx, batch):
        assert (path / "seal.json").exists()


def test_a_finished_attempt_without_a_seal_is_sealed_and_not_repeated(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    path = next(attempt_dirs(ctx, batch))
    final = (path / "final.json").read_bytes()
    (path / "seal.json").unlink()  # as if the supervisor had died before the seal
    program(root, "doctor", "--rebuild", check=False)

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "the seal")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    assert (path / "final.json").read_bytes() == final
    assert (path / "seal.json").exists()


def test_an_attempt_that_was_prepared_but_never_started_is_lost_and_repeated(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true")), retry={"max_attempts": 2, "backoff_sec": 0}))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    path = next(attempt_dirs(ctx, batch))
    state = read(path / "state.json")
    for name in ("seal.json", "final.json", "final.txt", "state.json"):
        (path / name).unlink()
    queued = {key: state[key] for key in ("schema_version", "run_id", "heartbeat", "host")}
    (path / "state.json").write_text(json.dumps({**queued, "status": "queued"}))
    program(root, "doctor", "--rebuild", check=False)

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "the second attempt")
    assert states(ctx, batch) == {"j/s": ["lost", "succeeded"]}


def test_a_step_past_its_deadline_is_ended_even_if_it_ignores_sigterm(root):
    ctx = context(root, "")
    (root / "parallelhassnes.toml").write_text("heartbeat_sec = 0.2\ngrace_sec = 0.3\n")
    ctx = context(root)
    (root / "parallelhassnes.toml").write_text("heartbeat_sec = 0.2\ngrace_sec = 0.3\n")
    batch = put(
        ctx,
        table(
            job("j", shell("s", "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 300\" & sleep 300", timeout_sec=0.5))
        ),
    )
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the deadline")
    path = next(attempt_dirs(ctx, batch))
    state = read(path / "state.json")
    assert (state["status"], state["failure"]["failure_class"]) == ("failed", "agent_timeout")
    assert not processes.with_run_id(state["run_id"])


def test_ctrl_c_stops_watching_and_not_the_attempts(root):
    ctx = context(root)
    flag = root / "go"
    batch = put(ctx, table(job("j", shell("s", f"until test -e {flag}; do sleep 0.02; done"))))
    process = started(root, "tick", "--until-idle")
    state = running_state(ctx, batch)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cancel" in errors
    assert "scoreboard" in errors
    assert process_identity.is_alive(state["worker_pid"], state["worker_start"])
    flag.touch()
    wait_for(lambda: idle(ctx), "the attempt")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


LOOKING = """
import fcntl, os, sys
from pathlib import Path
from parallelhassnes.schedule.context import open_context
from parallelhassnes.schedule.tick import tick
root = Path(sys.argv[1])

def look(event, arguments):
    if event == "os.rename" and "/ended/" in str(arguments[1]):
        (lock,) = root.glob("runs/*/j/steps/s/step.lock")
        handle = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = "free"
        except BlockingIOError:
            said = "held"
        os.close(handle)
        with open(root / "said", "a") as stream:
            stream.write(said)

sys.addaudithook(look)
tick(open_context(root))
"""


def test_a_ticket_is_ended_under_its_steps_lock(root):
    """Else one that stands still before it moves its ticket would move that of the step's next attempt."""
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    script = [sys.executable, "-c", LOOKING, str(root)]
    subprocess.run(script, check=True, cwd=CHECKOUT, env=environment())
    wait_for(lambda: idle(ctx), "the end")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    assert (root / "said").read_text() == "held"


def test_a_repair_that_comes_late_leaves_the_next_attempts_worker_alone(root, monkeypatch):
    """While it looked through the processes another repair has ended the attempt, and the step's next one works."""
    ctx = context(root, "concurrency = 1\n")
    batch = put(
        ctx,
        table(
            job("j", shell("s", f"until test -e {root}/go; do sleep 0.02; done")),
            retry={"max_attempts": 3, "backoff_sec": 0},
        ),
    )
    tick(ctx)
    first = running_state(ctx, batch)
    looked = processes.inheritors

    def late(lock):
        monkeypatch.undo()
        with contextlib.suppress(ProcessLookupError):  # the kernel may have ended it with its supervisor
            os.kill(first["worker_pid"], signal.SIGKILL)
        wait_for(lambda: not processes.is_alive(first["worker_pid"], None), "the end of the first")
        tick(ctx)
        wait_for(lambda: len(states(ctx, batch)["j/s"]) == 2 and running_state(ctx, batch), "the second")
        return looked(lock)

    monkeypatch.setattr(processes, "inheritors", late)
    os.kill(first["pid"], signal.SIGKILL)
    wait_for(lambda: not processes.is_alive(first["pid"], None), "the supervisor's end")
    repair._kill_abandoned_worker(ctx.layout.step(batch, "j", "s"))
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "the end")
    assert states(ctx, batch) == {"j/s": ["lost", "succeeded"]}
