"""The launch table of an imported job: ``launch_table.json`` of its batch, from which ingest makes the batch, and makes it again.

It has every trial that the source planned or has, in order, with its configuration; a secret that a source of an early Harbor
holds in clear becomes ``${NAME}`` or goes. ``tables.formats.imported_job`` expands it without the source.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.actions.imports import source_jobs
from parallelhassnes.actions.imports.source_jobs import SourceJob, SourcePlan, SourceTrial
from parallelhassnes.store import atomic
from parallelhassnes.tables.expanders.passing import rule_for
from parallelhassnes.tables.expanders.tasks import FoundTask, is_task_dir, read_task
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.tables.parse.secret_check import without_secrets


class Slot(NamedTuple):
    """One trial of the table: planned by the source, there, or both."""

    key: str
    trial: SourceTrial | None
    """None where the source has planned it and has nothing of it."""
    planned: SourcePlan | None
    """None where the source has it without having planned it."""


def slots_of(job: SourceJob) -> list[Slot]:
    """Return the trials of a source in the order of its plan, those that it has not planned behind them."""
    left: dict[str, list[SourceTrial]] = {}
    for trial in job.trials:
        left.setdefault(trial.key, []).append(trial)
    made = []
    for planned in job.planned:
        own = left.get(planned.key)
        made.append(Slot(planned.key, own.pop(0) if own else None, planned))
    return made + [Slot(trial.key, trial, None) for trial in job.trials if trial in left[trial.key]]


def document_of(job: SourceJob, slots: Sequence[Slot], experiment: str | None) -> dict[str, Any]:
    """Return the launch table."""
    entries = _Entries(job)
    return {
        "imported_job": {
            "source": job.source,
            "job_id": job.job_id,
            "job_name": job.name,
            "path": str(job.folder),
            "harbor_version": job.harbor_version,
            "planned": len(job.planned) or None,
            "retries": job.retries,
            "ended": job.ended,
            "files": dict(job.files),
        },
        "experiment": job.name if experiment is None else experiment,
        "trials": [entries.of(slot) for slot in slots],
    }


def data_of(document: Mapping[str, Any]) -> bytes:
    return atomic.dumps(document).encode("utf-8", "surrogateescape")


class _Entries:
    """The entries of a table's ``trials``; each task's folder is looked at once."""

    def __init__(self, job: SourceJob) -> None:
        self._folder = job.folder
        self._is_named = job.source == "oddish"  # its exports have tasks in folders that are called otherwise
        self._alike = {trial.key: trial for trial in job.trials}
        self._by_checksum = {trial.task_checksum: trial.task_name for trial in job.trials if trial.task_checksum}
        self._tasks: dict[str, FoundTask | None] = {}

    def of(self, slot: Slot) -> dict[str, Any]:
        like = slot.trial or self._alike.get(slot.key)
        if like is not None:
            name, checksum, dirhash, config = like.task_name, like.task_checksum, like.task_dirhash, like.config
        else:
            assert slot.planned is not None  # noqa: S101 # a slot is planned, there, or both
            checksum, dirhash, config = slot.planned.task_checksum, "", slot.planned.config
            name = self._by_checksum.get(checksum, slot.planned.task_name)
        kept = {key: value for key, value in config.items() if key not in source_jobs.NOT_PLANNED and value is not None}
        kept["task"] = self._absolute(kept["task"])
        task = self._same(kept["task"], checksum, dirhash)
        if task is not None:
            name, checksum = name if self._is_named else task.name, task.checksum
        return {
            "key": slot.key,
            "trial": slot.trial.name if slot.trial else None,
            "task_name": name or "task",
            "task_checksum": checksum,
            "config": without_secrets(kept),
            "pass_rule": rule_for(task) if task is not None else None,
        }

    def _absolute(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Return a task with its path made absolute, where the folder can still be found: jobs lie below where they were started."""
        made = {key: value for key, value in task.items() if value is not None}
        path = made.get("path")
        if isinstance(path, str) and not Path(path).is_absolute() and not made.get("git_url") and "\0" not in path:
            above = (self._folder.parent.parent, self._folder.parent, Path.cwd())
            made["path"] = next((str((each / path).resolve()) for each in above if (each / path).is_dir()), path)
        return made

    def _same(self, task: Mapping[str, Any], checksum: str, dirhash: str) -> FoundTask | None:
        """Return the task as its folder has it, where that is still the one that was tried."""
        path = task.get("path")
        if not isinstance(path, str) or task.get("git_url") or not Path(path).is_absolute() or "\0" in path:
            return None
        if path not in self._tasks:
            is_one = is_task_dir(Path(path))
            self._tasks[path] = read_task(Path(path), Problems(path), verify=False) if is_one else None
        found = self._tasks[path]
        if found is None or (checksum and found.checksum != checksum):
            return None
        return found if checksum or (dirhash and _dirhash(path) == dirhash) else None


def _dirhash(path: str) -> str:
    from harbor.models.task.task import Task

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it is the only hash that early results have
            return str(Task(Path(path)).checksum)
    except (OSError, ValueError):
        return ""
