"""The calls of the Terminal-Bench Harbor runner: a zipped task, a model, a key, n runs.

A job of theirs is a batch of one task with n trials of terminus-2 on that model by OpenRouter (``oracle`` and ``nop``
are taken as a model, too, and need no key). The key that comes with it is lent to the ticking process and written
nowhere; if the processes that have it are gone before the runs are over, the rest waits, says so, and goes on once it is
sent again to ``POST /api/jobs/{id}/key``.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, UploadFile
from pydantic import BaseModel
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from parallelhassnes.actions import uploads
from parallelhassnes.actions.submit import submit
from parallelhassnes.actions.uploads import Archive
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.routes.streams import STREAM, Stream, follow_logs
from parallelhassnes.attempt_data.follow_logs import Logs
from parallelhassnes.compat.trials import BatchTrials, Trial, trials_of
from parallelhassnes.errors import UserError
from parallelhassnes.formatting import counted
from parallelhassnes.refs import Found, resolve
from parallelhassnes.schedule import ephemeral_secrets
from parallelhassnes.states import TERMINAL
from parallelhassnes.steps import safe_read
from parallelhassnes.store import atomic
from parallelhassnes.views.batch_status import held
from parallelhassnes.views.system_scoreboard import newest_first

router = APIRouter(prefix="/api", tags=["Terminal-Bench Harbor runner"], dependencies=[Depends(needs("read"))])
_submitter = [Depends(needs("submit"))]

_SOURCE = "terminal-bench."
_KEYLESS = ("oracle", "nop")
_LOOK_SEC = 0.5

Harness = Literal["harbor", "terminus"]
Status = Literal["pending", "running", "completed", "failed"]
Model = Annotated[str, Form(min_length=1, max_length=200)]
Key = Annotated[str, Form(min_length=1, max_length=500, pattern=r"^[\x21-\x7e]+$")]
Runs = Annotated[int, Form(ge=1, le=100)]


class TerminalBenchUpload(BaseModel):
    """Of ``POST /api/upload``."""

    job_id: str
    status: str
    runs_queued: int
    message: str


class TerminalBenchRun(BaseModel):
    """One run."""

    id: str
    job_id: str
    run_number: int
    """From 1."""
    status: Status
    tests_passed: int | None
    tests_total: int | None
    logs: None = None
    episodes: list[Any] = []
    agent_name: str | None
    result_path: str | None
    error: str | None
    started_at: str | None
    completed_at: str | None
    created_at: str


class TerminalBenchJob(BaseModel):
    """One job with its runs."""

    id: str
    task_name: str
    status: Status
    harness: str
    model: str
    created_at: str
    completed_at: str | None
    message: str
    """Why nothing starts; empty where that is not so."""
    runs: list[TerminalBenchRun]


# --- uploading ----------------------------------------------------------------------------------------


@router.post("/upload", dependencies=_submitter)
@router.post("/upload/", include_in_schema=False, dependencies=_submitter)
def upload(
    site: SiteHere,
    file: UploadFile,
    harness: Annotated[Harness, Form()],
    model: Model,
    openrouter_key: Key,
    n_runs: Runs = 10,
) -> TerminalBenchUpload:
    """Store the task and queue its runs."""
    return _queue(site, file, harness, model, openrouter_key, n_runs)


@router.post("/upload/batch", dependencies=_submitter)
def upload_many(
    site: SiteHere,
    files: list[UploadFile],
    harness: Annotated[Harness, Form()],
    model: Model,
    openrouter_key: Key,
    n_runs: Runs = 10,
) -> list[TerminalBenchUpload]:
    """As ``upload``, for several; one that is broken does not keep the others."""
    answers = []
    for file in files:
        try:
            answers.append(_queue(site, file, harness, model, openrouter_key, n_runs))
        except (UserError, HTTPException) as error:
            message = f"Error processing '{file.filename}': {getattr(error, 'detail', error)}"
            answers.append(TerminalBenchUpload(job_id="", status="failed", runs_queued=0, message=message))
    return answers


def _queue(site: ServerState, file: UploadFile, harness: str, model: str, key: str, n_runs: int) -> TerminalBenchUpload:
    if site.ticker is None:
        raise HTTPException(409, "this server does not tick, so it has no place to keep a key")
    ctx = site.context()
    stored = uploads.upload(ctx, [Archive(file.filename or "task.zip", file.file)]).tasks
    if len(stored) != 1:
        raise HTTPException(400, f"the archive holds {counted(len(stored), 'task')}; send one at a time")
    task, name = stored[0], f"{ephemeral_secrets.PREFIX}{secrets.token_hex(8)}"
    table = _table(task.path, task.name, harness, model, name, n_runs)
    done = submit(
        ctx, json.dumps(table).encode(), name=f"{_SOURCE}{task.name[:80]}.json", folders=[site.layout.root], again=True
    )
    site.lend(name, key)
    message = f"Task '{task.name}' uploaded successfully. {counted(n_runs, 'run')} queued."
    return TerminalBenchUpload(job_id=done.batch_id, status="queued", runs_queued=n_runs, message=message)


def _table(path: str, task: str, harness: str, model: str, name: str, n_runs: int) -> dict[str, Any]:
    agent = {"name": model} if model in _KEYLESS else {"name": "terminus-2", "model_name": f"openrouter/{model}"}
    steps: list[dict[str, Any]] = [
        {
            "step_id": f"run-{number}",
            "kind": "trial",
            "task": {"path": path},
            "agent": agent,
            "env": {"OPENROUTER_API_KEY": f"${{{name}}}"},
        }
        for number in range(1, n_runs + 1)
    ]
    labels = {"harness": harness, "model": model, "task": task}
    job = {"job_id": "job", "labels": labels, "steps": [*steps, {"step_id": "verdict", "kind": "verdict"}]}
    return {"spec_version": "2.0", "labels": labels, "secrets": [name], "jobs": [job]}


@router.post("/jobs/{job_id}/key", dependencies=_submitter)
def give_key(site: SiteHere, job_id: str, openrouter_key: Key) -> TerminalBenchUpload:
    """Give the key again, where the processes that had it are gone."""
    found = _trials(site, job_id)
    names = [name for name in found.meta.secrets if name.startswith(ephemeral_secrets.PREFIX)]
    if site.ticker is None:
        raise HTTPException(409, "this server does not tick, so it has no place to keep a key")
    for name in names:
        site.lend(name, openrouter_key)
    waiting = sum(trial.status.state not in TERMINAL for trial in found.trials)
    message = f"{counted(waiting, 'run')} still to come."
    return TerminalBenchUpload(job_id=found.meta.batch_id, status="queued", runs_queued=waiting, message=message)


# --- looking ------------------------------------------------------------------------------------------


@router.get("/jobs")
@router.get("/jobs/", include_in_schema=False)
def list_jobs(
    site: SiteHere, limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0)] = 0
) -> list[TerminalBenchJob]:
    """The jobs of such clients, newest first."""
    lines = [line for line in site.board().batches if line.source_name.startswith(_SOURCE)]
    shown = sorted(lines, key=newest_first)[offset : offset + limit]
    return [_job(site, _trials(site, line.batch_id)) for line in shown]


@router.get("/jobs/{job_id}")
def get_job(site: SiteHere, job_id: str) -> TerminalBenchJob:
    """One job and its runs."""
    return _job(site, _trials(site, job_id))


@router.get("/jobs/{job_id}/runs/{number}/logs/stream", status_code=200, response_class=Stream, responses=STREAM)
async def stream_logs(site: SiteHere, job_id: str, number: int) -> Stream:
    """A run's logs as they grow, as ``{"logs": …, "source": …}``; then an event ``end``."""
    found = await run_in_threadpool(_trials, site, job_id)
    if not 1 <= number <= len(found.trials):
        raise HTTPException(404, f"job {job_id} has no run {number}")
    return Stream(_logs(site, found.meta.batch_id, number))


async def _logs(site: ServerState, batch_id: str, number: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        found = await run_in_threadpool(trials_of, site.layout, batch_id)
        trial = found.trials[number - 1]
        if trial.folder is not None:
            break
        if trial.status.state in TERMINAL:
            yield ServerSentEvent(json.dumps({"status": _status(trial)}), event="end")
            return
        await asyncio.sleep(_LOOK_SEC)
    place = Found(batch_id, trial.status.job_id, trial.status.step.step_id, trial.folder.name)
    async for piece in follow_logs(site, Logs(site.layout, trial.folder, place), None):
        source = piece.file.rpartition("/")[2]
        data = {"logs": piece.text, "source": source}
        yield ServerSentEvent(json.dumps(data, ensure_ascii=False))
    yield ServerSentEvent(json.dumps({"status": "over"}), event="end")


def _trials(site: ServerState, job_id: str) -> BatchTrials:
    found = trials_of(site.layout, resolve(site.layout, job_id).batch_id)
    if not found.meta.source_name.startswith(_SOURCE):
        raise HTTPException(404, f"there is no job {job_id}")
    return found


def _job(site: ServerState, found: BatchTrials) -> TerminalBenchJob:
    meta = found.meta
    runs = [_run(site, meta.batch_id, trial, meta.created_at) for trial in found.trials]
    over = all(run.status in ("completed", "failed") for run in runs)
    begun = any(run.status != "pending" for run in runs)
    failed = all(run.status == "failed" for run in runs)
    status: Status = ("failed" if failed else "completed") if over else "running" if begun else "pending"
    return TerminalBenchJob(
        id=meta.batch_id,
        task_name=meta.labels.get("task", ""),
        status=status,
        harness=meta.labels.get("harness", ""),
        model=meta.labels.get("model", ""),
        created_at=meta.created_at,
        completed_at=max((run.completed_at or "" for run in runs), default="") or None if over else None,
        message="" if over else held(site.layout, meta.batch_id).reason,
        runs=runs,
    )


def _run(site: ServerState, batch_id: str, trial: Trial, created_at: str) -> TerminalBenchRun:
    passed, total = _tests(trial)
    row = trial.status.row
    return TerminalBenchRun(
        id=f"{batch_id}-{trial.number + 1}",
        job_id=batch_id,
        run_number=trial.number + 1,
        status=_status(trial),
        tests_passed=passed,
        tests_total=total,
        agent_name=trial.agent.get("name"),
        result_path=str(trial.folder.relative_to(site.layout.root)) if trial.folder else None,
        error=(row.failure or None) if row else None,
        started_at=trial.started_at,
        completed_at=trial.ended_at,
        created_at=created_at,
    )


def _status(trial: Trial) -> Status:
    state = trial.status.state
    if state == "succeeded":
        return "completed"
    if state in TERMINAL:
        return "completed" if trial.facts.result == "scored" else "failed"
    return "running" if state == "running" else "pending"


def _tests(trial: Trial) -> tuple[int | None, int | None]:
    """Passed and all tests, as the verifier reports them (CTRF); without a report, the reward as one test."""
    if trial.folder is not None:
        report = _report(trial)
        if report is not None:
            return report
    passed = trial.facts.passed
    return (None, None) if passed is None else (int(passed), 1)


def _report(trial: Trial) -> tuple[int, int] | None:
    assert trial.folder is not None  # noqa: S101 - the caller has looked
    try:
        document = safe_read.read_object(trial.folder / "trial" / "verifier" / "ctrf.json")
        summary = document["results"]["summary"] if document else {}
        return int(summary["passed"]), int(summary["tests"])
    except (atomic.CorruptFile, OSError, KeyError, TypeError, ValueError):
        return None
