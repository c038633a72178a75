"""The tables that ``regrade`` writes: trials of another batch, whose work is judged by the tests of other tasks.

    {"regrade": {"batch", "verifier", "left_out"}, "experiment", "trials": [{"job_id", "step_id", "label", "task", "task_checksum", "config", "pass_rule",
     "regrade": {"attempt", "seal_sha256", "by", "agent", …}}, …]}

The jobs and steps are called as they were, so that both batches can be laid side by side; a verdict of each job follows, as in a sweep. The folder of
the task is looked at when the table is expanded: its checksum says which tests have judged.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parallelhassnes.key_names import agent_key
from parallelhassnes.plan import LEFT_OPEN, PassRule, Plan, Regraded, RegradedBatch, Retry, StepSpec
from parallelhassnes.tables.expanders.expansion import Draft, Expansion
from parallelhassnes.tables.expanders.passing import rule_for
from parallelhassnes.tables.expanders.plan_check import finish
from parallelhassnes.tables.expanders.tasks import FoundTask, is_task_dir, read_task
from parallelhassnes.tables.parse.located_errors import pointer
from parallelhassnes.tables.parse.secret_check import templates

QUEUE_KEY = agent_key("regrade")
"""What limits apply to: no model is asked."""
_RETRY = Retry(max_attempts=2)


class RegradedTrialPart(BaseModel):
    """One trial of the table."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    step_id: str
    label: str
    task: str = Field(min_length=1)
    """The folder of the task whose tests judge."""
    task_checksum: str = ""
    """Harbor's content hash of the task when the regrade was asked for; empty in tables of earlier versions."""
    config: dict[str, Any]
    """Harbor's TrialConfig, without its task."""
    pass_rule: PassRule | None = None
    """What the table of that batch says of passing; None for what the task says."""
    regrade: Regraded


class RegradeTable(BaseModel):
    """The whole table."""

    model_config = ConfigDict(extra="forbid")

    regrade: RegradedBatch
    experiment: str = ""
    trials: list[RegradedTrialPart] = Field(min_length=1)


def expand_regrade(document: dict[str, Any], context: Expansion) -> Plan | None:
    """Return the plan of such a table; None where problems were found."""
    try:
        table = RegradeTable.model_validate(document)
    except ValidationError as error:
        context.problems.add_validation("", error)
        return None
    if not context.room_for(2 * len(table.trials), "/trials"):
        return None
    tasks: dict[str, FoundTask | None] = {}
    jobs: dict[str, list[StepSpec]] = {}
    names: dict[str, str] = {}
    for place, trial in enumerate(table.trials):
        if trial.task not in tasks:
            tasks[trial.task] = _task(trial.task, pointer("trials", place, "task"), context)
        task = tasks[trial.task]
        if task is None:
            continue
        if trial.task_checksum and trial.task_checksum != task.checksum:
            at = pointer("trials", place, "task")
            context.problems.add(at, f"{trial.task} has changed since it was to judge", "ask for the regrade again")
            continue
        names[trial.job_id] = task.name
        jobs.setdefault(trial.job_id, []).append(_step(trial, task, context))
    if context.problems:
        return None
    drafts = []
    for job_id, steps in jobs.items():
        judged = tuple(f"{job_id}/{step.step_id}" for step in steps)
        verdict = StepSpec(
            step_id="verdict", kind="verdict", queue_key="verdict", depends_on=judged, after="end", retry=LEFT_OPEN
        )
        drafts.append(Draft(job_id, {"task": names[job_id]}, [*steps, verdict], ""))
    return Plan(table_format="regrade", experiment=table.experiment, jobs=finish(drafts), regrade=table.regrade)


def _task(text: str, at: str, context: Expansion) -> FoundTask | None:
    folder = context.bases.need(text, at, "task", context.problems)
    if folder is None:
        return None
    if not is_task_dir(folder):
        context.problems.add(at, f"{folder} is not a task folder", "name one")
        return None
    return read_task(folder, context.problems)


def _step(trial: RegradedTrialPart, task: FoundTask, context: Expansion) -> StepSpec:
    config = {"task": task.config, **trial.config}
    for section in ("agent", "environment", "verifier"):
        for variable in templates(config.get(section, {}).get("env")):
            context.used_variables[variable] = None
    context.take(task, config)
    rule = trial.pass_rule.model_dump(mode="json") if trial.pass_rule else rule_for(task)
    spec: dict[str, Any] = {"config": config, "task_name": task.name, "task_checksum": task.checksum}
    spec |= {"regrade": trial.regrade.model_dump(mode="json", exclude_defaults=True)}
    if rule is not None:
        spec["pass_rule"] = rule
    return StepSpec(
        step_id=trial.step_id, kind="trial", queue_key=QUEUE_KEY, label=trial.label, retry=_RETRY, spec=spec
    )
