"""Harbor job configs: expanded by Harbor's own plan, so that everything means what Harbor means by it.

What Harbor does not do is done here: unknown keys and broken task folders are reported, relative paths
are looked for where a table's are, and ``sandbox`` may be named as an environment.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.names import BATCH_FILES, Ids
from parallelhassnes.plan import LEFT_OPEN, Plan, Retry, StepSpec, is_sandbox
from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.expanders.plan_check import finish
from parallelhassnes.tables.expanders.tasks import FoundTask, TaskFilter, is_task_dir, read_task, tasks_in
from parallelhassnes.tables.expanders.trials import Settings, TrialExpander, dump_trial
from parallelhassnes.tables.formats.datasets import found_tasks, harbor_plan
from parallelhassnes.tables.formats.sweep import Column, column, group_by_task
from parallelhassnes.tables.model import PassPart
from parallelhassnes.tables.parse.field_names import check_keys
from parallelhassnes.tables.parse.located_errors import Problems, json_type, pointer
from parallelhassnes.tables.parse.secret_check import check_env, check_names


def expand_harbor_job(document: dict[str, Any], context: Expansion) -> Plan | None:
    """Return the plan of a Harbor JobConfig; None where problems were found."""
    from harbor.models.job.config import JobConfig

    problems = context.problems
    raw = dict(document)
    raw.pop("$schema", None)
    passing = _passing(raw.pop("pass", None), problems)
    named = raw.pop("secrets", None)
    plugins = _plugins(raw.pop("plugins", None), problems)
    secrets = check_names(named if isinstance(named, list) else [], "/secrets", problems)
    if (version := raw.pop("schema_version", 1)) != 1:  # of Harbor's files since 0.25; without, it is the same
        problems.add("/schema_version", f"{version!r} is not known", "write 1, or leave it out")
    check_keys(problems, "", JobConfig, raw)
    trials = TrialExpander(context)
    if isinstance(raw.get("environment", {}), dict | str):
        raw["environment"] = trials.environment(raw.get("environment"), "/environment")
    if isinstance(raw.get("agents"), list):
        raw["agents"] = [
            trials.agent(agent, pointer("agents", index)) if isinstance(agent, dict) else agent
            for index, agent in enumerate(raw["agents"])
        ]
    verifier = raw.get("verifier")
    for section in ("verifier", "user_agent"):
        part = raw.get(section)
        if isinstance(part, dict):
            check_env(part.get("env"), pointer(section, "env"), problems)
            check_env(part.get("kwargs"), pointer(section, "kwargs"), problems)
    if isinstance(raw.get("user_agent"), dict):
        raw["user_agent"] = trials.user_agent(raw["user_agent"], "/user_agent")
    if raw.get("source_jobs"):
        problems.add("/source_jobs", "regrading is not supported here", "use harbor run for it")
    known = _local_tasks(raw, context, verify=not (isinstance(verifier, dict) and verifier.get("disable")))
    config = _validated(raw, JobConfig, problems)
    if config is None or problems:
        return None
    if context.defaults.no_network and _needs_network(config):
        problems.add("", "has to download tasks, and the network is switched off")
        return None
    # Harbor repeats every trial config; here one of each is enough, and the repeats share it.
    try:
        plan = harbor_plan(_for_planning(config))
    except UserError as error:
        problems.add("/datasets" if config.datasets else "/tasks", error.message, error.fix)
        return None
    columns, limits = _columns(plan, config, trials)
    retry = _retry(raw, config)
    tasks = [_named(task, known) for task in found_tasks(plan)]
    drafts = group_by_task(
        [(task, columns) for task in _once(tasks)],
        retry,
        Ids(BATCH_FILES),
        context,
        "/n_attempts",
        said=((passing, "table"),),
    )
    if plugins:
        drafts = [draft._replace(steps=[_with(step, plugins) for step in draft.steps]) for draft in drafts]
    return Plan(
        table_format="harbor-job",
        experiment=config.job_name if "job_name" in raw else "",
        concurrency=config.n_concurrent_trials if _says_how_many(raw) else None,
        limits=limits,
        secrets=secrets,
        jobs=finish(drafts),
        harbor_job=_portable(config),
    )


def _plugins(raw: Any, problems: Problems) -> list[dict[str, Any]]:
    """Return Harbor's job plugins, which its command line takes and its file format no longer has."""
    from harbor.cli.job_plugins import PluginConfig
    from harbor.cli.plugin_registry import resolve_plugin_import_path

    if raw is None:
        return []
    if not isinstance(raw, list):
        problems.add("/plugins", f"must be an array, not {json_type(raw)}")
        return []
    check_keys(problems, "/plugins", list[PluginConfig], raw)
    made = []
    for index, each in enumerate(raw):
        at = pointer("plugins", index)
        try:
            plugin = PluginConfig.model_validate(each)
            resolve_plugin_import_path(plugin.import_path)
        except ValidationError as error:
            problems.add_validation(at, error)
            continue
        except ValueError as error:
            problems.add(at + "/import_path", str(error).splitlines()[0])
            continue
        check_env(plugin.kwargs, at + "/kwargs", problems)
        made.append(plugin.model_dump(mode="json", exclude_defaults=True))
    return made


def _with(step: StepSpec, plugins: list[dict[str, Any]]) -> StepSpec:
    return step.model_copy(update={"spec": {**step.spec, "plugins": plugins}}) if step.kind == "trial" else step


def _says_how_many(raw: dict[str, Any]) -> bool:
    """Harbor puts its own default in where the older spelling leaves the number out."""
    return "n_concurrent_trials" in raw or "n_concurrent_trials" in _object(raw.get("orchestrator"))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _passing(raw: Any, problems: Problems) -> PassPart | None:
    """Tell what a pass is, which Harbor's own format has no word for."""
    check_keys(problems, "/pass", PassPart, raw)
    try:
        return None if raw is None else PassPart.model_validate(raw)
    except ValidationError as error:
        problems.add_validation("/pass", error)
        return None


def _for_planning(config: Any) -> Any:
    """Return the config that Harbor expands: one attempt, and no environment of ours, which Harbor would import to look at."""
    from harbor.models.trial.config import EnvironmentConfig

    changes: dict[str, Any] = {"n_attempts": 1}
    if is_sandbox(config.environment.import_path):
        changes["environment"] = EnvironmentConfig()
    return config.model_copy(update=changes, deep=True)


def _columns(plan: Any, config: Any, trials: TrialExpander) -> tuple[list[Column], dict[str, int]]:
    columns, prefixes = [], Ids()
    limits: dict[str, int] = {}
    for index, trial in enumerate(plan.trial_configs[: len(config.agents)]):
        whole = trial.model_copy(update={"environment": config.environment})
        settings: Settings = trials.described(dump_trial(whole), None, pointer("agents", index))
        agent = config.agents[index]
        for section in ("n_concurrent", "concurrency_group"):
            settings.config["agent"].pop(section, None)
        if agent.n_concurrent is not None:
            key = settings.queue_key
            limits[key] = min(agent.n_concurrent, limits.get(key, agent.n_concurrent))
        columns.append(column(settings, config.n_attempts, prefixes))
    return columns, limits


def _local_tasks(raw: dict[str, Any], context: Expansion, *, verify: bool) -> dict[str, FoundTask]:
    """Make the paths of datasets and tasks absolute, and look at the folders behind them."""
    problems = context.problems
    known: dict[str, FoundTask] = {}
    singles: list[dict[str, Any]] = []
    for section in ("datasets", "tasks"):
        entries = raw.get(section)
        if not isinstance(entries, list):
            continue
        made = []
        for index, entry in enumerate(entries):
            at = pointer(section, index)
            remote = isinstance(entry, dict) and (entry.get("git_url") or entry.get("repo"))
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or remote:
                made.append(entry)
                continue
            folder = context.bases.need(entry["path"], at + "/path", section[:-1], problems)
            if section == "datasets" and folder is not None and is_task_dir(folder):
                # Harbor's own command line takes a task folder for -p too.
                found = _dataset(folder, entry, at, problems, verify=verify)
                singles += [{"path": task.config["path"]} for task in found]
                known |= {task.config["path"]: task for task in found}
                continue
            made.append({**entry, "path": str(folder or entry["path"])})
            if folder is None:
                continue
            if section == "tasks":
                task = read_task(folder, problems, verify=verify)
                found = [task] if task else []
            else:
                found = _dataset(folder, entry, at, problems, verify=verify)
            known |= {task.config["path"]: task for task in found}
        raw[section] = made
    if singles:
        raw["tasks"] = [*(raw.get("tasks") or []), *singles]
    for key in ("extra_instruction_paths",):
        if isinstance(raw.get(key), list):
            raw[key] = [
                str(context.bases.need(text, pointer(key, index), "file", problems) or text)
                if isinstance(text, str)
                else text
                for index, text in enumerate(raw[key])
            ]
    return known


def _dataset(folder: Path, entry: dict[str, Any], at: str, problems: Problems, *, verify: bool) -> list[FoundTask]:
    names, excluded, limit = (entry.get(key) for key in ("task_names", "exclude_task_names", "n_tasks"))
    wanted = TaskFilter(
        tuple(names) if isinstance(names, list) else (),
        tuple(excluded) if isinstance(excluded, list) else (),
        limit if isinstance(limit, int) else None,
    )
    found = tasks_in(folder, at + "/path", problems, wanted, verify=verify)
    if not found and not problems:
        wanted.report_none_left(at, problems)
    return found


def _validated(raw: dict[str, Any], model: Any, problems: Problems) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            config = model.model_validate(raw)
        except ValidationError as error:
            problems.add_validation("", error)
            return None
    for warning in caught:
        problems.warn(str(warning.message))
    if not config.agents:
        problems.add("/agents", "is empty", "name an agent, such as oracle")
    if not config.datasets and not config.tasks:
        what = json_type(raw["datasets"]) if "datasets" in raw else "nothing"
        problems.add("", f"has neither datasets nor tasks ({what})", "name them, or give -p or -d")
    return config


def _needs_network(config: Any) -> bool:
    return any(not dataset.is_local() for dataset in config.datasets) or any(
        task.is_git_task() or task.is_package_task() for task in config.tasks
    )


def _retry(raw: dict[str, Any], config: Any) -> Retry:
    """Make the rule of retries; Harbor's ``max_retries`` counts the attempts after the first, and what the file leaves out stays open.

    The filters are obeyed where the file has them: those that Harbor has by itself are its table of errors, and here is another.
    """
    said = raw.get("retry", _object(raw.get("orchestrator")).get("retry"))
    policies = {
        name: _object(each).get("should_retry") for name, each in _object(raw.get("override_error_policy")).items()
    }
    never = {
        *(_object(said).get("exclude_exceptions") or ()),
        *(name for name, again in policies.items() if again is False),
    }
    only = {*(_object(said).get("include_exceptions") or ())}
    filters: dict[str, Any] = {"only": tuple(sorted(only)), "never": tuple(sorted(never))}
    if said is None:
        return LEFT_OPEN.model_copy(update=filters) if never else LEFT_OPEN
    return Retry(
        **filters,
        max_attempts=min(config.retry.max_retries + 1, 100),
        backoff_sec=min(max(config.retry.min_wait_sec, 0.0), 86_400.0),
        open=("classes",),
    )


def _named(task: FoundTask, known: dict[str, FoundTask]) -> FoundTask:
    """Return a task of Harbor's plan with the name and hash that were read from its folder, where it has one."""
    read = known.get(str(task.config.get("path")))
    return replace(read, config=task.config) if read else task


def _once(tasks: list[FoundTask]) -> list[FoundTask]:
    """Return each task once: a folder that two datasets name is one job."""
    kept: dict[str, FoundTask] = {}
    for task in tasks:
        kept.setdefault(repr(sorted(task.config.items())), task)
    return list(kept.values())


def _portable(config: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = config.model_dump(mode="json", exclude_none=True, context={"redact_sensitive_env": False})
    return dumped
