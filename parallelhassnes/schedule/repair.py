"""Repair: end what died. Without ``tick.lock``; each attempt under its own ``step.lock``.

A running ticket whose ``step.lock`` is free belongs to a dead supervisor. Its attempt is handed, with the
lock, to a process of its own that kills what is left, takes what the worker had finished, seals and
settles. Where the lock is held by a worker that outlived its supervisor, the worker is killed first. Processes of a container
on the same root cannot be looked up here, and those that can be seen from the host have other pids there: its attempts
are judged by lock and heartbeat alone.

On a root of several hosts each ends its own; the loop of the one that decides looks after those whose host is silent (``SilenceWatch``).
Such an attempt, whose heartbeat and whose runner's beat have both stood still for ``hosts.still_sec``, is fenced: a supervisor that
lives all the same sees that and writes nothing more. Two heartbeats later, if it is as still as before, its lock's file is replaced, and
a copy of it is ended as lost (``execute.set_apart``).
"""

import errno
import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from parallelhassnes.execute import processes
from parallelhassnes.execute.set_apart import name_of_copy
from parallelhassnes.names import run_id_of
from parallelhassnes.schedule import quarantine
from parallelhassnes.schedule.cluster import cluster_jobs
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.launch import record_if_missing, start
from parallelhassnes.store import atomic, attempts, batches, decider, hosts, locks, members, process_identity
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.store.records import AttemptState, Ticket

if TYPE_CHECKING:
    from parallelhassnes.schedule.process.attempt_process import Assignment, Then


_OF_THE_SERVER = (errno.EIO, errno.ESTALE)


def repair(ctx: Context, then: "Then") -> list[str]:
    """Hand every dead attempt to a process that ends it; their names."""
    repaired = []
    own = handed.taken(ctx.layout, ctx.layout.runner) if ctx.layout.runner else None
    for entry in tickets.running(ctx.layout):
        if own is not None and entry.name not in own:
            continue
        with members.apart(entry.path, partial(_set_aside, ctx, entry)):
            attempt = repair_one(ctx, entry, then)
            if attempt is not None:
                repaired.append(attempt)
    return repaired


def _set_aside(ctx: Context, entry: tickets.Running, error: Exception) -> None:
    if ctx.layout.runner and isinstance(error, OSError) and error.errno in _OF_THE_SERVER:
        members.pass_over(error)  # what cannot be read over the network now may be in order
    elif members.is_there(entry.path):  # else it ended just then
        quarantine.set_aside(ctx, entry.path, error)


def repair_one(ctx: Context, entry: tickets.Running, then: "Then") -> str | None:
    """Hand the attempt of a running ticket to a process that ends it, if it is dead; its name."""
    ticket = tickets.read(entry.path)
    step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
    lock = locks.claim(step_dir / "step.lock")
    if lock is None:
        _kill_abandoned_worker(step_dir)
        return None
    try:
        batches.read_step(ctx.layout, ticket)
        assignment = _to_end(ctx, entry, ticket, step_dir)
    except BaseException:
        os.close(lock)
        raise
    if assignment is not None:
        start(ctx, assignment, lock, then)
    os.close(lock)
    return assignment.attempt if assignment else None


def _to_end(ctx: Context, entry: tickets.Running, ticket: Ticket, step_dir: Path) -> "Assignment | None":
    if not entry.path.exists():  # it ended between the listing and the lock
        return None
    ref = attempts.newest(step_dir)
    if ctx.layout.runner and ref is not None and not _is_ours(ctx, ref.dir):  # locks may not reach its host
        handed.forget_taken(ctx.layout, entry.name)
        return None
    if ctx.layout.runner and _is_given_up(
        step_dir, ref
    ):  # whoever decides goes on with it; nothing of it runs here any more
        handed.forget_taken(ctx.layout, entry.name)
        return None
    if ref is None or attempts.is_sealed(ref.dir):
        tickets.end_running(ctx.layout, entry.key_dir, entry.name)
        return None
    if _is_supervised(ref.dir, ctx.config.heartbeat_sec):  # somebody has removed the lock's file under it
        return None
    from parallelhassnes.schedule.process.attempt_process import Assignment

    return Assignment(
        root=str(ctx.layout.root),
        batch_id=ticket.batch_id,
        job_id=ticket.job_id,
        step_id=ticket.step_id,
        attempt=ref.name,
        key_dir=entry.key_dir,
        ticket=entry.name,
        dead=True,
        options=ctx.options,
    )


def _runner_of(ctx: Context, attempt_dir: Path) -> str:
    """Name the runner that an attempt was made for; where its worker has spoilt that, this one if it began on this host."""
    try:
        return attempts.read_meta(attempt_dir).runner_id
    except (atomic.CorruptFile, FileNotFoundError):
        return ctx.layout.runner if attempts.read_state(attempt_dir).host == platform.node() else ""


def _is_ours(ctx: Context, attempt_dir: Path) -> bool:
    """Tell whether an attempt is of this runner and of this very host: another one may have had the runner's name before."""
    state = attempts.read_state(attempt_dir)
    is_here = state.host == platform.node() or process_identity.is_of_this_kernel(state.pid_table)
    return is_here and _runner_of(ctx, attempt_dir) == ctx.layout.runner


def _is_given_up(step_dir: Path, ref: attempts.AttemptRef | None) -> bool:
    if attempts.half_set_apart(step_dir) is not None:
        return True
    return ref is not None and attempts.is_fenced(step_dir, run_id_of(ref.name))


def _kill_abandoned_worker(step_dir: Path) -> None:
    """Kill a worker whose supervisor is dead; the lock is free once it is, for this repair or the next."""
    ref = attempts.newest(step_dir)
    if ref is None or attempts.is_sealed(ref.dir):
        return
    state = attempts.read_state(ref.dir)
    if _supervisor_lives(state):
        return
    if state.worker_pid and state.worker_lives():
        processes.kill_group(state.worker_pid)
    processes.kill_run(state.run_id)
    # What has detached itself, its environment too. The next attempt's worker holds the same lock, but not before the seal.
    for pid in processes.inheritors(step_dir / "step.lock"):
        if attempts.is_sealed(ref.dir):
            return
        processes.send(pid, None, signal.SIGKILL)


def _is_supervised(attempt_dir: Path, heartbeat_sec: float) -> bool:
    state = attempts.read_state(attempt_dir)
    lives = state.supervisor_lives()
    if lives is None and process_identity.is_of_this_kernel(state.pid_table):  # a container's
        return attempts.has_beaten(attempt_dir, heartbeat_sec)
    return bool(lives)


def _supervisor_lives(state: AttemptState) -> bool:
    """Tell whether it lives as far as can be seen from here; one that has not said its pid yet is just starting."""
    return state.pid is None or state.supervisor_lives() is not False


def shut_down(ctx: Context, given: list[str]) -> None:
    """Tell the supervisors of this runner's attempts to end them, without using an attempt of their steps.

    Args:
        given: the tickets that it has taken.
    """
    for entry in tickets.running(ctx.layout):
        if entry.name in given:
            with members.apart(entry.path):
                ticket = tickets.read(entry.path)
                ref = attempts.newest(ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id))
                state = None if ref is None else attempts.read_state(ref.dir)
                if state is not None and state.supervisor_lives():
                    processes.send(state.pid, state.pid_start, signal.SIGTERM)


def _is_of_another_host(layout: Layout, runner: str, state: AttemptState) -> bool:
    """Tell whether an attempt began on a host that had the runner's name before the one that has it now."""
    found = hosts.member(layout, runner)
    if found is None or not state.pid_table:
        return False
    return state.pid_table.partition("/")[0] != found.boot_id and state.host != found.host


@contextmanager
def _deciding(ctx: Context) -> Iterator[bool]:
    """Hold ``tick.lock`` for the block, if it is free; whether it is held, and this host decides."""
    lock = locks.hold(ctx.layout.tick_lock)
    if lock is None:
        yield False
        return
    try:
        yield decider.decides(ctx.layout)  # looked at last: this host may have stood still
    finally:
        locks.release(lock)


_OTHERS_PATIENCE = 10
"""After so many times the time after which a host counts as silent, the one that decides ends what another was to end."""


class _Foreign(NamedTuple):
    """An attempt on another host."""

    entry: tickets.Running
    ticket: Ticket
    step_dir: Path
    given: frozenset[str]
    """Runners that the ticket lies with: the one that runs it, one that was asked to end it, what a crash has left."""

    def owner(self, made_for: str) -> str:
        """Name the runner that runs it; empty where it lies with none."""
        return made_for if made_for in self.given else min(self.given, default="")


class SilenceWatch:
    """Remembers since when something has not moved, by the clock of this process."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[object, float]] = {}
        self._fenced: dict[str, tuple[str, float]] = {}
        """Ticket → the attempt that was fenced, and since when."""
        self._given: dict[str, str] = {}
        """Ticket → the run id of the attempt that a process was started for to end."""
        self._asked: dict[str, tuple[str, float]] = {}
        """Ticket → the attempt that another runner was asked to end, and since when that is known."""
        self._twice: frozenset[str] = frozenset()
        """Run ids of what a host and its copy both run, which no beat tells."""

    def still_for(self, key: object, value: object, now: float) -> float:
        """Return seconds that the value has stood still, as far as looks tell; None is one that could not be looked at just now."""
        before = self._seen.get(key)
        if before is None or (value is not None and before[0] != value):
            self._seen[key] = (value, now)
            return 0.0
        return now - before[1]

    def silent(self, ctx: Context, alive: set[str], now: float, still: float) -> "list[tuple[Assignment, int]]":
        """Return what silent hosts have left and is to be ended now, each with its lock, which goes to whoever ends it.

        Args:
            alive: the runners whose beat moves.
            still: seconds without a movement after which they, and their attempts, may be dead.
        """
        found = []
        self._twice = hosts.run_twice(ctx.layout)
        running = tickets.running(ctx.layout)
        loads = handed.loads(ctx.layout, {entry.name for entry in running})
        for entry in running:
            with members.apart(entry.path):
                ticket = tickets.read(entry.path)
                step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
                given = frozenset(runner for runner, names in loads.items() if entry.name in names)
                foreign = _Foreign(entry, ticket, step_dir, given)
                dead = self._look(ctx, foreign, alive, now, still)
                if dead is not None:
                    found.append(dead)
        names = {entry.name for entry in running}
        for known in (self._seen, self._fenced, self._given, self._asked):
            for name in [name for name in known if name not in names]:
                known.pop(name)  # type: ignore[call-overload]
        return found

    def _look(
        self, ctx: Context, it: _Foreign, alive: set[str], now: float, still: float
    ) -> "tuple[Assignment, int] | None":
        layout, name = ctx.layout, it.entry.name
        half = attempts.half_set_apart(it.step_dir)
        if half is not None:
            if self._another_is_at_it(ctx, it, it.step_dir / "fenced" / half, alive, now, still):
                return None
            return self._to_end(ctx, it, half, fenced=True)
        ref = attempts.newest(it.step_dir)
        is_ours = it.given == {layout.runner}
        if is_ours and not (ref and self._is_given_up(it.step_dir, run_id_of(ref.name))):
            return None
        if ref is None or attempts.is_sealed(ref.dir):
            if self.still_for(name, "ended", now) >= still:
                tickets.end_running(layout, it.entry.key_dir, name)
                for runner in it.given:
                    handed.let_go(layout, runner, name)
            return None
        return self._look_at(ctx, it, ref, alive, now, still)

    def _is_given_up(self, step_dir: Path, run_id: str) -> bool:
        return run_id in self._twice or attempts.is_fenced(step_dir, run_id)

    def _look_at(
        self, ctx: Context, it: _Foreign, ref: attempts.AttemptRef, alive: set[str], now: float, still: float
    ) -> "tuple[Assignment, int] | None":
        """Look at an attempt that has no end."""
        layout, name = ctx.layout, it.entry.name
        state, made_for = attempts.read_state(ref.dir), _runner_of(ctx, ref.dir)
        owner = it.owner(made_for) or made_for
        is_fenced = attempts.is_fenced(it.step_dir, state.run_id)
        if not is_fenced and self._is_given_up(it.step_dir, state.run_id):
            self._fence(ctx, it, ref.name, owner)
            return None
        if it.owner(made_for) == layout.runner and not is_fenced:
            return None
        if owner == handed.JOBS and state.status == "queued" and name not in handed.taken(layout, owner):
            return self._of_job(ctx, it, ref, state, now, still)
        is_ending = state.status == "queued" and (owner not in alive or self._is_ending(ctx, owner))
        if is_ending and handed.take_back(layout, owner, name):  # it never began: no attempt of the step
            attempts.write_state(ref.dir, state.model_copy(update={"shut_down": True}))
            return self._to_end(ctx, it, ref.name, fenced=False)
        waited = self.still_for(name, (state.run_id, state.status, state.heartbeat.count), now)
        if waited < still:
            return None
        if owner in alive and not is_fenced and not _is_of_another_host(layout, owner, state):
            self._remind(ctx, it, ref, owner, state)
            return None
        if self._another_is_at_it(ctx, it, ref.dir, alive, now, still):
            return None
        is_apart = attempts.is_set_apart(it.step_dir, state.run_id)
        if is_apart and self._given.get(name) == state.run_id:
            return self._to_end(ctx, it, ref.name, fenced=False)
        fenced, since = self._fenced.get(name, ("", now))
        if fenced != ref.name:  # a copy that another host had begun to end is set apart, too: that one may be back
            if (is_fenced and not is_apart) or self._fence(ctx, it, ref.name, owner):
                self._fenced[name] = (ref.name, now)
            return None
        if now - since < 2 * ctx.config.heartbeat_sec + hosts.cache_sec(layout):
            return None
        if self._leave_to_another(ctx, it, ref, alive):
            return None
        return self._to_end(ctx, it, ref.name, fenced=True)

    def _of_job(
        self, ctx: Context, it: _Foreign, ref: attempts.AttemptRef, state: AttemptState, now: float, still: float
    ) -> "tuple[Assignment, int] | None":
        """See to an attempt whose job of Slurm has not begun it: it waits for that as long as it takes, unless it was canceled."""
        if attempts.is_asked_to_end(ref.dir, state.run_id) and handed.take_back(ctx.layout, handed.JOBS, it.entry.name):
            return self._to_end(ctx, it, ref.name, fenced=False)
        if not it.given and self.still_for(it.entry.name, (state.run_id, "to hand"), now) >= still:
            self._hand_again(ctx, it, ref, handed.JOBS)
        return None

    def _hand_again(self, ctx: Context, it: _Foreign, ref: attempts.AttemptRef, owner: str) -> None:
        """Hand out what a host that decided has left with nobody; not while a pass is being made, which may be about to."""
        with _deciding(ctx) as decides:
            if decides:
                record_if_missing(ctx, ref.dir)
                handed.hand(ctx.layout, owner, it.entry.name, self._assignment(ctx, it, ref.name))

    def _another_is_at_it(
        self, ctx: Context, it: _Foreign, attempt_dir: Path, alive: set[str], now: float, still: float
    ) -> bool:
        """Tell whether another runner, which lives, was asked to end a fenced attempt; one that does not take it is asked no more.

        By the notes on disk: whoever decides now need not have asked.
        """
        layout, name, run_id = ctx.layout, it.entry.name, run_id_of(attempt_dir.name)
        asked = (it.given & alive) - {layout.runner, _runner_of(ctx, attempt_dir)}
        if not asked or not attempts.is_fenced(it.step_dir, run_id):
            return False
        if (known := self._asked.get(name)) is None or known[0] != run_id:
            known = self._asked[name] = (run_id, now)
        is_patient = now - known[1] < _OTHERS_PATIENCE * still
        return any(is_patient or not handed.take_back(layout, runner, name) for runner in asked)

    def _leave_to_another(self, ctx: Context, it: _Foreign, ref: attempts.AttemptRef, alive: set[str]) -> bool:
        """Have a runner end the attempt that can look for all of its secrets, where this one cannot; whether there is one."""
        credential = attempts.read_meta(ref.dir).credential
        needed = set(credential.variables) if credential is not None else set[str]()
        if needed <= ctx.secrets().keys() or self._asked.get(it.entry.name, ("",))[0] == run_id_of(ref.name):
            return False
        for name in sorted(alive - {ctx.layout.runner}):
            beat = hosts.beat_of(ctx.layout, name)
            if beat is not None and needed <= set(beat.gives) and not beat.draining:
                asked = self._assignment(ctx, it, ref.name).model_copy(update={"dead": True, "fenced": True})
                handed.hand(ctx.layout, name, it.entry.name, asked)
                return True
        return False

    def _fence(self, ctx: Context, it: _Foreign, attempt: str, owner: str) -> bool:
        """Say that the attempt is given up, in the ledger first; False where a pass is being made."""
        with _deciding(ctx) as decides:
            if not decides:
                return False
            ledger.append(
                ctx.layout.batch(it.ticket.batch_id),
                "fenced",
                job_id=it.ticket.job_id,
                step_id=it.ticket.step_id,
                run_id=run_id_of(attempt),
                attempt=attempt,
                became=name_of_copy(attempt),
                runner=owner,
                decider=ctx.layout.runner,
            )
            attempts.fence(it.step_dir, run_id_of(attempt), ctx.layout.runner)
        return True

    def _is_ending(self, ctx: Context, owner: str) -> bool:
        beat = hosts.beat_of(ctx.layout, owner)
        return beat is not None and beat.draining

    def _remind(self, ctx: Context, it: _Foreign, ref: attempts.AttemptRef, owner: str, state: AttemptState) -> None:
        """Have a live runner see to an attempt of its own that it may not know of."""
        if it.given:
            return
        if state.status == "queued":
            self._hand_again(ctx, it, ref, owner)
        else:
            handed.note_taken(ctx.layout, it.entry.name, owner)

    def _to_end(self, ctx: Context, it: _Foreign, attempt: str, *, fenced: bool) -> "tuple[Assignment, int] | None":
        path = it.step_dir / "step.lock"
        lock = locks.claim(path)
        if lock is None:
            if not fenced or self._given.get(it.entry.name) == run_id_of(attempt):  # a process of ours is at it
                return None
            lock = locks.take_away(path)
        self._given[it.entry.name] = run_id_of(attempt)
        ended = {"dead": True, "fenced": fenced, **self._of_cluster(ctx, it, attempt)}
        return self._assignment(ctx, it, attempt).model_copy(update=ended), lock

    def _of_cluster(self, ctx: Context, it: _Foreign, attempt: str) -> dict[str, bool]:
        """Tell whether an attempt that was a job of Slurm counts, now that it is given up: by what Slurm says of the job."""
        record = cluster_jobs.record_of(ctx.layout, attempt)
        if record is None:
            return {}
        begun = attempts.read_state(it.step_dir / "attempts" / attempt).started_at is not None
        return {
            # A job that Slurm believes to run has not ended: it is its node that is silent.
            "spared": not begun or record.is_live or record.state in cluster_jobs.TAKEN_AWAY,
            "out_of_time": record.state == cluster_jobs.OUT_OF_TIME,
        }

    def _assignment(self, ctx: Context, it: _Foreign, attempt: str) -> "Assignment":
        from parallelhassnes.schedule.process.attempt_process import Assignment

        return Assignment(
            root=str(ctx.layout.root),
            batch_id=it.ticket.batch_id,
            job_id=it.ticket.job_id,
            step_id=it.ticket.step_id,
            attempt=attempt,
            key_dir=it.entry.key_dir,
            ticket=it.entry.name,
            options=ctx.options,
        )
