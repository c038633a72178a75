"""What the plans of a batch's trials say, in one file for views that must not open every ``job.json``.

    index.json, job.json … ──▶ JobTrials ◀──▶ trials.batch.json   (derived: may be deleted)

The file begins with the size and time of the index and of every ``job.json``; as long as these are the same, they alone are looked at.
Any reader may write the file, at any time, by rename. Where a job cannot be read none is written, so that every look says so.

Shape: ``{"schema_version": 1, "made_from": [[mtime_ns, ctime_ns, size, inode], …], "settings": [{name: text}, …], "plans": [[agent, import_path, model,
task_name, task_source, place in settings], …], "jobs": [[job_id, labels, [[step_id, place in plans], …]], …]}``.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from parallelhassnes import file_stamp
from parallelhassnes.plan import SANDBOX, StepSpec, is_sandbox
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import facts, rewards
from parallelhassnes.steps.trial_data.facts import TrialPlan
from parallelhassnes.store import atomic, batches, index, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.batch_status import BatchStatus

CACHE = "trials.batch.json"
VERSION = 1
RULE_OF_PASSING = "pass_rule"
"""The setting that says when a trial has passed."""


class PlannedTrial(NamedTuple):
    """What the plan says of one trial."""

    plan: TrialPlan
    settings: Mapping[str, str]
    """How it is run, as ``settings_of``; trials that are run alike share it."""


class JobTrials(NamedTuple):
    """What the plan says of one job's trials."""

    labels: Mapping[str, str]
    trials: dict[str, PlannedTrial]
    """step_id → its plan; trials only, in the table's order."""


def read(layout: Layout, status: BatchStatus) -> dict[str, JobTrials]:
    """Return the jobs of a batch, in the table's order; one that cannot be read is passed over, and named."""
    stamps = made_from(status)
    kept = atomic.read_kept(status.batch_dir / CACHE)
    if kept.get("schema_version") == VERSION and kept.get("made_from") == stamps:
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            return _expanded(kept)
    found: dict[str, JobTrials] = {}
    settings: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    for job_id in status.jobs:
        with members.apart(layout.job(status.batch_dir.name, job_id)):
            job = batches.read_job(layout.job(status.batch_dir.name, job_id))
            trials = [step for step in job.steps if step.kind == "trial"]
            found[job_id] = JobTrials(job.labels, _planned(trials, settings))
    if len(found) == len(status.jobs) and None not in stamps:
        with contextlib.suppress(OSError):  # a reader with no right to write, a full disk, a batch being deleted
            document = {"schema_version": VERSION, "made_from": stamps, **_compact(found)}
            atomic.write_kept(status.batch_dir / CACHE, document)
    return found


def _planned(
    trials: Sequence[StepSpec], settings: dict[tuple[tuple[str, str], ...], Mapping[str, str]]
) -> dict[str, PlannedTrial]:
    """Return the plans of a job's trials; those that differ in nothing but their repeat share one.

    Args:
        settings: those that are known of other jobs; what is new is added.
    """
    known: dict[str, PlannedTrial] = {}
    found = {}
    for step in trials:
        alike = repr((step.label, step.timeout_sec, step.caps, {**step.spec, "repeat": 0}))
        if alike not in known:
            own = settings_of(step)
            known[alike] = PlannedTrial(facts.plan_of(step), settings.setdefault(tuple(own.items()), own))
        found[step.step_id] = known[alike]
    return found


def made_from(status: BatchStatus) -> list[list[int] | None]:
    """Return the stamps of the files that say what is planned; None for one that is not there."""
    folder = str(status.batch_dir)
    return [_stamp(f"{folder}/{index.INDEX}"), *(_stamp(f"{folder}/{job_id}/{batches.JOB}") for job_id in status.jobs)]


def _stamp(path: str) -> list[int] | None:
    found = file_stamp.seen(path)
    return found and list(found)


def _compact(found: Mapping[str, JobTrials]) -> dict[str, Any]:
    planned = {id(trial): trial for job in found.values() for trial in job.trials.values()}
    settings = {id(trial.settings): trial.settings for trial in planned.values()}
    places, of_settings = ({key: place for place, key in enumerate(each)} for each in (planned, settings))
    return {
        "settings": list(settings.values()),
        "plans": [[*trial.plan, of_settings[id(trial.settings)]] for trial in planned.values()],
        "jobs": [
            [job_id, job.labels, [[step_id, places[id(trial)]] for step_id, trial in job.trials.items()]]
            for job_id, job in found.items()
        ],
    }


def _expanded(kept: Mapping[str, Any]) -> dict[str, JobTrials]:
    settings = kept["settings"]
    plans = [PlannedTrial(TrialPlan(*plan[:-1]), settings[plan[-1]]) for plan in kept["plans"]]
    return {
        job_id: JobTrials(labels, {step_id: plans[place] for step_id, place in steps})
        for job_id, labels, steps in kept["jobs"]
    }


_OTHER = frozenset({"task", "name", "import_path", "model_name", "env", "trial_name", "trials_dir", "job_id"})
"""Parts of a trial's configuration that say what is tried and where, or may hold what nobody is to read."""
_MOST_TEXT = 100


def settings_of(step: StepSpec) -> dict[str, str]:
    """Tell how a trial is run, by its plan: ``agent.kwargs.max_turns`` → ``20``; what is at its default is not there.

    When it has passed is always told: the default says one thing, and another rule may say the same.
    """
    found: dict[str, str] = {}
    open_parts: list[tuple[str, Any]] = [("", safe_read.mapping(step.spec.get("config")))]
    while open_parts:
        place, value = open_parts.pop()
        if isinstance(value, Mapping):
            inner = [(f"{place}.{key}".strip("."), part) for key, part in value.items()]
            open_parts += [
                (name, part)
                for name, part in inner
                if name.rpartition(".")[2] not in _OTHER or name == "environment.import_path"
            ]
        elif value is not None:
            value = SANDBOX if place == "environment.import_path" and is_sandbox(value) else value
            found[place] = json.dumps(value, ensure_ascii=False).strip('"')[:_MOST_TEXT]
    if step.timeout_sec is not None:
        found["timeout_sec"] = f"{step.timeout_sec:g}"
    if step.caps is not None:
        found |= {name: f"{value:g}" for name, value in step.caps.model_dump(exclude_none=True).items()}
    found[RULE_OF_PASSING] = rewards.said(rewards.rule_of(step.spec))
    return dict(sorted(found.items()))
