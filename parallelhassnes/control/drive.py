"""Driving a root until nothing is left that could start: ``tick --until-idle`` and ``run``.

Supervisors refill freed slots themselves; this only watches, and does what cron would: a tick now and then.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path

from parallelhassnes.errors import UserError
from parallelhassnes.names import key_dir
from parallelhassnes.schedule import health, keys, runner
from parallelhassnes.schedule.context import Context, renewed
from parallelhassnes.schedule.tick import pass_and_wake, tick
from parallelhassnes.store import batches, locks, members, tickets

_LOOK_SEC = 0.05
_TICK_SEC = 5.0
_MOST_FAILED = 6
"""Ticks in a row whose passes failed, after which nobody waits any longer."""


def until_idle(
    ctx: Context, batch_ids: Collection[str] | None, on_look: Callable[[], None]
) -> None:
    """Tick until nothing runs and nothing can start.

    Raises:
        UserError: passes fail for good.

    Args:
        batch_ids: the batches to wait for; None for all.
        on_look: called at every look, about twenty times a second.
    """
    next_tick, failed = 0.0, 0
    while True:
        if time.monotonic() >= next_tick:
            report = tick(ctx)
            failed = failed + 1 if report.failed else 0
            if failed >= _MOST_FAILED:
                raise UserError("; ".join(health.troubles(ctx.layout)) or "no pass succeeds")
            next_tick = time.monotonic() + _TICK_SEC
            came = any(not table.left for table in report.ingested)
            moved = came or bool(report.launched or report.repaired)
        else:
            moved = False
        on_look()
        ctx = renewed(ctx)
        if not moved and _is_idle(ctx, batch_ids) and _is_idle_between_passes(ctx, batch_ids):
            return
        time.sleep(_LOOK_SEC)


def _is_idle_between_passes(ctx: Context, batch_ids: Collection[str] | None) -> bool:
    """Whether nothing is left while no pass is under way, in which what held the rest up is gone before that starts."""
    with locks.held(ctx.layout.tick_lock):
        idle = _is_idle(ctx, batch_ids)
    if not ctx.layout.pass_wanted.exists():
        return idle
    pass_and_wake(ctx)  # for whoever wished for it while we had the lock
    return False


def _is_idle(ctx: Context, batch_ids: Collection[str] | None) -> bool:
    def ours(batch_id: str) -> bool:
        return batch_ids is None or batch_id in batch_ids

    layout = ctx.layout
    if _is_live(ctx, ours):
        return False
    if runner.is_draining(ctx):
        return True
    paused = keys.holds(layout, ctx.config)
    if any(_will_start(ctx, path, paused, ours) for _, path in tickets.delayed(layout)):
        return False
    paused_folders = {key_dir(key) for key in paused}
    for key, batch_id, folder in tickets.ready_folders(layout):
        if not ours(batch_id) or (layout.blocked / f"{batch_id}.json").exists():
            continue
        if key in paused_folders:
            continue
        if any(True for _ in tickets.in_order(folder)):
            return ctx.shortage() is not None
    return not _is_live(ctx, ours)  # a ticket that was ready after the first look runs by now


def _is_live(ctx: Context, ours: Callable[[str], bool]) -> bool:
    """Whether an attempt runs, or has ended and is not settled yet."""
    names = [entry.name for entry in tickets.running(ctx.layout)]
    names += [path.name for path in tickets.ended(ctx.layout)]
    return any(ours(tickets.parse_name(name).batch_id) for name in names)


def _will_start(
    ctx: Context, path: Path, paused: Collection[str], ours: Callable[[str], bool]
) -> bool:
    """Whether a delayed retry is one that is waited for: its batch and its key go on."""
    batch_id = tickets.parse_name(path.name.split(".", 1)[1]).batch_id
    if not ours(batch_id):
        return False
    with members.apart(path, lambda _: None):  # it is due, or the next tick sees to it
        if batches.read_control(ctx.layout.batch(batch_id)).hold:
            return False
        return tickets.read(path).queue_key not in paused
    return True
