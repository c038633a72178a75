"""The supervisor: one process that owns one attempt from start to seal.

It starts the worker, beats, answers a cancel, keeps the deadlines, ends what is left and seals.
Files, in order: ``tmp/``, ``state.json`` (running, with our pid, before there is a worker: by it a tick
tells a dead supervisor whose worker's children still hold the lock from one that is just starting), the
worker's own, ``state.json`` at every beat; then what ``finish`` writes. Its death at any point frees
``step.lock`` once the worker, which the kernel kills with it, is gone; a later tick then finishes the
attempt as ``lost``.

It stops the worker when it is told to, past the whole deadline or the one of the phase that it is in, and,
if that is wanted, when nothing of it has moved for long, and where somebody has removed the attempt's folder: its end is written
into a new one, unless the job is gone with it. A stop goes: SIGTERM to the worker, which ends cleanly if it can; after ``grace_sec`` SIGKILL to its
process group and to everything that descends from it; then the kind's own sweep.

Whether an attempt still moves is told by what a worker cannot help but change while it does something: its phase, the size of what
it writes, the CPU time of its processes. A container's CPU time is not seen from here, but its agent and verifier write into the
attempt's folder.
"""

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from parallelhassnes.config import Bounds, RetryConfig
from parallelhassnes.execute import logs, own_files, processes
from parallelhassnes.execute.finish import finish, sweep
from parallelhassnes.execute.launcher import reset_signals
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import EndReason, Kind, LimitsPhases, ShowsItself, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial_data import remote_sandboxes
from parallelhassnes.store import attempts, privacy, space
from parallelhassnes.store.attempts import LOGS
from parallelhassnes.store.process_identity import start_time, table
from parallelhassnes.store.records import AttemptState, Heartbeat, now_text


class Timing(NamedTuple):
    """Seconds."""

    heartbeat: float
    grace: float
    stuck_after: float = 0.0
    """Without any movement for so long, the attempt counts as stuck; 0 for never."""
    stop_stuck: bool = False
    """Stop a stuck attempt, which is then a failure of the infrastructure."""
    log_ceiling: int = logs.CEILING
    """Bytes, not seconds."""
    bounds: Bounds = Bounds()
    """What is kept of the attempt."""
    is_fenced: Callable[[], bool] = lambda: False
    """Whether another host has given the attempt up: nothing of it may be written any more. Raises OSError where that cannot be told."""
    is_out_of_time: Callable[[], bool] = lambda: False
    """Asked when this process is told to end: whether that is because the time of its cluster's job is up."""


def supervise(
    attempt: StepAttempt,
    kind: Kind,
    environment: Mapping[str, str],
    lock: int,
    timing: Timing,
    secrets: Mapping[str, str] = MappingProxyType({}),
    retry: Callable[[], RetryConfig] = RetryConfig,
) -> None:
    """Own the attempt from start to seal; the caller is a process of its own that holds ``step.lock``.

    Args:
        secrets: those of the environment's values that are taken out of every file at the end.
        retry: as ``finish`` asks it.

    Raises:
        Fenced: the attempt was given up by another host; its worker is dead, and nothing was written.
    """
    processes.adopt_orphans()
    wake, write = _listen()
    (attempt.dir / "tmp").mkdir(exist_ok=True)
    state = AttemptState(
        status="running",
        run_id=attempt.run_id,
        started_at=now_text(),
        heartbeat=Heartbeat(count=0, at=now_text()),
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start=start_time(os.getpid()),
        pid_table=table(),
    )
    meta = safe_read.read_bytes(attempt.dir / attempts.META, 1 << 20)
    if attempts.wait_until_told(timing.is_fenced):
        raise attempts.Fenced
    attempts.write_state(attempt.dir, state)
    pid = start_worker(attempt, kind, environment, lock)
    watch = _Watch(attempt, kind, timing, wake, pid, state)
    end = watch.until_it_ends()
    processes.kill_group(pid)
    processes.kill_descendants()
    signal.set_wakeup_fd(-1)
    for handle in (wake, write):
        os.close(handle)
    if attempts.wait_until_told(timing.is_fenced):
        sweep(attempt, kind)
        raise attempts.Fenced
    if own_files.is_gone(attempt.dir):
        end = WorkerEnd(end.exit_code, "lost")
        if not own_files.put_back(attempt.dir, attempt.job_dir, meta):
            sweep(attempt, kind)
            return
    finish(attempt, kind, end, watch.state, secrets, timing.log_ceiling, timing.bounds, meta, retry, timing.is_fenced)


def _listen() -> tuple[int, int]:
    """Return a pipe whose first end becomes readable when a signal arrives."""
    wake, write = os.pipe()
    for handle in (wake, write):
        os.set_blocking(handle, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, lambda *_: None)
    return wake, write


class _Watch:
    """The loop of a supervisor while its worker lives."""

    def __init__(
        self, attempt: StepAttempt, kind: Kind, timing: Timing, wake: int, worker: int, state: AttemptState
    ) -> None:
        self.attempt, self.kind, self.timing, self.wake, self.worker = (attempt, kind, timing, wake, worker)
        limit = attempt.step.timeout_sec or kind.deadline_sec(attempt)
        self.began = time.monotonic()
        self.deadline = None if limit is None else self.began + limit
        self.kill_at: float | None = None
        self.reason: EndReason = "exited"
        self.beats = 0
        self.next_beat = self.began
        self.phase: str | None = None
        self.phase_deadline: float | None = None
        self.progress = MovementWatch(attempt.dir, worker)
        self.state = state.model_copy(update={"worker_pid": worker, "worker_start": start_time(worker)})

    def until_it_ends(self) -> WorkerEnd:
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        told = False
        while True:
            with self._taking_back():
                self._beat_if_due()
            # Orphans of the worker are ours, and nobody else collects them.
            status = dict(processes.reaped()).get(self.worker)
            if status is not None:
                return WorkerEnd(os.waitstatus_to_exitcode(status), self.reason)
            with self._taking_back():
                self._stop_if_due(told)
            dues = (self.next_beat, self.deadline, self.phase_deadline, self.kill_at)
            due = min(at for at in dues if at is not None)
            poller.poll(max(0.0, due - time.monotonic()) * 1000 + 1)
            told = self._drain() or told

    @contextmanager
    def _taking_back(self) -> Iterator[None]:
        """Leave the block where the worker has closed our files to us, and open them for the next time."""
        try:
            yield
        except PermissionError:
            own_files.take_back(self.attempt.dir)

    def _drain(self) -> bool:
        """Tell whether a SIGTERM was among the signals since the last look."""
        try:
            return signal.SIGTERM in os.read(self.wake, 512)
        except BlockingIOError:
            return False

    def _stop_if_due(self, told: bool) -> None:
        now = time.monotonic()
        if self.kill_at is not None:
            if now >= self.kill_at:
                processes.kill_group(self.worker)
                self.kill_at = now + 1.0
            return
        if self._is_fenced() is True:
            self._stop("lost")
            processes.kill_group(self.worker)
        elif attempts.is_asked_to_end(self.attempt.dir, self.attempt.run_id):
            self._stop("canceled")
        elif told and self.timing.is_out_of_time():
            self._stop("job_time_limit")
        elif told:
            self.state = self.state.model_copy(update={"shut_down": True})
            self._stop("lost")
        elif own_files.is_gone(self.attempt.dir):
            self._stop("lost")
        elif any(at is not None and now >= at for at in (self.deadline, self.phase_deadline)):
            self._stop("timeout")
        elif self.timing.stop_stuck and self.state.stuck_since is not None:
            self._stop("stuck")

    def _is_fenced(self) -> bool | None:
        """Tell whether the attempt was given up; None where that cannot be told now."""
        try:
            return self.timing.is_fenced()
        except OSError:
            return None

    def _stop(self, reason: EndReason) -> None:
        self.reason = reason
        self.deadline = self.phase_deadline = None
        self.kill_at = time.monotonic() + self.timing.grace
        logs.say(f"stopping the worker in phase {self.phase}: {reason}")
        processes.send(self.worker, None, signal.SIGTERM)
        processes.send(self.worker, None, signal.SIGCONT)

    def _beat_if_due(self) -> None:
        now = time.monotonic()
        if now < self.next_beat:
            return
        self.next_beat = now + self.timing.heartbeat
        seen = self.progress.look(self.kind.phase(self.attempt))
        self._enter(seen.phase, now)
        stuck = 0 < self.timing.stuck_after <= self.progress.still_sec()
        self.state = self.state.model_copy(
            update={
                "heartbeat": Heartbeat(count=self.beats, at=now_text()),
                "phase": seen.phase,
                "log_bytes": seen.bytes,
                "stuck_since": self.progress.moved_at if stuck else None,
                "sandbox": self._sandbox(),
                "live": self.kind.live(self.attempt) if isinstance(self.kind, ShowsItself) else None,
            }
        )
        self.beats += 1
        if self._is_fenced() is not False:  # where that cannot be told nothing is written, and the work goes on
            return
        try:
            attempts.write_state(self.attempt.dir, self.state)
        except OSError as error:  # a full disk stops the beat, not the work, and so does a worker that is in the way
            logs.say(f"could not write the heartbeat: {error.strerror}")
            if not (space.is_full(error) or own_files.is_gone(self.attempt.dir)):
                own_files.take_back(self.attempt.dir)
        for name in logs.trim(self.attempt.dir, self.timing.log_ceiling):
            logs.say(f"cut the middle out of {name}")

    def _sandbox(self) -> str | None:
        found = remote_sandboxes.of_attempt(self.attempt.job_dir.parent.parent, self.attempt.run_id)
        return found.text if found else self.state.sandbox

    def _enter(self, phase: str | None, now: float) -> None:
        """Set the deadline of a phase that has just been seen for the first time; a step's own limit holds alone."""
        if phase == self.phase:
            return
        self.phase, self.phase_deadline = phase, None
        if phase is None or self.kill_at is not None or self.attempt.step.timeout_sec:
            return
        if isinstance(self.kind, LimitsPhases):
            limit = self.kind.phase_deadline_sec(self.attempt, phase)
            self.phase_deadline = None if limit is None else now + limit


_MAX_ENTRIES = 2000
"""Files looked at in one beat; a trial with more is judged by these and by its CPU time."""
_CPU_SEC = 1.0
"""CPU time that counts as a movement: a process that only waits uses some too."""


class Seen(NamedTuple):
    """One look."""

    phase: str | None
    bytes: int
    """Size of the worker's logs and of what the trial or the agent wrote."""
    cpu_sec: float


class MovementWatch:
    """Remembers when an attempt last moved, by this process's own clock."""

    def __init__(self, attempt_dir: Path, worker: int) -> None:
        self._dir, self._worker = attempt_dir, worker
        self._mark = Seen(None, 0, 0.0)
        self._moved = time.monotonic()
        self.moved_at = now_text()
        """When it last moved."""

    def look(self, phase: str | None) -> Seen:
        """Look now; ``still_sec`` and ``moved_at`` follow from it."""
        seen, mark = Seen(phase, written_bytes(self._dir), self._mark.cpu_sec), self._mark
        if seen == mark:  # else it has moved, whatever time its processes have used
            seen = seen._replace(cpu_sec=_cpu_sec(self._worker))
        # A process of the tree that ended takes its share with it, so less is a movement too.
        if seen[:2] != mark[:2] or abs(seen.cpu_sec - mark.cpu_sec) >= _CPU_SEC:
            self._mark, self._moved, self.moved_at = seen, time.monotonic(), now_text()
        return seen

    def still_sec(self) -> float:
        """Return the seconds since the last movement that a look has seen."""
        return time.monotonic() - self._moved


def written_bytes(attempt_dir: Path) -> int:
    """Return the bytes in the worker's logs and in the folder of the trial or the agent."""
    total = 0
    for name in LOGS:
        try:
            total += os.stat(f"{attempt_dir}/{name}").st_size  # noqa: PTH116 - hot path
        except OSError:  # not there, or closed to us by the worker
            continue
    left = _MAX_ENTRIES
    folders = [f"{attempt_dir}/trial", f"{attempt_dir}/agent"]
    while folders and left > 0:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # not there yet, or gone while we looked
            continue
    return total


def _cpu_sec(pid: int) -> float:
    """Return CPU time of a process, its live descendants and those that it has waited for; 0 where it cannot be seen."""
    ticks, look = 0, [pid]
    while look:
        one = look.pop()
        try:
            with open(f"/proc/{one}/stat", "rb") as stream:  # noqa: PTH123 - hot path
                ticks += sum(int(field) for field in stream.read().rpartition(b")")[2].split()[11:15])
        except (OSError, ValueError):
            continue
        look += processes.children(one)
    return ticks / os.sysconf("SC_CLK_TCK")


CRASHED = 70
"""Exit code of a worker whose kind raised; its traceback is the end of ``stderr.log``."""


def start_worker(attempt: StepAttempt, kind: Kind, environment: Mapping[str, str], lock: int) -> int:
    """Fork the worker into a process group of its own; its pid.

    It keeps the step's lock: a live worker is a live attempt, whatever became of its supervisor.
    """
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        os.setpgid(0, 0)
        reset_signals()
        name = f"{attempt.batch_id}/{attempt.job_id}/{attempt.step.step_id}"
        processes.set_title(f"worker of {name} in {attempt.job_dir.parents[2]}")
        processes.die_with_parent(supervisor)
        os.set_inheritable(lock, True)
        for handle, name in enumerate(LOGS, 1):
            out = os.open(attempt.dir / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(out, handle)
            os.close(out)
        privacy.restore_mask()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(attempt.dir)
        code = kind.work(attempt)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the last frame of a process: its log is where this belongs
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
