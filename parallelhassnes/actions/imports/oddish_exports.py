"""What ``oddish pull`` has left in a folder, read as ``source_jobs`` reads Harbor's: without its program and without trust.

    <export>/manifest.json                    what was pulled, from where; written last, again each time
    <export>/tasks/<task>/task.json           the task with its trials, as the server shows them; none where one trial was pulled
    <export>/tasks/<task>/files/…             the task's own files, with ``--include-task-files``
    <export>/trials/<id>/…                    Harbor's folder of the trial, beside ``logs.txt`` and what else is asked of the server
    <export>/trials/<id>/<harbor's name>/…    or Harbor's job of that one trial, as Oddish's own servers keep it

Each experiment in it is a job. Its trials are known by Oddish's ids, which are one trial's in every export, and by what their
results say: the program writes ``result.json`` a second time where it pulls the files, too.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.actions.imports import source_jobs
from parallelhassnes.actions.imports.source_jobs import RESULT, SourceJob, SourcePlan, SourceTrial
from parallelhassnes.steps import safe_read

_MANIFEST, _TASKS, TRIALS = "manifest.json", "tasks", "trials"
_OVER = ("success", "failed")
"""What Oddish says of a trial that nothing more becomes of."""


class _Known(NamedTuple):
    """What the export's ``task.json`` files say of a trial."""

    task: Mapping[str, Any]
    trial: Mapping[str, Any]


def is_export(folder: Path) -> bool:
    """Tell whether a folder is one that ``oddish pull`` has written, or writes."""
    inner = source_jobs.folders(folder)
    if TRIALS not in inner and _TASKS not in inner:
        return False
    manifest = source_jobs.object_at(folder, _MANIFEST) or {}
    return "target_id" in safe_read.mapping(manifest.get("source")) or next(_tasks(folder, inner), None) is not None


def read(folder: Path) -> list[SourceJob]:
    """Read an export; a job for each experiment, in the order in which its tasks name them.

    Raises:
        OSError: it cannot be read.
    """
    inner = source_jobs.folders(folder)
    known: dict[str, _Known] = {}
    files = {name: hash_of for name in (_MANIFEST,) if (hash_of := source_jobs.sha256_at(folder, name))}
    for place, task in _tasks(folder, inner):
        files[place] = source_jobs.sha256_at(folder, place)
        for each in map(safe_read.mapping, safe_read.sequence(task.get("trials"))):
            trial_id = safe_read.text(each.get("id"), 300)
            if trial_id and "/" not in trial_id:
                known.setdefault(trial_id, _Known(task, each))
    there = source_jobs.folders(folder / TRIALS) if TRIALS in inner else []
    experiments: dict[str, list[str]] = {}
    for trial_id in [*known, *(name for name in there if name not in known)]:
        experiments.setdefault(_experiment(trial_id, known.get(trial_id)), []).append(trial_id)
    return [_job(folder, experiment, ids, known, set(there), files) for experiment, ids in experiments.items()]


def _job(
    folder: Path, experiment: str, ids: list[str], known: Mapping[str, _Known], there: set[str], files: dict[str, str]
) -> SourceJob:
    trials: dict[str, SourceTrial] = {}
    passed_over: list[str] = []
    for trial_id in ids:
        found = _trial(folder, trial_id, known.get(trial_id), passed_over) if trial_id in there else None
        if found is not None:
            trials[trial_id] = found
        else:
            passed_over += _why_none(trial_id, known.get(trial_id))
    own = [known[trial_id] for trial_id in ids if trial_id in known]
    planned = [
        _planned(folder, trial_id, known[trial_id], trials, known)
        for trial_id in ids
        if trial_id in known and (trial_id in trials or known[trial_id].trial.get("agent"))
    ]
    tries = [number for each in own if (number := safe_read.whole(each.trial.get("attempts"))) is not None]
    named = (each.task.get("experiment_name") for each in own if each.task.get("experiment_id") == experiment)
    plain = source_jobs.plain_id(experiment) or hashlib.sha256(experiment.encode("utf-8", "replace")).hexdigest()[:32]
    return SourceJob(
        source="oddish",
        folder=folder,
        job_id=f"oddish-{plain}",
        name=next((name for each in named if (name := safe_read.text(each, 200))), None)
        or experiment[:200]
        or "oddish",
        harbor_version="",
        planned=tuple(planned),
        retries=sum(max(number - 1, 0) for number in tries) if tries else None,
        ended=bool(own) and all(each.trial.get("status") in _OVER for each in own),
        trials=tuple(sorted(trials.values(), key=source_jobs.by_time)),
        files=files,
        passed_over=tuple(passed_over),
    )


def _trial(folder: Path, trial_id: str, known: _Known | None, passed_over: list[str]) -> SourceTrial | None:
    """Return a trial of which there is a folder; None where Harbor has left nothing in it."""
    place = f"{TRIALS}/{trial_id}"
    found = source_jobs.read_trial(folder, place)
    if isinstance(found, str):  # Harbor's job: of its trials the last one is what the server shows
        inner = (source_jobs.read_trial(folder, f"{place}/{name}") for name in source_jobs.folders(folder / place))
        tries = [each for each in inner if isinstance(each, SourceTrial)]
        if not tries:
            return None
        found = max(tries, key=lambda each: (bool(each.result_sha256), source_jobs.by_time(each)))
        if len(tries) > 1:
            passed_over.append(f"{trial_id}: {len(tries) - 1} earlier of its attempts, which Oddish does not count")
    task = known.task if known else {}
    config = dict(found.config)
    if own := _task_folder(folder, trial_id, known):
        config["task"] = {"path": own}
    named = found.task_name if "/" in found.task_name else safe_read.text(task.get("name"), 300)
    result = source_jobs.object_at(folder, f"{found.place}/{RESULT}")
    text = json.dumps(result, sort_keys=True, separators=(",", ":"))
    said = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return found._replace(
        name=trial_id,
        key=trial_id,
        result_sha256=said if found.result_sha256 else "",
        config=config,
        task_name=named or found.task_name,
    )


def _why_none(trial_id: str, known: _Known | None) -> list[str]:
    """Tell why there is nothing of a trial that has ended; no line of one that has not."""
    if known is None:
        return [f"{trial_id}: nothing of Harbor's is in it"]
    if known.trial.get("status") not in _OVER:
        return []
    said = safe_read.text(known.trial.get("error_message"), 1000)
    why = f": {safe_read.first_line(said)}" if said else ""
    return [f"{trial_id}: it has ended there, and the export has none of its files; pull it without --no-files{why}"]


def _planned(
    folder: Path, trial_id: str, own: _Known, trials: Mapping[str, SourceTrial], known: Mapping[str, _Known]
) -> SourcePlan:
    """Return a trial as it was planned; where it has not run, with the settings of one of the same agent and model that has."""
    if (found := trials.get(trial_id)) is not None:
        return SourcePlan(trial_id, found.config, found.task_name, found.task_checksum)
    asked = {"name": own.trial.get("agent"), "model_name": own.trial.get("model")}
    like = [
        trials[each]
        for each in trials
        if each in known
        and (known[each].trial.get("agent"), known[each].trial.get("model")) == (asked["name"], asked["model_name"])
    ]
    of_task = [each for each in like if known[each.name].task.get("id") == own.task.get("id")]
    place = _task_folder(folder, trial_id, own) or safe_read.text(own.task.get("task_path"), 1000) or "task"
    name = safe_read.text(own.task.get("name"), 300) or ""
    if of_task:
        return SourcePlan(trial_id, of_task[0].config, of_task[0].task_name, of_task[0].task_checksum)
    rest = dict(like[0].config) if like else {"agent": {key: value for key, value in asked.items() if value}}
    return SourcePlan(trial_id, {**rest, "task": {"path": place}}, name, "")


def _task_folder(folder: Path, trial_id: str, known: _Known | None) -> str:
    """Return the folder with the task's files; empty where the export has none."""
    task_id = safe_read.text((known.task if known else {}).get("id"), 300) or trial_id.rpartition("-")[0]
    if not task_id or "/" in task_id or task_id in (".", "..") or "\0" in task_id:
        return ""
    is_there = safe_read.bytes_below(folder, f"{_TASKS}/{task_id}/files/task.toml", 1) is not None
    return str(folder / _TASKS / task_id / "files") if is_there else ""


def _experiment(trial_id: str, known: _Known | None) -> str:
    """Return what a trial belongs to: its experiment; of one that was pulled alone nothing but its task is known."""
    if known is None:
        return f"task-{trial_id.rpartition('-')[0] or trial_id}"
    said = (known.trial.get("experiment_id"), known.task.get("experiment_id"), known.task.get("id"))
    return next((text for each in said if (text := safe_read.text(each, 500))), "oddish")


def _tasks(folder: Path, inner: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the server has said of each task, with its place."""
    for name in source_jobs.folders(folder / _TASKS) if _TASKS in inner else ():
        place = f"{_TASKS}/{name}/task.json"
        document = source_jobs.object_at(folder, place)
        if document is not None and isinstance(document.get("trials"), list):
            yield place, document
