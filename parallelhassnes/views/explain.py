"""``explain``: why a step is where it is, from the files that the passes decide by."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from parallelhassnes import formatting
from parallelhassnes.key_names import key_dir
from parallelhassnes.plan import StepSpec
from parallelhassnes.refs import resolve
from parallelhassnes.schedule import health
from parallelhassnes.schedule.cluster import cluster_jobs
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits import exclusive_dirs, start_rate
from parallelhassnes.schedule.limits.concurrency_keys import Limit, effective_limit, table_limits
from parallelhassnes.schedule.rules.step_state import stand
from parallelhassnes.steps.trial.trial_paths import environment_of
from parallelhassnes.store import atomic, batches, clocks, hosts, locks
from parallelhassnes.store.queue import handed, queue_keys, tickets
from parallelhassnes.store.queue.queue_keys import KeyState
from parallelhassnes.store.records import now_text, parse_time
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus, StepStatus
from parallelhassnes.views.outcome import outcome
from parallelhassnes.views.runners import slurm_now
from parallelhassnes.views.scoreboard_models import View

MOST_STEPS = 20


class ExplainedStep(View):
    """One step."""

    step: str
    """``job_id/step_id``."""
    state: str
    """As in the scoreboard."""
    why: list[str]
    """What it waits for, or how it ended and what follows; the first line is what keeps it now."""


class Explained(View):
    """What ``explain`` prints with ``--json``."""

    schema_version: Literal[1] = 1
    ok: bool = True
    id: str
    """What was asked about."""
    steps: list[ExplainedStep]
    """Of a batch or job the first that are not over well; all of them where all are over well."""
    more: int = 0
    """Steps left out."""


def explain(ctx: Context, text: str) -> Explained:
    """Tell why the steps under an id are where they are; changes nothing.

    Raises:
        UnknownId: there is no such thing.
    """
    found = resolve(ctx.layout, text)
    status = batch_status.read_told(ctx.layout, found.batch_id)
    own = status.below(found.job_id, found.step_id)
    open_ones = [step for step in own if step.state != "succeeded"]
    shown = open_ones or own
    view = _View(ctx, status)
    return Explained(
        id=str(found),
        steps=[
            ExplainedStep(step=step.key, state=step.state, why=list(view.lines(step))) for step in shown[:MOST_STEPS]
        ],
        more=max(0, len(shown) - MOST_STEPS),
    )


class _View:
    """What the steps of one batch have in common, read once."""

    def __init__(self, ctx: Context, status: BatchStatus) -> None:
        self.ctx, self.status = ctx, status
        self.batch_id = status.batch_dir.name
        self.meta = batches.read_batch(status.batch_dir)
        self.control = batches.read_control(status.batch_dir)
        self.live = tickets.running(ctx.layout)
        self.keys = queue_keys.every(ctx.layout)
        self.trouble = health.troubles(ctx.layout)
        self.waiting = [(key, batch_id) for key, batch_id, _ in tickets.ready_folders(ctx.layout)]

    def lines(self, found: StepStatus) -> Iterator[str]:
        """Yield the lines of one step."""
        if found.state == "running":
            attempt = found.row.attempt if found.row else "an attempt"
            job = cluster_jobs.record_of(self.ctx.layout, attempt)
            if job is not None:
                line = cluster_jobs.line_of(self.ctx.layout, job)
                yield f"attempt {found.row.number if found.row else 1} ({attempt}): {line}"
            else:
                yield f"attempt {found.row.number if found.row else 1} ({attempt}) runs; `show` has its phase"
            yield self._rule(found)
            return
        over = found.row is not None and found.row.retry_at is None
        if over:
            yield from self._ended(found)
            return
        if found.row is not None:
            yield from self._ended(found)
        if found.state == "canceled":
            yield f"canceled before it started{self._canceled_by(found.key)}; `retry` lets it start after all"
            return
        if found.state == "blocked" and found.reason:
            last = " for good, unless that is retried" if found.final else ""
            yield f"blocked{last}: {found.reason}"
            if found.final or found.reason.startswith("waiting for"):
                return
        yield from self.trouble
        yield from self._delay(found)
        yield from self._holds(found)
        yield from self._limits(found)
        yield self._rule(found)

    def _ended(self, found: StepStatus) -> Iterator[str]:
        row = found.row
        if row is None:
            return
        came_to = outcome(found.step.kind, row.status, row.said, row.failure_class, guessed=row.guessed).text
        why = f"{came_to.partition(': ')[0]} ({row.failure})" if row.failure else came_to
        yield f"attempt {row.number} ended at {row.at}: {why}"
        step = self._spec(found)
        step_dir = self.ctx.layout.step(self.batch_id, found.job_id, step.step_id)
        overrides = batches.read_overrides(self.status.batch_dir / found.job_id)
        now = stand(step_dir, step, overrides)
        if now is not None and now.because:
            yield f"{'another attempt' if now.retry_at else 'no other attempt'}: {now.because}"

    def _spec(self, found: StepStatus) -> StepSpec:
        return batches.read_job(self.status.batch_dir / found.job_id).step(found.step.step_id)

    def _rule(self, found: StepStatus) -> str:
        """By what its next end is judged."""
        said = self._spec(found).retry
        rule = said.under(self.ctx.config.retry)
        whose = "parallelhassnes.toml" if "max_attempts" in said.open else "its table"
        again = f", again after {rule.backoff_sec:g} s at first" if rule.max_attempts > 1 else ""
        return f"retries: {formatting.counted(rule.max_attempts, 'attempt')} at most ({whose}){again}"

    def _canceled_by(self, key: str) -> str:
        found = [event for event in self._called_off if key in event["steps"]]
        if not found or "by" not in found[-1]:
            return ""
        reason = found[-1].get("reason")
        return f" by {found[-1]['by']}{f': {reason}' if reason else ''}"

    @cached_property
    def _called_off(self) -> list[dict[str, Any]]:
        """What the ledger says of steps that were called off."""
        from parallelhassnes.store.evidence import ledger

        lines = (event for _, event in ledger.read(self.status.batch_dir))
        return [event for event in lines if event["event"] in ("canceled", "rejected")]

    def _delay(self, found: StepStatus) -> Iterator[str]:
        row, now = found.row, time.time()
        if row is None or row.retry_at is None:
            return
        delay = parse_time(row.retry_at) - parse_time(row.at) if row.at else 0.0
        left = clocks.latest(parse_time(row.retry_at), now, delay) - now
        if left > 0:
            at = now_text(datetime.fromtimestamp(now + left, UTC))
            yield f"its backoff ends at {at}, in {left:.0f} s"

    def _holds(self, found: StepStatus) -> Iterator[str]:
        """Pauses besides the one that the state names."""
        said = found.reason
        if self.control.hold and self.control.hold != said:
            yield f"the batch is {self.control.hold}"
        state = self.keys.get(found.step.queue_key)
        hold = state.hold_of(self.batch_id) if state is not None else ""
        if hold and hold != said:
            yield hold
        pause = state.breaker_of(self.batch_id) if state is not None else None
        if pause is not None:
            probe = pause.probe
            at = now_text(datetime.fromtimestamp(pause.probe_at, UTC))
            yield (f"a probe runs now ({probe})" if probe else f"one attempt probes the key after {at}")
        folder = self.ctx.layout.runners / self.ctx.runner_id
        if (folder / "drain").exists():
            yield f"runner {self.ctx.runner_id} is draining{self._drained_by()}"

    def _drained_by(self) -> str:
        path = self.ctx.layout.runners / self.ctx.runner_id / "drain"
        try:
            said = atomic.read_json_or_none(path)
        except atomic.CorruptFile:  # made by hand
            return ""
        return f" (by {said['by']}: {said.get('reason') or 'no reason given'})" if said else ""

    def _limits(self, found: StepStatus) -> Iterator[str]:
        key = found.step.queue_key
        yield from self._room(found)
        own = sum(tickets.parse_name(t.name).batch_id == self.batch_id for t in self.live)
        if self.meta.concurrency is not None and own >= self.meta.concurrency:
            yield f"the batch is full: {own} of {self.meta.concurrency} live"
        limit = self._key_limit(key)
        on_key = sum(t.key_dir == key_dir(key) for t in self.live)
        if limit.number and on_key >= limit.number:
            yield f"{key} is full: {on_key} of {limit.number} live ({limit.why})"
        for waits in (self._start_rate(found), self._folder(found)):
            if waits:
                yield waits
        if found.state == "ready":
            yield "ready: the next pass with room starts it, in the order of the batch"

    def _room(self, found: StepStatus) -> Iterator[str]:
        """Where there is no place for it now: on this host, on any of several, or at Slurm."""
        ctx, everywhere = self.ctx, len(self.live)
        if not hosts.is_shared(ctx.layout):
            if everywhere >= ctx.concurrency:
                yield f"the host is full: {everywhere} of {ctx.concurrency} live"
            return
        loads = handed.loads(ctx.layout, {entry.name for entry in self.live})
        if self._spec(found).resources is not None:
            jobs = ctx.config.slurm.jobs
            if len(loads[handed.JOBS]) >= jobs:
                yield f"[slurm] jobs is full: {len(loads[handed.JOBS])} of {jobs} pending or running"
            return
        beats = {name: hosts.beat_of(ctx.layout, name) for name in loads.keys() - {handed.JOBS}}
        taking = {name: beat for name, beat in sorted(beats.items()) if beat is not None and not beat.draining}
        if all(len(loads[name]) >= beat.capacity for name, beat in taking.items()):
            said = ", ".join(f"{name} {len(loads[name])} of {beat.capacity}" for name, beat in taking.items())
            yield f"every runner is full: {said} live" if said else "no runner takes anything now"
            slurm = slurm_now(ctx.layout)
            for pilot in slurm.pilots if slurm is not None else ():
                if pilot.state == "PENDING":
                    yield f"job {pilot.job_id} of Slurm, a runner to be, is {pilot.line}"

    def _folder(self, found: StepStatus) -> str:
        """Return the folder that another step works alone in; empty for a step that needs none or has it free."""
        if found.step.kind != "agent":
            return ""
        folder = exclusive_dirs.own_folder(self._spec(found))
        if folder is None or not locks.is_held(self.ctx.layout.directory_lock(folder)):
            return ""
        return f"another step works in {folder}, and only one may at a time"

    def _key_limit(self, key: str) -> Limit:
        """Return the limit in force of a key."""
        on_key = {batch_id for folder, batch_id in self.waiting if folder == key_dir(key)} | {
            tickets.parse_name(entry.name).batch_id for entry in self.live if entry.key_dir == key_dir(key)
        }
        tables = table_limits(self.ctx.layout, key, on_key)
        return effective_limit(self.ctx, self.keys.get(key) or KeyState(queue_key=key), tables)

    def _start_rate(self, found: StepStatus) -> str:
        if found.step.kind != "trial":
            return ""
        environment = environment_of(self._spec(found).spec.get("config") or {})
        for bucket in start_rate.waiting(self.ctx.layout):
            if bucket.environment == environment:
                if bucket.down:
                    return f"{bucket.down}; it starts when one does"
                left = max(0.0, bucket.next_at(now := time.time()) - now)
                return f"{environment} starts {bucket.rate:g} trials a second; the next in {left:.1f} s"
        return ""
