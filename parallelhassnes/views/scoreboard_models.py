"""The shapes of both scoreboards; published as JSON Schemas under ``schemas/``, with the docstrings as descriptions.

Building a model costs as much as a whole look at a store, so each is built when it is first used.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from parallelhassnes.states import TaskQuality

type BatchState = Literal["running", "waiting", "blocked", "attention", "canceled", "done"]


class View(BaseModel):
    """Base of every view: made by us, so nothing unknown is in it."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the view as the JSON that the command line and the HTTP server give, in Python's own types."""
        return self.model_dump(mode="json")


class Counts(View):
    """Steps by state; every state is there, also with 0."""

    blocked: int = 0
    """Waits for another step, cannot start because one failed, or is held back; see the reasons."""
    ready: int = 0
    """Starts as soon as a limit allows, or at the time of its retry."""
    running: int = 0
    succeeded: int = 0
    """Did what it was to do; of a trial: it ran and was judged, whatever the reward."""
    failed: int = 0
    needs_attention: int = 0
    canceled: int = 0
    lost: int = 0
    """Its processes died without an end of their own."""


class TrialCounts(View):
    """Trials by what they have come to; steps of other kinds are not among them."""

    total: int = 0
    passed: int = 0
    scored: int = 0
    """With a reward that is no pass, or with several of which none decides."""
    no_score: int = 0
    """Over, without a reward."""
    running: int = 0
    waiting: int = 0
    """Ready or blocked."""
    canceled: int = 0

    @property
    def over(self) -> int:
        """Trials that ended for good."""
        return self.passed + self.scored + self.no_score + self.canceled


class KeyLoad(View):
    """The steps of one batch on one queue key that are to start."""

    ready: int = 0
    delayed: int = 0
    """Of the ready ones, those that wait for the time of their retry."""


class Cell(View):
    """The trials of one job by one agent."""

    n: int = 0
    """Trials in the table."""
    scored: int = 0
    """Trials with a reward, by the newest attempt that has one."""
    undecided: int = 0
    """Of these those with several rewards and no main one: neither a pass nor a fail."""
    passes: int = 0
    """Trials whose main reward is enough (``pass``; at least 1 where nobody says)."""
    mean_reward: float | None = None
    """Of the main rewards; null if there are none."""
    rewards: dict[str, float] = {}
    """Name → mean of that reward, where trials have others than ``reward``; at most 20."""
    running: int = 0
    waiting: int = 0
    """Ready or blocked."""
    unscored: int = 0
    """Succeeded without a reward."""
    failed: int = 0
    """Failed, lost or in need of attention: no trial counts as a zero because of that."""
    canceled: int = 0
    again: int = 0
    """Scored ones of which another attempt waits or runs: they count once, as scored."""


class BatchLine(View):
    """One batch in the system scoreboard."""

    batch_id: str
    state: BatchState
    """``running``: attempts are live. ``waiting``: none is, some will start. ``blocked``: what is left is held back.
    ``attention``: nothing goes on by itself, and not all went well. ``canceled``, ``done``: nothing is left."""
    trouble: bool
    """Something failed, was lost, needs attention or cannot start."""
    jobs_total: int
    steps_total: int
    counts: Counts
    trials: TrialCounts | None = None
    """Of the steps those that are trials; null in a line of an older version."""
    other_steps: Counts = Counts()
    """The states of the steps that are no trials."""
    skipped: int = 0
    """Of the canceled steps those that were not needed any more (``enough``)."""
    columns: int = 0
    """Columns (agents) of the batch's matrix."""
    totals: dict[str, Cell] = {}
    """Column → all its trials; the first six columns, in the table's order."""
    experiment: str = ""
    name: str = ""
    """What people call it: its experiment, or what runs with whom, as ``hello × oracle, nop``."""
    source_name: str = ""
    """The file name under which the table was submitted."""
    created_at: str
    """RFC 3339, UTC."""
    arrival: str = ""
    """Sorts batches in the order of their arrival, which a clock that went back does not change; empty for a folder of others."""
    last_event_at: str = ""
    """Time of the newest event of a step; empty before the first."""
    stand_in: bool = False
    """A dry run: no agent was called, and the answers of agent steps are made up."""
    held: str = ""
    """What keeps the whole batch from starting anything; empty where it may start."""
    concurrency: int | None = None
    """Live attempts of this batch at most; null for no limit of its own."""
    limits: dict[str, int] = {}
    """Queue key → live attempts at most, as its table says."""
    queue: dict[str, KeyLoad] = {}
    """Queue key → the batch's steps on it that are to start."""
    stamp: str
    """What the line was made from: a line with the same stamp is still current."""


class PauseLine(View):
    """A queue key's pause by its provider, for one credential."""

    credential: str
    """Mark of the secrets that the refused attempt was given; empty where it was given none."""
    variables: list[str]
    """Their names."""
    state: Literal["open", "half-open"]
    """``half-open``: one attempt tries whether it is cured."""
    failure_class: str
    line: str
    attempt: str
    """``batch/job/step/attempt`` whose end it was."""
    batches: list[str]
    """Those that wait for it."""
    probe_at: str
    """When one attempt tries."""


class QueueLine(View):
    """One queue key."""

    queue_key: str
    live: int
    """Live attempts: the running tickets, which is what the limit counts."""
    limit: int | None
    """The limit in force: the strictest of an operator's or the configured one, those of the batches there, and what the
    provider's answers have made of it; null for none, 0 where nothing starts."""
    limit_why: str = ""
    """Who set the limit in force: ``configured``, ``set by NAME``, ``by the table of BATCH``, or what has lowered it."""
    ready: int
    """Steps that could start now, those that wait for a time not included."""
    delayed: int
    ceiling: int | None = None
    """What the limit grows back to where the provider's answers have lowered it; null where the limit was not lowered."""
    paused: str = ""
    """Why nothing starts on the key, and what to do; empty where it is open."""
    breaker: Literal["closed", "open", "half-open"] = "closed"
    """``open``: paused by its provider's refusals; ``half-open``: one attempt tries whether it is cured."""
    probe_at: str | None = None
    """When one attempt tries, where the key is paused by its provider; the first of several pauses."""
    pauses: list[PauseLine] = []
    """The pauses by its provider, each for one credential: attempts with another start."""
    changes: list[str] = []
    """The last changes of limit and pause, as ``time what``, newest first."""


class JoinedHost(View):
    """A runner as one of several hosts of the root, as ``doctor --hosts`` found it."""

    host: str
    root: str
    """Path of the root there."""
    version: str
    decides: bool
    """It settles, hands out and starts for all of them."""
    locks_cross: bool
    """Whether a lock that another host holds keeps it out."""
    cache_sec: float
    """After so long at the latest it sees what another host has written."""
    skew_sec: float | None = None
    """How far its clock is ahead of that of the host that it was probed with; null where nobody knows."""
    probed_with: list[str]
    """Runners with which that was found out."""
    joined_at: str
    trouble: list[str] = []
    """What is not as it should be, a line each with what follows or what to do."""


class JobNow(View):
    """A job of Slurm that is, or is to be, one attempt."""

    step: str
    """``batch/job/step``."""
    attempt: str
    slurm_id: str | None
    """Null where there is no job yet."""
    state: str | None
    """As Slurm had it last, such as ``PENDING`` or ``RUNNING``; null before it was seen."""
    reason: str
    """Why it is pending."""
    node: str
    trouble: str
    """Why there is no job now."""
    line: str
    """All of it, in words."""


class PilotLine(View):
    """A pilot, and what Slurm says of its job."""

    pilot: str
    job_id: str | None
    state: str | None
    """As Slurm has it, such as ``PENDING`` or ``RUNNING``; ``OVER`` where it has no such job any more; null where nobody answers."""
    reason: str
    """Why it is pending."""
    node: str
    log: str
    """File with what its runner has said."""

    @property
    def line(self) -> str:
        """How it stands, in a few words."""
        why = f" ({self.reason})" if self.reason else f" on {self.node}" if self.node else ""
        return f"{(self.state or 'not known').lower()}{why}"


class SlurmNow(View):
    """Jobs of Slurm, as the host that decides has had them last."""

    answers: bool
    """Whether Slurm answered it then."""
    pilots: list[PilotLine]
    """Jobs that are runners, or wait to be one; the oldest first."""
    jobs: list[JobNow]
    """Jobs that are one attempt each."""


class RunnerLine(View):
    """One runner, as it last reported."""

    runner_id: str
    host: str
    capacity: int | None
    live: int | None
    draining: bool
    """A file ``drain`` is there: it starts nothing new."""
    at: str
    """When it reported, by its own clock."""
    joined: JoinedHost | None = None
    """What is known of it as one of several hosts; null on a root of one host."""
    job_id: str | None = None
    """The cluster's job that it is in."""
    left_sec: float | None = None
    """Time until it ends, as it said last; null for no end."""
    runs: list[str] = []
    """``batch/job/step`` of what it runs; only ``/v1/runners`` tells."""


class SystemScoreboard(View):
    """The whole store: a line per batch, trouble first."""

    schema_version: Literal[1] = 1
    at: str
    """RFC 3339, UTC."""
    concurrency: int
    """Live attempts on this host at most."""
    live: int
    """Live attempts over all queue keys."""
    counts: Counts
    """Over all batches."""
    incoming: int
    """Tables that wait to be ingested."""
    rejected: int
    """Tables that were rejected; see ``runs/_queue/rejected``."""
    shortage: str = ""
    """Why nothing starts on this host: too little disk or memory; empty where there is enough."""
    waiting: list[str] = []
    """One line for whatever keeps every batch waiting: no pass succeeds, nobody makes one, an environment's engine does not answer."""
    queue: list[QueueLine]
    runners: list[RunnerLine]
    slurm: SlurmNow | None = None
    """Jobs of Slurm; null where there are none."""
    batches: list[BatchLine]
    """First those with something failed, lost, in need of attention or blocked, then those that go on, then those that
    are over; in each the newest first."""


class Spent(View):
    """Tokens and money of every ended attempt whose report has been read, repeated ones included."""

    cost_usd: float | None = None
    """Null where no attempt knew its cost."""
    input: int | None = None
    """Input tokens, those from the cache included."""
    cache: int | None = None
    output: int | None = None
    attempts_known: int = 0
    """Attempts that said anything of that kind."""
    attempts_unknown: int = 0
    """Attempts that said nothing."""
    cost_unknown: int = 0
    """Attempts that have cost something nobody knows, in whole or in part: the sum is at least ``cost_usd``."""


class Verdict(View):
    """A job's verdict in short; the whole is its ``verdict.json``."""

    task_broken: bool | None
    """``task_quality`` in short: true if broken, false if good, else null."""
    scored: int
    passes: int
    steps: int
    task_quality: TaskQuality


class JobLine(View):
    """One job: a row of the matrix."""

    job_id: str
    counts: Counts
    cells: dict[str, Cell]
    """Column (agent) → its trials."""
    verdict: Verdict | None = None


class RunningStep(View):
    """One live attempt."""

    step: str
    """``job_id/step_id``."""
    label: str
    queue_key: str
    number: int
    """1 for the first attempt of the step."""
    phase: str
    """``environment_setup``, ``agent``, ``verifier`` …; ``starting`` before the first heartbeat, ``ended`` when it has
    ended and is about to be settled."""
    item: str | None = None
    """What it is doing, in one line, where its kind can tell: the command that an agent runs."""
    tokens: int | None = None
    """Used so far, input (from the cache, too) and output together, where it can be told."""
    cost_usd: float | None = None
    age_sec: float | None
    """Since its start."""
    stuck_since: str | None = None
    """When it last moved, once that is longer ago than ``stuck_after_sec``."""
    heartbeat_age_sec: float | None
    """Since the heartbeat last moved; null where that cannot be judged from here (another host, first look)."""
    alive: bool | None
    """Whether its supervisor's process exists; null where that cannot be seen from here."""
    host: str
    attempt: str
    """The attempt's folder, relative to the root."""


class BlockedGroup(View):
    """Steps that are blocked for one reason."""

    reason: str
    count: int
    steps: list[str]
    """The first of them, as ``job_id/step_id``."""
    final: bool
    """They cannot start any more unless the cause is retried."""


class GatedStep(View):
    """A step that waits for a person to approve or reject it."""

    step: str
    """``job_id/step_id``."""
    label: str
    after: dict[str, str] = {}
    """What it is to follow, as far as that was attempted: ``job_id/step_id`` → the newest attempt's folder, relative to the
    root."""


class FailedStep(View):
    """A step that did not succeed."""

    step: str
    status: str
    failure_class: str
    guessed: bool = False
    """Nobody named the cause: the class is a guess."""
    line: str
    number: int
    """Attempts so far."""
    ended_at: str
    retry_at: str | None = None
    """When it is tried again; null where it is not to be tried again."""
    attempt: str
    """The newest attempt's folder, relative to the root."""


class UnscoredStep(View):
    """A trial that succeeded and has no reward."""

    step: str
    label: str
    attempt: str


class BrokenTask(View):
    """A task that its verdict calls broken."""

    job: str
    why: str
    """The verdict's first reason; empty where it gives none."""
    to_do: str
    """Its first recommendation."""


class BatchScoreboard(View):
    """One batch."""

    schema_version: Literal[1] = 1
    at: str
    batch_id: str
    state: BatchState
    name: str = ""
    """As in the system scoreboard."""
    experiment: str
    goal: str
    labels: dict[str, str]
    source_name: str
    created_at: str
    stand_in: bool
    """A dry run: no agent was called, the answers of agent steps are made up, and its results mean nothing."""
    held: str
    jobs_total: int
    steps_total: int
    counts: Counts
    trials: TrialCounts = TrialCounts()
    """Of the steps those that are trials."""
    other_steps: Counts = Counts()
    """The states of the steps that are no trials."""
    columns: list[str]
    """Agents of the matrix, in the table's order."""
    totals: dict[str, Cell]
    """Column → all its trials, over the jobs."""
    jobs: list[JobLine]
    running: list[RunningStep]
    """Oldest first."""
    blocked: list[BlockedGroup]
    """Most steps first."""
    gates: list[GatedStep] = []
    """Of the blocked ones, those for which a person's word is all that is missing."""
    failures: list[FailedStep]
    """Newest first; also failed ones that will be tried again."""
    failure_classes: dict[str, int]
    """Failure class → steps."""
    unscored: list[UnscoredStep]
    verdicts: dict[str, int]
    """Task quality → jobs with such a verdict."""
    broken_tasks: list[BrokenTask] = []
    """Of the jobs shown, those whose task is broken."""
    attempts: int
    """Attempts that ended."""
    spent: Spent
    warnings: list[str]
    """What the table's expansion warned about."""
