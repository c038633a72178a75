"""Which ready step starts next: priority, then fair between batches, then first come.

Fair: among batches of one priority, the one with the fewest live attempts is served first, and among
those the one that has waited longest since it was last served; within a batch and queue key, tickets
start in the batch's own order. So a batch of 100,000 steps and one of 3 share the machine.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from parallelhassnes.names import key_dir
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.keys import Keys, table_limits
from parallelhassnes.store import batches, members, tickets


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

    def advance(self) -> None:
        self.head = next(self.waiting, None)


@dataclass
class Load:
    """Live attempts, counted from the running tickets under ``tick.lock``."""

    total: int = 0
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
    """The load now, and for each queue key's folder the batches that have live attempts on it.

    An attempt that ended after this pass has settled keeps its place: what its end decides (a budget that is spent, trials
    that are not needed any more) is not known yet. Its supervisor has wished for the next pass.
    """
    load = Load()
    live: dict[str, set[str]] = {}
    for ticket in tickets.running(ctx.layout, load.note_unknown):
        batch_id = tickets.parse_name(ticket.name).batch_id
        load.add(ticket.key_dir, batch_id)
        live.setdefault(ticket.key_dir, set()).add(batch_id)
    for path in tickets.ended(ctx.layout):
        with members.apart(path, lambda _: None):  # noted by the pass that could not settle it
            ended = tickets.read(path)
            if not (ctx.layout.blocked / f"{ended.batch_id}.json").exists():
                load.add(key_dir(ended.queue_key), ended.batch_id)
    return load, live


def lanes(
    ctx: Context,
    may_start: Callable[[str], bool],
    on_damage: Callable[[Path, Exception], None],
) -> list[Lane]:
    """Every lane with something to start.

    Args:
        may_start: whether a batch may start anything now.
        on_damage: what is to become of a ticket that cannot be followed.
    """
    found = []
    for key, batch_id, folder in tickets.ready_folders(ctx.layout):
        waiting = tickets.in_order(folder)
        head = next(waiting, None)
        if head is None or not may_start(batch_id):
            continue
        with members.apart(head, partial(on_damage, head)):
            priority, queue_key = _priority(ctx, batch_id), tickets.read(head).queue_key
            served = tickets.last_served(folder)
            found.append(Lane(key, batch_id, queue_key, priority, served, waiting, head))
    return found


def _priority(ctx: Context, batch_id: str) -> int:
    batch_dir = ctx.layout.batch(batch_id)
    said = batches.read_control(batch_dir).priority
    return batches.read_batch(batch_dir).priority if said is None else said


class Room:
    """The limits in force in one pass."""

    def __init__(
        self, ctx: Context, load: Load, live: dict[str, set[str]], ready: list[Lane], keys: Keys
    ) -> None:
        self.ctx, self.load, self.keys = ctx, load, keys
        self._batch_limits: dict[str, int | None] = {}
        self._key_limits: dict[str, int | None] = {}
        for lane in ready:
            live.setdefault(lane.key, set()).add(lane.batch_id)
        for lane in ready:
            if lane.key not in self._key_limits:
                self._key_limits[lane.key] = self._strictest(lane.queue_key, live[lane.key])

    def _strictest(self, queue_key: str, batch_ids: set[str]) -> int | None:
        """A key's limit: people's, those of every table with live or ready steps on it, its provider's."""
        tables = table_limits(self.ctx.layout, queue_key, batch_ids)
        return self.keys.limit(queue_key, tables)

    def _batch_limit(self, batch_id: str) -> int | None:
        if batch_id not in self._batch_limits:
            meta = batches.read_batch(self.ctx.layout.batch(batch_id))
            self._batch_limits[batch_id] = meta.concurrency
        return self._batch_limits[batch_id]

    def full(self) -> bool:
        return self.load.total >= self.ctx.concurrency

    def allows(self, lane: Lane) -> bool:
        if lane.key in self.load.unknown:
            return False
        key_limit, batch_limit = self._key_limits[lane.key], self._batch_limit(lane.batch_id)
        return (key_limit is None or self.load.by_key[lane.key] < key_limit) and (
            batch_limit is None or self.load.by_batch[lane.batch_id] < batch_limit
        )

    def next_lane(self, ready: list[Lane]) -> Lane | None:
        """The lane to serve next; None where nothing may start."""
        if self.full():
            return None
        open_lanes = [lane for lane in ready if lane.head is not None and self.allows(lane)]
        return min(
            open_lanes,
            key=lambda lane: (
                -lane.priority, self.load.by_batch[lane.batch_id], lane.served, lane.batch_id, lane.head,
            ),
            default=None,
        )  # fmt: skip
