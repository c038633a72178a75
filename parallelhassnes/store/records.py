"""The records of an attempt and the small files of the queue, as they are on disk.

Times are RFC 3339, UTC, to the microsecond. Every record has a ``schema_version``.
"""

from typing import Any, Literal

from parallelhassnes.config import Budget, RetryConfig
from parallelhassnes.plan import CapName, Record
from parallelhassnes.states import TERMINAL, AttemptStatus
from parallelhassnes.store import clocks, process_identity

now_text, parse_time = clocks.now_text, clocks.parse_time


class Credential(Record):
    """Whose keys an attempt was given, without any of them: what a provider refuses, it refuses all attempts with the same."""

    mark: str = ""
    """A keyed hash of the names and values of all secrets that it was given; empty for none."""
    variables: tuple[str, ...] = ()
    """The names of those that are secrets."""

    @property
    def words(self) -> str:
        """``with OPENAI_API_KEY (3fa91c)``, to stand behind "attempts"."""
        if not self.mark:
            return "that are given no key"
        names = ", ".join((*self.variables[:3], *("…" for _ in self.variables[3:4])))
        return f"with {names or 'their variables'} ({self.mark[:6]})"


class ImportedAttempt(Record):
    """Where an attempt was made that was not made here."""

    source: Literal["harbor", "oddish"]
    job_id: str
    trial: str
    """The name of the trial there; Oddish's id of it."""
    path: str
    """Its folder when it was imported."""
    result_sha256: str
    """Of its ``result.json``, from Oddish of what that says; empty where it had none."""
    merkle_root: str
    """Over all of its files as they were there, as a seal has it."""
    began: str | None = None
    """None where the source does not say, or without a zone; ``ended`` likewise."""
    ended: str | None = None


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
    credential: Credential | None = None
    """Whose keys it is given; None in attempts of earlier versions."""
    inputs: dict[str, str] = {}
    """Of an agent step or one in a loop: ``job_id/step_id`` of what it depends on → the attempt that it was given."""
    imported: ImportedAttempt | None = None
    """Of an attempt of another program; then ``created_at`` is when it was imported, and who ran it is not known."""


class Heartbeat(Record):
    """Proof of life; judged by whether ``count`` moves, never by another host's clock."""

    count: int
    at: str


class FailureRecord(Record):
    failure_class: str
    line: str
    evidence: str | None = None
    """What the class was derived from, quoted: the exception's message or an agent's own words, bounded."""
    retry_after_sec: float | None = None
    """Seconds that the provider asked to wait."""
    guessed: bool | None = None
    """True where the class was guessed from where the attempt stood: nobody named the cause."""


class LiveRecord(Record):
    """What a live attempt is doing, as far as its kind can tell."""

    item: str | None = None
    """What it is at, in one line: the command that an agent runs."""
    thread_id: str | None = None
    input_tokens: int | None = None
    """So far; those from the cache included."""
    output_tokens: int | None = None
    cost_usd: float | None = None
    tool_calls: int = 0


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
    pid_table: str | None = None
    """The table of processes that these are numbers in: ``process_identity.table``."""
    phase: str | None = None
    exit_code: int | None = None
    failure: FailureRecord | None = None
    shut_down: bool = False
    """Its supervisor was told to end (SIGTERM) without a cancel, as when the host goes down: no attempt of the step."""
    retry: RetryConfig | None = None
    """``[retry]`` of the configuration when the attempt ended, where its step's table leaves something of it open."""
    log_bytes: int = 0
    """Size of the worker's logs, and of a trial's folder, at the last heartbeat."""
    live: LiveRecord | None = None
    """Of an attempt that runs, where its kind can tell; the report has it afterwards."""
    sandbox: str | None = None
    """``environment:id`` of its sandbox at a provider's, once it has one: ``steps.trial_data.remote_sandboxes``."""
    stuck_since: str | None = None
    """When the attempt last moved (phase, logs, CPU time), once that is longer ago than ``stuck_after_sec``."""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    def supervisor_lives(self) -> bool | None:
        """None where that cannot be seen from here."""
        return process_identity.lives(self.pid, self.pid_start, self.pid_table, self.host)

    def worker_lives(self) -> bool | None:
        """None where that cannot be seen from here."""
        return process_identity.lives(self.worker_pid, self.worker_start, self.pid_table, self.host)


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
    because: str = ""
    """Why another follows or none does, in a few words; empty where there was nothing to decide."""
    unmet: str = ""
    """Of a critic whose loop is over without it being satisfied: why; then what waits for it does not start."""


class Current(Record):
    """``current.json``: every step of a job that has been attempted."""

    schema_version: Literal[1] = 1
    steps: dict[str, StepNow] = {}
    dead: dict[str, str] = {}
    """step_id → the dependency because of which it cannot start: one that ended without success."""


class Attribution(Record):
    """Who said something, when and why."""

    at: str
    by: str
    """``user@host``."""
    reason: str = ""

    def __str__(self) -> str:
        return f"by {self.by}{f': {self.reason}' if self.reason else ''}"


class Control(Record):
    """``control.json`` of a batch: what operators have said since it was accepted."""

    schema_version: Literal[1] = 1
    canceled: bool = False
    priority: int | None = None
    budget: Budget | None = None
    """Instead of the table's."""
    caps: dict[str, dict[CapName, float]] = {}
    """``""`` (the whole batch), ``job_id`` or ``job_id/step_id`` → caps in the place of the plan's; 0 for none."""
    paused: Attribution | None = None
    """Nothing starts until it is resumed."""
    closed: Attribution | None = None
    """Nothing starts any more: what runs ends, what waits stays undone, unless it is reopened."""
    variables: dict[str, str] | None = None
    """Variable → mark of the value that ``run`` found in its environment: attempts get that one or wait for it. None where
    the batch came otherwise and takes what the environment of a tick holds."""

    @property
    def hold(self) -> str:
        """What keeps the batch from starting anything, in words; empty where it may start."""
        if self.canceled:
            return "canceled"
        if self.closed is not None:
            return f"closed {self.closed}"
        return f"paused {self.paused}" if self.paused is not None else ""


class Overrides(Record):
    """``overrides.json`` of a job: what operators have said about its steps."""

    schema_version: Literal[1] = 1
    canceled: dict[str, str] = {}
    """step_id → when; a step that has not started stays so."""
    enough: dict[str, str] = {}
    """step_id → why it is not needed any more; those that were canceled by the job's own rule."""
    approved: dict[str, Attribution] = {}
    """step_id → who let it through its gate."""
    rejected: dict[str, Attribution] = {}
    """step_id → who rejected the step; such a step is among ``canceled``, too."""
    retries: dict[str, str] = {}
    """step_id → run_id of the attempt that was asked to be followed by another, whatever it came to."""


def dump(record: Record) -> dict[str, Any]:
    """Return the record as it goes to disk: what was not set stays out, ``status`` and the like always in."""
    return record.model_dump(mode="json", exclude_none=True)
