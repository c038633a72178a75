"""What a finished, stopped or running Harbor job has left in its folder, read without Harbor and without trust.

    <job>/config.json                 the JobConfig; makes the folder a job
    <job>/lock.json                   every trial that the job planned, from Harbor 0.13 on; ``result.json`` has its id and counts retries
    <job>/<trial>/lock.json …         the trial as planned, first; ``config.json``; ``result.json`` last, once the trial has ended

Everything in it may have been written by an agent: files are read by descriptors below the job's folder, no link is followed,
sizes are bounded, a value of an unexpected type counts as absent. Nothing in the folder is changed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.steps import safe_read

type Source = Literal["harbor", "oddish"]
"""The program that a job was run by."""
CONFIG, LOCK, RESULT = "config.json", "lock.json", "result.json"
MOST_ENTRIES = 200_000
"""Entries of a job's folder, or of a folder of jobs, that are looked at."""
_JOB_KEYS = frozenset({"agents", "datasets", "tasks", "job_name", "orchestrator", "n_attempts"})
"""Of these the configuration of a job has some, and that of a trial none."""
_ID = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")
NOT_PLANNED = frozenset({"trial_name", "trials_dir", "job_id", "source_trial"})
"""What a trial's configuration has besides what was planned."""


class SourceTrial(NamedTuple):
    """One trial of a source."""

    name: str
    """What the source knows it by: the name of its folder, or Oddish's id."""
    place: str
    """Its folder, below that of the job."""
    key: str
    """The same for all trials of the job with the same task and settings; an id of Oddish's is one trial's."""
    result_sha256: str
    """Of its ``result.json``; empty where there is none that can be read: it was stopped, or still runs."""
    config: Mapping[str, Any]
    """Harbor's TrialConfig, as it is in the file."""
    task_name: str
    task_checksum: str
    """Harbor's content hash of the task, ``sha256:…``; empty where the source does not say."""
    task_dirhash: str
    """The hash that Harbor has in its results; of a task that is still there it says whether it is the same."""
    started_at: datetime | None
    """None where the source does not say, or without a zone."""
    ended_at: datetime | None


class SourcePlan(NamedTuple):
    """A trial that a job has planned."""

    key: str
    config: Mapping[str, Any]
    """The TrialConfig that it amounts to, as far as that is known."""
    task_name: str
    task_checksum: str


class SourceJob(NamedTuple):
    """A Harbor job folder, or one experiment of an export of Oddish."""

    source: Source
    folder: Path
    job_id: str
    name: str
    harbor_version: str
    planned: tuple[SourcePlan, ...]
    """Empty where the job does not say."""
    retries: int | None
    """Attempts that the source has deleted before it tried again; None where it does not say."""
    ended: bool
    """The job's own result says so."""
    trials: tuple[SourceTrial, ...]
    """By the time at which they began, then by name."""
    files: Mapping[str, str]
    """The job's own files → SHA-256."""
    passed_over: tuple[str, ...]
    """A line for each folder in it that is no trial of which anything can be read."""


def read(folder: Path) -> SourceJob:
    """Read a job folder.

    Raises:
        UserError: it cannot be read.
    """
    config, lock = object_at(folder, CONFIG) or {}, object_at(folder, LOCK) or {}
    result = object_at(folder, RESULT) or {}
    trials: list[SourceTrial] = []
    passed_over: list[str] = []
    ids: list[str] = []
    try:
        names = folders(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", fix="make it readable") from None
    for name in names:
        found = read_trial(folder, name)
        if isinstance(found, str):
            passed_over.append(f"{name}: {found}")
            continue
        trials.append(found)
        ids.append(str(found.config.get("job_id") or ""))
    planned = [safe_read.mapping(each) for each in safe_read.sequence(lock.get("trials"))]
    own = [plain_id(result.get("id")), *map(plain_id, sorted(filter(None, ids), key=ids.count, reverse=True)[:1])]
    files = {name: hash_of for name in (CONFIG, LOCK, RESULT) if (hash_of := sha256_at(folder, name))}
    stats = safe_read.mapping(result.get("stats"))
    return SourceJob(
        source="harbor",
        folder=folder,
        job_id=next(filter(None, own), f"config-{files.get(CONFIG, '')[:32]}"),
        name=safe_read.text(config.get("job_name"), 200) or safe_read.text(folder.name, 200) or "job",
        harbor_version=safe_read.text(safe_read.mapping(lock.get("harbor")).get("version"), 50) or "",
        planned=tuple(_planned(each) for each in planned if each.get("task") and each.get("agent")),
        retries=safe_read.whole(stats.get("n_retries")),
        ended=bool(result.get("finished_at")),
        trials=tuple(sorted(trials, key=by_time)),
        files=files,
        passed_over=tuple(passed_over),
    )


def key_of(planned: Mapping[str, Any]) -> str:
    """Return what tells a trial's task and settings from others of its job: of its lock, or of its configuration without a lock."""
    kept = {name: part for name, part in planned.items() if name not in NOT_PLANNED}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _planned(lock: Mapping[str, Any]) -> SourcePlan:
    return SourcePlan(key_of(lock), _from_lock(lock), *_task_of(lock))


def _task_of(lock: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and content hash of the task of a trial's lock; empty where it does not say."""
    task = safe_read.mapping(lock.get("task"))
    digest = safe_read.text(task.get("digest"), 80) or ""
    return safe_read.text(task.get("name"), 300) or "", digest if digest.startswith("sha256:") else ""


def read_trial(folder: Path, name: str) -> SourceTrial | str:
    """Return the trial at a place below a folder; a line where it is none."""
    if safe_read.text(name) != name or not name.isprintable():
        return "its name is no printable text"
    lock, config = object_at(folder, f"{name}/{LOCK}") or {}, object_at(folder, f"{name}/{CONFIG}") or {}
    data = _read(folder, f"{name}/{RESULT}")
    result = safe_read.object_of(data)
    config = config or dict(safe_read.mapping((result or {}).get("config")))
    if not config and not lock:
        return "is no trial"
    config = config or _from_lock(lock)
    # Harbor leaves out what is at its default, the agent of a trial of oracle too.
    config.setdefault("agent", safe_read.mapping(lock.get("agent")) or {"name": "oracle"})
    if not safe_read.mapping(config.get("task")) or not isinstance(config.get("agent"), dict):
        return f"its {CONFIG} names no task or no agent"
    named, checksum = _task_of(lock)
    said = safe_read.mapping(result)
    return SourceTrial(
        name=name,
        place=name,
        key=key_of(lock or config),
        result_sha256=hashlib.sha256(data).hexdigest() if result and data else "",
        config=config,
        task_name=safe_read.text(said.get("task_name"), 300) or named or _tail(safe_read.mapping(config["task"])),
        task_checksum=checksum,
        task_dirhash=safe_read.text(said.get("task_checksum"), 80) or "",
        started_at=_moment(said.get("started_at")),
        ended_at=_moment(said.get("finished_at")),
    )


def _from_lock(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Return the TrialConfig that a lock amounts to, as far as it has what one has."""
    task = safe_read.mapping(lock.get("task"))
    kept = ("path", "git_url", "git_commit_id", "ref", "source")
    wanted = {name: task[name] for name in kept if task.get(name) is not None}
    if task.get("type") == "package":
        wanted = {"name": task.get("name"), **{key: wanted[key] for key in ("ref", "source") if key in wanted}}
    parts = {name: lock[name] for name in ("agent", "environment", "verifier") if isinstance(lock.get(name), dict)}
    scales = {name: value for name, value in lock.items() if name.endswith("timeout_multiplier") and value is not None}
    return {"task": wanted, **parts, **scales}


def _tail(task: Mapping[str, Any]) -> str:
    text = safe_read.text(task.get("name"), 300) or safe_read.text(task.get("path"), 1000) or "task"
    return text if task.get("name") else text.rstrip("/").rsplit("/", 1)[-1]


def by_time(trial: SourceTrial) -> tuple[datetime, str]:
    return trial.started_at or datetime.max.replace(tzinfo=UTC), trial.name


def _moment(value: object) -> datetime | None:
    text = safe_read.text(value, 64)
    try:
        found = datetime.fromisoformat(text) if text else None
        return None if found is None or found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def plain_id(value: object) -> str:
    text = safe_read.text(value, 64) or ""
    return text if text and set(text) <= _ID else ""


def is_job(folder: Path) -> bool:
    """Tell whether a folder is a Harbor job's."""
    config = object_at(folder, CONFIG)
    return config is not None and bool(_JOB_KEYS & config.keys()) and "trial_name" not in config


def folders(folder: Path) -> list[str]:
    """Return the folders in a folder, none behind a link, by name."""
    with os.scandir(folder) as entries:
        found = []
        for number, entry in enumerate(entries):
            if number > MOST_ENTRIES:
                raise UserError(f"{folder} has more than {MOST_ENTRIES:,} entries", fix="name its parts one by one")
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
    return sorted(found)


def _read(folder: Path, relative: str) -> bytes | None:
    """Return a file whole; None where it is larger than is read of any."""
    data = safe_read.bytes_below(folder, relative, safe_read.MAX_JSON_BYTES + 1)
    return data if data is None or len(data) <= safe_read.MAX_JSON_BYTES else None


def object_at(folder: Path, relative: str) -> dict[str, Any] | None:
    return safe_read.object_of(_read(folder, relative))


def sha256_at(folder: Path, relative: str) -> str:
    data = _read(folder, relative)
    return hashlib.sha256(data).hexdigest() if data is not None else ""
