"""Waking what is due later: one sleeping process per root runs a pass whenever something may start.

What is waited for: a retry's time, a token of an environment's start rate, the probe of a paused queue key; and
``tick.lock``, where a supervisor that has ended found it held: by a pass, which serves the wish for another, or by an
operator's command, which serves none.
Holding ``waker.lock`` makes a process the waker. If it dies, the next supervisor that ends, or cron's tick,
starts another. It ends when there is nothing to wait for.
"""

import math
import select
import signal
import time
from collections.abc import Callable
from functools import partial

from parallelhassnes.execute import launcher, logs, processes
from parallelhassnes.key_names import key_dir
from parallelhassnes.schedule import ephemeral_secrets, health
from parallelhassnes.schedule.context import ENTRY_POINTS, Context, renewed
from parallelhassnes.schedule.limits import start_rate
from parallelhassnes.schedule.process import runner_heartbeat
from parallelhassnes.store import clocks, identity, locks
from parallelhassnes.store.queue import delayed, queue_keys

LOOK_SEC = 5.0
"""It looks again so often, because what it waits for can be changed meanwhile."""
WISH_SEC = 0.2
"""After so long a wish for a pass is taken for one that nobody serves."""


def next_wake(ctx: Context, now: float) -> float | None:
    """When something may be due that no end of an attempt brings about; seconds since the epoch, None for never."""
    waiting = delayed.next_at(ctx.layout, now)
    times = [] if waiting is None else [waiting]
    if not runner_heartbeat.is_draining(ctx):
        times += [bucket.next_at(now) for bucket in start_rate.waiting(ctx.layout)]
        for key, state in queue_keys.every(ctx.layout).items():
            due = [
                each.probe_at
                for mark, each in state.breakers.items()
                if not each.probe and _has_ready(ctx, key, mark, each)
            ]
            if due and state.paused is None:
                # One that is due and did not start is kept by something else: do not spin on it.
                times += [at if at > now else now + LOOK_SEC for at in due]
    return min(times, default=None)


def _has_ready(ctx: Context, queue_key: str, mark: str, known: queue_keys.Breaker) -> bool:
    """Tell whether something waits for the probe of a paused key."""
    folder = ctx.layout.ready / key_dir(queue_key)
    if mark == queue_keys.EVERY:
        return folder.is_dir()
    return any((folder / batch_id).is_dir() for batch_id in known.batches)


def wake(ctx: Context, run_pass: Callable[[Context], bool], *, was_wished: bool = False) -> None:
    """Stay until nothing is waited for any more, running a pass whenever something is due; one process per root stays.

    A wish for a pass is due when it is the same after ``WISH_SEC``.

    Args:
        run_pass: whether the pass succeeded; one that did not is tried again, a few seconds apart.
        was_wished: whether to stay for a moment although nothing is waited for just now.
    """
    # Again after it has let go: who came just before relied on it.
    while was_wished or _next_look(ctx, time.time()) is not None:
        lock = locks.hold(ctx.layout.waker_lock)
        if lock is None:
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a supervisor that has become the waker can be told to end
        processes.set_title(f"waker of {ctx.layout.root}")
        pause, jumps = 0.01, clocks.Jumps()
        try:
            while True:
                ctx, now = renewed(ctx), time.time()
                at, wish = next_wake(ctx, now), health.wished(ctx.layout)
                if at is None and wish is None and not was_wished:
                    break
                # One that was wished for and served is followed by another soon, where attempts are short.
                look_at = now + WISH_SEC if wish is not None or was_wished else math.inf
                due, was_wished = min(look_at, math.inf if at is None else at), wish is not None
                # Not time.sleep, which libfaketime breaks under a clock that is set.
                select.select((), (), (), min(max(due - now, pause), LOOK_SEC))
                is_unserved = wish is not None and wish == health.wished(ctx.layout)
                # A pass takes in what a clock that was set, or a suspend, changes.
                if is_unserved or (at is not None and time.time() >= at) or jumps.seen():
                    pause = 0.01 if run_pass(ctx) else min(2 * pause + 0.5, LOOK_SEC)
            identity.check(ctx.layout)
        except identity.NoStore as error:
            logs.say(f"{error}; nothing is woken here any more")
            return
        finally:
            locks.release(lock)


def _next_look(ctx: Context, now: float) -> float | None:
    times = [next_wake(ctx, now), now + WISH_SEC if ctx.layout.pass_wanted.exists() else None]
    return min((at for at in times if at is not None), default=None)


def ensure(ctx: Context, run_pass: Callable[[Context], bool]) -> None:
    """See to it that somebody wakes what is waited for: start a process that does, unless there is one."""
    if _next_look(ctx, time.time()) is None or locks.is_held(ctx.layout.waker_lock):
        return
    root, options, log = ctx.layout.root, ctx.options.model_dump_json(), ctx.layout.system / "waker.log"
    wakes = partial(_wake_without_secrets, ctx, run_pass)
    launcher.start_beside(wakes, ENTRY_POINTS, "timer", str(root), options, log=log, cwd=root)


def _wake_without_secrets(ctx: Context, run_pass: Callable[[Context], bool]) -> None:
    ephemeral_secrets.keep_only(())
    wake(ctx, run_pass, was_wished=True)
