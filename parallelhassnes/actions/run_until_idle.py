"""Driving a root until nothing is left that could start: ``tick --until-idle`` and ``run``.

Supervisors refill freed slots themselves; this only watches, and does what cron would: a tick now and then.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable

from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.errors import UserError
from parallelhassnes.key_names import key_dir
from parallelhassnes.schedule import health
from parallelhassnes.schedule.context import Context, renewed
from parallelhassnes.schedule.ingest import Ingested
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.limits import concurrency_keys, credentials
from parallelhassnes.schedule.process import runner_heartbeat
from parallelhassnes.schedule.tick import TickReport, pass_and_wake, tick
from parallelhassnes.store import atomic, batches, locks, members
from parallelhassnes.store.queue import delayed, tickets
from parallelhassnes.views.scoreboard_models import View

_LOOK_SEC = 0.05
_TICK_SEC = 5.0
_OWN_SEC = 0.5
"""Between ticks while others' passes lack what only this process has for its batch."""
_MOST_FAILED = 6
"""Ticks in a row whose passes failed, after which nobody waits any longer."""


class Rejected(View):
    """A table that was not taken."""

    name: str
    errors: list[str]


class Ticked(View):
    """What one tick did: what ``tick --json`` prints."""

    ok: bool
    """Whether the pass succeeded."""
    accepted: list[str]
    """Batch ids of new tables."""
    rejected: list[Rejected]
    left: list[Rejected]
    """Tables that could not be looked at, and wait."""
    passed_over: list[str]
    """What of the store could not be read, a line each."""
    repaired: list[str]
    """Attempts that had died."""
    launched: list[str]
    """``batch_id/job_id/step_id/attempt`` of each attempt that was started."""
    running: int
    """Live attempts of the whole root."""
    waiting: list[str]
    """Why ready steps do not start, other than for a limit, a line each."""

    @property
    def had_nothing(self) -> bool:
        """Whether there was nothing to do and is nothing to tell."""
        lists = (self.accepted, self.rejected, self.left, self.passed_over, self.repaired, self.launched, self.waiting)
        return self.ok and not self.running and not any(lists)


def until_idle(
    ctx: Context,
    batch_ids: Collection[str] | None,
    on_look: Callable[[], None],
    make_tick: Callable[[], Ticked] | None = None,
    stays: Callable[[], bool] = lambda: False,
) -> None:
    """Tick until nothing runs and nothing can start.

    Raises:
        UserError: passes fail for good.

    Args:
        batch_ids: the batches to wait for; None for all.
        on_look: called at every look, about twenty times a second.
        make_tick: has another process tick; None has this one tick.
        stays: whether to go on although nothing can start, as long as somebody may soon have it start.
    """
    next_tick, failed = 0.0, 0
    while True:
        if time.monotonic() >= next_tick:
            done = ticked(ctx, tick(ctx)) if make_tick is None else make_tick()
            failed = 0 if done.ok else failed + 1
            if failed >= _MOST_FAILED:
                raise UserError("; ".join(health.troubles(ctx.layout)) or "no pass succeeds")
            next_tick = time.monotonic() + _TICK_SEC
            moved = bool(done.accepted or done.rejected or done.launched or done.repaired)
        else:
            moved = False
        on_look()
        ctx = check_host.as_one_of_several(renewed(ctx))
        if any(_waits_for_us(ctx, batch_id) for batch_id in batch_ids or ()):
            next_tick = min(next_tick, time.monotonic() + _OWN_SEC)
        if not moved and not stays() and _is_idle(ctx, batch_ids):
            if _is_idle_between_passes(ctx, batch_ids):
                return
            if not ctx.starts_attempts:
                next_tick = 0.0
        time.sleep(_LOOK_SEC)


def ticked(ctx: Context, report: TickReport) -> Ticked:
    """Tell what a tick did, for whoever asked for it."""
    launched = [f"{t.batch_id}/{t.job_id}/{t.step_id}/{attempt}" for t, attempt in report.launched]
    return Ticked(
        ok=not report.failed,
        accepted=[t.batch_id for t in report.ingested if t.batch_id and not t.duplicate],
        rejected=_tables(t for t in report.ingested if t.batch_id is None and not t.left),
        left=_tables(t for t in report.ingested if t.left),
        passed_over=report.passed_over,
        repaired=report.repaired,
        launched=launched,
        running=len(tickets.running(ctx.layout)),
        waiting=waiting(ctx),
    )


def _tables(found: Iterable[Ingested]) -> list[Rejected]:
    return [Rejected(name=t.name, errors=[problem.line() for problem in t.problems]) for t in found]


def waiting(ctx: Context) -> list[str]:
    """Return one line per reason for which ready steps do not start, other than a limit."""
    lines = []
    if (shortage := ctx.shortage()) is not None:
        lines.append(f"nothing starts: {shortage}")
    lines += health.waiting(ctx.layout)
    lines += [line for found in concurrency_keys.Holds(ctx.layout, ctx.config).every().values() for line in found]
    notes = {path.stem: atomic.read_derived(path) for path in ctx.layout.blocked.glob("*.json")}
    lines += [
        f"batch {batch_id} waits: {note['reason']}" for batch_id, note in sorted(notes.items()) if "reason" in note
    ]
    return lines


def _is_idle_between_passes(ctx: Context, batch_ids: Collection[str] | None) -> bool:
    """Tell whether nothing is left while no pass is under way, in which what held the rest up is gone before that starts."""
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
    if runner_heartbeat.is_draining(ctx):
        return True
    paused = concurrency_keys.Holds(layout, ctx.config)
    waited_for = (each for each in delayed.batch_ids(layout) if ours(each))
    if any(_will_start(ctx, batch_id, paused) for batch_id in waited_for):
        return False
    known = {key_dir(key): key for key in (*paused.closed, *paused.states)}
    for key, batch_id, folder in tickets.ready_folders(layout):
        if not ours(batch_id):
            continue
        if (layout.blocked / f"{batch_id}.json").exists() and not _waits_for_us(ctx, batch_id):
            continue
        if key in known and paused.of(known[key], batch_id):
            continue
        if any(True for _ in tickets.in_order(folder)):
            return ctx.shortage() is not None
    return not _is_live(ctx, ours)  # a ticket that was ready after the first look runs by now


def _waits_for_us(ctx: Context, batch_id: str) -> bool:
    """Tell whether a batch that another process's pass found to miss a secret waits for one that this process has."""
    note = atomic.read_derived(ctx.layout.blocked / f"{batch_id}.json")
    with members.apart(batch_id, lambda _: None), contextlib.suppress(BadEnvFile):
        return bool(note.get("missing")) and not credentials.given(ctx, batch_id).missing
    return False


def _is_live(ctx: Context, ours: Callable[[str], bool]) -> bool:
    """Tell whether an attempt runs, or has ended and is not settled yet."""
    names = [entry.name for entry in tickets.running(ctx.layout)]
    names += [path.name for path in tickets.ended(ctx.layout)]
    return any(ours(tickets.parse_name(name).batch_id) for name in names)


def _will_start(ctx: Context, batch_id: str, paused: concurrency_keys.Holds) -> bool:
    """Tell whether a delayed retry of the batch is one that is waited for: the batch and its key go on."""
    with members.apart(batch_id, lambda _: None):  # it is due, or the next tick sees to it
        if batches.read_control(ctx.layout.batch(batch_id)).hold:
            return False
    for found in delayed.of_batch(ctx.layout, batch_id):
        with members.apart(found.path, lambda _: None):
            if paused.of(tickets.read(found.path).queue_key, batch_id):
                continue
        return True
    return False
