"""Repair: end what died. Without ``tick.lock``; each attempt under its own ``step.lock``.

A running ticket whose ``step.lock`` is free belongs to a dead supervisor. Its attempt is handed, with the
lock, to a process of its own that kills what is left, takes what the worker had finished, seals and
settles. Where the lock is held by a worker that outlived its supervisor, the worker is killed first. Processes of a container
on the same root cannot be looked up here, and those that can be seen from the host have other pids there: its attempts
are judged by lock and heartbeat alone.
"""

import os
import signal
from functools import partial
from pathlib import Path

from parallelhassnes.execute import processes
from parallelhassnes.schedule import quarantine
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.launch import start
from parallelhassnes.schedule.process.attempt_process import Assignment, Then
from parallelhassnes.store import attempts, batches, locks, members, process_identity
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import AttemptState, Ticket


def repair(ctx: Context, then: Then) -> list[str]:
    """Hand every dead attempt to a process that ends it; their names."""
    repaired = []
    for entry in tickets.running(ctx.layout):
        with members.apart(entry.path, partial(_set_aside, ctx, entry)):
            attempt = _repair(ctx, entry, then)
            if attempt is not None:
                repaired.append(attempt)
    return repaired


def _set_aside(ctx: Context, entry: tickets.Running, error: Exception) -> None:
    if members.is_there(entry.path):  # else it ended just then
        quarantine.set_aside(ctx, entry.path, error)


def _repair(ctx: Context, entry: tickets.Running, then: Then) -> str | None:
    """Hand the attempt of a running ticket to a process that ends it, if it is dead; its name."""
    ticket = tickets.read(entry.path)
    step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
    lock = locks.claim(step_dir / "step.lock")
    if lock is None:
        _kill_abandoned_worker(step_dir)
        return None
    try:
        batches.read_step(ctx.layout, ticket)
        assignment = _to_end(ctx, entry, ticket, step_dir)
    except BaseException:
        os.close(lock)
        raise
    if assignment is not None:
        start(ctx, assignment, lock, then)
    os.close(lock)
    return assignment.attempt if assignment else None


def _to_end(ctx: Context, entry: tickets.Running, ticket: Ticket, step_dir: Path) -> Assignment | None:
    if not entry.path.exists():  # it ended between the listing and the lock
        return None
    ref = attempts.newest(step_dir)
    if ref is None or attempts.is_sealed(ref.dir):
        tickets.end_running(ctx.layout, entry.key_dir, entry.name)
        return None
    if _is_supervised(ref.dir, ctx.config.heartbeat_sec):  # somebody has removed the lock's file under it
        return None
    return Assignment(
        root=str(ctx.layout.root),
        batch_id=ticket.batch_id,
        job_id=ticket.job_id,
        step_id=ticket.step_id,
        attempt=ref.name,
        key_dir=entry.key_dir,
        ticket=entry.name,
        dead=True,
        options=ctx.options,
    )


def _kill_abandoned_worker(step_dir: Path) -> None:
    """Kill a worker whose supervisor is dead; the lock is free once it is, for this repair or the next."""
    ref = attempts.newest(step_dir)
    if ref is None or attempts.is_sealed(ref.dir):
        return
    state = attempts.read_state(ref.dir)
    if _supervisor_lives(state):
        return
    if state.worker_pid and state.worker_lives():
        processes.kill_group(state.worker_pid)
    processes.kill_run(state.run_id)
    # What has detached itself, its environment too. The next attempt's worker holds the same lock, but not before the seal.
    for pid in processes.inheritors(step_dir / "step.lock"):
        if attempts.is_sealed(ref.dir):
            return
        processes.send(pid, None, signal.SIGKILL)


def _is_supervised(attempt_dir: Path, heartbeat_sec: float) -> bool:
    state = attempts.read_state(attempt_dir)
    lives = state.supervisor_lives()
    if lives is None and process_identity.is_of_this_kernel(state.pid_table):  # a container's
        return attempts.has_beaten(attempt_dir, heartbeat_sec)
    return bool(lives)


def _supervisor_lives(state: AttemptState) -> bool:
    """Tell whether it lives as far as can be seen from here; one that has not said its pid yet is just starting."""
    return state.pid is None or state.supervisor_lives() is not False
