"""The expanded form of a launch table: what ``tables`` makes and everything below the table reads.

A table is what a user writes; a plan is what will run, with every default filled in, every sweep
expanded and every name checked. ``JobSpec`` is the content of ``job.json``, ``BatchMeta`` that of
``batch_meta.json``.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

from parallelhassnes.config import Budget, ClassRetry, FailureClass, RetryConfig
from parallelhassnes.states import RetriedStatus

type After = Literal["success", "end", "attempt"]
SANDBOX = "parallelhassnes.sandbox.environment:SandboxEnvironment"
"""The sandbox as Harbor's import path of an environment."""
_SANDBOXES = (SANDBOX, "parallelhassnes.steps.sandbox.environment:SandboxEnvironment")


def is_sandbox(import_path: object) -> bool:
    """Tell whether an environment's import path names the sandbox, by today's path or by that of earlier plans."""
    return import_path in _SANDBOXES


class Record(BaseModel):
    """Base of everything that is written to the store: unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    def __deepcopy__(self, _memo: object = None) -> Self:
        """Return the record itself, which never changes: pydantic copies a default for each of 100,000 steps."""
        return self


class TopUp(Record):
    """A trial that must be scored: it is attempted again where it ended without a score."""

    extra: int = Field(ge=0, le=1_000_000)
    """Further attempts of this step, besides its retries."""


type RetryValue = Literal["max_attempts", "backoff_sec", "classes"]


class Retry(Record):
    """How often a step is attempted; docs/failures.md has the table that this changes."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    """Attempts in all, the first one included, of those that count; 1 for no retries of any kind."""
    backoff_sec: float = Field(default=10.0, ge=0, le=86_400)
    """Seconds before the first retry after a failure of the infrastructure; doubled for each that follows."""
    classes: dict[FailureClass, ClassRetry] = {}
    """Failure class → what differs from the table."""
    only: tuple[str, ...] = ()
    """Types of exceptions: a trial that ended by one is retried, whatever its class; by another type it is not. Empty: by class."""
    never: tuple[str, ...] = ()
    """Types of exceptions by which no trial is retried."""
    on_statuses: tuple[RetriedStatus, ...] = ()
    """After which ends there is another attempt, ``backoff_sec`` later each time; empty: by class. ``lost`` counts as failed."""
    top_up: TopUp | None = None
    """Of a trial whose agent has a target of scored trials (``n_valid``)."""
    open: tuple[RetryValue, ...] = ()
    """What the table leaves to ``[retry]`` of the configuration as it is when an attempt ends; of ``classes`` what it does not
    name. Empty in plans of earlier versions, where all was filled in when the table was accepted."""

    def under(self, config: RetryConfig) -> "Retry":
        """Return the whole rule, with what is open taken from the configuration."""
        if not self.open:
            return self
        given = {
            "max_attempts": config.max_attempts,
            "backoff_sec": config.backoff_sec,
            "classes": merged_classes(config.classes, self.classes),
        }
        return self.model_copy(update={name: given[name] for name in self.open} | {"open": ()})


LEFT_OPEN = Retry(open=("max_attempts", "backoff_sec", "classes"))
"""Of a step whose table says nothing of retries."""


def merged_classes(*layers: Mapping[FailureClass, ClassRetry]) -> dict[FailureClass, ClassRetry]:
    """Return one dict of all; a later layer counts more, value by value."""
    made: dict[FailureClass, ClassRetry] = {}
    for layer in layers:
        for name, said in layer.items():
            before = made.get(name, ClassRetry())
            made[name] = before.model_copy(update=said.model_dump(exclude_none=True))
    return made


class Loop(Record):
    """Two steps of a job that take turns: the solver, then the critic, until the critic's report says enough."""

    solver: str
    """step_id"""
    critic: str
    """step_id"""
    max_rounds: int = Field(ge=1, le=100)
    until: str
    """Expression over the critic's ``report`` (and ``round``) that ends the loop where it is true."""


class Resources(Record):
    """What a step asks a cluster for; each of its attempts is then a job of its own. What is None is the cluster's default."""

    cpus: int | None = None
    memory_mb: int | None = None
    gpus: int | None = None
    partition: str | None = None
    time: str | None = None
    """The time limit, as Slurm writes it; None for the step's own limit and its grace."""


type CapName = Literal["max_cost_usd", "max_tokens", "max_turns", "max_wall_sec"]


CAPS: tuple[CapName, ...] = get_args(CapName.__value__)


class Caps(Record):
    """What the agent of one attempt may use; where it has used so much it is ended, as ``capped``. None: no such limit."""

    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, gt=0)
    """Input (from the cache, too) and output together."""
    max_turns: int | None = Field(default=None, gt=0)
    """Answers of the model."""
    max_wall_sec: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that the agent works; of a trial with several steps those of all of them."""


class StepSpec(Record):
    """One node of a job's graph, ready to run."""

    step_id: str
    kind: str
    """``trial``, ``verdict``, ``command``, ``agent``, ``analysis``."""
    queue_key: str
    """What the concurrency limit applies to, normalised: ``openai/gpt-5.2``, ``agent:oracle``."""
    label: str = ""
    """The column of this step in a scoreboard: ``oracle``, ``terminus-2 · openai/gpt-5.2``."""
    depends_on: tuple[str, ...] = ()
    """Always written in full: ``job_id/step_id``."""
    after: After = "success"
    """``success``: every dependency must have succeeded; ``end``: it must have ended, well or not, or never be going to start; ``attempt``: an attempt of it must have ended, well or not."""
    gate: Literal["human"] | None = None
    """``human``: besides, somebody must have approved its start."""
    loop: Loop | None = None
    """Of a solver and of its critic: the loop that they are."""
    timeout_sec: float | None = None
    """Seconds from start to the supervisor's deadline; None lets the kind decide."""
    resources: Resources | None = None
    """What each of its attempts, as a job of its own, asks a cluster for; None for a step that a runner runs."""
    caps: Caps | None = None
    """Of a trial or an agent step; an operator's word (``control.json``) changes it while it runs."""
    env: dict[str, str] = {}
    retry: Retry = Retry()
    spec: dict[str, Any] = {}
    """What the kind itself reads; for ``trial`` the keys of ``TrialSpec``, for ``command`` ``{"command": [...]}``."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Dependency → its index in ``depends_on``."""
        return {reference: place for place, reference in enumerate(self.depends_on)}


class Enough(Record):
    """When a job's remaining trials of an agent are not needed any more; either rule suffices."""

    successes: int | None = Field(default=None, ge=1)
    """So many trials have passed."""
    half_width: float | None = Field(default=None, gt=0, lt=1)
    """Half of the 95 % Wilson interval of the pass rate is at most this."""


class JobSpec(Record):
    """A unit with its own verdict; the content of ``job.json``."""

    schema_version: Literal[1] = 1
    batch_id: str
    job_id: str
    labels: dict[str, str] = {}
    enough: Enough | None = None
    first_seq: int = 0
    """Position in the batch of this job's first step; orders tickets, and is the same after a rebuild."""
    steps: tuple[StepSpec, ...]
    dependents: dict[str, tuple[str, ...]] = {}
    """For each step_id of this job, the steps (``job_id/step_id``) that wait for it."""

    @cached_property
    def places(self) -> dict[str, int]:
        """step_id → its index in ``steps``."""
        return {step.step_id: place for place, step in enumerate(self.steps)}

    def step(self, step_id: str) -> StepSpec:
        """Raises KeyError where there is no such step."""
        return self.steps[self.places[step_id]]


class Addition(Record):
    """Steps that a job got after it was accepted; the content of ``additions/<number>.json``."""

    schema_version: Literal[1] = 1
    at: str
    """RFC 3339, UTC, to the microsecond."""
    by: str
    """``user@host``."""
    steps: tuple[StepSpec, ...]


class Preregistration(Record):
    """What a batch is to show, said before it ran; ``plan`` in a table."""

    question: str
    primary_metric: str = ""
    exclusions: str = ""
    """Which trials are not to count."""
    stop_rule: str = ""

    def sha256(self) -> str:
        """Tell what can be published before anything is spent: over its compact JSON with sorted keys, all four of them."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class ImportedJob(Record):
    """The job of another program that a batch was imported from."""

    source: Literal["harbor", "oddish"]
    job_id: str
    """Harbor's id of it; ``config-…`` where it has none, ``oddish-…`` of an experiment there."""
    job_name: str
    path: str
    """Its folder, or that of the export, when it was imported."""
    harbor_version: str = ""
    """That planned it; empty where it does not say."""
    planned: int | None = None
    """Trials that it planned; None where it does not say."""
    retries: int | None = None
    """Attempts that were deleted there before it was tried again; nothing else is known of them. None where it does not say."""
    ended: bool = False
    """It had ended when it was imported."""
    files: dict[str, str] = {}
    """Its own files → SHA-256."""


class RegradedBatch(Record):
    """What a batch judges once more."""

    batch: str
    verifier: tuple[str, ...]
    """The tasks whose tests judge."""
    left_out: int = 0
    """Trials of that batch that are not judged again."""


class BatchMeta(Record):
    """Facts about an accepted table; the content of ``batch_meta.json``, written last at ingest."""

    schema_version: Literal[1] = 1
    batch_id: str
    created_at: str
    """RFC 3339, UTC, to the microsecond."""
    table_sha256: str
    table_format: str
    """``parallelhassnes-2``, ``parallelhassnes-1``, ``oddish-sweep`` or ``harbor-job``."""
    source_name: str = ""
    """The file name under which the table was submitted."""
    base_dir: str = ""
    """The directory against which the table's relative paths were resolved."""
    base_dirs: tuple[str, ...] = ()
    """All directories in which the table's relative paths were looked for, in order; the root besides."""
    rerun_of: str = ""
    """The batch that this one runs again, in part or whole."""
    experiment: str = ""
    goal: str = ""
    plan: Preregistration | None = None
    labels: dict[str, str] = {}
    priority: int = 0
    """Higher starts first; -1000 to 1000."""
    concurrency: int | None = None
    """Live attempts of this batch at most; None for no limit of its own."""
    limits: dict[str, int] = {}
    """Live attempts per queue key at most, normalised keys."""
    budget: Budget | None = None
    """Beyond it nothing more of the batch starts."""
    secrets: tuple[str, ...] = ()
    """Names of environment variables that every step needs; never values."""
    job_ids: tuple[str, ...] = ()
    steps_total: int = 0
    """As accepted; steps that were added later are in the ledger."""
    warnings: tuple[str, ...] = ()
    harbor_job: dict[str, Any] | None = None
    """The Harbor JobConfig that this batch amounts to, where it came from one."""
    imported: ImportedJob | None = None
    """Where its trials ran, where that was not here."""
    regrade: RegradedBatch | None = None
    """Of a batch that judges the trials of another by other tests."""


class Plan(BaseModel):
    """A whole table, expanded and valid. ``batch_id`` is filled in at ingest."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    table_format: str
    experiment: str = ""
    goal: str = ""
    plan: Preregistration | None = None
    labels: dict[str, str] = {}
    priority: int = 0
    concurrency: int | None = None
    limits: dict[str, int] = {}
    budget: Budget | None = None
    secrets: tuple[str, ...] = ()
    jobs: list[JobSpec]
    """With ``batch_id`` empty, ``first_seq`` and ``dependents`` already right."""
    warnings: tuple[str, ...] = ()
    harbor_job: dict[str, Any] | None = None
    imported: ImportedJob | None = None
    regrade: RegradedBatch | None = None


type PassSource = Literal["default", "table", "sweep", "task", "step"]


class PassRule(Record):
    """When a trial has passed."""

    reward: str | None = None
    """Name of the main reward; None for the one called ``reward``, or the only one."""
    at_least: float = Field(default=1.0, allow_inf_nan=False)
    """What the main reward must reach."""
    source: PassSource = "default"
    """Who says so."""


class Regraded(Record):
    """The attempt whose work a trial judges once more, and what was said of it then."""

    attempt: str
    """``batch_id/job_id/step_id/attempt``."""
    seal_sha256: str
    """Of its seal, as the ledger of its batch has it."""
    by: Literal["workspace", "artifacts"]
    """What of it is judged: the kept working directory, or the artifacts that Harbor has collected."""
    agent: str | None = None
    agent_version: str | None = None
    model: str | None = None
    task_checksum: str = ""
    reward: float | None = None
    passed: bool | None = None
    result: str = ""
    """``scored``, or why there was no reward."""


class TrialSpec(Record):
    """``StepSpec.spec`` of a step of kind ``trial``."""

    config: dict[str, Any]
    """A Harbor ``TrialConfig`` in JSON mode, without ``trial_name``, ``trials_dir`` and ``job_id``. Paths are absolute;
    sensitive values are ``${NAME}`` templates."""
    task_name: str
    """Harbor's name of the task."""
    task_checksum: str = ""
    """Harbor's content hash of the task at ingest, where it could be computed without a download."""
    repeat: int = 1
    """Which of the trials of this task and agent this is, from 1."""
    pass_rule: PassRule | None = None
    """What the step, the sweep, the table or the task says of passing; None for the default."""
    keep_workspace: bool = False
    """Keep what the agent has left in its working directory beside the attempt."""
    plugins: list[dict[str, Any]] = []
    """Harbor's job plugins around it: ``import_path`` (or the name that a package gives it) and ``kwargs``."""
    regrade: Regraded | None = None
    """Of a trial that runs no agent."""
    source_key: str = ""
    """Of an imported batch: what the trial of its source has in common with those of the same task and settings there."""
    source_trial: str = ""
    """The name of that trial; empty where it was planned there, and there was nothing of it."""


class AgentPolicy(Record):
    """What a coding agent may do; the words are those of ``execution_policy`` in a table."""

    sandbox: Literal["read-only", "workspace-write", "danger-full-access"] = "workspace-write"
    """Of Codex: its kernel sandbox. Of Claude Code, which has permission rules instead: no edits, edits and commands
    in the workspace, anything."""
    approval_policy: Literal["never", "untrusted", "on-request", "on-failure"] = "never"
    """Nobody is there to approve anything, so everything but ``never`` only refuses more."""
    network_access: bool = False
    """Whether commands inside Codex's ``workspace-write`` sandbox reach the network."""
    web_search_enabled: bool = False
    model_reasoning_effort: str | None = None
    """Such as ``low``, ``medium``, ``high``; None for the agent's own default."""
    add_dirs: tuple[str, ...] = ()
    """Absolute folders that it may write to besides the workspace."""
    user_config: bool = False
    """Of Codex, where no key is in the environment: the user's own ``config.toml`` is in force, under what stands here."""
    skip_git_repo_check: bool = True
    """False refuses to work in a folder that is no git repository."""
    config: dict[str, Any] = {}
    """The agent's own settings, merged over ours: for Codex the keys of ``config.toml``, for Claude Code those of
    ``settings.json``."""


class WorkspacePolicy(Record):
    """Where a coding agent works; ``workspace_policy`` in a table."""

    mode: Literal["shared", "isolated"] = "shared"
    """``shared``: in ``working_directory`` itself; ``isolated``: in a git worktree of its own, made from there."""
    exclusive: bool = False
    """Of ``shared``: one running step in a directory at a time."""
    base: str = "HEAD"
    """Of ``isolated``: the commit that the worktree starts from, as git names it."""
    keep: Literal["never", "on_failure", "always"] = "on_failure"
    """Of ``isolated``: when the worktree stays after the attempt; its patch always stays."""


class ArtifactExpected(Record):
    """A file that must be in the workspace at the end for the step to have succeeded."""

    name: str
    """What ``artifact ID NAME`` calls it."""
    glob: str
    """Relative to the workspace; ``**`` crosses folders. At least one file must fit."""
    of_attempt: bool = False
    """``glob`` is the name of a file of the attempt's folder instead, as the earlier ParallelHassnes called it."""
    non_empty: bool = True
    """Each file that fits must have content."""
    json_schema: dict[str, Any] | None = None
    """Each file that fits must be JSON that is valid against this."""


class ResumeFrom(Record):
    """Whose conversation an agent step continues."""

    step_id: str
    """A step of the same job, or ``job_id/step_id``."""
    selector: Literal["latest_successful", "latest", "run_id"] = "latest_successful"
    run_id: str | None = None
    """Of the selector ``run_id``: which attempt of that step."""
    thread_id: str | None = None
    """Which conversation of that attempt, where it is not the one that it ended with."""


class AgentPlan(Record):
    """``StepSpec.spec`` of a step of kind ``agent``. Paths are absolute."""

    agent: str = "codex"
    """``codex``, ``claude``, or any name for a program given by ``command``."""
    command: tuple[str, ...] = ()
    """The argument vector of any other program, with ``{prompt_file} {schema_file} {output_file} {workdir}`` in it."""
    program: str = ""
    """Path of the CLI, where it is not the one of that name on PATH."""
    prompt: str = ""
    prompt_ref: str = ""
    """File with the prompt, read when an attempt starts, instead of ``prompt``."""
    append_prompt: str = ""
    """Text after the prompt."""
    pack_prompt: str = ""
    """Text before the prompt."""
    pack_prompt_ref: str = ""
    """File with text before the prompt, read when an attempt starts."""
    templates: bool = False
    """All these texts are templates (``tables.expanders.templates``), rendered when an attempt starts."""
    reports_of: tuple[str, ...] = ()
    """The steps (``job_id/step_id``) whose reports it is given: its fan-in."""
    model: str | None = None
    """None for the agent's own default."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema of the agent's report; None for the built-in one."""
    report_version: Literal[1, 2] = 2
    """Which built-in report is asked for (``steps.agent.reports``); 1 is that of the earlier ParallelHassnes."""
    working_directory: str = ""
    """Empty for the fresh directory ``work`` of the attempt."""
    execution_policy: AgentPolicy = AgentPolicy()
    workspace_policy: WorkspacePolicy = WorkspacePolicy()
    artifacts_expected: tuple[ArtifactExpected, ...] = ()
    resume_from: ResumeFrom | None = None
    retries_resume: bool = False
    """An attempt goes on with the conversation of this step's attempt before it, where that left one."""
    repair: int = Field(default=0, ge=0, le=5)
    """How often the agent is asked again, in the same conversation, for a report that was not valid."""
    labels: dict[str, str] = {}
