"""The loop of one of several hosts: it takes what it is handed, beats, and decides where the right is its own.

One process per runner, which holds ``runners/<name>/loop.lock``; a tick starts it, or ``parallelhassnes runner`` is it. If it dies,
its attempts go on, and the next tick here starts another. In each turn, about ten times a second, it

* takes what was handed to it: ``handed/<ticket>`` → ``taken/<ticket>``, the step's lock, a supervisor;
* runs a pass, where it decides and something has ended, is due or was wished for.

At each heartbeat it also writes ``beat.json``, ends what died of its own attempts, looks whose beats move, claims the right to
decide where nobody holds it or its holder is silent, and, where it decides, gives up what silent hosts have left (``repair``).
It ends when the store has had nothing to do for a while, or when it is told to, and gives the right up.

A machine that goes on from a snapshot of its memory while the original does has everything of a host twice, so nothing but the beat tells. Who finds
another's in the place of its own, or that it goes on when a loop begins, is one of two. It notes what both may run, gives the right up, and ends;
the other goes on. Who decides fences what was noted: supervisors on both obey that.
"""

import os
import secrets
import select
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.execute import launcher, logs, processes
from parallelhassnes.execute.secret_forms import looks_secret
from parallelhassnes.names import run_id_of
from parallelhassnes.schedule import rebuild, repair
from parallelhassnes.schedule.cluster import cluster_jobs, pilot_jobs
from parallelhassnes.schedule.context import ENTRY_POINTS, Context, renewed
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.launch import preload, start
from parallelhassnes.schedule.process import runner_heartbeat, timer
from parallelhassnes.schedule.process.attempt_process import Assignment, Then
from parallelhassnes.store import atomic, attempts, batches, decider, hosts, identity, locks, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import delayed, handed, tickets
from parallelhassnes.store.records import now_text
from parallelhassnes.version import __version__

TURN_SEC = 0.1
IDLE_SEC = 20.0
"""After so long with nothing in the whole store's queue a loop that a tick has started ends."""
TICK_SEC = 5.0
_OLD_NOTE_SEC, _ENDING_NOTE_SEC = 60.0, 5.0
"""After so long a note of what is neither running nor has ended counts as left by a crash."""


_TWIN = "another process beats as {}: is this machine a copy that goes on beside its original? Give it another start; its runner ends"
_LIVELY_BEATS = 1.5
"""Within so many heartbeats, and the time of the caches, a beat that goes on is seen to."""


class Acts(NamedTuple):
    """What a loop does that is built above it."""

    tick: Callable[[Context], Any]
    run_pass: Callable[[Context], bool]
    after_attempt: Then


def run(ctx: Context, acts: Acts, capacity: int | None, idle_sec: float | None, until: float | None) -> bool:
    """Be the loop of this runner until there is nothing more to do; False where another process is."""
    lock = locks.hold(ctx.layout.waker_lock)
    if lock is None:
        return False
    processes.set_title(f"runner {ctx.layout.runner} of {ctx.layout.root}")
    if _has_twin(ctx):
        logs.say(_TWIN.format(ctx.layout.runner))
        locks.release(lock)
        return True
    loop = _Loop(ctx, acts, capacity or ctx.concurrency, until)
    wake, write = os.pipe()
    for handle in (wake, write):
        os.set_blocking(handle, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, loop.told_to_end)
    signal.signal(signal.SIGINT, loop.told_to_end)
    try:
        while not loop.is_over(idle_sec):
            loop.try_turn()
            select.select((wake,), (), (), TURN_SEC)
            with suppress(BlockingIOError):
                os.read(wake, 512)
        loop.end()
    except identity.NoStore as error:
        logs.say(f"{error}; nothing is left to do here")
    finally:
        signal.set_wakeup_fd(before)
        for handle in (wake, write):
            os.close(handle)
        locks.release(lock)
    return True


def _has_twin(ctx: Context) -> bool:
    """Tell whether the beat of this runner goes on, though its lock was free; waited for only where its last loop was killed."""
    layout = ctx.layout
    first = hosts.beat_of(layout, layout.runner)
    if first is None or first.ending or not first.nonce or first.boot_id != hosts.machine().boot_id:
        return False
    end = time.monotonic() + _LIVELY_BEATS * ctx.config.heartbeat_sec + hosts.cache_sec(layout)
    while time.monotonic() < end:
        now = hosts.beat_of(layout, layout.runner)
        if now is not None and now.nonce != first.nonce:
            return True
        time.sleep(TURN_SEC)
    return False


def has_work(layout: Layout) -> bool:
    """Tell whether there is anything in the store's queue."""
    queued = (layout.incoming, layout.delayed, layout.ready, layout.added)
    return bool(tickets.running(layout) or tickets.ended(layout)) or any(map(members.names, queued))


def has_ready(layout: Layout) -> bool:
    """Tell whether anything is ready, or about to be, of a batch that nothing keeps from starting."""
    if any(map(members.names, (layout.incoming, layout.delayed, layout.added))):
        return True
    ready = {batch_id for _, batch_id, _ in tickets.ready_folders(layout)}
    return any(not members.is_there(layout.blocked / f"{batch_id}.json") for batch_id in ready)


def _at_work(layout: Layout) -> set[str]:
    """Return the batches of which anything is in the queue."""
    named = {tickets.parse_name(entry.name).batch_id for entry in tickets.running(layout)}
    named |= {tickets.parse_name(path.name).batch_id for path in tickets.ended(layout)}
    return named | {batch_id for _, batch_id, _ in tickets.ready_folders(layout)} | set(delayed.batch_ids(layout))


class _Loop:
    def __init__(self, ctx: Context, acts: Acts, capacity: int, until: float | None) -> None:
        self.ctx, self.acts, self.capacity, self.until = ctx, acts, capacity, until
        self.me = ctx.layout.runner
        self.count = 0
        self.nonce = ""
        """Of the beat that this process has written last."""
        self.next_beat = self.next_tick = self.again_at = 0.0
        self.wrong = ""
        self.busy_at = time.monotonic()
        self.ending = False
        self.is_replaced = False
        """The name of this runner is another one's by now; what runs here ends by itself."""
        self.shut_down_at: float | None = None
        """When what still runs is told to end, without using an attempt of its step."""
        self.waiting: dict[str, float] = {}
        """Taken tickets whose step's lock is not free yet → since when."""
        self.others = repair.SilenceWatch()
        self.known: set[str] = set()
        """Runners that were seen to have joined."""
        self.deciding: set[str] = set()
        """Others that were not about to end when they were looked at last: they take the right if it is free."""
        self.watch = repair.SilenceWatch()
        self.was_restarted = False
        """The right was this runner's before its host was started anew."""
        self.took_over = False
        """The right was that of a host which may stand still in the middle of writing."""
        self.asked: set[str] = set()
        """Tickets of attempts that jobs of Slurm were asked for since the last beat."""
        self.pilots_at = 0.0
        """When Slurm is asked about pilots next, where it is not asked for more."""

    def told_to_end(self, *_: object) -> None:
        """Take nothing more; what runs has ``grace_sec`` to end by itself."""
        if self.ending:
            return
        self.ending, self.next_beat = True, 0.0
        self.shut_down_at = time.monotonic() + self.ctx.config.grace_sec

    def try_turn(self) -> None:
        """As ``turn``; what goes wrong is said once, and tried again at the next heartbeat."""
        if time.monotonic() < self.again_at:
            return
        try:
            self.turn()
            self.wrong = ""
        except identity.NoStore:
            raise
        except Exception as error:  # noqa: BLE001 - one bad turn must not end those that follow
            self.again_at = time.monotonic() + self.ctx.config.heartbeat_sec
            if (line := f"{type(error).__name__}: {error}") != self.wrong:
                self.wrong = line
                logs.say(f"a turn failed, and is tried again\n{traceback.format_exc()}")

    def turn(self) -> None:
        """Do what there is to do now."""
        now = time.monotonic()
        if self.until is not None and now >= self.until:
            self.told_to_end()
        if self.shut_down_at is not None and now >= self.shut_down_at:
            self.shut_down_at = now + self.ctx.config.grace_sec
            repair.shut_down(self.ctx, handed.taken(self.ctx.layout, self.me))
        identity.check(self.ctx.layout)
        self.ctx = renewed(self.ctx)
        if self.ending and not self.is_replaced:
            self._give_back()
        if now >= self.next_beat:
            self.next_beat = now + self.ctx.config.heartbeat_sec
            self._beat(now)
        self._take(now)
        if self._may_decide():
            self._decide(now)
            self._see_to_jobs()
        launcher.reap()

    def is_over(self, idle_sec: float | None) -> bool:
        """Tell whether there is nothing more to do here.

        Args:
            idle_sec: seconds without anything that this runner has, or might get; None for the loop that a tick has started,
                which ends when nothing has been in the whole store's queue for ``IDLE_SEC``.
        """
        now = time.monotonic()
        layout = self.ctx.layout
        if self.is_replaced:
            return True
        if handed.taken(layout, self.me):
            self.busy_at = now
            return False
        if self.ending:
            return True
        limit = IDLE_SEC if idle_sec is None else idle_sec
        if now - self.busy_at >= limit and (has_work(layout) if idle_sec is None else has_ready(layout)):
            self.busy_at = now
        return now - self.busy_at >= limit

    def end(self) -> None:
        """Say that nothing more is taken, and let another decide."""
        self.ending = True
        if not self.is_replaced:
            self._write_beat()
            self._give_back()
            decider.give_up_right(self.ctx.layout)

    def _give_back(self) -> None:
        """Let another have what has not begun here."""
        for ticket in self.waiting:
            handed.give_back(self.ctx.layout, ticket)
        self.waiting.clear()

    # --- at each heartbeat ------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        layout = self.ctx.layout
        if not members.is_there(layout.runners / self.me / hosts.MEMBER):
            logs.say("this host was forgotten by `doctor --alone`: its runner ends")
            self.told_to_end()
            return
        found = hosts.member(layout, self.me)
        if found is not None and not hosts.is_current(layout, found):
            logs.say(f"{found.host} has joined as {self.me} since, or this host by another mount: its runner ends")
            self.ending = self.is_replaced = True
            return
        beat = hosts.beat_of(layout, self.me)
        if self.nonce and beat is not None and beat.nonce != self.nonce:
            logs.say(_TWIN.format(self.me))
            self._leave_to_twin()
            return
        self._write_beat()
        self.asked.clear()
        check_host.answer_others(self.ctx)
        still = hosts.still_sec(layout, self.ctx.config.heartbeat_sec)
        alive = {self.me} | self._moving(now, still)
        self._end_own_dead()
        if self.ending and alive & self.deciding:
            decider.give_up_right(layout)  # what runs here may go on for long, and nobody else may decide meanwhile
        self._see_to_right(now, alive)
        if self._may_decide():
            hosts.note_alive(layout, alive, still)
            lost = self.watch.silent(self.ctx, alive, now, still)
            for assignment, lock in lost:
                start(self.ctx, assignment, lock, self.acts.after_attempt)
                os.close(lock)

    def _leave_to_twin(self) -> None:
        """End at once; what this runner was given is to be given up, as both machines may run it."""
        self.ending = self.is_replaced = True
        layout = self.ctx.layout
        given, runs = {*handed.taken(layout, self.me)}, set[str]()
        for entry in tickets.running(layout):
            if entry.name in given:
                with members.apart(entry.path):
                    ticket = tickets.read(entry.path)
                    ref = attempts.newest(layout.step(ticket.batch_id, ticket.job_id, ticket.step_id))
                    if ref is not None and not attempts.is_sealed(ref.dir):
                        runs.add(run_id_of(ref.name))
        hosts.note_twice(layout, runs)
        decider.give_up_right(layout)

    def _write_beat(self) -> None:
        ctx, layout = self.ctx, self.ctx.layout
        draining = self.ending or runner_heartbeat.is_draining(ctx) or ctx.shortage() is not None
        self.count += 1
        beat = hosts.Beat(
            name=self.me,
            boot_id=hosts.machine().boot_id,
            count=self.count,
            at=now_text(),
            capacity=self.capacity,
            live=len(handed.taken(layout, self.me)),
            draining=draining,
            ending=self.ending,
            left_sec=None if self.until is None else max(0.0, self.until - time.monotonic()),
            gives=self._gives(),
            version=__version__,
            nonce=f"{time.time_ns():x}-{secrets.token_hex(4)}",  # a copied machine's chance may repeat itself
        )
        with suppress(OSError):  # a full disk: the next one is as good
            hosts.write_beat(layout, beat)
            self.nonce = beat.nonce

    def _gives(self) -> tuple[str, ...]:
        try:
            filed = self.ctx.filed()
        except Exception:  # noqa: BLE001 - said where its values are needed
            filed = {}
        named = {name for name in os.environ if name in self.ctx.config.secrets or looks_secret(name)}
        return tuple(sorted({*filed, *named}))

    def _moving(self, now: float, still: float) -> set[str]:
        """Name the other runners whose beat has moved of late; one that cannot be read just now has not stood still by that."""
        self.known |= hosts.members_of(self.ctx.layout).keys()
        found = set()
        for name in self.known - {self.me}:
            beat = hosts.beat_of(self.ctx.layout, name)
            if self.others.still_for(name, beat and (beat.boot_id, beat.count), now) < still:
                found.add(name)
            (self.deciding.discard if beat is None or beat.ending else self.deciding.add)(name)
        return found

    def _end_own_dead(self) -> None:
        """End what died of this runner's own attempts."""
        given = {*handed.taken(self.ctx.layout, self.me)} - self.waiting.keys()
        running = {entry.name: entry for entry in tickets.running(self.ctx.layout)} if given else {}
        for name in given:
            if name in running:
                with members.apart(running[name].path):  # it may have ended since
                    repair.repair_one(self.ctx, running[name], self.acts.after_attempt)
            elif not members.is_there(self.ctx.layout.ended / name):
                with members.apart(name):
                    handed.let_go_old(
                        self.ctx.layout, self.me, name, _ENDING_NOTE_SEC if self.ending else _OLD_NOTE_SEC
                    )

    # --- the right to decide ----------------------------------------------------------------------------

    def _may_decide(self) -> bool:
        return not self.ending and decider.decides(self.ctx.layout)

    def _see_to_right(self, now: float, alive: set[str]) -> None:
        """Claim the right where nobody holds it, or its holder is silent."""
        layout = self.ctx.layout
        found = decider.right(layout)
        if self.ending or (found is not None and not found.given_up and self._holds_on(found, alive, now)):
            return
        if not decider.claim_right(layout, found):
            return
        logs.say(f"decides from now on{'' if found is None else f', after {found.runner}'}")
        if found is not None and not found.given_up:  # it may stand still with the lock in its hands
            for path in (layout.tick_lock, layout.ingest_lock, layout.checkpoint_lock):
                os.close(locks.take_away(path))
            self.was_restarted, self.took_over = found.runner == self.me, True

    def _holds_on(self, found: decider.Right, alive: set[str], now: float) -> bool:
        """Tell whether the holder of the right is there, under the same start of its host as when it got it."""
        if found.runner == self.me:
            return found.boot_id == hosts.machine().boot_id
        if not found.runner:  # it cannot be read, now or ever
            still = hosts.still_sec(self.ctx.layout, self.ctx.config.heartbeat_sec)
            return self.others.still_for("unread", found.epoch, now) < still
        if found.runner not in alive:
            return False
        beat = hosts.beat_of(self.ctx.layout, found.runner)
        if beat is None or beat.boot_id == found.boot_id:
            return True
        # Either it was started anew since, or its beat is an old one that is still seen here.
        differs = self.others.still_for("right", (found.epoch, beat.boot_id), now)
        return differs < 2 * hosts.cache_sec(self.ctx.layout) + self.ctx.config.heartbeat_sec

    def _decide(self, now: float) -> None:
        layout = self.ctx.layout
        if self.took_over:
            lock = locks.hold(layout.tick_lock)
            if (
                lock is None
            ):  # a supervisor of this host runs a pass, and may be adding a line, which a copy made now would lack
                return
            try:
                for folder in (layout.system, *(layout.batch(batch_id) for batch_id in _at_work(layout))):
                    ledger.renew(folder)
            finally:
                locks.release(lock)
            self.took_over = False
        if self.was_restarted:  # what did not wait for its disk may be torn, or gone
            self.was_restarted = False
            rebuild.rebuild(self.ctx)
        if now >= self.next_tick or members.names(layout.incoming):
            self.next_tick = now + TICK_SEC
            with suppress(identity.NoStore):
                self.acts.tick(self.ctx)
            return
        due = timer.next_wake(self.ctx, time.time())
        if tickets.ended(layout) or layout.pass_wanted.exists() or (due is not None and due <= time.time()):
            self.acts.run_pass(self.ctx)

    def _see_to_jobs(self) -> None:
        """Have Slurm asked for what is handed to its jobs, at each heartbeat and for each new one; by a process that may wait for it."""
        layout = self.ctx.layout
        given = handed.handed(layout, handed.JOBS)
        is_new = not self.asked.issuperset(given) or (not self.asked and cluster_jobs.is_wanted(layout))
        if not is_new and time.monotonic() >= self.pilots_at:
            self.pilots_at = time.monotonic() + pilot_jobs.LOOK_SEC
            is_new = pilot_jobs.are_wanted(layout)
        if not is_new or cluster_jobs.is_under_way(layout):
            return
        self.asked = {*given, ""}
        root, options = layout.root, self.ctx.options.model_dump_json()
        log = cluster_jobs.folder(layout) / "asking.log"
        log.parent.mkdir(exist_ok=True)
        see_to = partial(cluster_jobs.see_to, self.ctx)
        launcher.start_beside(see_to, ENTRY_POINTS, "jobs", str(root), options, log=log, cwd=root)

    # --- what it was handed -----------------------------------------------------------------------------

    def _take(self, now: float) -> None:
        """Start what was handed to this runner."""
        if self.ending:
            return
        layout = self.ctx.layout
        for ticket in [*self.waiting, *handed.handed(layout, self.me)]:
            with members.apart(layout.runners / self.me / "taken" / ticket):
                self._take_one(ticket, now)

    def _take_one(self, ticket: str, now: float) -> None:
        layout = self.ctx.layout
        if ticket in self.waiting:
            document = atomic.read_derived(layout.runners / self.me / "taken" / ticket)
        else:
            document = handed.take(layout, ticket) or {}
        if not document:
            self.waiting.pop(ticket, None)
            return
        said = {**document, "root": str(layout.root), "options": self.ctx.options}
        assignment = atomic.parse(Assignment, said, layout.runners / self.me / "taken" / ticket)
        step_dir = layout.step(assignment.batch_id, assignment.job_id, assignment.step_id)
        attempt_dir = assignment.attempt_dir(layout)
        if not attempt_dir.is_dir() and now - self.waiting.setdefault(ticket, now) < hosts.cache_sec(layout) + 1:
            return  # not seen is not gone
        if assignment.dead:  # this runner has the secrets to look for, and the one that decides has not
            self.waiting.pop(ticket, None)
            if not _is_to_be_ended(step_dir, assignment.attempt):
                handed.let_go(layout, self.me, ticket)
                return
            taken = locks.take_away(step_dir / "step.lock")
            start(self.ctx, assignment, taken, self.acts.after_attempt)
            os.close(taken)
            return
        state = attempts.read_state(attempt_dir)
        if state.status != "queued" or attempts.is_fenced(step_dir, state.run_id):  # it was begun, or given up
            self.waiting.pop(ticket, None)
            if attempts.is_fenced(step_dir, state.run_id):
                handed.let_go(layout, self.me, ticket)
            return
        lock = locks.claim(step_dir / "step.lock")
        if lock is None:
            self.waiting.setdefault(ticket, now)
            return
        try:
            preload(batches.read_job(layout.job(assignment.batch_id, assignment.job_id)).step(assignment.step_id))
        except BaseException:
            os.close(lock)
            raise
        self.waiting.pop(ticket, None)
        start(self.ctx, assignment, lock, self.acts.after_attempt)
        os.close(lock)


def _is_to_be_ended(step_dir: Path, attempt: str) -> bool:
    """Tell whether an attempt that this runner was asked to end is still the step's newest, and has no end yet."""
    half = attempts.half_set_apart(step_dir)
    ref = attempts.newest(step_dir)
    newest = half or (ref.name if ref is not None and not attempts.is_sealed(ref.dir) else "")
    return bool(newest) and run_id_of(newest) == run_id_of(attempt)
