"""The tables that ``import`` writes: the trials of a finished or stopped Harbor job, as they were planned there.

    {"imported_job": {"source": "harbor" or "oddish", "job_id", "job_name", "path", …}, "experiment",
     "trials": [{"key", "trial", "task_name", "task_checksum", "config"}, …]}

A job per task, a column per agent and settings, and a verdict, as in a sweep, so that they stand beside today's batches. Nothing
is looked for on this host: tasks may be gone, and agents be those of another version of Harbor. No trial is tried again by itself.
"""

import json
from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.formatting import counted
from parallelhassnes.key_names import agent_key, normalise_queue_key
from parallelhassnes.names import BATCH_FILES, Ids, safe_id
from parallelhassnes.plan import LEFT_OPEN, ImportedJob, PassRule, Plan, Retry, StepSpec
from parallelhassnes.tables.expanders.expansion import Draft, Expansion
from parallelhassnes.tables.expanders.plan_check import finish
from parallelhassnes.tables.expanders.tasks import FoundTask
from parallelhassnes.tables.expanders.trials import WITHOUT_MODEL, Settings, TrialExpander, dump_trial, trial_spec
from parallelhassnes.tables.formats.sweep import Column, column

ONCE = Retry(max_attempts=1)
"""What was tried elsewhere is tried again here where somebody asks for it."""


class ImportedTrialPart(BaseModel):
    """One trial of the table."""

    model_config = ConfigDict(extra="forbid")

    key: str
    trial: str | None
    """Its name in the source; None where it was planned there, and the source has nothing of it."""
    task_name: str = Field(min_length=1)
    task_checksum: str
    config: dict[str, Any]
    """Harbor's TrialConfig, without what names one attempt."""
    pass_rule: PassRule | None = None
    """What its task says of passing, where the task was still there as it had been."""


class ImportedTable(BaseModel):
    """The whole table."""

    model_config = ConfigDict(extra="forbid")

    imported_job: ImportedJob
    experiment: str
    trials: list[ImportedTrialPart]


def expand_imported_job(document: dict[str, Any], context: Expansion) -> Plan | None:
    """Return the plan of such a table; None where problems were found."""
    try:
        table = ImportedTable.model_validate(document)
    except ValidationError as error:
        context.problems.add_validation("", error)
        return None
    if not context.room_for(2 * len(table.trials), "/trials"):
        return None
    columns = _Columns(context)
    jobs: dict[tuple[str, str], list[StepSpec]] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for trial in table.trials:
        own = columns.of(trial.config)
        task = FoundTask(trial.task_name, trial.config["task"], trial.task_checksum)
        place = (trial.task_name, trial.task_checksum)
        counts[*place, own.prefix] += 1
        repeat = counts[*place, own.prefix]
        rule = trial.pass_rule.model_dump(mode="json") if trial.pass_rule else None
        jobs.setdefault(place, []).append(
            StepSpec(
                step_id=f"{own.prefix}.{repeat}",
                kind="trial",
                queue_key=own.settings.queue_key,
                label=own.label,
                retry=ONCE,
                spec={
                    **trial_spec(own.settings, task, repeat, rule),
                    "source_key": trial.key,
                    "source_trial": trial.trial or "",
                },
            )
        )
    taken = Ids(BATCH_FILES)
    drafts = []
    for (name, _), steps in jobs.items():
        job_id = safe_id(name, taken)
        taken.add(job_id)
        judged = tuple(f"{job_id}/{step.step_id}" for step in steps)
        verdict = StepSpec(
            step_id="verdict", kind="verdict", queue_key="verdict", depends_on=judged, after="end", retry=LEFT_OPEN
        )
        drafts.append(Draft(job_id, {"task": name}, [*steps, verdict], ""))
    _tell(table, context)
    context.used_variables.clear()  # no step of an import is given any
    return Plan(
        table_format="imported-job", experiment=table.experiment, jobs=finish(drafts), imported=table.imported_job
    )


def _tell(table: ImportedTable, context: Expansion) -> None:
    """Say what cannot be known of the trials."""
    source, missing = table.imported_job, sum(trial.trial is None for trial in table.trials)
    if source.retries:
        context.problems.warn(
            f"{source.source.capitalize()} tried again {counted(source.retries, 'time')} in {source.job_name}, and deleted what had failed: nothing is known of these attempts"
        )
    if missing:
        context.problems.warn(
            f"{missing} of {source.planned} planned trials of {source.job_name} had not run there when it was imported: "
            "they count as canceled until they are imported, or retry runs them here"
        )


class _Columns:
    """The agents of a table, each with its settings."""

    def __init__(self, context: Expansion) -> None:
        self._trials = TrialExpander(context)
        self._context = context
        self._known: dict[str, Column] = {}
        self._prefixes = Ids()

    def of(self, config: dict[str, Any]) -> Column:
        settings = self._settings(config)
        key = json.dumps(settings.config, sort_keys=True)
        if key not in self._known:
            self._known[key] = column(settings, 1, self._prefixes)
        return self._known[key]

    def _settings(self, config: dict[str, Any]) -> Settings:
        """Return the settings; those that the Harbor installed here does not take stay as they are in the source."""
        from harbor.models.trial.config import TrialConfig

        rest = _as_ours({name: part for name, part in config.items() if name != "task"})
        try:
            rest = dump_trial(TrialConfig.model_validate({**rest, "task": {"path": "/"}}))
        except (ValidationError, ValueError):
            self._context.problems.warn(f"the settings of {_name(rest)} are not those of this Harbor: kept as they are")
        try:
            key = normalise_queue_key(rest["agent"].get("model_name") or agent_key(_name(rest)))
            return self._trials.described({**rest}, key, "")
        except (UserError, KeyError, TypeError, AttributeError):
            name = _name(rest)
            return Settings(rest, name, None, self._context.agent_key(safe_id(name)), name)


def _as_ours(config: dict[str, Any]) -> dict[str, Any]:
    """Return a source's settings with what a table of today would say in the place of what it leaves to Harbor."""
    agent, environment = config.get("agent"), config.get("environment") or {}
    if isinstance(agent, dict) and agent.get("name") in WITHOUT_MODEL:
        config["agent"] = {name: part for name, part in agent.items() if name != "model_name"}
    if isinstance(environment, dict) and not environment.get("type") and not environment.get("import_path"):
        config["environment"] = {**environment, "type": "docker"}
    return config


def _name(config: dict[str, Any]) -> str:
    agent = config.get("agent")
    said = (agent.get("name") or agent.get("import_path")) if isinstance(agent, dict) else None
    return said if isinstance(said, str) and said else "agent"
