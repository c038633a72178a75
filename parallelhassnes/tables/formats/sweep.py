"""A sweep: one job per task, in it a trial per agent and repeat, their analyses, and a verdict over them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from parallelhassnes.names import Ids, safe_id
from parallelhassnes.plan import CAPS, Caps, Resources, Retry, StepSpec, TopUp
from parallelhassnes.tables.expanders import caps
from parallelhassnes.tables.expanders.analyses import analysis_steps, checked
from parallelhassnes.tables.expanders.baseline_check import gate, with_baselines
from parallelhassnes.tables.expanders.expansion import Draft, Expansion, asked_of_cluster, rule
from parallelhassnes.tables.expanders.passing import Said, rule_for
from parallelhassnes.tables.expanders.tasks import FoundTask, TaskFilter, tasks_in
from parallelhassnes.tables.expanders.trials import Settings, TrialExpander, trial_spec
from parallelhassnes.tables.formats.datasets import dataset_tasks
from parallelhassnes.tables.model import AnalysisAsked, AnalysisPart, PassPart, Sweep, SweepAgent, TableHead
from parallelhassnes.tables.parse.located_errors import pointer

_NOT_HARBOR = {"n_trials", "n_valid", "max_extra", "timeout_minutes", "environment", "queue_key", *CAPS}


class Column(NamedTuple):
    """One agent of a sweep, as it stands in every job."""

    prefix: str
    """Its step ids are ``<prefix>.1`` …"""
    label: str
    n_trials: int
    settings: Settings
    caps: Caps | None = None
    max_extra: int | None = None
    """Of a target of scored trials (``n_valid``): extra attempts of all its trials together; None for no target."""

    def retry(self, base: Retry, repeat: int) -> Retry:
        """Tell how the trial number ``repeat`` is retried: each has its share of the extra attempts, the first ones one more."""
        if self.max_extra is None:
            return base
        share, left = divmod(self.max_extra, self.n_trials)
        return base.model_copy(update={"top_up": TopUp(extra=share + (repeat <= left))})


def expand_sweep(
    sweep: Sweep,
    at: str,
    context: Expansion,
    trials: TrialExpander,
    retry: Retry,
    taken: Ids,
    analysis: AnalysisAsked | None = None,
    baseline_gate: bool = False,
    passing: PassPart | None = None,
    head: TableHead | None = None,
) -> list[Draft]:
    """Return the jobs of a sweep whose pointer is ``at``; ``taken`` are the job ids that exist already.

    Args:
        analysis: the table's, where the sweep has none of its own.
        baseline_gate: likewise.
        passing: likewise.
        head: the table, for its caps and whether workspaces are kept.
    """
    found = analyses_of(sweep, at, analysis, context)
    gated = baseline_gate if sweep.baseline_gate is None else sweep.baseline_gate
    if gated:
        sweep = with_baselines(sweep)
    columns = _columns(sweep, at, trials, head)
    tasks = _tasks(sweep, at, context)
    if not columns:
        return []
    rows = [(task, columns) for task in tasks]
    drafts = group_by_task(
        rows,
        retry,
        taken,
        context,
        at,
        sweep.timeout_sec,
        found,
        gated=gated,
        said=((sweep.pass_, "sweep"), (passing, "table")),
        resources=asked_of_cluster(sweep.resources),
        keep=(sweep.keep_workspace, head.keep_workspace if head else None),
    )
    return [draft._replace(enough=rule(sweep.enough)) for draft in drafts]


def analyses_of(sweep: Sweep, at: str, table: AnalysisAsked | None, context: Expansion) -> list[AnalysisPart]:
    """Return the analyses of a sweep's trials: its own, the table's, or the rules where an Oddish file wants some."""
    if sweep.analysis is not None:
        return checked(sweep.analysis, at + "/analysis", context)
    if table is not None:
        return checked(table, "/analysis", context)
    return [AnalysisPart()] if sweep.run_analysis else []


def group_by_task(
    rows: list[tuple[FoundTask, list[Column]]],
    retry: Retry,
    taken: Ids,
    context: Expansion,
    at: str,
    timeout_sec: float | None = None,
    analyses: Sequence[AnalysisPart] = (),
    *,
    gated: bool = False,
    said: Sequence[Said] = (),
    resources: Resources | None = None,
    keep: Sequence[bool | None] = (),
) -> list[Draft]:
    """Return a job for each task, with the trials of its columns, their analyses, and a verdict that waits for the end of all.

    Args:
        at: pointer of what asks for so many.
        resources: what each trial asks a cluster for.
        keep: as ``trial_spec``.

    Returns:
        The jobs; none where they would be more than a table may unfold to, which is reported.
    """
    drafts: list[Draft] = []
    trials = sum(column.n_trials for _, columns in rows for column in columns)
    if not context.room_for(trials * (1 + len(analyses)) + len(rows) * (1 + gated), at):
        return drafts
    for task, columns in rows:
        job_id = safe_id(task.name, taken)
        taken.add(job_id)
        steps: list[StepSpec] = []
        for column in columns:
            config = {"task": task.config, **column.settings.config}
            context.take(task, column.settings.config)
            spec = trial_spec(column.settings, task, 1, rule_for(task, *said), keep=keep)
            steps += [
                StepSpec(
                    step_id=f"{column.prefix}.{repeat}",
                    kind="trial",
                    queue_key=column.settings.queue_key,
                    label=column.label,
                    timeout_sec=timeout_sec,
                    resources=resources,
                    caps=column.caps,
                    retry=column.retry(retry, repeat),
                    spec={**spec, "config": config, "repeat": repeat},
                )
                for repeat in range(1, column.n_trials + 1)
            ]
        ids = Ids(step.step_id for step in steps)
        steps += [
            made for step in tuple(steps) for made in analysis_steps(step, job_id, list(analyses), context, retry, ids)
        ]
        steps.append(
            StepSpec(
                step_id="verdict",
                kind="verdict",
                queue_key="verdict",
                depends_on=tuple(f"{job_id}/{step.step_id}" for step in steps),
                after="end",
                retry=retry,
            )
        )
        if gated:
            steps = gate(job_id, steps, retry)
        drafts.append(Draft(job_id, {"task": task.name}, steps, ""))
    return drafts


def column(settings: Settings, n_trials: int, prefixes: Ids, max_extra: int | None = None) -> Column:
    """Return a column with step ids of its own, also where an agent stands twice with other arguments."""
    name = safe_id(settings.agent)[:50]
    prefix = f"{name}.{safe_id(settings.model)[:60]}" if settings.model else name
    first, number = prefix, 1
    while prefix in prefixes or prefix in ("verdict", "baseline"):
        number += 1
        prefix = f"{first}-{number}"
    prefixes.add(prefix)
    label = settings.label if number == 1 else f"{settings.label} #{number}"
    return Column(prefix, label, n_trials, settings, max_extra=max_extra)


def _columns(sweep: Sweep, at: str, trials: TrialExpander, head: TableHead | None) -> list[Column]:
    columns, prefixes = [], Ids()
    for index, agent in enumerate(sweep.agents):
        place = at + pointer("agents", index)
        raw, places = _raw_settings(sweep, agent, at, place)
        settings = trials.settings(raw, places, agent.queue_key)
        if settings is not None:
            count, extra = _target(agent, place, trials.context)
            found = caps.asked(agent, sweep, head)
            own = settings.config["agent"]
            caps.tell_unseen(found, own.get("import_path") or settings.agent, trials.context, config=own)
            columns.append(column(settings, count, prefixes, extra)._replace(caps=found))
    return columns


def _target(agent: SweepAgent, at: str, context: Expansion) -> tuple[int, int | None]:
    """Trials of each task, and the extra attempts where they must be scored."""
    if agent.n_valid is None:
        if agent.max_extra is not None:
            context.problems.add(at + "/max_extra", "is given without n_valid", "give n_valid")
        return agent.n_trials, None
    if "n_trials" in agent.model_fields_set and agent.n_trials != agent.n_valid:
        context.problems.add(at + "/n_valid", f"is {agent.n_valid}, and n_trials {agent.n_trials}", "give one")
    return agent.n_valid, 2 * agent.n_valid if agent.max_extra is None else agent.max_extra


def _raw_settings(sweep: Sweep, agent: SweepAgent, at: str, place: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return Harbor's TrialConfig without task, as the sweep says it, and where each part of it was said."""
    harbor = sweep.harbor.model_dump(exclude_none=True) if sweep.harbor else {}
    places = {key: at + pointer("harbor", key) for key in harbor}
    harbor_agent = {key: value for key, value in agent.model_dump(exclude_none=True).items() if key not in _NOT_HARBOR}
    minutes = agent.timeout_minutes or sweep.timeout_minutes
    if minutes is not None:
        harbor_agent.setdefault("override_timeout_sec", minutes * 60)
    raw: dict[str, Any] = {**harbor, "agent": harbor_agent}
    places["agent"] = place
    places["queue_key"] = place + "/queue_key"

    environment = _environment(harbor.get("environment"))
    if sweep.environment is not None:
        environment |= _environment(sweep.environment)
        places["environment"] = at + "/environment"
    if agent.environment is not None:
        environment |= _environment(agent.environment)
        places["environment"] = place + "/environment"
    for name in ("override_cpus", "override_memory_mb", "override_storage_mb", "override_gpus"):
        if getattr(sweep, name) is not None:
            environment[name] = getattr(sweep, name)
    if sweep.force_build is not None:
        environment["force_build"] = sweep.force_build
    if environment:
        raw["environment"] = environment
        places.setdefault("environment", at)
    if sweep.disable_verification is not None:
        raw["verifier"] = {**harbor.get("verifier", {}), "disable": sweep.disable_verification}
        places.setdefault("verifier", at + "/disable_verification")
    return raw, places


def _environment(raw: Any) -> dict[str, Any]:
    if raw is None:
        return {}
    return {"type": raw} if isinstance(raw, str) else dict(raw)


def _tasks(sweep: Sweep, at: str, context: Expansion) -> list[FoundTask]:
    problems = context.problems
    if (sweep.path is None) == (sweep.dataset is None):
        which = "neither path nor dataset" if sweep.path is None else "both path and dataset"
        problems.add(at, f"names {which}", "name one of them, in the file or with -p or -d")
        return []
    wanted = TaskFilter(tuple(sweep.task_names or ()), tuple(sweep.exclude_task_names or ()), sweep.n_tasks)
    verify = not _unverified(sweep)
    if sweep.dataset is not None:
        return dataset_tasks(sweep.dataset, at + "/dataset", wanted, context)
    paths = [sweep.path] if isinstance(sweep.path, str) else list(sweep.path or ())
    if not paths:
        problems.add(at + "/path", "is empty", "name a task folder or a folder of tasks")
    tasks: dict[str, FoundTask] = {}
    for index, text in enumerate(paths):
        place = at + "/path" + ("" if isinstance(sweep.path, str) else pointer(index))
        folder = context.bases.need(text, place, "path", problems)
        if folder is not None:
            for task in tasks_in(folder, place, problems, wanted, verify=verify):
                tasks.setdefault(task.config["path"], task)
    if not tasks and not problems:
        wanted.report_none_left(at, problems)
    return list(tasks.values())[: sweep.n_tasks]


def _unverified(sweep: Sweep) -> bool:
    verifier = (sweep.harbor.verifier if sweep.harbor else None) or {}
    return bool(sweep.disable_verification or verifier.get("disable"))
