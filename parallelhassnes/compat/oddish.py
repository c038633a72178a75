"""What the command line of Oddish calls, as of 0.1.1 and 0.1.10, with the shapes that it reads.

``oddish_tasks`` says what a task of theirs is here, ``oddish_uploads`` how archives come in, ``oddish_files`` what ``pull`` gets. Deleting a task
cancels and closes its batches, which keep their places under ``runs/``; from then on it is not shown to them. Their ``docker``, which
their program always fills in, means the environment that this root is configured for.
"""

import json
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, UploadFile
from starlette.exceptions import HTTPException

from parallelhassnes.actions import cancel_retry, pause_resume, uploads
from parallelhassnes.actions.submit import submit
from parallelhassnes.actions.uploads import Archive
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.compat import oddish_files, oddish_shapes, oddish_tasks, oddish_uploads
from parallelhassnes.compat.oddish_shapes import (
    CancelAnswer,
    CancelWanted,
    NameAnswer,
    NameWanted,
    OddishUpload,
    Pair,
    ShareAnswer,
    SweepAnswer,
    SweepWanted,
    TaskAnswer,
    TrialAnswer,
)
from parallelhassnes.compat.oddish_tasks import DELETED, OddishTask
from parallelhassnes.compat.trials import trials_of
from parallelhassnes.formatting import counted
from parallelhassnes.refs import Found
from parallelhassnes.store.uploaded_tasks import StoredTask

router = APIRouter(tags=["Oddish 0.1"], dependencies=[Depends(needs("read"))])
_submitter, _operator = [Depends(needs("submit"))], [Depends(needs("operate"))]
_OVERRIDES = ("override_cpus", "override_memory_mb", "override_storage_mb", "override_gpus", "force_build")


# --- submitting ---------------------------------------------------------------------------------------


@router.post("/tasks/upload", dependencies=_submitter)
def upload_task(site: SiteHere, file: UploadFile) -> OddishUpload:
    """Store the task, as 0.1.1 sends it; the id carries the beginning of its hash."""
    done = uploads.upload(site.context(), [Archive(file.filename or "task.tar.gz", file.file)])
    if len(done.tasks) != 1:
        raise HTTPException(400, f"the archive holds {counted(len(done.tasks), 'task')}; send one at a time")
    task = done.tasks[0]
    return OddishUpload(task_id=oddish_tasks.new_id(task), name=task.name, task_path=task.path)


@router.post("/tasks/sweep", dependencies=_submitter)
def submit_sweep(site: SiteHere, wanted: SweepWanted) -> SweepAnswer:
    """Make the batch of a task that was uploaded, or another one of a task that has some (`append_to_task`)."""
    if wanted.publish_experiment:
        fix = "submit without --publish, and give readers a token with the role read"
        raise HTTPException(400, f"no experiment is public here; {fix}")
    task = oddish_tasks.stored(site, wanted.task_id)
    ctx = site.context()
    data = json.dumps(_table(wanted, task, ctx.config.environment)).encode()
    name = f"{oddish_tasks.SOURCE}{wanted.task_id}.json"
    done = submit(ctx, data, name=name, folders=[site.layout.root], again=wanted.append_to_task)
    found = trials_of(site.layout, done.batch_id)
    experiment = found.meta.experiment or "-"
    return SweepAnswer(
        id=wanted.task_id,
        name=task.name,
        status="pending",
        priority=wanted.priority,
        trials_count=len(found.trials),
        providers=dict(Counter(trial.status.step.queue_key for trial in found.trials)),
        experiment_id=experiment,
        experiment_name=oddish_shapes.given(site.layout).get(experiment, experiment),
        created_at=found.meta.created_at,
    )


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
    tasks = oddish_tasks.every(site)
    wanted = [t for t in tasks if experiment_id is None or any(line.experiment == experiment_id for line in t.lines)]
    found = [oddish_tasks.shown(site, task, with_trials=include_trials, experiment_id=experiment_id) for task in wanted]
    fitting = [t for t in found if status in (None, t.status) and user in (None, t.user)]
    return fitting[offset : offset + limit]


@router.get("/tasks/{task_id}")
def get_task(site: SiteHere, task_id: str) -> TaskAnswer:
    """One task with its trials and verdict."""
    return oddish_tasks.shown(site, oddish_tasks.find(site, task_id), with_trials=True)


@router.get("/tasks/{task_id}/trials/{index}")
def get_trial(site: SiteHere, task_id: str, index: int) -> TrialAnswer:
    """One trial by its number."""
    found = oddish_tasks.trial(site, f"{task_id}-{index}")
    return oddish_tasks.shown_trial(task_id, found, site.context().config.retry)


@router.get("/experiments/{experiment_id}/share")
def get_share(site: SiteHere, experiment_id: str) -> ShareAnswer:
    """How an experiment is shared: never, as nothing here is public."""
    oddish_tasks.of_experiment(site, experiment_id)
    name = oddish_shapes.given(site.layout).get(experiment_id, experiment_id)
    return ShareAnswer(id=experiment_id, name=name)


# --- changing -----------------------------------------------------------------------------------------


@router.post("/tasks/cancel", dependencies=_operator)
def cancel_tasks(site: SiteHere, wanted: CancelWanted) -> CancelAnswer:
    """End what runs of these tasks and start nothing more; what has ended stays."""
    tasks = [oddish_tasks.find(site, task_id) for task_id in wanted.task_ids]
    done = [_cancel(site, line.batch_id, "canceled by an Oddish client") for task in tasks for line in task.lines]
    return CancelAnswer(tasks_cancelled=len(tasks), trials_cancelled=sum(done))


def _cancel(site: ServerState, batch_id: str, reason: str) -> int:
    """Cancel a batch; how many steps it was about."""
    result = cancel_retry.cancel(site.context(), Found(batch_id=batch_id), reason)
    return len(result.attempts) + len(result.steps)


@router.delete("/tasks/{task_id}", dependencies=_operator)
def delete_task(site: SiteHere, task_id: str) -> dict[str, Any]:
    """Cancel its batches and show it no more; its files stay."""
    _delete(site, oddish_tasks.find(site, task_id))
    return {
        "status": "success",
        "message": f"{task_id} is canceled; its results stay under runs/",
        "deleted": {"task_id": task_id},
    }


@router.delete("/experiments/{experiment_id}", dependencies=_operator)
def delete_experiment(site: SiteHere, experiment_id: str) -> dict[str, Any]:
    """As ``delete_task``, of every task of the experiment."""
    tasks = oddish_tasks.of_experiment(site, experiment_id)
    for task in tasks:
        _delete(site, task)
    return {
        "status": "success",
        "message": f"canceled: {counted(len(tasks), 'task')}; all results stay under runs/",
        "deleted": {"experiment_id": experiment_id, "tasks": len(tasks)},
    }


@router.patch("/experiments/{experiment_id}", dependencies=_operator)
def name_experiment(site: SiteHere, experiment_id: str, wanted: NameWanted) -> NameAnswer:
    """Have these clients show it under another name; its id stays what its tables were submitted under."""
    oddish_tasks.of_experiment(site, experiment_id)
    name = wanted.name.strip()
    oddish_shapes.give(site.layout, experiment_id, name)
    return NameAnswer(id=experiment_id, name=name)


def _delete(site: ServerState, task: OddishTask) -> None:
    for line in task.lines:
        _cancel(site, line.batch_id, DELETED)
        pause_resume.close(site.context(), line.batch_id, DELETED)


router.include_router(oddish_files.router)
router.include_router(oddish_uploads.router)
