"""Which ready step starts next: priority, then fair between batches, then first come.

Fair: among batches of one priority, the one with the fewest live attempts is served first, and among
those the one that has waited longest since it was last served; within a batch and queue key, tickets
start in the batch's own order. So a batch of 100,000 steps and one of 3 share the machine.

The order of the waiting batches is on disk (``store.queue.turns``), so a pass looks at those that it starts something of, at those with
live attempts that come before them, and at no others, however many wait.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from parallelhassnes import key_names, names
from parallelhassnes.errors import UserError
from parallelhassnes.key_names import key_dir
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits.concurrency_keys import QueueKeys, table_limits
from parallelhassnes.schedule.process.host_slots import HostSlots
from parallelhassnes.store import batches, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets, turns
from parallelhassnes.store.queue.turns import QueueTurn

type OnDamage = Callable[[Path, Exception], None]

MOST_LOOKS = 16
"""Ready steps of a refused lane that a pass looks at before it finds one with another credential."""


@dataclass
class Lane:
    """The ready tickets of one batch on one queue key."""

    key: str
    batch_id: str
    queue_key: str
    priority: int
    served: float
    waiting: Iterator[Path]
    head: Path | None
    turn: QueueTurn
    refused: bool = False
    """Its key turns down what a step of it would be started with; others may have a credential of their own."""

    def advance(self) -> None:
        self.head = next(self.waiting, None)

    def close(self) -> None:
        """Start nothing more of it in this pass."""
        self.head = None

    def look_elsewhere(self, layout: Layout) -> None:
        """Go on with a few tickets from anywhere in the lane, other ones in each pass."""
        self.refused = True
        folder = layout.ready / self.key / self.batch_id
        self.waiting = iter(tickets.sample(folder, MOST_LOOKS))
        self.advance()


@dataclass
class Load:
    """Live attempts, counted from the running tickets under ``tick.lock``."""

    total: int = 0
    running: set[str] = field(default_factory=set)
    """Names of the running tickets."""
    by_key: Counter[str] = field(default_factory=Counter)
    by_batch: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    """Folders of queue keys whose live attempts cannot be counted: nothing starts there."""

    def note_unknown(self, error: Exception) -> None:
        members.pass_over(error)
        if isinstance(error, OSError):
            self.unknown.add(Path(str(error.filename)).name)

    def add(self, key: str, batch_id: str) -> None:
        self.total += 1
        self.by_key[key] += 1
        self.by_batch[batch_id] += 1


def count(ctx: Context) -> tuple[Load, dict[str, set[str]]]:
    """Return the load now, and for each queue key's folder the batches that have live attempts on it.

    An attempt that ended after this pass has settled keeps its place: what its end decides (a budget that is spent, trials
    that are not needed any more) is not known yet. Its supervisor has wished for the next pass.
    """
    load = Load()
    live: dict[str, set[str]] = {}
    for ticket in tickets.running(ctx.layout, load.note_unknown):
        batch_id = tickets.parse_name(ticket.name).batch_id
        load.add(ticket.key_dir, batch_id)
        load.running.add(ticket.name)
        live.setdefault(ticket.key_dir, set()).add(batch_id)
    for path in tickets.ended(ctx.layout):
        with members.apart(path, lambda _: None):  # noted by the pass that could not settle it
            ended = tickets.read(path)
            if not (ctx.layout.blocked / f"{ended.batch_id}.json").exists():
                load.add(key_dir(ended.queue_key), ended.batch_id)
    return load, live


class KeyLanes:
    """The lanes of one queue key in the order in which they are served, each looked at when it is asked for.

    Args:
        may_start: whether a batch may start anything now.
        on_damage: what is to become of a ticket that cannot be followed.
    """

    def __init__(self, ctx: Context, key: str, may_start: Callable[[str], bool], on_damage: OnDamage) -> None:
        self.ctx, self.key = ctx, key
        self.lanes: list[Lane] = []
        """Those that were looked at, and may start something."""
        self._may_start, self._on_damage = may_start, on_damage
        self._seen: dict[str, Path] = {}
        self._rest = self._walk()
        self._reached = turns.HIGHEST
        """The priority that the walk has come to."""

    @cached_property
    def queue_key(self) -> str:
        """The key itself; empty where the folder's name does not tell, and no ticket tells it either."""
        with contextlib.suppress(UserError):
            return key_names.key_from_dir(self.key)
        for _, _, folder in tickets.folders_of(self.ctx.layout, self.key):
            for head in tickets.in_order(folder):
                with members.apart(head, lambda _: None):
                    return tickets.read(head).queue_key
        return ""

    def prepare(self) -> None:
        """Give batches that are new to the key, or may start something again, their turn."""
        for turn in turns.fresh(self.ctx.layout, self.key):
            self._may_start(turn.batch_id)  # what keeps it is noted
            self._put(turn)
        for turn in turns.held(self.ctx.layout, self.key):
            if self._may_start(turn.batch_id):
                self._put(turn)

    def best(self, room: "Room") -> Lane | None:
        """Return the lane to serve next. What was not looked at comes after one that was found without a live attempt, or of a
        higher priority than the last that was looked at.
        """
        self._drop_closed()
        while True:
            found = min(filter(room.allows, self.lanes), key=room.rank, default=None)
            if found is not None and (not room.load.by_batch[found.batch_id] or found.priority > self._reached):
                return found
            lane = None
            with members.apart(self.ctx.layout.turns / self.key):
                lane = next(self._rest, None)
            if lane is None:
                return found
            self._reached = lane.priority
            self.lanes.append(lane)

    def _drop_closed(self) -> None:
        """Pass over what starts nothing more in this pass; what its key has refused waits as what may not start does."""
        for lane in (lane for lane in self.lanes if lane.head is None and lane.refused):
            with members.apart(lane.turn.path):
                turns.hold(self.ctx.layout, self.key, lane.turn)
        self.lanes = [lane for lane in self.lanes if lane.head is not None]

    def serve(self, lane: Lane) -> None:
        """Put the batch behind those that wait longer, once a ticket of it runs."""
        folder = self.ctx.layout.ready / self.key / lane.batch_id
        lane.served = tickets.last_served(folder)
        with members.apart(lane.turn.path):
            if lane.served:
                lane.turn = turns.move(lane.turn, self._place(lane.batch_id, lane.priority))
                self._seen[lane.batch_id] = lane.turn.path
            elif not members.is_there(folder):
                turns.remove(lane.turn)

    def _walk(self) -> Iterator[Lane]:
        tried: set[str] = set()
        while True:
            for turn in turns.in_order(self.ctx.layout, self.key):
                lane = self._look(turn)
                if lane is not None:
                    yield lane
            waiting = {batch_id for _, batch_id, _ in tickets.folders_of(self.ctx.layout, self.key)}
            missing = waiting - self._seen.keys() - tried
            missing -= turns.held_ids(self.ctx.layout, self.key) if missing else set()
            if not missing:
                return
            tried |= missing
            for batch_id in missing:
                turns.announce(self.ctx.layout, self.key, batch_id)
            self.prepare()

    def _look(self, turn: QueueTurn) -> Lane | None:
        """Return the lane that a turn leads to; None where it has nothing to start, or comes at another place."""
        batch_id, folder = turn.batch_id, self.ctx.layout.ready / self.key / turn.batch_id
        if batch_id in self._seen:
            if turn.path != self._seen[batch_id]:
                turns.remove(turn)
            return None
        waiting = tickets.in_order(folder)
        head = next(waiting, None)
        if head is None:
            if tickets.drop_empty(folder):
                turns.remove(turn)
            return None
        if not self._may_start(batch_id):
            self._seen[batch_id] = turn.path
            turns.hold(self.ctx.layout, self.key, turn)
            return None
        with members.apart(head, partial(self._on_damage, head)):
            priority, queue_key = _priority(self.ctx, batch_id), tickets.read(head).queue_key
            place = self._place(batch_id, priority)
            if place != turn.path:
                turns.move(turn, place)
                return None
            self._seen[batch_id] = place
            served = tickets.last_served(folder)
            return Lane(self.key, batch_id, queue_key, priority, served, waiting, head, turn)
        self._seen[batch_id] = turn.path
        return None

    def _put(self, turn: QueueTurn) -> None:
        """Find the place of a batch; one of which nothing can be read comes in the middle, where that is seen to."""
        place, limit = self._place(turn.batch_id, 0), None
        with members.apart(turn.path, lambda _: None):
            place = self._place(turn.batch_id, _priority(self.ctx, turn.batch_id))
            meta = batches.read_batch(self.ctx.layout.batch(turn.batch_id))
            limit = meta.limits.get(self.queue_key)
        if limit is not None:
            turns.note_limit(self.ctx.layout, self.key, turn.batch_id, limit)
        turns.move(turn, place)

    def _place(self, batch_id: str, priority: int) -> Path:
        layout = self.ctx.layout
        return turns.place(
            layout,
            self.key,
            batch_id,
            priority=priority,
            served=tickets.last_served(layout.ready / self.key / batch_id),
            arrival=names.arrival_in(batch_id) or "",
        )


def line_up(ctx: Context, may_start: Callable[[str], bool], on_damage: OnDamage) -> list[KeyLanes]:
    """Return a line for each queue key that something waits on."""
    found = dict.fromkeys([*turns.keys(ctx.layout), *members.names(ctx.layout.ready)])
    lines = [KeyLanes(ctx, key, may_start, on_damage) for key in found]
    for line in lines:
        with members.apart(ctx.layout.turns / line.key):
            line.prepare()
    return lines


def _priority(ctx: Context, batch_id: str) -> int:
    batch_dir = ctx.layout.batch(batch_id)
    said = batches.read_control(batch_dir).priority
    return batches.read_batch(batch_dir).priority if said is None else said


class Room:
    """The limits in force in one pass.

    Args:
        live: queue key's folder → the batches that have live attempts on it.
    """

    def __init__(self, ctx: Context, load: Load, live: dict[str, set[str]], keys: QueueKeys) -> None:
        self.ctx, self.load, self.keys = ctx, load, keys
        self.slots = HostSlots(ctx, load.total, load.running)
        self._live = live
        self._batch_limits: dict[str, int | None] = {}
        self._key_limits: dict[str, int | None] = {}

    def _key_limit(self, line: KeyLanes) -> int | None:
        """Return a key's limit: people's, those of every table with live or ready steps on it, its provider's."""
        if line.key not in self._key_limits:
            strictest = turns.strictest(self.ctx.layout, line.key)
            batch_ids = self._live.get(line.key, set()) | ({strictest} if strictest else set())
            tables = table_limits(self.ctx.layout, line.queue_key, batch_ids)
            self._key_limits[line.key] = self.keys.limit(line.queue_key, tables)
        return self._key_limits[line.key]

    def _batch_limit(self, batch_id: str) -> int | None:
        if batch_id not in self._batch_limits:
            meta = batches.read_batch(self.ctx.layout.batch(batch_id))
            self._batch_limits[batch_id] = meta.concurrency
        return self._batch_limits[batch_id]

    def _is_open(self, line: KeyLanes) -> bool:
        if line.key in self.load.unknown:
            return False
        limit = self._key_limit(line)
        return limit is None or self.load.by_key[line.key] < limit

    def allows(self, lane: Lane) -> bool:
        """Tell whether the batch's own limit does."""
        limit = self._batch_limit(lane.batch_id)
        return limit is None or self.load.by_batch[lane.batch_id] < limit

    def rank(self, lane: Lane) -> tuple[int, int, float, str]:
        """Tell what lanes are served by, the lowest first."""
        return -lane.priority, self.load.by_batch[lane.batch_id], lane.served, lane.batch_id

    def next(self, lines: list[KeyLanes]) -> tuple[KeyLanes, Lane] | None:
        """Return the lane to serve next, and its line; None where nothing may start."""
        if self.slots.full():
            return None
        open_lines = [line for line in lines if self._is_open(line)]
        found = [(line, lane) for line in open_lines if (lane := line.best(self)) is not None]
        return min(found, key=lambda each: (*self.rank(each[1]), each[1].head), default=None)
