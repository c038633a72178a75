"""The queue keys in one pass: what ended attempts make of them, and what they let start. Under ``tick.lock``."""

import time

from parallelhassnes.names import key_dir
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule import adaptive, breaker
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.policy import policy_of
from parallelhassnes.store import attempts, batches, queue_keys, tickets
from parallelhassnes.store.queue_keys import KeyState
from parallelhassnes.store.records import StepNow, now_text


class Keys:
    """The states of queue keys, each read once and written when it changes."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._states: dict[str, KeyState] = {}

    def get(self, queue_key: str) -> KeyState:
        if queue_key not in self._states:
            self._states[queue_key] = queue_keys.read(self.ctx.layout, queue_key)
        return self._states[queue_key]

    def put(self, state: KeyState) -> None:
        if state != self._states.get(state.queue_key):
            queue_keys.write(self.ctx.layout, state)
            self._states[state.queue_key] = state

    # --- what an end makes of its key -----------------------------------------------------------------

    def note_end(self, batch_id: str, job_id: str, step: StepSpec, now: StepNow) -> None:
        """Take in that an attempt ended, in one write; a second time changes nothing."""
        before = self.get(step.queue_key)
        if any(entry.run_id == now.run_id for entry in before.history):
            return
        name = now.failure.failure_class if now.failure else None
        state = before
        if name in adaptive.SIGNALS:
            state = self._lowered(state, batch_id, now, name)
        if name is not None and policy_of(name, step.retry).pauses_key:
            state = self._paused(state, f"{batch_id}/{job_id}/{step.step_id}", now, name)
        elif state.breaker is not None:
            kept = breaker.after_other_end(state.breaker, now.run_id, name, time.time())
            if kept != state.breaker:
                said = "told nothing" if kept else "reached its provider: open again"
                changed = state.model_copy(update={"breaker": kept})
                state = changed.changed(f"the probe {said}", now_text(), now.run_id)
        self.put(state)

    def _paused(self, state: KeyState, step: str, now: StepNow, name: str) -> KeyState:
        batch_id, job_id, step_id = step.split("/")
        folder = self.ctx.layout.step(batch_id, job_id, step_id) / "attempts" / now.attempt
        failure = attempts.read_state(folder).failure
        found = breaker.after_failure(
            state.breaker, failure_class=name, line=failure.line if failure else "",
            evidence=(failure.evidence or "") if failure else "",
            attempt=f"{step}/{now.attempt}", run_id=now.run_id, now=time.time(),
            probe_sec=self.ctx.config.adaptive.probe_sec,
        )  # fmt: skip
        if found == state.breaker:
            return state
        changed = state.model_copy(update={"breaker": found})
        what = f"paused by its provider: {name}; a probe after {found.interval_sec:g} s"
        return changed.changed(what, now_text(), now.run_id)

    def _lowered(self, state: KeyState, batch_id: str, now: StepNow, name: str | None) -> KeyState:
        config, key = self.ctx.config.adaptive, state.queue_key
        if not adaptive.is_on(config, key):
            return state
        meta = batches.read_batch(self.ctx.layout.batch(batch_id))
        explicit = (self.explicit(key), meta.limits.get(key))
        within = self._bounds(key, min((n for n in explicit if n is not None), default=None))
        moment = time.time()
        before = adaptive.limit_now(state.adaptive, moment, within, config)
        made = adaptive.after_signal(state.adaptive, moment, self._live(key) + 1, within, config)
        if made == state.adaptive:
            return state
        changed = state.model_copy(update={"adaptive": made})
        return changed.changed(f"limit {before} to {made.limit}: {name}", now_text(), now.run_id)

    def _live(self, queue_key: str) -> int:
        try:
            folder = self.ctx.layout.running / key_dir(queue_key)
            return sum(1 for entry in folder.iterdir() if entry.name[0] != ".")
        except FileNotFoundError:
            return 0

    def _bounds(self, queue_key: str, explicit: int | None) -> adaptive.Bounds:
        ctx = self.ctx
        return adaptive.bounds(ctx.config.adaptive, queue_key, explicit, ctx.concurrency)

    # --- what a key lets start ------------------------------------------------------------------------

    def explicit(self, queue_key: str) -> int | None:
        """The limit that people have set: an operator's in the place of the configured one; the command line's besides."""
        said = self.get(queue_key).limit
        return self.ctx.limit(queue_key, said.limit if said is not None else None)

    def limit(self, queue_key: str, explicit: int | None) -> int | None:
        """The limit in force; None for none.

        Args:
            explicit: the strictest of those that people have set.
        """
        config, state = self.ctx.config.adaptive, self.get(queue_key)
        if state.adaptive is None or not adaptive.is_on(config, queue_key):
            return explicit
        within, moment = self._bounds(queue_key, explicit), time.time()
        risen = adaptive.after_quiet(state.adaptive, moment, within, config)
        if risen != state.adaptive:
            limit = within.ceiling if risen is None else risen.limit
            what = f"limit {state.adaptive.limit} to {limit}: no signal for {config.quiet_sec:g} s"
            changed = state.model_copy(update={"adaptive": risen})
            self.put(changed.changed(what, now_text()))
        return within.ceiling if risen is None else risen.limit

    def may_start(self, queue_key: str) -> bool:
        """Whether anything may start on the key, if only a probe."""
        state = self.get(queue_key)
        if state.paused is not None:
            return False
        if state.breaker is None:
            return True
        # A probe without a live attempt on the key, or one that has ended meanwhile, is one whose batch was deleted.
        gone = (
            state.breaker.probe is not None
            and not self._live(queue_key)
            and not tickets.ended(self.ctx.layout)
        )
        return gone or breaker.may_probe(state.breaker, time.time())

    def started(self, queue_key: str, run_id: str) -> bool:
        """Take in that an attempt started; True where it was a probe, so that nothing more may start on the key."""
        state = self.get(queue_key)
        if state.breaker is None:
            return False
        probing = breaker.start_probe(state.breaker, run_id)
        changed = state.model_copy(update={"breaker": probing})
        self.put(changed.changed("a probe started", now_text()))
        return True
