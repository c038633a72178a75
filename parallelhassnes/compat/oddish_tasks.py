"""The tasks of Oddish clients as they lie in the store, and in the shapes that these clients read.

A task of theirs is an uploaded task and the batches that its sweeps made: the first, and one for each time that trials were appended to
it. All have the file name ``oddish.<task id>.json``, so that any server finds them. Trials are numbered over all of them, in the order in which
the batches arrived, so a number stays a trial's. A rerun stands in the place of the batch whose trials it took over or made anew.
"""

import secrets
from typing import Literal, NamedTuple

from starlette.exceptions import HTTPException

from parallelhassnes import walk
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.compat import oddish_shapes
from parallelhassnes.compat.oddish_shapes import TaskAnswer, TrialAnswer
from parallelhassnes.compat.trials import BatchTrials, Trial, trials_of
from parallelhassnes.config import RetryConfig
from parallelhassnes.errors import UnknownId
from parallelhassnes.plan import BatchMeta
from parallelhassnes.states import TERMINAL
from parallelhassnes.store import atomic, batches, uploaded_tasks
from parallelhassnes.store.uploaded_tasks import StoredTask
from parallelhassnes.views.scoreboard_models import BatchLine
from parallelhassnes.views.system_scoreboard import newest_first

SOURCE = "oddish."
DELETED = "deleted by an Oddish client"
SHA, NONCE = 12, 8
"""Characters of a task's SHA-256, and of what tells its uploads apart, at the end of a task's id."""


class OddishTask(NamedTuple):
    """A task with its batches."""

    id: str
    lines: list[BatchLine]
    """Oldest first; at least one."""


class OddishTrial(NamedTuple):
    """A trial of a task."""

    number: int
    """Among all of the task's, from 0."""
    batch_id: str
    meta: BatchMeta
    trial: Trial


def every(site: ServerState) -> list[OddishTask]:
    """Return the tasks of Oddish clients, newest first."""
    found: dict[str, list[BatchLine]] = {}
    replaced: set[str] = set()
    for line in sorted(site.board().batches, key=newest_first):
        if line.source_name.startswith(SOURCE) and not _is_deleted(site, line):
            replaced.add(batches.read_batch(site.layout.batch(line.batch_id)).rerun_of)
            if line.batch_id in replaced:
                continue
            name = line.source_name.removeprefix(SOURCE).removesuffix(".json")
            found.setdefault(name, []).insert(0, line)
    return [OddishTask(name, lines) for name, lines in found.items()]


def _is_deleted(site: ServerState, line: BatchLine) -> bool:
    closed = batches.read_control(site.layout.batch(line.batch_id)).closed
    return closed is not None and closed.reason == DELETED


def find(site: ServerState, task_id: str) -> OddishTask:
    """Return one task.

    Raises:
        HTTPException: 404.
    """
    for task in every(site):
        if task.id == task_id:
            return task
    raise HTTPException(404, f"Task {task_id} not found")


def of_experiment(site: ServerState, experiment_id: str) -> list[OddishTask]:
    """Return the tasks with trials in an experiment.

    Raises:
        HTTPException: 404 where there are none.
    """
    found = [task for task in every(site) if any(line.experiment == experiment_id for line in task.lines)]
    if not found:
        raise HTTPException(404, f"Experiment {experiment_id} not found")
    return found


def stored(site: ServerState, task_id: str) -> StoredTask:
    """Return the uploaded task that a task's id is of.

    Raises:
        HTTPException: 404.
    """
    tail = task_id.rpartition("-")[2]
    try:
        if len(tail) == SHA + NONCE:
            return uploaded_tasks.find(site.layout, tail[:SHA])
    except UnknownId:
        pass
    raise HTTPException(404, f"Task {task_id} not found; upload it first with POST /tasks/upload")


def new_id(task: StoredTask) -> str:
    """Return the id of a task that was just uploaded: ``<name>-<12 of its SHA-256><8 random>``."""
    return f"{task.name[:80]}-{task.sha256[:SHA]}{secrets.token_hex(NONCE // 2)}"


def trials(site: ServerState, task: OddishTask) -> list[OddishTrial]:
    """Return the trials of all batches of a task, in their order."""
    each = [(line.batch_id, trials_of(site.layout, line.batch_id)) for line in task.lines]
    flat = [(batch_id, found.meta, trial) for batch_id, found in each for trial in found.trials]
    return [OddishTrial(number, *rest) for number, rest in enumerate(flat)]


def trial(site: ServerState, trial_id: str) -> OddishTrial:
    """Return one trial by its id, ``<task id>-<number>``.

    Raises:
        HTTPException: 404.
    """
    task_id, _, index = trial_id.rpartition("-")
    if not index.isdecimal() or len(index) > 6:
        raise HTTPException(404, f"Trial {trial_id} not found")
    known = trials(site, find(site, task_id))
    if int(index) >= len(known):
        raise HTTPException(404, f"Trial {trial_id} not found")
    return known[int(index)]


# --- their shapes -------------------------------------------------------------------------------------


def shown(site: ServerState, task: OddishTask, *, with_trials: bool, experiment_id: str | None = None) -> TaskAnswer:
    """Return a task as their program reads it.

    Args:
        experiment_id: only what belongs to that one, where the task has trials in several.
    """
    lines = [line for line in task.lines if experiment_id in (None, line.experiment)]
    own = [trials_of(site.layout, line.batch_id) for line in lines]
    meta, last = own[0].meta, own[-1]
    experiment = last.meta.experiment or "-"
    retry = site.context().config.retry
    batch_ids = {line.batch_id for line in lines}
    known = [found for found in trials(site, task) if found.batch_id in batch_ids]
    answers = [shown_trial(task.id, one, retry) for one in known]
    done = sum(answer.status == "success" for answer in answers)
    decided = [one.trial.facts.passed for one in known if one.trial.facts.passed is not None]
    status = _status(last, answers)
    job_dir = site.layout.batch(lines[-1].batch_id) / last.meta.job_ids[0]
    task_config = known[0].trial.spec.spec["config"]["task"] if known else {}
    ends = [line.last_event_at for line in lines if line.last_event_at]
    return TaskAnswer(
        id=task.id,
        name=meta.job_ids[0],
        status=status,
        priority="high" if meta.priority > 0 else "low",
        user=meta.labels.get("user", ""),
        task_path=str(task_config.get("path", "")),
        experiment_id=experiment,
        experiment_name=oddish_shapes.given(site.layout).get(experiment, experiment),
        total=len(answers),
        completed=done,
        failed=sum(answer.status == "failed" for answer in answers),
        progress=f"{done}/{len(answers)} completed",
        reward_success=sum(decided) if decided else None,
        reward_total=len(decided) or None,
        verdict_status=_verdict_status(last),
        verdict=atomic.read_json_or_none(job_dir / "verdict.json"),
        trials=answers if with_trials else None,
        created_at=meta.created_at,
        started_at=min(filter(None, (answer.started_at for answer in answers)), default=None),
        finished_at=max(ends, default=None) if status == "completed" else None,
    )


def _status(
    found: BatchTrials, answers: list[TrialAnswer]
) -> Literal["pending", "running", "verdict_pending", "completed"]:
    if all(trial.status in ("success", "failed") for trial in answers):
        waits = found.verdict is not None and found.verdict.state in ("ready", "running")
        return "verdict_pending" if waits else "completed"
    begun = any(trial.status not in ("pending", "queued") for trial in answers)
    return "running" if begun else "pending"


def _verdict_status(found: BatchTrials) -> str | None:
    if found.verdict is None:
        return None
    state = found.verdict.state
    known = {"succeeded": "success", "ready": "queued", "running": "running", "blocked": "pending"}
    return known.get(state, "failed")


def shown_trial(task_id: str, found: OddishTrial, retry: RetryConfig) -> TrialAnswer:
    """Return a trial as their program reads it."""
    trial = found.trial
    status, row, agent = trial.status, trial.status.row, trial.agent
    reward, spent = trial.facts.reward, trial.facts.spent
    key = status.step.queue_key
    return TrialAnswer(
        id=f"{task_id}-{found.number}",
        name=f"{task_id}-{found.number}",
        task_id=task_id,
        experiment_id=found.meta.experiment or "-",
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
    if state in TERMINAL:
        return "success" if trial.facts.result == "scored" else "failed"
    if state == "running":
        return "running"
    if trial.status.row is not None:
        return "retrying"
    return "queued" if state == "ready" else "pending"
