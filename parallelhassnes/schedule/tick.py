"""One pass of the scheduler, and the tick around it.

A *pass* runs under ``tick.lock``: settle what ended, promote what is due, launch what the limits allow.
Whoever wants one first leaves ``pass.wanted``, then tries the lock. The holder looks
for ``pass.wanted`` again after it has let go, so a wish that came during a pass is served by another one
and none is lost. Nobody has to wait for it. A supervisor that has ended does so for a moment (``tick.waiting``), since it can go on as the
next attempt: who holds the lock leaves another pass to it, and starts no second attempt. Should it die there, the waker has the pass made. A holder that runs no pass (an operator's command), has crashed, failed, or is awaited by an attempt that it
has taken over leaves the file; the waker, the next pass, or cron's tick serves it. ``health`` tells where nobody ticks.

What an attempt needs is imported between two passes, never under the lock: for Harbor that takes a second.

A *tick* is what cron runs: it also ingests tables, repairs what died and reports this runner's health.
"""

import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from parallelhassnes.execute import launcher, logs
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule import checkpointing, configuration, health, ingest, reboot
from parallelhassnes.schedule.additions import add_steps
from parallelhassnes.schedule.context import ENTRY_POINTS, Context, renewed
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.launch import Launched, launch_ready, preload
from parallelhassnes.schedule.process import archiving, notifying, runner_heartbeat, shared_images, timer
from parallelhassnes.schedule.rebuild import mend, pass_over, rebuild
from parallelhassnes.schedule.repair import repair
from parallelhassnes.schedule.rules.step_state import stand
from parallelhassnes.schedule.settle import settle_ended
from parallelhassnes.store import atomic, batches, decider, hosts, identity, locks, members, process_identity, space
from parallelhassnes.store.queue import delayed, tickets, turns
from parallelhassnes.store.records import Ticket

_TURN_SEC = 2.0
"""For so long a supervisor that has ended waits for ``tick.lock``; it can take over what starts, for which others would have to fork."""


class TickReport(NamedTuple):
    """What one tick did."""

    ingested: list[ingest.Ingested]
    repaired: list[str]
    """Names of attempts that had died."""
    launched: list[Launched]
    passed_over: list[str]
    """What of the store could not be read, a line each; damaged batches not among them, which are told as what waits."""
    failed: bool = False
    """The pass failed: it is noted, and tried again."""


def tick(ctx: Context) -> TickReport:
    """Ingest, repair, launch, report; waits for no attempt."""
    identity.check(ctx.layout)
    ctx = check_host.as_one_of_several(renewed(ctx))
    check_host.check(ctx)
    check_host.answer_others(ctx)
    with members.collecting(alone=True) as passed_over:
        if ctx.layout.runner and not decider.decides(ctx.layout):
            _see_to_loop(ctx)
            report = TickReport([], [], [], [])
        else:
            report = _tick(ctx)
    return report._replace(passed_over=passed_over)


def _tick(ctx: Context) -> TickReport:
    ingested: list[ingest.Ingested] = []
    repaired: list[str] = []
    with space.waiting_for_space("tick"):
        if not all(folder.is_dir() for folder in ctx.layout.folders()):
            rebuild(ctx)
        reboot.recover(ctx)
        atomic.sweep_temp(ctx.layout.temp, lambda pid: process_identity.is_alive(pid, None))
    with space.waiting_for_space("ingest"):
        ingested = ingest.ingest_incoming(ctx)
    with space.waiting_for_space("repair"):
        repaired = repair(ctx, after_attempt)
        mend(ctx)
        turns.recall(ctx.layout)
    checkpointing.want_daily(ctx)
    launched, failed = [], False
    try:
        launched = pass_and_wake(ctx)
    except identity.NoStore:
        raise
    except Exception:  # noqa: BLE001 - noted, with its traceback, and told by every view
        failed = True
    shared_images.remove_unneeded(ctx)
    with space.waiting_for_space("health"):
        live = partial(_live, ctx)
        runner_heartbeat.report_health(ctx.layout, ctx.runner_id, capacity=ctx.concurrency, live=live)
    launcher.reap()
    return TickReport(ingested, repaired, launched, [], failed)


def _live(ctx: Context) -> int:
    return len(tickets.running(ctx.layout))


def run_pass(ctx: Context) -> list[Launched]:
    """Run a pass, or leave it to the process that holds the lock. Return the attempts that this process has started.

    One that fails is noted, and the wish for it stays.
    """
    started: list[Launched] = []
    with space.waiting_for_space("pass"):
        try:
            _pass(ctx, started)
        except identity.NoStore:
            raise
        except Exception as error:
            health.failed(ctx.layout, error)
            health.wish(ctx.layout)
            notifying.keep(ctx)
            raise
    if not launcher.has_taken():  # an attempt waits for this process
        checkpointing.keep(ctx)
        notifying.keep(ctx)
        archiving.keep(ctx)
    return started


def try_pass(ctx: Context) -> bool:
    """As ``run_pass``, for a process that nobody looks at: whether it succeeded."""
    try:
        run_pass(ctx)
    except identity.NoStore as error:
        logs.say(f"{error}; nothing is left to do here")
        return False
    except Exception:  # noqa: BLE001 - noted, with its traceback; the waker tries again, then whoever comes
        return False
    return True


def _pass(ctx: Context, started: list[Launched]) -> None:
    identity.check(ctx.layout)
    health.wish(ctx.layout)
    is_first = True
    while ctx.layout.pass_wanted.exists() and not launcher.is_awaited() and decider.decides(ctx.layout):
        if not is_first and locks.is_waited_for(ctx.layout.tick_waiting):
            break
        is_first = False
        unloaded: list[StepSpec] = []
        lock = locks.hold_in_turn(ctx.layout.tick_lock, _TURN_SEC)
        if lock is None:
            break
        try:
            if not ctx.layout.pass_wanted.exists():  # served while we waited
                break
            if not ctx.layout.runner and hosts.is_marked(lock):  # others have joined since this process began
                ctx = replace(ctx, layout=hosts.standing(ctx.layout))
                hosts.check(ctx.layout)
                if not decider.decides(ctx.layout):
                    break
            ctx.layout.pass_wanted.unlink(missing_ok=True)
            ctx = renewed(ctx)
            configuration.keep(ctx.layout, ctx.config)
            settle_ended(ctx)
            if add_steps.is_wanted(ctx):
                if launcher.is_too_long():
                    health.wish(ctx.layout)
                else:
                    add_steps.complete(ctx)
            _promote_due(ctx)
            started += launch_ready(ctx, after_attempt, unloaded)
            health.succeeded(ctx.layout)
        finally:
            locks.release(lock)
        if unloaded:  # not left to the waker, which has not the secrets that this process may have
            began = time.monotonic()
            for step in unloaded:
                preload(step)
            launcher.lent(time.monotonic() - began)
            health.wish(ctx.layout)


def _promote_due(ctx: Context) -> None:
    over, now = partial(pass_over, ctx), time.time()
    if delayed.is_out_of_order(ctx.layout, now):
        if launcher.is_too_long():
            health.wish(ctx.layout)
            return
        delayed.put_in_order(ctx.layout, now, over, partial(_wanted_delay, ctx))
    if delayed.promote_due(ctx.layout, now, over):
        health.wish(ctx.layout)


def _wanted_delay(ctx: Context, ticket: Ticket) -> float | None:
    """Return the delay that the step's newest attempt calls for; None where it has none."""
    job, step = batches.read_step(ctx.layout, ticket)
    step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
    overrides = batches.read_overrides(ctx.layout.job(job.batch_id, job.job_id))
    now = stand(step_dir, step, overrides)
    return None if now is None or now.retry_at is None else delayed.delay_of(now)


def after_attempt(ctx: Context) -> None:
    """Tell what a supervisor does when its attempt is sealed: a pass, then the next attempt, or waking what is due later."""
    launcher.offer()
    try:
        try_pass(ctx)
    finally:
        locks.leave_queue()
    if launcher.has_taken():
        _see_to_waking(ctx)
    launcher.run_taken()
    try:
        shared_images.remove_unneeded(ctx)
    finally:
        if ctx.layout.runner:
            _see_to_loop(ctx)
        else:
            timer.wake(ctx, try_pass)


def pass_and_wake(ctx: Context) -> list[Launched]:
    """Run a pass, and have the timer wake what is due later. Return the attempts that this process has started."""
    if not ctx.starts_attempts:
        health.wish(ctx.layout)
        return []
    try:
        return run_pass(ctx)
    finally:
        _see_to_waking(ctx)


def _see_to_waking(ctx: Context) -> None:
    """See to it that somebody wakes what is due later."""
    if ctx.layout.runner:
        _see_to_loop(ctx)
    else:
        timer.ensure(ctx, try_pass)


def _see_to_loop(ctx: Context) -> None:
    """See to it that this runner's loop runs, where there are several hosts."""
    from parallelhassnes.schedule import runner_loop  # a root of one host does without

    if ctx.options.is_pulled:
        return
    if locks.is_held(ctx.layout.waker_lock) or not runner_loop.has_work(ctx.layout):
        return
    root, options = ctx.layout.root, ctx.options.model_dump_json()
    log = ctx.layout.runners / ctx.layout.runner / "loop.log"
    launcher.start_beside(partial(_be_loop, ctx), ENTRY_POINTS, "loop", str(root), options, log=log, cwd=root)


def _be_loop(ctx: Context) -> None:
    run_loop(ctx)


def run_loop(
    ctx: Context, *, capacity: int | None = None, idle_sec: float | None = None, until: float | None = None
) -> bool:
    """Be the loop of this runner (``runner_loop``); False where another process is that already.

    Args:
        capacity: attempts at once at most; as configured where nothing is said.
        idle_sec: end after so long without anything to do in the whole store; the loop that a tick starts ends soon.
        until: end by then, by the monotonic clock, and take nothing that may last longer.
    """
    from parallelhassnes.schedule import runner_loop

    said = {"concurrency": capacity or ctx.options.concurrency, "is_pulled": idle_sec is not None}
    ctx = replace(ctx, options=ctx.options.model_copy(update=said))
    return runner_loop.run(ctx, runner_loop.Acts(tick, try_pass, after_attempt), capacity, idle_sec, until)
