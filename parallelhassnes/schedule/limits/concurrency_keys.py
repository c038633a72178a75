"""The queue keys: the limit in force of each, what ended attempts make of them, and what they let start.

``effective_limit`` is the one place that derives a limit: passes start by it, every view shows it. ``QueueKeys`` is the state
in one pass, under ``tick.lock``.
"""

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from parallelhassnes.config import Config
from parallelhassnes.key_names import key_dir
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.rules import adaptive_limits, circuit_breaker
from parallelhassnes.schedule.rules.policy import TABLE
from parallelhassnes.store import attempts, batches, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import notices, queue_keys, tickets
from parallelhassnes.store.queue.queue_keys import Breaker, KeyState
from parallelhassnes.store.records import AttemptMeta, Credential, StepNow, now_text


class Limit(NamedTuple):
    """The limit in force of a queue key."""

    number: int | None
    """Live attempts at most; None for no limit, 0 where nothing starts."""
    why: str = ""
    """Who set it, in a few words; empty where there is none."""
    ceiling: int | None = None
    """What the limit grows back to, where the provider's answers have lowered it."""


_NO_TABLES: Mapping[str, int] = MappingProxyType({})


def table_limits(layout: Layout, queue_key: str, batch_ids: Iterable[str]) -> dict[str, int]:
    """Return batch → its table's limit of a key, of those of these batches whose table has one."""
    found = {}
    for batch_id in batch_ids:
        with members.apart(batch_id, lambda _: None):  # one that runs on, and was deleted
            limits = batches.read_batch(layout.batch(batch_id)).limits
            if queue_key in limits:
                found[batch_id] = limits[queue_key]
    return found


def said_limit(ctx: Context, state: KeyState, tables: Mapping[str, int] = _NO_TABLES) -> Limit:
    """Return the strictest limit that people have set: an operator's in the place of the configured one, the command line's,
    those of tables.

    Args:
        tables: batch → its table's limit, of the batches with live or ready steps on the key.
    """
    key = state.queue_key
    found: dict[str, int] = {}
    if state.limit is not None:
        found[f"set by {state.limit.said.by}"] = state.limit.limit
    elif key in ctx.config.limits:
        found["configured"] = ctx.config.limits[key]
    if key in ctx.options.limits:
        found["of the command line"] = ctx.options.limits[key]
    found.update({f"by the table of {batch_id}": limit for batch_id, limit in tables.items()})
    if not found:
        return Limit(None)
    why = min(found, key=lambda name: found[name])
    return Limit(found[why], why)


def effective_limit(
    ctx: Context, state: KeyState, tables: Mapping[str, int] = _NO_TABLES, now: float | None = None
) -> Limit:
    """Return the limit in force of a key: the strictest that people have set, and what its provider's answers have made of it.

    Args:
        tables: as for ``said_limit``.
        now: seconds since the epoch; the present, where left out.
    """
    said, config = said_limit(ctx, state, tables), ctx.config.adaptive
    if state.adaptive is None or not adaptive_limits.is_on(config, state.queue_key):
        return said
    within = adaptive_limits.bounds(config, state.queue_key, said.number, ctx.concurrency)
    number = adaptive_limits.limit_now(state.adaptive, time.time() if now is None else now, within, config)
    if number >= within.ceiling:
        return Limit(number, said.why or "of the host", within.ceiling)
    last = state.history[-1].what if state.history else "lowered"
    return Limit(number, f"of {within.ceiling}; {last}", within.ceiling)


class Holds:
    """What keeps queue keys from starting anything: pauses, for all or of a credential, and limits of 0."""

    def __init__(self, layout: Layout, config: Config, states: Mapping[str, KeyState] | None = None) -> None:
        """Read the pauses.

        Args:
            states: of every key that something is known of, where the caller has them.
        """
        self.states = queue_keys.every(layout) if states is None else states
        self.closed = _closed(config, self.states)

    def of(self, queue_key: str, batch_id: str) -> str:
        """Tell why nothing of a batch starts on a key, as the last pass found; empty where something may start."""
        state = self.states.get(queue_key)
        return (state.hold_of(batch_id) if state else "") or self.closed.get(queue_key, "")

    def every(self) -> dict[str, list[str]]:
        """Queue key → a line for each thing that keeps attempts from starting on it, whosever."""
        found = {key: [line] for key, line in self.closed.items()}
        for key, state in self.states.items():
            if state.holds:
                found[key] = list(state.holds)
        return found


def _closed(config: Config, states: Mapping[str, KeyState]) -> dict[str, str]:
    """Queue key → why nothing starts on it by its configured limit."""
    return {
        key: f"{key} has a limit of 0 (configured), so nothing starts on it; "
        f"`parallelhassnes limit {key} N` allows N at a time"
        for key, limit in config.limits.items()
        if limit < 1 and (key not in states or states[key].limit is None)
    }


class QueueKeys:
    """The states of queue keys, each read once and written when it changes."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._states: dict[str, KeyState] = {}
        self._noted: set[str] = set()
        """Those of which only who waits for them is to be written."""

    def get(self, queue_key: str) -> KeyState:
        if queue_key not in self._states:
            found = self._states[queue_key] = queue_keys.read(self.ctx.layout, queue_key)
            self.put(found.bounded(time.time()))
        return self._states[queue_key]

    def put(self, state: KeyState) -> None:
        if state != self._states.get(state.queue_key):
            queue_keys.write(self.ctx.layout, state)
            self._states[state.queue_key] = state
            self._noted.discard(state.queue_key)

    def save(self) -> None:
        """Write down which batches wait for a key: once in a pass, however many wait."""
        for queue_key in self._noted:
            queue_keys.write(self.ctx.layout, self._states[queue_key])
        self._noted.clear()

    # --- what an end makes of its key -----------------------------------------------------------------

    def note_end(self, batch_id: str, job_id: str, step: StepSpec, now: StepNow) -> None:
        """Take in that an attempt ended, in one write; a second time changes nothing."""
        before = self.get(step.queue_key)
        if any(entry.run_id == now.run_id for entry in before.history):
            return
        name = now.failure.failure_class if now.failure else None
        state = before
        if name in adaptive_limits.SIGNALS:
            state = self._lowered(state, batch_id, now, name)
        if name is not None and TABLE[name].pauses_key:
            state = self._paused(state, f"{batch_id}/{job_id}/{step.step_id}", now, name)
        else:
            for mark, known in state.breakers.items():
                kept = circuit_breaker.after_other_end(known, now.run_id, name, time.time())
                if kept != known:
                    said = "told nothing" if kept else "reached its provider: open again"
                    changed = state.with_breaker(mark, kept)
                    state = changed.changed(f"the probe {said}", now_text(), now.run_id)
        self.put(state)

    def _paused(self, state: KeyState, step: str, now: StepNow, name: str) -> KeyState:
        batch_id, job_id, step_id = step.split("/")
        folder = self.ctx.layout.step(batch_id, job_id, step_id) / "attempts" / now.attempt
        failure = attempts.read_state(folder).failure
        credential = attempts.read_meta(folder).credential or Credential()
        probed = [mark for mark, each in state.breakers.items() if each.probe == now.run_id]
        known = state.breakers.get(probed[0] if probed else credential.mark)
        found = circuit_breaker.after_failure(
            known,
            failure_class=name,
            line=failure.line if failure else "",
            evidence=(failure.evidence or "") if failure else "",
            attempt=f"{step}/{now.attempt}",
            run_id=now.run_id,
            now=time.time(),
            probe_sec=self.ctx.config.adaptive.probe_sec,
            credential=credential,
        )
        if found == known:
            return state
        changed = state
        for mark in probed:
            changed = changed.with_breaker(mark, None)
        changed = changed.with_breaker(credential.mark, _waits(found, batch_id))
        if credential.mark not in state.breakers:
            line = found.hold(state.queue_key)
            notices.note(self.ctx.layout, self.ctx.config.notify, "key_paused", state.queue_key, now.run_id, line=line)
        what = f"paused by its provider for attempts {credential.words}: {name}; a probe after {found.interval_sec:g} s"
        return changed.changed(what, now_text(), now.run_id)

    def _lowered(self, state: KeyState, batch_id: str, now: StepNow, name: str | None) -> KeyState:
        config, key = self.ctx.config.adaptive, state.queue_key
        if not adaptive_limits.is_on(config, key):
            return state
        meta = batches.read_batch(self.ctx.layout.batch(batch_id))
        tables = {batch_id: meta.limits[key]} if key in meta.limits else _NO_TABLES
        within = self._bounds(key, said_limit(self.ctx, state, tables).number)
        moment = time.time()
        before = adaptive_limits.limit_now(state.adaptive, moment, within, config)
        made = adaptive_limits.after_signal(state.adaptive, moment, self._live(key) + 1, within, config)
        if made == state.adaptive:
            return state
        changed = state.model_copy(update={"adaptive": made})
        return changed.changed(f"limit {before} to {made.limit}: {name}", now_text(), now.run_id)

    def _live(self, queue_key: str) -> int:
        return len(members.names(self.ctx.layout.running / key_dir(queue_key)))

    def _bounds(self, queue_key: str, explicit: int | None) -> adaptive_limits.LimitRange:
        ctx = self.ctx
        return adaptive_limits.bounds(ctx.config.adaptive, queue_key, explicit, ctx.concurrency)

    # --- what a key lets start ------------------------------------------------------------------------

    def limit(self, queue_key: str, tables: Mapping[str, int]) -> int | None:
        """Return the limit in force; None for none. What quiet periods have added to it is written down.

        Args:
            tables: as for ``effective_limit``.
        """
        config, state = self.ctx.config.adaptive, self.get(queue_key)
        if state.adaptive is not None and adaptive_limits.is_on(config, queue_key):
            within = self._bounds(queue_key, said_limit(self.ctx, state, tables).number)
            risen = adaptive_limits.after_quiet(state.adaptive, time.time(), within, config)
            if risen != state.adaptive:
                limit = within.ceiling if risen is None else risen.limit
                what = f"limit {state.adaptive.limit} to {limit}: no signal for {config.quiet_sec:g} s"
                changed = state.model_copy(update={"adaptive": risen})
                self.put(changed.changed(what, now_text()))
        return effective_limit(self.ctx, self.get(queue_key), tables).number

    def may_start(self, queue_key: str) -> bool:
        """Tell whether anything may start on the key, with whatever credential."""
        state = self.get(queue_key)
        every = state.breakers.get(queue_keys.EVERY)
        return state.paused is None and (every is None or self._may_probe(every))

    def may_refuse(self, queue_key: str) -> bool:
        """Tell whether it must be asked with whose credential an attempt would start."""
        return bool(self.get(queue_key).breakers)

    def refuses(self, queue_key: str, credential: Credential, batch_id: str) -> bool:
        """Tell whether the key is paused for a credential; ``save`` writes that the batch waits for it, or waits no longer."""
        state = self.get(queue_key)
        own = [state.breakers[mark] for mark in (queue_keys.EVERY, credential.mark) if mark in state.breakers]
        refused = any(not self._may_probe(each) for each in own)
        for mark, each in state.breakers.items():
            waits = refused and mark == credential.mark
            noted = _waits(each, batch_id) if waits else _waits_no_longer(each, batch_id)
            if noted != each:
                state = state.with_breaker(mark, noted)
                self._noted.add(queue_key)
        self._states[queue_key] = state
        return refused

    def _may_probe(self, known: Breaker) -> bool:
        """Tell whether one attempt may start; a probe without a ticket of its batch on its way is one whose batch was deleted."""
        if known.probe is not None:
            running = [ticket.name for ticket in tickets.running(self.ctx.layout)]
            names = [*running, *(path.name for path in tickets.ended(self.ctx.layout))]
            found = {tickets.parse_name(name).batch_id for name in names}
            return known.probe_batch not in found if known.probe_batch else not found
        return circuit_breaker.may_probe(known, time.time())

    def started(self, queue_key: str, meta: AttemptMeta) -> None:
        """Take in that an attempt started: as the probe of its credential, where the key is paused for it."""
        state = self.get(queue_key)
        mark = meta.credential.mark if meta.credential else ""
        for each in (queue_keys.EVERY, mark):
            if each in state.breakers:
                probing = circuit_breaker.start_probe(state.breakers[each], meta.run_id, meta.batch_id)
                # Without its run id: that stands in the history once its end is taken in.
                state = state.with_breaker(each, probing).changed("a probe started", now_text())
        self.put(state)


def _waits(known: Breaker, batch_id: str) -> Breaker:
    """With the batch among those that wait."""
    if batch_id in known.batches:
        return known
    names = (*known.batches, batch_id)[-queue_keys.MOST_BATCHES :]
    return known.model_copy(update={"batches": names})


def _waits_no_longer(known: Breaker, batch_id: str) -> Breaker:
    if batch_id not in known.batches:
        return known
    return known.model_copy(update={"batches": tuple(each for each in known.batches if each != batch_id)})
