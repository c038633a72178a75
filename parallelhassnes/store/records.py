"""The records of an attempt and the small files of the queue, as they are on disk.

Times are RFC 3339, UTC, to the microsecond. Every record has a ``schema_version``.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from parallelhassnes.config import Budget
from parallelhassnes.plan import Record

TERMINAL = frozenset({"succeeded", "failed", "needs_attention", "canceled", "lost"})

type AttemptStatus = Literal[
    "queued", "running", "succeeded", "failed", "needs_attention", "canceled", "lost"
]


def now_text(moment: datetime | None = None) -> str:
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


class AttemptMeta(Record):
    """``meta.json``: what an attempt was started as. Written once, before anything runs."""

    schema_version: Literal[1] = 1
    run_id: str
    batch_id: str
    job_id: str
    step_id: str
    kind: str
    queue_key: str
    number: int
    """1 for the first attempt of the step."""
    created_at: str
    runner_id: str
    host: str
    harness_version: str
    config_sha256: str
    stand_in: bool = False
    """Agents are answered by the deterministic stand-in (a dry run)."""
    ticket: str
    """Name of the queue's entry that this attempt was started from."""


class Heartbeat(Record):
    """Proof of life; judged by whether ``count`` moves, never by another host's clock."""

    count: int
    at: str


class FailureRecord(Record):
    failure_class: str
    line: str


class AttemptState(Record):
    """``state.json``: how an attempt stands. Replaced by its supervisor only."""

    schema_version: Literal[1] = 1
    status: AttemptStatus
    run_id: str
    started_at: str | None = None
    ended_at: str | None = None
    heartbeat: Heartbeat
    host: str
    pid: int | None = None
    """The supervisor's process id."""
    pid_start: int | None = None
    """Its start time in clock ticks since boot: a pid alone may be reused."""
    worker_pid: int | None = None
    worker_start: int | None = None
    phase: str | None = None
    exit_code: int | None = None
    failure: FailureRecord | None = None
    log_bytes: int = 0
    """Size of the worker's logs at the last heartbeat."""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


class Ticket(Record):
    """The queue's entry for one step; the file's name is ``tickets.ticket_name``."""

    schema_version: Literal[1] = 1
    batch_id: str
    job_id: str
    step_id: str
    queue_key: str
    kind: str


class StepNow(Record):
    """How a step stands, derived from its attempts; an entry of ``current.json``."""

    status: AttemptStatus
    """Of the newest attempt."""
    attempt: str
    """Name of the newest attempt's directory."""
    run_id: str
    number: int
    """Attempts so far."""
    ended_at: str | None = None
    failure: FailureRecord | None = None
    settled: bool = False
    """Nothing more will start by itself: it ended, and no retry is due."""
    retry_at: str | None = None
    """When the next attempt may start, where one is due."""


class Current(Record):
    """``current.json``: every step of a job that has been attempted."""

    schema_version: Literal[1] = 1
    steps: dict[str, StepNow] = {}
    dead: dict[str, str] = {}
    """step_id → the dependency because of which it cannot start: one that ended without success."""


class Control(Record):
    """``control.json`` of a batch: what operators have said since it was accepted."""

    schema_version: Literal[1] = 1
    canceled: bool = False
    priority: int | None = None
    budget: Budget | None = None
    """Instead of the table's."""


class Overrides(Record):
    """``overrides.json`` of a job: what operators have said about its steps."""

    schema_version: Literal[1] = 1
    canceled: dict[str, str] = {}
    """step_id → when; a step that has not started will not."""
    enough: dict[str, str] = {}
    """step_id → why it is not needed any more; those that were canceled by the job's own rule."""
    retries: dict[str, str] = {}
    """step_id → run_id of the attempt that was asked to be followed by another, whatever it came to."""


def dump(record: Record) -> dict[str, Any]:
    """The record as it goes to disk: what was not set stays out, ``status`` and the like always in."""
    return record.model_dump(mode="json", exclude_none=True)
