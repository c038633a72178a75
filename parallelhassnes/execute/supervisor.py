"""The supervisor: one process that owns one attempt from start to seal.

It starts the worker, beats, answers a cancel, keeps the deadline, ends what is left and seals.
Files, in order: ``tmp/``, ``state.json`` (running), the worker's own, ``state.json`` at every beat;
then what ``finish`` writes. Its death at any point frees ``step.lock`` once the worker, which the
kernel kills with it, is gone; a later tick then finishes the attempt as ``lost``.

A stop goes: SIGTERM to the worker, which ends cleanly if it can; after ``grace_sec`` SIGKILL to its
process group and to everything that descends from it; then the kind's own sweep.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from parallelhassnes.execute import logs, processes
from parallelhassnes.execute.finish import finish
from parallelhassnes.execute.worker import start_worker
from parallelhassnes.steps.kinds import Attempt, Kind, WorkerEnd
from parallelhassnes.store import attempts, space
from parallelhassnes.store.records import AttemptState, Heartbeat, now_text

type Reason = Literal["exited", "timeout", "canceled", "lost"]


class Timing(NamedTuple):
    """Seconds."""

    heartbeat: float
    grace: float
    log_ceiling: int = logs.CEILING
    """Bytes, not seconds."""


def supervise(
    attempt: Attempt,
    kind: Kind,
    environment: Mapping[str, str],
    lock: int,
    timing: Timing,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Own the attempt from start to seal; the caller is a process of its own that holds ``step.lock``.

    Args:
        secrets: those of the environment's values that are taken out of every file at the end.
    """
    processes.adopt_orphans()
    wake, write = _listen()
    (attempt.dir / "tmp").mkdir(exist_ok=True)
    pid = start_worker(attempt, kind, environment, lock)
    watch = _Watch(attempt, kind, timing, wake, pid)
    end = watch.until_it_ends()
    processes.kill_group(pid)
    processes.kill_descendants()
    signal.set_wakeup_fd(-1)
    for handle in (wake, write):
        os.close(handle)
    finish(attempt, kind, end, watch.state, secrets, timing.log_ceiling)


def _listen() -> tuple[int, int]:
    """A pipe whose first end becomes readable when a signal arrives."""
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
        self, attempt: Attempt, kind: Kind, timing: Timing, wake: int, worker: int
    ) -> None:
        self.attempt, self.kind, self.timing, self.wake, self.worker = (
            attempt, kind, timing, wake, worker,
        )  # fmt: skip
        limit = attempt.step.timeout_sec or kind.deadline_sec(attempt)
        self.began = time.monotonic()
        self.deadline = None if limit is None else self.began + limit
        self.kill_at: float | None = None
        self.reason: Reason = "exited"
        self.beats = 0
        self.next_beat = self.began
        self.state = AttemptState(
            status="running",
            run_id=attempt.run_id,
            started_at=now_text(),
            heartbeat=Heartbeat(count=0, at=now_text()),
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_start=processes.start_time(os.getpid()),
            worker_pid=worker,
            worker_start=processes.start_time(worker),
        )

    def until_it_ends(self) -> WorkerEnd:
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        told = False
        while True:
            self._beat_if_due()
            ended, status = os.waitpid(self.worker, os.WNOHANG)
            if ended:
                return WorkerEnd(os.waitstatus_to_exitcode(status), self.reason)
            self._stop_if_due(told)
            due = min(t for t in (self.next_beat, self.deadline, self.kill_at) if t is not None)
            poller.poll(max(0.0, due - time.monotonic()) * 1000 + 1)
            told = self._drain()

    def _drain(self) -> bool:
        """Whether a SIGTERM was among the signals since the last look."""
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
        if (self.attempt.dir / attempts.CANCEL).exists():
            self._stop("canceled")
        elif told:
            self._stop("lost")
        elif self.deadline is not None and now >= self.deadline:
            self._stop("timeout")

    def _stop(self, reason: Reason) -> None:
        self.reason = reason
        self.deadline = None
        self.kill_at = time.monotonic() + self.timing.grace
        logs.say(f"stopping the worker: {reason}")
        processes.send(self.worker, None, signal.SIGTERM)
        processes.send(self.worker, None, signal.SIGCONT)

    def _beat_if_due(self) -> None:
        now = time.monotonic()
        if now < self.next_beat:
            return
        self.next_beat = now + self.timing.heartbeat
        self.state = self.state.model_copy(
            update={
                "heartbeat": Heartbeat(count=self.beats, at=now_text()),
                "phase": self.kind.phase(self.attempt),
                "log_bytes": _log_bytes(self.attempt),
            }
        )
        self.beats += 1
        try:
            attempts.write_state(self.attempt.dir, self.state)
        except OSError as error:  # a full disk stops the beat, not the work
            if not space.is_full(error):
                raise
            logs.say(f"could not write the heartbeat: {error.strerror}")
        for name in logs.trim(self.attempt.dir, self.timing.log_ceiling):
            logs.say(f"cut the middle out of {name}")


def _log_bytes(attempt: Attempt) -> int:
    total = 0
    for name in attempts.LOGS:
        try:
            total += os.stat(attempt.dir / name).st_size  # noqa: PTH116 - hot path
        except FileNotFoundError:
            continue
    return total
