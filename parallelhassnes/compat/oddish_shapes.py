"""What the command line of Oddish sends and reads, and what it calls an experiment.

    runs/_system/oddish_names.json   A   experiment → name

An experiment's id is the label that its tables were submitted under, and stays; the name is only what these clients show.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from parallelhassnes.store import atomic, decider
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout


class OddishUpload(BaseModel):
    """Of ``POST /tasks/upload``."""

    task_id: str
    name: str
    task_path: str
    s3_key: None = None


class Pair(BaseModel):
    """An agent with a model."""

    model_config = ConfigDict(extra="forbid")
    agent: str
    model: str | None = None
    n_trials: int = Field(default=1, ge=1, le=10_000)
    timeout_minutes: float | None = None
    environment: str | None = None
    agent_config: dict[str, Any] | None = None


class SweepWanted(BaseModel):
    """The body of ``POST /tasks/sweep``."""

    model_config = ConfigDict(extra="forbid")
    task_id: str
    configs: list[Pair] = Field(min_length=1)
    user: str = ""
    priority: Literal["low", "high"] = "low"
    experiment_id: str | None = None
    tags: dict[str, str] = {}
    timeout_minutes: float | None = None
    environment: str | None = None
    run_analysis: bool = False
    harbor: dict[str, Any] = {}
    github_username: str | None = None
    publish_experiment: bool | None = None
    append_to_task: bool = False
    """More trials of a task that has some."""
    content_hash: str | None = None
    """Theirs; the id carries ours."""


class SweepAnswer(BaseModel):
    """Of ``POST /tasks/sweep``."""

    id: str
    name: str
    status: str
    priority: str
    trials_count: int
    providers: dict[str, int]
    """Queue key → trials."""
    experiment_id: str
    experiment_name: str
    created_at: str


class TrialAnswer(BaseModel):
    """One trial."""

    id: str
    name: str
    task_id: str
    experiment_id: str
    task_path: str
    agent: str
    provider: str
    queue_key: str
    model: str | None
    status: Literal["pending", "queued", "running", "retrying", "success", "failed"]
    attempts: int
    max_attempts: int
    harbor_stage: str | None
    reward: float | int | None
    error_message: str | None
    result: dict[str, Any] | None = None
    input_tokens: int | None = None
    cache_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    has_trajectory: bool = False
    analysis_status: str | None = None
    created_at: str
    started_at: str | None
    finished_at: str | None


class TaskAnswer(BaseModel):
    """One task with its trials."""

    id: str
    name: str
    status: Literal["pending", "running", "verdict_pending", "completed"]
    priority: str
    user: str
    task_path: str
    experiment_id: str
    experiment_name: str
    experiment_is_public: bool = False
    total: int
    completed: int
    failed: int
    progress: str
    reward_success: int | None
    reward_total: int | None
    run_analysis: bool = False
    verdict_status: str | None
    verdict: dict[str, Any] | None
    trials: list[TrialAnswer] | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class CancelWanted(BaseModel):
    """The body of ``POST /tasks/cancel``."""

    model_config = ConfigDict(extra="forbid")
    task_ids: list[str] = Field(min_length=1, max_length=1000)


class CancelAnswer(BaseModel):
    """Of ``POST /tasks/cancel``."""

    status: str = "success"
    tasks_cancelled: int
    trials_cancelled: int


class ShareAnswer(BaseModel):
    """Of ``GET /experiments/{id}/share``."""

    id: str
    name: str
    is_public: bool = False
    public_token: None = None


class InitWanted(BaseModel):
    """The body of ``POST /tasks/upload/init``."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=128)
    content_hash: str = Field(max_length=128)
    message: str | None = Field(default=None, max_length=10_000)


class UploadPlace(BaseModel):
    """Where an archive is sent: part of the answers to both ``init`` calls."""

    upload_url: str
    upload_method: str = "PUT"
    upload_headers: dict[str, str]
    requires_completion: bool = True


class InitAnswer(UploadPlace):
    """Of ``POST /tasks/upload/init``."""

    task_id: str
    """What ``complete`` names the archive by; the task's own id comes from there."""
    name: str
    version: int = 1
    existing_task: bool = False
    content_unchanged: bool = False
    content_hash: str


class CompleteWanted(BaseModel):
    """The body of ``POST /tasks/upload/complete``."""

    model_config = ConfigDict(extra="forbid")
    task_id: str = Field(max_length=200)
    name: str = Field(min_length=1, max_length=128)
    version: int = Field(ge=1)
    content_hash: str = Field(max_length=128)
    message: str | None = Field(default=None, max_length=10_000)
    register_task: bool = False
    user: str | None = Field(default=None, max_length=200)
    priority: Literal["low", "high"] | None = None


class CompleteAnswer(BaseModel):
    """Of ``POST /tasks/upload/complete``."""

    task_id: str
    name: str
    task_path: str
    version: int = 1
    existing_task: bool = False
    content_unchanged: bool = False
    content_hash: str


class ImportWanted(BaseModel):
    """The body of ``POST /trials/import/init``. What it says of the trial is read from the trial's own files instead."""

    model_config = ConfigDict(extra="forbid")
    task_id: str = Field(max_length=200)
    experiment_id: str | None = Field(default=None, max_length=500)
    trial: dict[str, Any]
    upload_artifacts: bool = True


class ImportPlace(UploadPlace):
    """Of ``POST /trials/import/init``."""

    trial_id: str
    """What ``complete`` names the archive by."""
    task_id: str
    experiment_id: str
    experiment_name: str


class ImportEnd(BaseModel):
    """The body of ``POST /trials/import/complete``."""

    model_config = ConfigDict(extra="forbid")
    trial_id: str = Field(max_length=200)


class ImportAnswer(BaseModel):
    """Of ``POST /trials/import/complete``."""

    trial_id: str
    """``BATCH/JOB/STEP`` of the step that the trial has become; the batch, where it was there already."""
    trial_s3_key: str
    """The batch that has it."""
    files_extracted: int


class ListedFile(BaseModel):
    """One file of a trial or a task."""

    path: str
    size: int
    """Bytes."""


class ListedFiles(BaseModel):
    """Of ``GET /trials/{id}/files`` and ``GET /tasks/{id}/files``."""

    id: str
    files: list[ListedFile]


class NameWanted(BaseModel):
    """The body of ``PATCH /experiments/{id}``."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=500, pattern=r"\S")


class NameAnswer(BaseModel):
    """Of ``PATCH /experiments/{id}``."""

    id: str
    name: str


FILE = "oddish_names.json"


def given(layout: Layout) -> dict[str, str]:
    """Experiment → name, of those that were given one."""
    return atomic.read_json_or_none(layout.system / FILE) or {}


def give(layout: Layout, experiment: str, name: str) -> None:
    """From now on it is shown under that name; the system ledger says who did it."""
    with decider.deciding(layout):
        names = given(layout) | {experiment: name}
        ledger.replace_json(layout.system, FILE, names)
        ledger.append(layout.system, "experiment_named", by=ledger.person(), experiment=experiment, name=name)
