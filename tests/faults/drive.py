"""Driving a store from one process without threads that adopts every orphan: forked children, ticks, waits."""

import contextlib
import gc
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import stores

from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps import final_report

MEMORY = Path("/dev/shm")
"""Stores on a disk of memory are laid out and removed several times as fast."""
DEADLINE_SEC = 60.0
TICK_EVERY_SEC = 0.25


class TookTooLong(Exception):
    """What was waited for did not come; the message says what."""


def prepare(*, trials: bool) -> None:
    """Import what the children need, and adopt all that they leave."""
    processes.adopt_orphans()
    final_report.validate(final_report.EMPTY)
    if trials:
        from parallelhassnes.steps.trial import preload

        preload.preload()
        preload.preload_agent("oracle")
    gc.collect()
    gc.freeze()


def start(do: Callable[[], object]) -> int:
    """Run in a forked child; its pid. Exit code 70 says that it raised."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        do()
        code = 0
    except BaseException:  # noqa: BLE001 - the last frame of a process
        traceback.print_exc()
    finally:
        os._exit(code)


def run(do: Callable[[], object]) -> None:
    """Run in a forked child and wait for it; it may be killed, but it must not fail."""
    _, status = os.waitpid(start(do), 0)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise TookTooLong("a process of ours failed; see stderr")


def until(condition: Callable[[], bool], ctx: Context, what: str) -> None:
    """Tick, as cron would, until the condition holds; at once where no process is left to bring it about."""
    next_tick = time.monotonic() + TICK_EVERY_SEC

    def look() -> bool:
        nonlocal next_tick
        if condition():
            return True
        if time.monotonic() > next_tick or not children():
            run(lambda: tick(ctx))
            next_tick = time.monotonic() + TICK_EVERY_SEC
        return False

    wait(look, what)


def wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_SEC
    while not condition():
        if time.monotonic() > end:
            raise TookTooLong(f"waited {DEADLINE_SEC:g} s for {what}")
        reap()
        time.sleep(0.002)


def until_nothing_is_left(ctx: Context) -> None:
    """Ticks until the store is idle and every process has ended, then the tick an hour later."""
    until(
        lambda: (
            stores.idle(ctx)
            and not ctx.layout.pass_wanted.exists()
            and not any(ctx.layout.blocked.glob("*"))  # what was set aside comes back by a tick
        ),
        ctx,
        "the store to be idle",
    )
    wait(lambda: not children(), "every process to end")
    # What may still be in somebody's hands is given up after an hour.
    for path in ctx.layout.incoming.iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    run(lambda: tick(ctx))


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def children() -> list[int]:
    reap()
    return processes.children(os.getpid())


def descendants() -> list[int]:
    """Every process below this one."""
    found, look = [], [os.getpid()]
    while look:
        below = processes.children(look.pop())
        found += below
        look += below
    return found
