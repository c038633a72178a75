"""What the command line of Oddish 0.1.1 sends and reads, and what it calls an experiment.

    runs/_system/oddish_names.json   A   experiment → name

An experiment's id is the label that its tables were submitted under, and stays; the name is only what these clients show.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from parallelhassnes.store import atomic, hosts
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


class SweepAnswer(BaseModel):
    """Of ``POST /tasks/sweep``."""

    id: str
    name: str
    status: str
    priority: str
    trials_count: int
    providers: dict[str, int]
    """Queue key → trials."""
    created_at: str


class TrialAnswer(BaseModel):
    """One trial."""

    id: str
    name: str
    task_id: str
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
    with hosts.deciding(layout):
        names = given(layout) | {experiment: name}
        ledger.replace_json(layout.system, FILE, names)
        ledger.append(layout.system, "experiment_named", by=ledger.person(), experiment=experiment, name=name)
