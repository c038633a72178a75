"""What the Python client of Harbor 0.26 (``harbor.Harbor``) calls of ``harbor serve``, below ``/harbor``.

A job of theirs is a batch here, a rollout a trial step: its newest attempt, so a retry keeps the rollout's id. Ids are UUIDs made from
ours: the first half of the batch's, the second of the step's; nothing of them is stored. What has no counterpart (pausing one rollout, SQL,
the hub, downloads by URI) is not there, and a rollout can be got once it has started, since before it has no lock.
"""

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from parallelhassnes.actions import cancel_retry, pause_resume
from parallelhassnes.actions.submit import submit, validate
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.compat.trials import Trial, trials_of
from parallelhassnes.refs import Found
from parallelhassnes.steps import safe_read
from parallelhassnes.store import attempts, batches
from parallelhassnes.views.scoreboard_models import BatchLine, TrialCounts
from parallelhassnes.views.system_scoreboard import newest_first

router = APIRouter(prefix="/harbor", tags=["harbor serve"], dependencies=[Depends(needs("read"))])
_submitter, _operator = [Depends(needs("submit"))], [Depends(needs("operate"))]

type RunState = Literal["queued", "running", "paused", "cancelling", "finished", "cancelled"]
_SOURCE = "harbor-"
_PHASES = {"environment_setup", "agent_setup", "agent_execution", "verifier", "collection", "cleanup"}
_MOST_PAGE = 100


class HarborCounts(BaseModel):
    """Trials of a job by state."""

    n_total: int
    n_queued: int = 0
    n_running: int = 0
    n_paused: int = 0
    n_cancelling: int = 0
    n_cancelled: int = 0
    n_finished: int = 0


class HarborJob(BaseModel):
    """A batch."""

    id: UUID
    name: str
    state: RunState
    created_at: str
    updated_at: str
    started_at: str | None = None
    finished_at: str | None = None
    rollouts: HarborCounts
    n_errors: int = 0
    """Trials without a score."""
    agent_names: list[str] = []
    batch_id: str
    """What everything else here calls it."""


class HarborJobDetail(HarborJob):
    """A batch with what was submitted."""

    lock_uri: str
    config: dict[str, Any]


class HarborRollout(BaseModel):
    """A trial step, by its newest attempt."""

    id: UUID
    job_id: UUID
    name: str
    state: RunState
    created_at: str
    updated_at: str
    started_at: str | None = None
    finished_at: str | None = None
    retry_ids: list[UUID] = []
    phase: str | None = None
    task: dict[str, str | None]
    agent: dict[str, str | None]
    model: dict[str, str | None]
    rewards: dict[str, float | int] | None = None
    usage: dict[str, float | int | None] = {}
    error_type: str | None = None
    step: str
    """``BATCH/JOB/STEP``."""


class HarborRolloutDetail(HarborRollout):
    """A trial step with what Harbor wrote of its newest attempt."""

    lock: dict[str, Any]
    artifacts: dict[str, str] = {}
    result: dict[str, Any] | None = None


class HarborJobAnswer(BaseModel):
    """Of calls about one job."""

    job: HarborJobDetail


class HarborRolloutAnswer(BaseModel):
    """Of calls about one rollout."""

    rollout: HarborRolloutDetail


class HarborJobs(BaseModel):
    """A page of jobs."""

    items: list[HarborJob]
    total: int
    next_page_token: str = ""


class HarborRollouts(BaseModel):
    """A page of rollouts."""

    items: list[HarborRollout]
    total: int
    next_page_token: str = ""


class HarborRetried(BaseModel):
    """Of a retry."""

    rollout_id: UUID


class HarborSubmit(BaseModel):
    """The body of ``POST /jobs/submit``."""

    model_config = ConfigDict(extra="forbid")
    config: dict[str, Any]
    dry_run: bool = False
    relay_inference: Literal[False] = False
    session_id: str | None = Field(default=None, max_length=200)


class HarborSubmitted(BaseModel):
    """Of ``POST /jobs/submit``: a job, or of a dry run how many trials it would have."""

    job_id: UUID | None = None
    n_trials: int | None = None


class HarborCancel(BaseModel):
    """The body of cancels; here it is the same either way."""

    model_config = ConfigDict(extra="forbid")
    force: bool = True


class _Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    state: RunState | None = None
    name: str | None = Field(default=None, max_length=200)
    q: str | None = Field(default=None, max_length=200)
    agent_name: list[str] = Field(default_factory=list, max_length=100)
    created_after: datetime | None = None
    created_before: datetime | None = None
    page_size: int = Field(default=50, ge=0)
    page_token: str = Field(default="", max_length=20, pattern=r"^\d*$")
    sort: Literal["created_at", "-created_at", "name", "-name", "state", "-state"] | None = None


class JobFilters(_Filters):
    """What lists of jobs take."""


class RolloutFilters(_Filters):
    """What lists of rollouts take."""

    model_name: list[str] = Field(default_factory=list, max_length=100)
    states: list[RunState] = Field(default_factory=list, max_length=100)
    job_ids: list[UUID] = Field(default_factory=list, max_length=100)


# --- jobs ---------------------------------------------------------------------------------------------


@router.post("/jobs/submit", dependencies=_submitter, response_model_exclude_none=True)
def submit_job(
    site: SiteHere,
    wanted: HarborSubmit,
    idempotency_key: Annotated[str | None, Header(max_length=200, pattern=r"^[A-Za-z0-9_-]+$")] = None,
) -> HarborSubmitted:
    """Submit a Harbor job config; a key that was sent before gives the job that it made then."""
    ctx, data = site.context(), json.dumps(wanted.config).encode()
    name = f"{_SOURCE}{idempotency_key or 'job'}.json"
    if wanted.dry_run:
        found = validate(ctx, data, name=name, folders=[site.layout.root])
        return HarborSubmitted(n_trials=found.kinds.get("trial", 0))
    known = [line for line in site.board().batches if idempotency_key and line.source_name == name]
    batch_id = known[0].batch_id if known else ""
    if not known:
        batch_id = submit(ctx, data, name=name, folders=[site.layout.root], again=idempotency_key is not None).batch_id
    return HarborSubmitted(job_id=_uuid(batch_id))


@router.get("/jobs")
def list_jobs(site: SiteHere, wanted: Annotated[JobFilters, Query()]) -> HarborJobs:
    """The jobs that the filters let through, a page at a time."""
    found = [_job(site, line) for line in _lines(site)]
    fitting = [
        job
        for job in found
        if _fits(wanted, job, job.state, f"{job.name} {job.batch_id}")
        and (not wanted.agent_name or set(wanted.agent_name) & set(job.agent_names))
    ]
    items, token = _page(wanted, fitting, wanted.sort or "-created_at")
    return HarborJobs(items=items, total=len(fitting), next_page_token=token)


@router.get("/jobs/{job_id}")
def get_job(site: SiteHere, job_id: UUID) -> HarborJobAnswer:
    """One job."""
    line = _line(site, job_id)
    meta = batches.read_about(site.layout.batch(line.batch_id))
    stored = site.layout.batch(line.batch_id) / "launch_table.json"
    document = safe_read.read_object(stored) if str(meta.get("table_format", "")).startswith("harbor") else None
    job = _job(site, line)
    config = document or {"job_name": job.name}
    return HarborJobAnswer(job=HarborJobDetail(**dict(job), lock_uri=f"runs/{line.batch_id}", config=config))


@router.post("/jobs/{job_id}/pause", dependencies=_operator)
def pause_job(site: SiteHere, job_id: UUID) -> HarborJobAnswer:
    """Start nothing more of it until it is resumed; what runs goes on."""
    pause_resume.pause(site.context(), _line(site, job_id).batch_id)
    return get_job(site, job_id)


@router.post("/jobs/{job_id}/resume", dependencies=_operator)
def resume_job(site: SiteHere, job_id: UUID) -> HarborJobAnswer:
    """Let it go on."""
    pause_resume.resume(site.context(), _line(site, job_id).batch_id)
    return get_job(site, job_id)


@router.post("/jobs/{job_id}/cancel", dependencies=_operator)
def cancel_job(site: SiteHere, job_id: UUID, _: HarborCancel | None = None) -> HarborJobAnswer:
    """Cancel it: what runs ends, and nothing of it starts any more."""
    cancel_retry.cancel(site.context(), Found(batch_id=_line(site, job_id).batch_id))
    return get_job(site, job_id)


# --- rollouts -----------------------------------------------------------------------------------------


@router.get("/rollouts")
def list_rollouts(site: SiteHere, wanted: Annotated[RolloutFilters, Query()]) -> HarborRollouts:
    """The rollouts that the filters let through, a page at a time; name the jobs, where there are many."""
    lines = [line for line in _lines(site) if not wanted.job_ids or _uuid(line.batch_id) in wanted.job_ids]
    found = [_rollout(site, line, trial) for line in lines for trial in trials_of(site.layout, line.batch_id).trials]
    fitting = [
        rollout
        for rollout in found
        if _fits(wanted, rollout, rollout.state, f"{rollout.name} {rollout.step}")
        and (not wanted.states or rollout.state in wanted.states)
        and (not wanted.agent_name or rollout.agent["name"] in wanted.agent_name)
        and (not wanted.model_name or rollout.model["name"] in wanted.model_name)
    ]
    items, token = _page(wanted, fitting, wanted.sort or "created_at")
    return HarborRollouts(items=items, total=len(fitting), next_page_token=token)


@router.get("/rollouts/{rollout_id}")
def get_rollout(site: SiteHere, rollout_id: UUID) -> HarborRolloutAnswer:
    """One rollout that has started."""
    line, trial = _trial(site, rollout_id)
    newest = trial.folder
    # An attempt that has just begun has no lock yet; the one before has the same.
    places = [newest.parent / name for name in reversed(attempts.names(newest.parent.parent))] if newest else []
    locks = (safe_read.read_object(place / "trial" / "lock.json") for place in places)
    lock = next((found for found in locks if found is not None), None)
    if newest is None or lock is None:
        raise HTTPException(404, f"{_step(line, trial)} has not started; the list of rollouts has it")
    result = safe_read.read_object(newest / "trial" / "result.json")
    shown = HarborRolloutDetail(**dict(_rollout(site, line, trial)), lock=lock, result=result)
    return HarborRolloutAnswer(rollout=shown)


@router.post("/rollouts/{rollout_id}/cancel", dependencies=_operator)
def cancel_rollout(site: SiteHere, rollout_id: UUID, _: HarborCancel | None = None) -> HarborRolloutAnswer:
    """End it, and start it no more."""
    line, trial = _trial(site, rollout_id)
    cancel_retry.cancel(site.context(), _found(line, trial))
    return get_rollout(site, rollout_id)


@router.post("/rollouts/{rollout_id}/retry", dependencies=_operator)
def retry_rollout(site: SiteHere, rollout_id: UUID) -> HarborRetried:
    """Let it run again, as another attempt of the same step: the id stays."""
    line, trial = _trial(site, rollout_id)
    cancel_retry.retry(site.context(), _found(line, trial))
    return HarborRetried(rollout_id=rollout_id)


# --- how they are found and shown ---------------------------------------------------------------------


def _uuid(batch_id: str, step: str = "") -> UUID:
    data = bytearray(_half(batch_id) + _half(step))
    data[6], data[8] = 0x80 | data[6] & 0x0F, 0x80 | data[8] & 0x3F  # version 8: made by a rule of one's own
    return UUID(bytes=bytes(data))


def _half(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]


def _lines(site: ServerState) -> list[BatchLine]:
    return sorted(site.board().batches, key=newest_first)


def _line(site: ServerState, job_id: UUID) -> BatchLine:
    for line in site.board().batches:
        if _uuid(line.batch_id).bytes[:8] == job_id.bytes[:8]:
            return line
    raise HTTPException(404, f"there is no job {job_id}")


def _trial(site: ServerState, rollout_id: UUID) -> tuple[BatchLine, Trial]:
    line = _line(site, rollout_id)
    for trial in trials_of(site.layout, line.batch_id).trials:
        if _uuid(line.batch_id, trial.status.key) == rollout_id:
            return line, trial
    raise HTTPException(404, f"there is no rollout {rollout_id}")


def _found(line: BatchLine, trial: Trial) -> Found:
    return Found(line.batch_id, trial.status.job_id, trial.status.step.step_id)


def _step(line: BatchLine, trial: Trial) -> str:
    return f"{line.batch_id}/{trial.status.key}"


def _is_paused(site: ServerState, line: BatchLine) -> bool:
    control = batches.read_control(site.layout.batch(line.batch_id))
    return control.paused is not None or control.closed is not None


def _job(site: ServerState, line: BatchLine) -> HarborJob:
    trials, paused = line.trials or TrialCounts(), _is_paused(site, line)
    states: dict[str, RunState] = {
        "running": "running",
        "canceled": "cancelled",
        "done": "finished",
        "attention": "finished",
    }
    state = states.get(line.state, "paused" if paused else "queued")
    last = line.last_event_at or line.created_at
    return HarborJob(
        id=_uuid(line.batch_id),
        name=line.experiment or line.source_name,
        state=state,
        created_at=line.created_at,
        updated_at=last,
        finished_at=last if state in ("finished", "cancelled") else None,
        rollouts=HarborCounts(
            n_total=trials.total,
            n_running=trials.running,
            n_cancelled=trials.canceled,
            n_finished=trials.passed + trials.scored + trials.no_score,
            **{"n_paused" if paused else "n_queued": trials.waiting},
        ),
        n_errors=trials.no_score,
        agent_names=list(line.totals),
        batch_id=line.batch_id,
    )


def _rollout(site: ServerState, line: BatchLine, trial: Trial) -> HarborRollout:
    facts, config = trial.facts, safe_read.mapping(trial.spec.spec.get("config"))
    states: dict[str, RunState] = {"running": "running", "canceled": "cancelled"}
    waits: RunState = "paused" if _is_paused(site, line) else "queued"
    state = states.get(trial.status.state, waits if trial.status.state in ("ready", "blocked") else "finished")
    own, ended, phase = _uuid(line.batch_id, trial.status.key), trial.ended_at, trial.phase
    checksum = trial.spec.spec.get("task_checksum") or ""
    return HarborRollout(
        id=own,
        job_id=_uuid(line.batch_id),
        name=trial.status.key,
        state=state,
        created_at=line.created_at,
        updated_at=ended or trial.started_at or line.created_at,
        started_at=trial.started_at,
        finished_at=ended,
        retry_ids=[own],
        phase=phase if state == "running" and phase in _PHASES else None,
        task={
            "name": str(trial.spec.spec.get("task_name") or trial.status.job_id),
            "digest": f"sha256:{checksum}",
            "source": facts.task_source,
        },
        agent={"name": facts.agent or trial.status.step.label, "version": facts.agent_version},
        model={"name": facts.model or safe_read.text(safe_read.mapping(config.get("agent")).get("model_name"))},
        rewards=dict(facts.rewards) if facts.result == "scored" else None,
        usage={
            "n_input_tokens": facts.tokens.input,
            "n_cached_input_tokens": facts.tokens.cache,
            "n_output_tokens": facts.tokens.output,
            "cost_usd": facts.cost_usd,
        },
        error_type=facts.exception,
        step=_step(line, trial),
    )


def _fits(wanted: _Filters, shown: HarborJob | HarborRollout, state: RunState, text: str) -> bool:
    at = datetime.fromisoformat(shown.created_at)
    return (
        wanted.state in (None, state)
        and wanted.name in (None, shown.name)
        and (wanted.q or "").lower() in text.lower()
        and (wanted.created_after is None or at >= wanted.created_after.astimezone(at.tzinfo))
        and (wanted.created_before is None or at <= wanted.created_before.astimezone(at.tzinfo))
    )


def _page[T: (HarborJob, HarborRollout)](wanted: _Filters, items: list[T], sort: str) -> tuple[list[T], str]:
    """Return the page that is asked for, and what the next one is asked for by; empty on the last."""
    field = sort.removeprefix("-")
    ordered = sorted(items, key=lambda item: str(getattr(item, field)), reverse=sort.startswith("-"))
    first, size = int(wanted.page_token or 0), min(wanted.page_size or 50, _MOST_PAGE)
    return ordered[first : first + size], str(first + size) if first + size < len(ordered) else ""
