"""Launch: from a ready ticket to a running supervisor. Under ``tick.lock``.

For each ticket in order: take ``step.lock``; look again whether the step is to start; make the
attempt's folder (it appears whole); move the ticket to ``running/``; write the ledger line; fork the supervisor with
the locked descriptor; let go of it. What another host is to run is handed to it instead, once the lock is free.

A crash after the folder appeared leaves an attempt without a process: its lock is free, so the next
launch or repair of that step ends it as ``lost``. A crash before it leaves nothing but the ticket.
"""

import contextlib
import os
import platform
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from parallelhassnes import names, places
from parallelhassnes.execute import launcher
from parallelhassnes.plan import JobSpec, StepSpec, TrialSpec
from parallelhassnes.schedule import health, quarantine, queue_order, rebuild
from parallelhassnes.schedule.admission import Gate
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState, ran_under, step_facts
from parallelhassnes.schedule.limits.concurrency_keys import QueueKeys
from parallelhassnes.schedule.limits.exclusive_dirs import ExclusiveDirs
from parallelhassnes.schedule.limits.start_rate import StartRates
from parallelhassnes.schedule.process import runner_heartbeat
from parallelhassnes.schedule.process.host_slots import HostSlots
from parallelhassnes.schedule.rules import solver_critic
from parallelhassnes.schedule.rules.step_state import stand
from parallelhassnes.steps.registry import kind as kind_of
from parallelhassnes.steps.registry import needs
from parallelhassnes.steps.step_types import WarmsUp
from parallelhassnes.store import attempts, batches, decider, hosts, locks, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.store.records import (
    AttemptMeta,
    AttemptState,
    Control,
    Credential,
    Current,
    Heartbeat,
    Overrides,
    Ticket,
    now_text,
)
from parallelhassnes.version import __version__

if TYPE_CHECKING:
    from parallelhassnes.schedule.process.attempt_process import Assignment, Then


class Launched(NamedTuple):
    """One start of an attempt."""

    ticket: Ticket
    attempt: str


def launch_ready(ctx: Context, then: "Then", unloaded: list[StepSpec]) -> list[Launched]:
    """Start whatever the limits allow; the caller holds ``tick.lock``.

    Args:
        then: what each supervisor does when its attempt has been sealed and its slot freed.
        unloaded: receives steps that were not started as this process has not imported what they need: nobody waits for the
            lock while that is done. The caller has ``preload`` do it after the lock, and launches again.
    """
    if not ctx.layout.runner and (runner_heartbeat.is_draining(ctx) or ctx.shortage() is not None):
        return []
    gate = Gate(ctx)
    keys = QueueKeys(ctx)
    lines = queue_order.line_up(ctx, gate.may_start, partial(rebuild.pass_over, ctx))
    lines = [line for line in lines if line.queue_key and keys.may_start(line.queue_key)]
    load, live = queue_order.count(ctx)
    room = queue_order.Room(ctx, load, live, keys)
    bucket, purse, folders = StartRates(ctx), gate.purse, ExclusiveDirs(ctx)
    started: list[Launched] = []
    while (found := room.next(lines)) is not None:
        is_left_to_others = launcher.has_taken() and locks.is_waited_for(ctx.layout.tick_waiting)
        if is_left_to_others or launcher.is_awaited() or not decider.decides(ctx.layout):
            health.wish(ctx.layout)
            break
        line, lane = found
        path = lane.head
        if path is None:
            break
        claimed = None
        with members.apart(path, partial(_close_lanes, ctx, gate, lines, path)):
            claimed = _take(ctx, lane, path, gate, keys, folders, bucket, room.slots, unloaded)
        if claimed is None:
            continue
        if claimed.meta.runner_id == ctx.runner_id:
            start(ctx, claimed.assignment, claimed.lock, then)
        os.close(claimed.lock)
        if claimed.meta.runner_id != ctx.runner_id:  # its process takes the lock
            handed.hand(ctx.layout, claimed.meta.runner_id, path.name, claimed.assignment)
        room.slots.take(claimed.meta.runner_id)
        purse.started(lane.batch_id, lane.queue_key)
        load.add(lane.key, lane.batch_id)
        keys.started(lane.queue_key, claimed.meta)
        line.serve(lane)
        if lane.refused:
            lane.look_elsewhere(ctx.layout)
        started.append(Launched(claimed.ticket, claimed.assignment.attempt))
    bucket.save()
    keys.save()
    return started


def _close_lanes(ctx: Context, gate: Gate, lines: list[queue_order.KeyLanes], path: Path, error: Exception) -> None:
    """Start nothing more of the batch of a ticket that cannot be followed."""
    rebuild.pass_over(ctx, path, error)
    gate.close(batch_id := quarantine.batch_of(path))
    for lane in (lane for line in lines for lane in line.lanes):
        if lane.batch_id == batch_id:
            lane.close()


def _take(
    ctx: Context,
    lane: queue_order.Lane,
    path: Path,
    gate: Gate,
    keys: QueueKeys,
    folders: ExclusiveDirs,
    bucket: StartRates,
    slots: HostSlots,
    unloaded: list[StepSpec],
) -> "_Claimed | None":
    """Claim the step at the head of a lane, and write down that it starts; None where it does not start now."""
    refusal = gate.purse.refuses(lane.batch_id, lane.queue_key)
    if refusal is not None:
        gate.note(lane.batch_id, refusal)
        lane.close()
        return None
    if keys.may_refuse(lane.queue_key) and (step := _step_of(ctx, path)) is not None:
        credential = gate.credentials.of(lane.batch_id, step)
        if keys.refuses(lane.queue_key, credential, lane.batch_id):
            lane.advance() if lane.refused else lane.look_elsewhere(ctx.layout)
            return None
    if folders.refuse(path):
        lane.advance()
        if folders.gives_up(f"{lane.key}/{lane.batch_id}"):
            lane.close()
        return None
    place = bucket.place(path)
    if place is not None and not bucket.take(place):
        lane.close()  # the waker has a pass run when the next may start
        return None
    lane.advance()
    claimed = _claim(ctx, path, lane, gate, slots, unloaded)
    if claimed is None:
        if place is not None:
            bucket.give_back(place)
        return None
    try:
        _record(ctx, claimed.meta, claimed.assignment.attempt, claimed.step)  # before the fork: whatever ran has a line
    except OSError:  # a full disk; a repair ends what was prepared
        os.close(claimed.lock)
        raise
    if place is not None:
        bucket.started(place)
    return claimed


_RECORDS = (AttemptMeta, AttemptState, Control, Current, Overrides, Ticket, TrialSpec)


class _Claimed(NamedTuple):
    """A step that is ours to start: its attempt prepared, its ticket moved, its lock taken."""

    ticket: Ticket
    assignment: "Assignment"
    lock: int
    meta: AttemptMeta
    step: StepSpec


_loaded: set[tuple[str, ...]] = set()
"""What ``preload`` has done in this process, or the one that it was forked from."""


def preload(step: StepSpec) -> None:
    """Import in this process what an attempt of the step will need in those forked from it, and make it ready."""
    _attempt_process()
    kind = kind_of(step.kind)
    kind.preload(step)
    for record in _RECORDS:  # they build themselves at first use, which would be in every child
        record.model_rebuild()
    if launcher.fork_is_safe():
        if isinstance(kind, WarmsUp):
            kind.warm_up()
        launcher.freeze_heap()
    _loaded.add(needs(step))


def _attempt_process() -> ModuleType:
    """Return the module of the process that owns an attempt: a pass that starts none does without what an attempt needs."""
    from parallelhassnes.schedule.process import attempt_process

    return attempt_process


def _step_of(ctx: Context, path: Path) -> StepSpec | None:
    """Return the step of a ready ticket; None where the ticket is gone."""
    try:
        return batches.read_step(ctx.layout, tickets.read(path))[1]
    except FileNotFoundError:
        return None


def _claim(
    ctx: Context, path: Path, lane: queue_order.Lane, gate: Gate, slots: HostSlots, unloaded: list[StepSpec]
) -> _Claimed | None:
    try:
        ticket = tickets.read(path)
    except FileNotFoundError:
        return None
    job, step = batches.read_step(ctx.layout, ticket)
    book = gate.book(job.batch_id)
    step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
    step_dir.mkdir(parents=True, exist_ok=True)
    lock = locks.claim(step_dir / "step.lock")
    if lock is None:  # a live attempt whose ticket is here by mistake: it will settle, or be repaired
        return None
    if tickets.is_unsettled(ctx.layout, lane.key, path.name):  # the next attempt's ticket would take its place
        os.close(lock)
        return None
    try:
        if not _to_start(book, job, step, step_dir):
            _drop_or_repair(ctx, path, lane.key, step_dir)
            os.close(lock)
            return None
        credential = gate.credentials.of(job.batch_id, step)
        runner = slots.choose(step, credential)
        if runner is None:
            why = slots.refusal(step, credential)
            if why:
                gate.note(job.batch_id, why)
            if why or slots.gives_up(f"{lane.key}/{lane.batch_id}"):
                lane.close()
            os.close(lock)
            return None
        if runner == ctx.runner_id and needs(step) not in _loaded:
            unloaded.append(step)
            lane.close()  # what comes after it does not start before it
            os.close(lock)
            return None
        ledger.check(ctx.layout.batch(job.batch_id))  # before there is an attempt to end
        name, meta = _prepare(ctx, book, job, step, step_dir, path.name, credential, runner)
        if not _move_ticket(ctx, path, lane.key, step_dir / "attempts" / name, runner):
            os.close(lock)
            return None
    except BaseException:
        os.close(lock)
        raise
    assignment: Assignment = _attempt_process().Assignment(
        root=str(ctx.layout.root),
        batch_id=job.batch_id,
        job_id=job.job_id,
        step_id=step.step_id,
        attempt=name,
        key_dir=lane.key,
        ticket=path.name,
        options=ctx.options,
    )
    return _Claimed(ticket, assignment, lock, meta, step)


def _move_ticket(ctx: Context, path: Path, key: str, attempt_dir: Path, runner: str) -> bool:
    """Have the ticket be a running one, and lie with this runner where that is one of several.

    Returns:
        False where another host has come to decide meanwhile: the attempt is taken away, unless that one has had it begun.
    """
    if ctx.layout.runner == runner:
        handed.note_taken(ctx.layout, path.name)
    try:
        if decider.decides(ctx.layout):  # looked at last: a host may stand still anywhere before
            tickets.start_running(ctx.layout, path, key)
            return True
    except FileNotFoundError:
        if not ctx.layout.runner:
            raise
    with contextlib.suppress(FileNotFoundError):
        if attempts.read_state(attempt_dir).status == "queued":
            shutil.rmtree(attempt_dir, ignore_errors=True)
    return False


def record_if_missing(ctx: Context, attempt_dir: Path) -> None:
    """Add the line of a launch that a host did not live to write, before its attempt is handed out again. Under ``tick.lock``."""
    meta = attempts.read_meta(attempt_dir)
    lines = ledger.read(ctx.layout.batch(meta.batch_id))
    if not any(line.get("event") == "launched" and line.get("run_id") == meta.run_id for _, line in lines):
        step = batches.read_job(ctx.layout.job(meta.batch_id, meta.job_id)).step(meta.step_id)
        _record(ctx, meta, attempt_dir.name, step)


def _record(ctx: Context, meta: AttemptMeta, attempt: str, step: StepSpec) -> None:
    ledger.append(
        ctx.layout.batch(meta.batch_id),
        "launched",
        job_id=meta.job_id,
        step_id=meta.step_id,
        run_id=meta.run_id,
        attempt=attempt,
        number=meta.number,
        queue_key=meta.queue_key,
        stand_in=meta.stand_in or None,
        **ran_under(meta),
        **step_facts(step),
    )


def _to_start(book: JobState, job: JobSpec, step: StepSpec, step_dir: Path) -> bool:
    overrides = book.overrides(job.job_id)
    if step.step_id in overrides.canceled:
        return False
    now = stand(step_dir, step, overrides)
    if now is None:
        return book.evaluate(job, step)[0] == "ready"
    if solver_critic.waits_for_solver(step, now, overrides):
        return book.evaluate(job, step)[0] == "ready"
    return now.retry_at is not None


def _drop_or_repair(ctx: Context, path: Path, key: str, step_dir: Path) -> None:
    """A ticket whose step is not to start: of a dead attempt it is a running one, else it is stale."""
    ref = attempts.newest(step_dir)
    if ref is not None and not attempts.is_sealed(ref.dir):
        tickets.start_running(ctx.layout, path, key)
        return
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        tickets.tidy(path.parent)


def _prepare(
    ctx: Context,
    book: JobState,
    job: JobSpec,
    step: StepSpec,
    step_dir: Path,
    ticket: str,
    credential: Credential,
    runner: str,
) -> tuple[str, AttemptMeta]:
    run_id = names.new_run_id()
    now = datetime.now(UTC)
    name = names.attempt_name(run_id, now)
    earlier = attempts.names(step_dir)
    if earlier and name <= earlier[-1]:  # two attempts within one second still sort in order
        name = names.attempt_name(run_id, _after(earlier[-1]))
    meta = AttemptMeta(
        run_id=run_id,
        batch_id=job.batch_id,
        job_id=job.job_id,
        step_id=step.step_id,
        kind=step.kind,
        queue_key=step.queue_key,
        number=len(earlier) + 1,
        created_at=now_text(now),
        runner_id=runner,
        host=platform.node() if runner == ctx.runner_id else hosts.host_of(ctx.layout, runner),
        harness_version=__version__,
        config_sha256=ctx.config.sha256(),
        ticket=ticket,
        stand_in=step.kind == "agent" and ctx.options.no_codex,
        inputs=_inputs(book, job, step),
        credential=credential,
    )
    state = AttemptState(status="queued", run_id=run_id, heartbeat=Heartbeat(count=0, at=now_text(now)), host=meta.host)
    attempts.create(step_dir, name, meta, state)
    return name, meta


def _inputs(book: JobState, job: JobSpec, step: StepSpec) -> dict[str, str]:
    """Return the attempts that a step is given: of what it depends on, and a solver that of its critic."""
    if step.kind != "agent" and step.loop is None:
        return {}
    refs = list(step.depends_on)
    if step.loop is not None and step.step_id == step.loop.solver:
        refs.append(f"{job.job_id}/{step.loop.critic}")
    found = {}
    for ref in refs:
        job_id, step_id = places.step_key(ref)
        now = book.current(job_id).get(step_id)
        if now is not None and now.ended_at is not None:
            found[ref] = now.attempt
    return found


def _after(attempt: str) -> datetime:
    return datetime.fromtimestamp(names.begun(attempt).timestamp() + 1, UTC)


def start(ctx: Context, assignment: "Assignment", lock: int, then: "Then") -> None:
    """Fork (or spawn) the process that owns an attempt, be it to run it or, if it is dead, to end it.

    In the child this does not return; nothing on the way up to a pass may undo what the child needs.
    """
    log, attempt_process = assignment.attempt_dir(ctx.layout) / "supervisor.log", _attempt_process()
    if launcher.fork_is_safe():
        if not launcher.take_over(lambda own: attempt_process.run(ctx, assignment, own, then), log, lock):
            launcher.start(lambda: attempt_process.run(ctx, assignment, lock, then), log=log)
    else:
        attempt_process.spawn(assignment, lock, log)
