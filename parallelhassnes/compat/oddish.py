"""What the command line of Oddish 0.1.1 calls, with the shapes that it reads.

A task of theirs is an uploaded task and the batch that its sweep made: ``<name>-<12 of its SHA-256><8 random>``, which
is also the file name of the batch's table, so that any server finds both. Deleting one cancels and closes its batch,
which keeps its place under ``runs/``; from then on it is not shown to them. Their ``docker``, which their program always
fills in, means the environment that this root is configured for.
"""

import json
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, UploadFile
from starlette.exceptions import HTTPException

from parallelhassnes import walk
from parallelhassnes.actions import cancel_retry, pause_resume, uploads
from parallelhassnes.actions.submit import submit
from parallelhassnes.actions.uploads import Archive
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.compat import oddish_shapes
from parallelhassnes.compat.oddish_shapes import (
    NameAnswer,
    NameWanted,
    OddishUpload,
    Pair,
    SweepAnswer,
    SweepWanted,
    TaskAnswer,
    TrialAnswer,
)
from parallelhassnes.compat.trials import OVER, BatchTrials, Trial, log_text, trials_of
from parallelhassnes.config import RetryConfig
from parallelhassnes.errors import UnknownId
from parallelhassnes.refs import Found
from parallelhassnes.steps import safe_read
from parallelhassnes.store import atomic, batches, uploaded_tasks
from parallelhassnes.store.uploaded_tasks import StoredTask
from parallelhassnes.views.scoreboard_models import BatchLine
from parallelhassnes.views.system_scoreboard import newest_first

router = APIRouter(tags=["Oddish 0.1.1"], dependencies=[Depends(needs("read"))])
_submitter, _operator = [Depends(needs("submit"))], [Depends(needs("operate"))]

_SHA, _NONCE = 12, 8
_SOURCE = "oddish."
_DELETED = "deleted by an Oddish client"
_MOST_LOG = 1 << 20
_OVERRIDES = ("override_cpus", "override_memory_mb", "override_storage_mb", "override_gpus", "force_build")


# --- submitting ---------------------------------------------------------------------------------------


@router.post("/tasks/upload", dependencies=_submitter)
def upload_task(site: SiteHere, file: UploadFile) -> OddishUpload:
    """Store the task; the id carries the beginning of its hash."""
    done = uploads.upload(site.context(), [Archive(file.filename or "task.tar.gz", file.file)])
    if len(done.tasks) != 1:
        raise HTTPException(400, f"the archive holds {len(done.tasks)} tasks; send one at a time")
    task = done.tasks[0]
    name = task.name[:80]
    task_id = f"{name}-{task.sha256[:_SHA]}{secrets.token_hex(_NONCE // 2)}"
    return OddishUpload(task_id=task_id, name=task.name, task_path=task.path)


@router.post("/tasks/sweep", dependencies=_submitter)
def submit_sweep(site: SiteHere, wanted: SweepWanted) -> SweepAnswer:
    """Make the batch of a task that was uploaded."""
    if wanted.publish_experiment:
        fix = "submit without --publish, and give readers a token with the role read"
        raise HTTPException(400, f"no experiment is public here; {fix}")
    task = _stored(site, wanted.task_id)
    ctx = site.context()
    data = json.dumps(_table(wanted, task, ctx.config.environment)).encode()
    name = f"{_SOURCE}{wanted.task_id}.json"
    done = submit(ctx, data, name=name, folders=[site.layout.root])
    found = trials_of(site.layout, done.batch_id)
    providers: dict[str, int] = {}
    for trial in found.trials:
        key = trial.status.step.queue_key
        providers[key] = providers.get(key, 0) + 1
    return SweepAnswer(
        id=wanted.task_id,
        name=task.name,
        status="pending",
        priority=wanted.priority,
        trials_count=len(found.trials),
        providers=providers,
        created_at=found.meta.created_at,
    )


def _stored(site: ServerState, task_id: str) -> StoredTask:
    tail = task_id.rpartition("-")[2]
    try:
        if len(tail) == _SHA + _NONCE:
            return uploaded_tasks.find(site.layout, tail[:_SHA])
    except UnknownId:
        pass
    raise HTTPException(404, f"Task {task_id} not found; upload it first with POST /tasks/upload")


def _table(wanted: SweepWanted, task: StoredTask, configured: str) -> dict[str, Any]:
    """Return the sweep as an Oddish sweep file has it."""
    harbor = dict(wanted.harbor)
    environment = dict(harbor.pop("environment", None) or {})
    table: dict[str, Any] = {
        "path": task.path,
        "agents": [_agent(pair, configured) for pair in wanted.configs],
        "environment": _environment(wanted.environment, configured),
        "priority": wanted.priority,
        "user": wanted.user,
        "run_analysis": wanted.run_analysis,
        **{name: environment.pop(name) for name in _OVERRIDES if environment.get(name) is not None},
    }
    verifier = dict(harbor.pop("verifier", None) or {})
    if verifier.pop("disable", False):
        table["disable_verification"] = True
    rest = {**harbor, "environment": environment, "verifier": verifier}
    # The same sweep of another upload is another batch, as with theirs; sent twice, it stays one.
    named = {"oddish_task": wanted.task_id}
    if wanted.github_username:
        named["github_username"] = wanted.github_username
    more = {
        "experiment_id": wanted.experiment_id,
        "tags": wanted.tags | named,
        "timeout_minutes": wanted.timeout_minutes,
        "harbor": {key: value for key, value in rest.items() if value},
    }
    return table | {key: value for key, value in more.items() if value}


def _agent(pair: Pair, configured: str) -> dict[str, Any]:
    more = dict(pair.agent_config or {})
    for name in ("name", "model_name"):
        more.pop(name, None)
    made: dict[str, Any] = {"name": pair.agent, "n_trials": pair.n_trials, **{k: v for k, v in more.items() if v}}
    if pair.model:
        made["model_name"] = pair.model
    if pair.timeout_minutes is not None:
        made["timeout_minutes"] = pair.timeout_minutes
    if pair.environment:
        made["environment"] = _environment(pair.environment, configured)
    return made


def _environment(named: str | None, configured: str) -> str:
    return configured if named in (None, "docker") else str(named)


# --- looking ------------------------------------------------------------------------------------------


@router.get("/tasks")
def list_tasks(
    site: SiteHere,
    experiment_id: Annotated[str | None, Query(max_length=500)] = None,
    status: Annotated[str | None, Query(max_length=50)] = None,
    user: Annotated[str | None, Query(max_length=200)] = None,
    include_trials: bool = True,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[TaskAnswer]:
    """The tasks that Oddish clients have submitted, newest first."""
    lines = [line for line in _lines(site) if experiment_id in (None, line.experiment)]
    found = [_task(site, line, trials=include_trials) for line in lines]
    fitting = [t for t in found if status in (None, t.status) and user in (None, t.user)]
    return fitting[offset : offset + limit]


@router.get("/tasks/{task_id}")
def get_task(site: SiteHere, task_id: str) -> TaskAnswer:
    """One task with its trials and verdict."""
    return _task(site, _line(site, task_id), trials=True)


@router.get("/tasks/{task_id}/trials/{index}")
def get_trial(site: SiteHere, task_id: str, index: int) -> TrialAnswer:
    """One trial by its number."""
    line = _line(site, task_id)
    found = trials_of(site.layout, line.batch_id)
    trial = _number(site, line, index)[1]
    return _trial(task_id, found, trial, site.context().config.retry)


@router.get("/trials/{trial_id}/logs")
def get_logs(site: SiteHere, trial_id: str) -> dict[str, str]:
    """The ends of a trial's logs, as one text."""
    line, trial = _by_trial_id(site, trial_id)
    return {"trial_id": trial_id, "logs": log_text(site.layout, line.batch_id, trial, _MOST_LOG)}


@router.get("/trials/{trial_id}/result")
def get_result(site: SiteHere, trial_id: str) -> dict[str, Any]:
    """Harbor's own ``result.json``."""
    _, trial = _by_trial_id(site, trial_id)
    place = trial.folder / "trial" / "result.json" if trial.folder else None
    document = safe_read.read_object(place) if place else None
    if not isinstance(document, dict):
        raise HTTPException(404, f"Trial {trial_id} has no result yet")
    return document


def _lines(site: ServerState) -> list[BatchLine]:
    """Return the batches of Oddish clients, newest first."""
    found = [line for line in site.board().batches if line.source_name.startswith(_SOURCE)]
    shown = [line for line in found if not _is_deleted(site, line)]
    return sorted(shown, key=newest_first)


def _is_deleted(site: ServerState, line: BatchLine) -> bool:
    closed = batches.read_control(site.layout.batch(line.batch_id)).closed
    return closed is not None and closed.reason == _DELETED


def _line(site: ServerState, task_id: str) -> BatchLine:
    for line in _lines(site):
        if _task_id(line) == task_id:
            return line
    raise HTTPException(404, f"Task {task_id} not found")


def _task_id(line: BatchLine) -> str:
    return line.source_name.removeprefix(_SOURCE).removesuffix(".json")


def _by_trial_id(site: ServerState, trial_id: str) -> tuple[BatchLine, Trial]:
    task_id, _, index = trial_id.rpartition("-")
    if not index.isdecimal() or len(index) > 6:
        raise HTTPException(404, f"Trial {trial_id} not found")
    return _number(site, _line(site, task_id), int(index))


def _number(site: ServerState, line: BatchLine, index: int) -> tuple[BatchLine, Trial]:
    trials = trials_of(site.layout, line.batch_id).trials
    if not 0 <= index < len(trials):
        raise HTTPException(404, f"Trial {_task_id(line)}-{index} not found")
    return line, trials[index]


# --- their shapes -------------------------------------------------------------------------------------


def _task(site: ServerState, line: BatchLine, *, trials: bool) -> TaskAnswer:
    found = trials_of(site.layout, line.batch_id)
    meta, task_id = found.meta, _task_id(line)
    experiment = meta.experiment or "-"
    retry = site.context().config.retry
    shown = [_trial(task_id, found, trial, retry) for trial in found.trials]
    done = sum(trial.status == "success" for trial in shown)
    failed = sum(trial.status == "failed" for trial in shown)
    decided = [trial.facts.passed for trial in found.trials if trial.facts.passed is not None]
    status = _status(found, shown)
    over = status == "completed"
    job_dir = site.layout.batch(line.batch_id) / meta.job_ids[0]
    task_config = found.trials[0].spec.spec["config"]["task"] if found.trials else {}
    return TaskAnswer(
        id=task_id,
        name=meta.job_ids[0],
        status=status,
        priority="high" if meta.priority > 0 else "low",
        user=meta.labels.get("user", ""),
        task_path=str(task_config.get("path", "")),
        experiment_id=experiment,
        experiment_name=oddish_shapes.given(site.layout).get(experiment, experiment),
        total=len(shown),
        completed=done,
        failed=failed,
        progress=f"{done}/{len(shown)} completed",
        reward_success=sum(decided) if decided else None,
        reward_total=len(decided) or None,
        verdict_status=_verdict_status(found),
        verdict=atomic.read_json_or_none(job_dir / "verdict.json"),
        trials=shown if trials else None,
        created_at=meta.created_at,
        started_at=min(filter(None, (t.started_at for t in shown)), default=None),
        finished_at=(line.last_event_at or None) if over else None,
    )


def _status(
    found: BatchTrials, trials: list[TrialAnswer]
) -> Literal["pending", "running", "verdict_pending", "completed"]:
    if all(trial.status in ("success", "failed") for trial in trials):
        waits = found.verdict is not None and found.verdict.state in ("ready", "running")
        return "verdict_pending" if waits else "completed"
    begun = any(trial.status not in ("pending", "queued") for trial in trials)
    return "running" if begun else "pending"


def _verdict_status(found: BatchTrials) -> str | None:
    if found.verdict is None:
        return None
    state = found.verdict.state
    known = {"succeeded": "success", "ready": "queued", "running": "running", "blocked": "pending"}
    return known.get(state, "failed")


def _trial(task_id: str, found: BatchTrials, trial: Trial, retry: RetryConfig) -> TrialAnswer:
    status, row, agent = trial.status, trial.status.row, trial.agent
    reward, spent = trial.facts.reward, trial.facts.spent
    key = status.step.queue_key
    return TrialAnswer(
        id=f"{task_id}-{trial.number}",
        name=f"{task_id}-{trial.number}",
        task_id=task_id,
        task_path=str(trial.spec.spec["config"]["task"].get("path", "")),
        agent=str(agent.get("name") or agent.get("import_path") or status.step.label),
        provider=key.partition("/")[0] if "/" in key else "default",
        queue_key=key,
        model=agent.get("model_name"),
        status=_trial_status(trial),
        attempts=row.number if row else 0,
        max_attempts=trial.spec.retry.under(retry).max_attempts,
        harbor_stage=trial.phase if status.state == "running" else None,
        reward=int(reward) if reward is not None and reward == int(reward) else reward,
        error_message=(row.failure or None) if row else None,
        input_tokens=spent.tokens.input,
        cache_tokens=spent.tokens.cache,
        output_tokens=spent.tokens.output,
        cost_usd=spent.cost_usd,
        has_trajectory=bool(trial.folder and walk.kind(trial.folder / "trial/agent/trajectory.json") == "file"),
        created_at=found.meta.created_at,
        started_at=trial.started_at,
        finished_at=trial.ended_at,
    )


def _trial_status(trial: Trial) -> Literal["pending", "queued", "running", "retrying", "success", "failed"]:
    state = trial.status.state
    if state == "succeeded":
        return "success"
    if state in OVER:
        return "success" if trial.facts.result == "scored" else "failed"
    if state == "running":
        return "running"
    if trial.status.row is not None:
        return "retrying"
    return "queued" if state == "ready" else "pending"


# --- changing -----------------------------------------------------------------------------------------


@router.delete("/tasks/{task_id}", dependencies=_operator)
def delete_task(site: SiteHere, task_id: str) -> dict[str, Any]:
    """Cancel its batch and show it no more; its files stay."""
    _delete(site, _line(site, task_id))
    return {
        "status": "success",
        "message": f"{task_id} is canceled; its results stay under runs/",
        "deleted": {"task_id": task_id},
    }


@router.delete("/experiments/{experiment_id}", dependencies=_operator)
def delete_experiment(site: SiteHere, experiment_id: str) -> dict[str, Any]:
    """As ``delete_task``, of every task of the experiment."""
    lines = _of_experiment(site, experiment_id)
    for line in lines:
        _delete(site, line)
    return {
        "status": "success",
        "message": f"{len(lines)} tasks are canceled; their results stay under runs/",
        "deleted": {"experiment_id": experiment_id, "tasks": len(lines)},
    }


@router.patch("/experiments/{experiment_id}", dependencies=_operator)
def name_experiment(site: SiteHere, experiment_id: str, wanted: NameWanted) -> NameAnswer:
    """Have these clients show it under another name; its id stays what its tables were submitted under."""
    _of_experiment(site, experiment_id)
    name = wanted.name.strip()
    oddish_shapes.give(site.layout, experiment_id, name)
    return NameAnswer(id=experiment_id, name=name)


def _of_experiment(site: ServerState, experiment_id: str) -> list[BatchLine]:
    lines = [line for line in _lines(site) if line.experiment == experiment_id]
    if not lines:
        raise HTTPException(404, f"Experiment {experiment_id} not found")
    return lines


def _delete(site: ServerState, line: BatchLine) -> None:
    ctx = site.context()
    cancel_retry.cancel(ctx, Found(batch_id=line.batch_id), _DELETED)
    pause_resume.close(ctx, line.batch_id, _DELETED)
