"""The job of Slurm that is one attempt: what begins on the node, asked for by ``cluster_jobs``.

Its host joins the root first, once per start of the host. Then the process takes what was handed over, by rename, so that a job which Slurm
starts twice finds nothing to do, and becomes the attempt's supervisor. It runs no pass: the host that decides is told by a wish.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from parallelhassnes.errors import UserError
from parallelhassnes.execute import logs, own_files, slurm
from parallelhassnes.names import run_id_of
from parallelhassnes.schedule import configuration, health
from parallelhassnes.schedule.context import Context, Options, open_context
from parallelhassnes.schedule.process import attempt_process
from parallelhassnes.schedule.process.attempt_process import Assignment
from parallelhassnes.steps.registry import kind as kind_of
from parallelhassnes.store import atomic, attempts, batches, hosts, identity, locks
from parallelhassnes.store.queue import handed

_LOOK_SEC = 0.1
_SEEN_SEC = 5.0
"""Besides the time of the caches, for what was handed over to be seen here."""
_LOCK_SEC = 60.0
_EARLY_SEC = 65.0
"""Slurm may tell a job so long before the moment that was asked for."""


def run(root: Path, ticket: str, attempt: str) -> None:
    """Be the supervisor of the attempt; returns where it is not, or no more, to be begun here."""
    is_out_of_time = _watch_time()
    ctx = _joined(root)
    assignment = _take(ctx, ticket, attempt)
    if assignment is None:
        logs.say(f"{attempt} is not to be begun here: another job has, or it was taken back")
        return
    attempt_dir = assignment.attempt_dir(ctx.layout)
    step_dir = attempt_dir.parents[1]
    lock = _lock(step_dir / "step.lock")
    is_fenced = partial(attempts.is_fenced, step_dir, run_id_of(attempt))
    if lock is None or attempts.wait_until_told(is_fenced):
        logs.say(f"{attempt} was given up by the host that decides")
        handed.let_go(ctx.layout, handed.JOBS, ticket)
        return
    step = batches.read_job(ctx.layout.job(assignment.batch_id, assignment.job_id)).step(assignment.step_id)
    kind_of(step.kind).preload(step)
    started_under = attempts.read_meta(attempt_dir).config_sha256
    ctx = replace(ctx, config=configuration.version(ctx.layout, started_under) or ctx.config)
    logs.say(f"runs {attempt} of {assignment.batch_id}/{assignment.job_id}/{assignment.step_id}")
    log = own_files.open_log(attempt_dir / "supervisor.log")
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    attempt_process.run(ctx, assignment, lock, _wish, partial(is_out_of_time, ctx))


def _wish(ctx: Context) -> None:
    health.wish(ctx.layout)


def _watch_time() -> Callable[[Context], bool]:
    """Tell from when on a job that is told to end is out of time."""
    began, left = time.monotonic(), slurm.own_left_sec()

    def is_out_of_time(ctx: Context) -> bool:
        soon = slurm.before_end_sec(ctx.config.grace_sec) + _EARLY_SEC
        if left is None or began + left - time.monotonic() > soon:
            return False
        now = slurm.own_job()  # it may be canceled, or taken away, in its last minute, too
        if now is None:
            return True
        if now.state != "RUNNING":
            return "TIMEOUT" in now.state or now.reason == "TimeLimit"
        return now.left_sec is not None and now.left_sec <= soon

    return is_out_of_time


def _joined(root: Path) -> Context:
    """Open the root as a host that has joined; one job of this host does so, and the others wait for it.

    Raises:
        UserError: this host cannot join.
    """
    options = Options(is_pulled=True)
    ctx = open_context(root, options)
    identity.check(ctx.layout)
    if not ctx.layout.runner:
        with locks.held(ctx.layout.hosts / f".joining.{hosts.machine().boot_id}", _LOCK_SEC * 2):
            ctx = open_context(root, options)
            if not ctx.layout.runner:
                from parallelhassnes.schedule.joining.ask_probe import join  # most jobs find that another has

                join(ctx, answers=False)
        ctx = open_context(root, options)
    if not ctx.layout.runner:
        raise UserError(f"this host has not joined {root}", fix="see `parallelhassnes doctor --hosts`")
    return ctx


def _take(ctx: Context, ticket: str, attempt: str) -> Assignment | None:
    """Take what was handed over; None where it is not this attempt, or somebody else was faster."""
    path = ctx.layout.runners / handed.JOBS / "handed" / ticket
    end = time.monotonic() + hosts.cache_sec(ctx.layout) + _SEEN_SEC
    while (said := atomic.read_derived(path).get("attempt")) != attempt:
        if said is not None or time.monotonic() > end or (path.parents[1] / "taken" / ticket).exists():
            return None
        time.sleep(_LOOK_SEC)
    document = handed.take(ctx.layout, ticket, handed.JOBS)
    if document is None:
        return None
    given = Assignment.model_validate({**document, "root": str(ctx.layout.root)})
    return given.model_copy(update={"options": ctx.options})


def _lock(path: Path) -> int | None:
    """Take the step's lock; None where somebody else holds it for a minute."""
    end = time.monotonic() + _LOCK_SEC
    while (lock := locks.claim(path)) is None and time.monotonic() < end:
        time.sleep(_LOOK_SEC)
    return lock
