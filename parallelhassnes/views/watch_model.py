"""Following batches while they run: each look costs the ledgers' tails and the live attempts' states.

No thread, no lock, nothing written: the process that follows may be the one that forks supervisors.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parallelhassnes import formatting, places
from parallelhassnes.schedule import health
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits import concurrency_keys
from parallelhassnes.states import TERMINAL, TROUBLE
from parallelhassnes.store import batches, members
from parallelhassnes.store.queue import queue_keys, tickets
from parallelhassnes.views import projection
from parallelhassnes.views.batch_status import BatchStatus, StepStatus, held, read_index
from parallelhassnes.views.batch_summary import key_of, stamp
from parallelhassnes.views.outcome import StepOutcome, outcome, standing
from parallelhassnes.views.projection import Fold
from parallelhassnes.views.running import HeartbeatWatch, attempt_path, describe
from parallelhassnes.views.scoreboard_models import RunningStep, TrialCounts

RATE_WINDOW_SEC = 60.0
MOST_FAILURES = 5


class Ended(NamedTuple):
    """One attempt that ended since the last look."""

    step: str
    """``job_id/step_id``."""
    is_trial: bool
    status: str
    outcome: StepOutcome
    """What it came to, in words."""
    line: str
    """Failure class and line; empty where it succeeded."""
    retry_at: str | None
    attempt: str
    """Its folder, relative to the root."""


class KeyUse(NamedTuple):
    """Use of one queue key's limit."""

    queue_key: str
    live: int
    limit: int | None


@dataclass
class Look:
    """What there was to see at one moment."""

    total: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    """Status → steps; ``retry`` for those whose retry is due."""
    trials: TrialCounts = field(default_factory=TrialCounts)
    """Of the steps those that are trials; by their last end, also while they run again."""
    running: list[RunningStep] = field(default_factory=list)
    """Of the live attempts the oldest ones."""
    live: int = 0
    """All live attempts of the followed batches."""
    ended: list[Ended] = field(default_factory=list)
    failures: list[Ended] = field(default_factory=list)
    """The last ones, newest first."""
    keys: list[KeyUse] = field(default_factory=list)
    per_minute: float = 0.0
    """Steps that got done, over the last minute or since the start."""
    left_sec: float | None = None
    """Estimate of the time left; None before anything got done."""
    held: list[str] = field(default_factory=list)
    """What keeps whole batches, or all trials of an environment, from starting."""
    slowed: list[str] = field(default_factory=list)
    """What keeps queue keys from starting more, in words: a pause, a limit that a provider's answers have lowered."""
    blocked: int = 0
    """Of the waiting steps those that cannot start as things are; counted only while nothing runs."""
    stand_in: bool = False

    @property
    def over(self) -> int:
        """Steps that ended for good."""
        return sum(self.tally[name] for name in TERMINAL)

    @property
    def waiting(self) -> int:
        """Steps that have not started, or are to start again."""
        return max(0, self.total - self.over - self.tally["running"])


class Follower:
    """Keeps the folds of the batches that it follows.

    Args:
        batch_ids: which to follow; None for every one that has something in the queue, from now on.
    """

    def __init__(self, ctx: Context, batch_ids: Iterable[str] | None = None) -> None:
        self.ctx, self.layout = ctx, ctx.layout
        self._all = batch_ids is None
        self._followed: dict[str, BatchStatus] = {}
        self._trials: dict[str, Counter[str]] = {}  # batch → what its trials have come to → how many
        self._counted: dict[str, dict[str, str]] = {}  # batch → trial → what it is counted as
        self._keys: dict[str, dict[str, str]] = {}  # batch → the name of each step in its ticket → its key
        self._watch = HeartbeatWatch()
        self._failures: deque[Ended] = deque(maxlen=MOST_FAILURES)
        self._standing_still: dict[str, tuple[str, int]] = {}
        self._samples: deque[tuple[float, int]] = deque()
        for batch_id in batch_ids or ():
            self._follow(batch_id)

    def look(self, most_running: int = 10) -> Look:
        """Tell what there is to see now; ``ended`` is what is new since the last look."""
        live = tickets.running(self.layout)
        if self._all:
            self._follow_queue(live)
        look = Look()
        for batch_id in self._followed:
            with members.apart(batch_id, lambda _: None):
                look.ended += self._advance(batch_id)
            status = self._followed[batch_id]
            look.total += len(status.steps)
            look.tally.update(status.fold.tally)
            for name, count in self._trials.get(batch_id, Counter()).items():
                setattr(look.trials, name, getattr(look.trials, name) + count)
            look.stand_in = look.stand_in or status.fold.stand_in
            reason = held(self.layout, batch_id).reason
            if reason:
                look.held.append(f"{batch_id}: {reason}")
        look.trials.waiting = max(0, look.trials.total - look.trials.over - look.trials.running)
        look.held += health.waiting(self.layout)
        self._failures.extendleft(ended for ended in look.ended if ended.status in TROUBLE)
        look.failures = list(self._failures)
        running = self._running(live)
        look.live = len(running)
        look.running = [self._describe(*found) for found in running[:most_running]]
        if not running and look.waiting:
            look.blocked = sum(self._blocked(batch_id) for batch_id in self._followed)
        look.keys = self._key_use(live)
        look.slowed = self._slowed()
        self._measure(look)
        return look

    # --- batches ----------------------------------------------------------------------------------

    def _follow_queue(self, live: list[tickets.Running]) -> None:
        found = {tickets.parse_name(entry.name).batch_id for entry in live}
        found |= {batch_id for _, batch_id, _ in tickets.ready_folders(self.layout)}
        for batch_id in sorted(found - self._followed.keys()):
            self._follow(batch_id)

    def _follow(self, batch_id: str) -> None:
        batch_dir = self.layout.batch(batch_id)
        with members.apart(batch_dir, lambda _: None):  # being ingested, just deleted, or damaged
            batches.read_about(batch_dir)
            jobs = read_index(batch_dir)
            fold = projection.load(batch_dir) if self._all else Fold(batch_id)
            status = BatchStatus(batch_dir, jobs, fold, held(self.layout, batch_id))
            self._followed[batch_id] = status
            self._count(status, status.steps)

    def _advance(self, batch_id: str) -> list[Ended]:
        status = self._followed[batch_id]
        batch_dir = self.layout.batch(batch_id)
        events = projection.advance(status.fold, batch_dir)
        if any(event["event"] == "added" for event in events):
            status = BatchStatus(batch_dir, read_index(batch_dir), status.fold, status.held)
            self._followed[batch_id] = status
            self._keys.pop(batch_id, None)
            self._count(status, status.steps)
        else:
            self._count(status, {f"{event['job_id']}/{event['step_id']}" for event in events if "step_id" in event})
        return [self._ended(status, event) for event in events if event["event"] == "ended"]

    def _count(self, status: BatchStatus, keys: Iterable[str]) -> None:
        """Count these steps as what they have come to now, as far as they are trials."""
        batch_id = status.batch_dir.name
        tally, counted = self._trials.setdefault(batch_id, Counter()), self._counted.setdefault(batch_id, {})
        for key in keys:
            step = status.steps.get(key)
            if step is None or step.kind != "trial":
                continue
            row = status.fold.steps.get(key)
            said = row.said if row is not None else None
            now = standing(step.kind, row.status, said) if row is not None and row.retry_at is None else "waiting"
            tally["total"] += key not in counted
            if key in counted:
                tally[counted[key]] -= 1
            counted[key] = now
            tally[now] += 1

    def _ended(self, status: BatchStatus, event: dict[str, Any]) -> Ended:
        key = f"{event['job_id']}/{event['step_id']}"
        path = attempt_path(status.batch_dir.name, key, event["attempt"])
        failure = event.get("failure")
        kind = str(event.get("kind") or (status.steps[key].kind if key in status.steps else ""))
        return Ended(
            step=key,
            is_trial=kind == "trial",
            status=event["status"],
            outcome=outcome(
                kind,
                event["status"],
                event.get("trial") or event.get("verdict"),
                failure["failure_class"] if failure else None,
                guessed=bool(failure and failure.get("guessed")),
            ),
            line=formatting.failure(failure["failure_class"], failure["line"], failure.get("guessed"))
            if failure
            else "",
            retry_at=event.get("retry_at"),
            attempt=path,
        )

    # --- live attempts ----------------------------------------------------------------------------

    def _running(self, live: list[tickets.Running]) -> list[tuple[BatchStatus, StepStatus]]:
        """Return the followed batches' live attempts that their ledgers know, oldest first."""
        found = []
        for entry in live:
            name = tickets.parse_name(entry.name)
            status = self._followed.get(name.batch_id)
            if status is None:
                continue
            key = self._key(status, name)
            row = status.fold.steps.get(key)
            if row is not None and row.status == "running":
                step = StepStatus(places.step_key(key).job_id, status.steps[key], "running", row=row)
                found.append((status, step))
        return sorted(found, key=lambda pair: pair[1].row.at if pair[1].row else "")

    def _key_use(self, live: list[tickets.Running]) -> list[KeyUse]:
        """Return the keys with live attempts, the busiest first."""
        on_key: dict[str, list[str]] = {}
        for entry in live:
            batch_id = tickets.parse_name(entry.name).batch_id
            on_key.setdefault(key_of(entry.key_dir), []).append(batch_id)
        states = queue_keys.every(self.layout) if on_key else {}
        found = [
            KeyUse(
                key,
                len(batch_ids),
                concurrency_keys.effective_limit(
                    self.ctx,
                    states.get(key) or queue_keys.KeyState(queue_key=key),
                    concurrency_keys.table_limits(self.layout, key, set(batch_ids)),
                ).number,
            )
            for key, batch_ids in on_key.items()
        ]
        return sorted(found, key=lambda use: -use.live)

    def _slowed(self) -> list[str]:
        """Return a line per key that is paused or has a lowered limit, of those that the followed batches use."""
        used = {step.queue_key for status in self._followed.values() for step in status.steps.values()}
        lines: list[str] = []
        for key, state in queue_keys.every(self.layout).items():
            if key not in used:
                continue
            lines += state.holds
            limit = concurrency_keys.effective_limit(self.ctx, state, {})
            if not state.holds and limit.ceiling is not None:
                what = f": {state.history[-1].what}" if state.history else ""
                lines.append(f"{key}: at most {limit.number} at once, of {limit.ceiling}{what}")
        return lines

    def _key(self, status: BatchStatus, name: tickets.TicketName) -> str:
        """Return ``job_id/step_id`` of a ticket; empty where the step was added since the last look."""
        if name.batch_id not in self._keys:
            concurrency_keys = {tickets.digest(name.batch_id, key): key for key in status.steps}
            self._keys[name.batch_id] = concurrency_keys
        return self._keys[name.batch_id].get(name.digest, "")

    def _describe(self, status: BatchStatus, step: StepStatus) -> RunningStep:
        return describe(self.layout.root, status, step, self._watch)

    def _blocked(self, batch_id: str) -> int:
        """Return the batch's blocked steps; counted again only when something has changed."""
        made_from = stamp(self.layout, batch_id, 0)
        known = self._standing_still.get(batch_id)
        if known is None or known[0] != made_from:
            status = self._followed[batch_id]
            status = BatchStatus(status.batch_dir, status.jobs, status.fold, held(self.layout, batch_id))
            known = made_from, sum(step.state == "blocked" for step in status)
            self._standing_still[batch_id] = known
        return known[1]

    def _measure(self, look: Look) -> None:
        now, over = time.monotonic(), look.over
        self._samples.append((now, over))
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW_SEC:
            self._samples.popleft()
        began, before = self._samples[0]
        if over > before and now > began:
            look.per_minute = (over - before) / (now - began) * 60
            if look.waiting + look.live > look.blocked and not look.held:
                look.left_sec = (look.total - over - look.blocked) / look.per_minute * 60
