"""What ``run`` is asked on its command line, as a launch table: so that what ran can be read and run again.

``table_for`` makes one from options alone; ``merged`` puts options into a table that was given with
``-c``, in that table's own format.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.plan import CAPS
from parallelhassnes.tables.expanders.passing import of_option
from parallelhassnes.tables.expanders.tasks import TaskFilter
from parallelhassnes.tables.formats.foreign_formats import recognise
from parallelhassnes.tables.parse.located_errors import Problems

_WITHOUT_MODEL = frozenset({"oracle", "nop"})


@dataclass(frozen=True)
class RunRequest:
    """The options of ``run``; what is empty or None was not given."""

    paths: tuple[str, ...] = ()
    """Task folders or folders of tasks: ``PATH…``, ``-p``."""
    dataset: str | None = None
    """``name@version`` or ``org/name@ref``."""
    agents: tuple[str, ...] = ()
    """Names, or ``module:Class``."""
    models: tuple[str, ...] = ()
    """Each agent runs with each model; ``oracle`` and ``nop`` run once, without."""
    n_trials: int | None = None
    n_valid: int | None = None
    """Scored trials per task and agent, instead of ``n_trials``."""
    environment: str | None = None
    environment_kwargs: Mapping[str, Any] = field(default_factory=dict)
    verifier_env: Mapping[str, str] = field(default_factory=dict)
    task_names: tuple[str, ...] = ()
    exclude_task_names: tuple[str, ...] = ()
    n_tasks: int | None = None
    priority: int | None = None
    experiment: str | None = None
    concurrency: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    agent_env: Mapping[str, str] = field(default_factory=dict)
    agent_kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout_multiplier: float | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    max_turns: int | None = None
    max_wall_sec: float | None = None
    keep_workspace: bool = False
    max_attempts: int | None = None
    analyses: tuple[str, ...] = ()
    """Engines that analyse each trial: ``rules``, or ``ENGINE:MODEL``."""
    baseline_gate: bool = False
    passing: str | None = None
    """What a pass is: ``NAME``, ``NAME>=X`` or ``>=X``."""


def value_of(text: str) -> object:
    """Return what somebody has typed as the value of an argument: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def pairs_of(texts: Iterable[str], what: str, example: str) -> dict[str, str]:
    """Return texts ``NAME=VALUE`` as somebody has typed them.

    Args:
        what: they are, for the message: ``--ae``.
        example: what to write.

    Raises:
        UserError: one is not of that form.
    """
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UserError(f"{what} {text}: is not NAME=VALUE", fix=f"write {example}")
        found[name] = value
    return found


def limits_of(texts: Iterable[str], what: str, example: str) -> dict[str, int]:
    """Return texts ``KEY=N`` as somebody has typed them; as ``pairs_of``."""
    found = {}
    for text in texts:
        key, sign, number = text.rpartition("=")
        if not sign or not key or not number.isdecimal() or len(number) > 7 or int(number) < 1:
            raise UserError(f"{what} {text}: is not KEY=N", fix=f"write {example}")
        found[key] = int(number)
    return found


def table_for(request: RunRequest) -> dict[str, Any]:
    """Return the launch table, in our own shape, that a command line without ``-c`` amounts to.

    Raises UserError where no task is named.
    """
    if not request.paths and not request.dataset:
        raise UserError("no task was named", fix="give a path, -d DATASET or -c FILE")
    _check_models(request)
    document: dict[str, Any] = {"spec_version": "2.0"}
    _above(document, request)
    sweep: dict[str, Any] = {}
    _into_sweep(sweep, request)
    sweep.setdefault("agents", _agents(("oracle",), request, "name"))
    document["sweep"] = sweep
    return document


def merged(document: Any, request: RunRequest, name: str) -> dict[str, Any]:
    """Return a copy of a table of any format with the options put in; an option counts more than the file.

    Raises InvalidInput where the document is no table, UserError where an option has no place in its format.
    """
    problems = Problems(name)
    shape = recognise(document, problems)
    if shape is None:
        raise InvalidInput(problems.found)
    _check_models(request)
    made = dict(document)
    if shape == "oddish-sweep":
        _into_sweep(made, request)
        if not _has_above(request):
            return made
        # An Oddish file has no place for these, ours has.
        made = {"spec_version": "2.0", "sweep": made}
        _above(made, request)
        return made
    if shape == "harbor-job":
        _into_harbor(made, request)
        return made
    sweeping = _sweep_options(request)
    if sweeping and "sweep" not in made:
        raise UserError(f"{name} has no sweep that {sweeping} could change", fix="leave it out")
    if "sweep" in made and isinstance(made["sweep"], dict):
        made["sweep"] = dict(made["sweep"])
        _into_sweep(made["sweep"], request)
    _above(made, request)
    if request.passing is not None and isinstance(made.get("jobs"), list):
        made["pass"] = of_option(request.passing)
        made["jobs"] = [_without_pass(job) for job in made["jobs"]]
    return made


def _without_pass(job: Any) -> Any:
    """Return the job without what its steps say of passing, since an option counts more."""
    if not isinstance(job, dict) or not isinstance(job.get("steps"), list):
        return job
    steps = [
        {key: value for key, value in step.items() if key != "pass"} if isinstance(step, dict) else step
        for step in job["steps"]
    ]
    return {**job, "steps": steps}


def _check_models(request: RunRequest) -> None:
    """Refuse a model that no agent would run with.

    Raises:
        UserError: no agent is named beside it, or only such as take none.
    """
    if not request.models or any(name not in _WITHOUT_MODEL for name in request.agents):
        return
    model = request.models[0]
    if request.agents:
        which = " and ".join(request.agents)
        raise UserError(
            f"-m {model}: {which} {'take' if len(request.agents) > 1 else 'takes'} no model",
            fix=f"leave -m out, or name an agent that takes one: -a terminus-2 -m {model}",
        )
    raise UserError(
        f"-m {model}: no agent is named that would use it", fix=f"name one, for example -a terminus-2 -m {model}"
    )


def _into_sweep(sweep: dict[str, Any], request: RunRequest) -> None:
    if request.paths:
        sweep["path"] = request.paths[0] if len(request.paths) == 1 else list(request.paths)
        sweep.pop("dataset", None)
    if request.dataset:
        sweep["dataset"] = request.dataset
        if not request.paths:
            sweep.pop("path", None)
    for name in ("task_names", "exclude_task_names"):
        if getattr(request, name):
            sweep[name] = list(getattr(request, name))
    for name in ("n_tasks", "environment"):
        if getattr(request, name) is not None:
            sweep[name] = getattr(request, name)
    if request.environment_kwargs:
        said = sweep.get("environment")
        sweep["environment"] = _with_kwargs({"type": said} if isinstance(said, str) else said, request)
    if request.timeout_multiplier is not None:
        sweep["harbor"] = {**sweep.get("harbor", {}), "timeout_multiplier": request.timeout_multiplier}
    if request.verifier_env:
        harbor = sweep.get("harbor", {})
        sweep["harbor"] = {**harbor, "verifier": _with_env(harbor.get("verifier"), request)}
    if request.passing is not None:
        sweep["pass"] = of_option(request.passing)
    if request.agents:
        sweep["agents"] = _agents(request.agents, request, "name")
    elif isinstance(sweep.get("agents"), list):
        sweep["agents"] = [_changed(agent, request) for agent in sweep["agents"]]


def _agents(names: tuple[str, ...], request: RunRequest, key: str) -> list[dict[str, Any]]:
    made = []
    for name in names:
        named = {"import_path": name} if ":" in name else {key: name}
        models = () if name in _WITHOUT_MODEL else request.models
        for model in models or (None,):
            agent: dict[str, Any] = dict(named)
            if model:
                agent["model_name"] = model
            made.append(_changed(agent, request))
    return made


def _changed(agent: Any, request: RunRequest) -> Any:
    if not isinstance(agent, dict):
        return agent
    made = dict(agent)
    if request.n_trials is not None:
        made["n_trials"] = request.n_trials
        made.pop("n_valid", None)
        made.pop("max_extra", None)
    if request.n_valid is not None:
        made["n_valid"] = request.n_valid
        made.pop("n_trials", None)
    if request.agent_env:
        made["env"] = {**made.get("env", {}), **request.agent_env}
    if request.agent_kwargs:
        made["kwargs"] = {**made.get("kwargs", {}), **request.agent_kwargs}
    return made


def _into_harbor(made: dict[str, Any], request: RunRequest) -> None:
    """As Harbor's own command line does it: a path is a dataset or a task by what lies there, agents replace agents."""
    _sources_of_harbor(made, request)
    if request.agents:
        made["agents"] = [
            {key: value for key, value in agent.items() if key not in ("n_trials", "n_valid")}
            for agent in _agents(request.agents, request, "name")
        ]
    elif isinstance(made.get("agents"), list):
        own = replace(request, n_trials=None, n_valid=None)  # those of a job are its n_attempts
        made["agents"] = [_changed(agent, own) for agent in made["agents"]]
    if request.n_trials is not None:
        made["n_attempts"] = request.n_trials
    _environment_of_harbor(made, request)
    if request.secrets:
        made["secrets"] = [*made.get("secrets", []), *request.secrets]
    if request.concurrency is not None:
        made["n_concurrent_trials"] = request.concurrency
    if request.timeout_multiplier is not None:
        made["timeout_multiplier"] = request.timeout_multiplier
    if request.experiment is not None:
        made["job_name"] = request.experiment
    if request.passing is not None:
        made["pass"] = of_option(request.passing)
    if request.max_attempts is not None:
        made["retry"] = {**_object(made.get("retry")), "max_retries": request.max_attempts - 1}
    for option in ("limits", "priority", "n_valid", "analyses", "baseline_gate", "keep_workspace", *CAPS):
        if getattr(request, option):
            raise UserError(f"a Harbor job config has no place for {option}", fix="set it in parallelhassnes.toml")


def _environment_of_harbor(made: dict[str, Any], request: RunRequest) -> None:
    if request.environment is not None:
        made["environment"] = {**_object(made.get("environment")), "type": request.environment}
        made["environment"].pop("import_path", None)
    if request.environment_kwargs:
        made["environment"] = _with_kwargs(made.get("environment"), request)
    if request.verifier_env:
        made["verifier"] = _with_env(made.get("verifier"), request)


def _with_kwargs(environment: Any, request: RunRequest) -> dict[str, Any]:
    made = _object(environment)
    return {**made, "kwargs": {**_object(made.get("kwargs")), **request.environment_kwargs}}


def _with_env(verifier: Any, request: RunRequest) -> dict[str, Any]:
    made = _object(verifier)
    return {**made, "env": {**_object(made.get("env")), **request.verifier_env}}


def _sources_of_harbor(made: dict[str, Any], request: RunRequest) -> None:
    filters = {
        name: list(value) if isinstance(value, tuple) else value
        for name in ("task_names", "exclude_task_names", "n_tasks")
        if (value := getattr(request, name))
    }
    sources: list[dict[str, Any]] = [{"path": path} for path in request.paths]
    if request.dataset:
        name, _, version = request.dataset.partition("@")
        source = {"name": name}
        if version:
            source["ref" if "/" in name else "version"] = version
        sources.append(source)
    if sources:
        made.pop("tasks", None)
        made["datasets"] = sources
    if filters and isinstance(made.get("datasets"), list):
        made["datasets"] = [{**each, **filters} for each in made["datasets"]]
    if filters and isinstance(made.get("tasks"), list):
        made["tasks"] = _chosen(made["tasks"], request)
        if not made["tasks"] and not made.get("datasets"):
            raise UserError("-t and -x leave none of the file's tasks", fix="change or drop them")


def _chosen(tasks: list[Any], request: RunRequest) -> list[Any]:
    """Return the tasks of a Harbor job that the options leave, by the last part of their path or name."""
    wanted = TaskFilter(request.task_names, request.exclude_task_names)
    kept = [
        task
        for task in tasks
        if not isinstance(task, dict) or wanted.takes(PurePath(str(task.get("path") or task.get("name") or "")).name)
    ]
    return kept[: request.n_tasks]


def _object(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _has_above(request: RunRequest) -> bool:
    above: dict[str, Any] = {}
    _above(above, request)
    return bool(above)


def _above(document: dict[str, Any], request: RunRequest) -> None:
    for name in ("priority", "experiment", "concurrency"):
        if getattr(request, name) is not None:
            document[name] = getattr(request, name)
    document.update({name: value for name in CAPS if (value := getattr(request, name)) is not None})
    if request.analyses:
        document["analysis"] = [_analysis(text) for text in request.analyses]
    for name in ("baseline_gate", "keep_workspace"):
        if getattr(request, name):
            document[name] = True
    if request.limits:
        document["limits"] = {**document.get("limits", {}), **request.limits}
    if request.secrets:
        document["secrets"] = [*document.get("secrets", []), *request.secrets]
    if request.max_attempts is not None:
        document["retry"] = {**document.get("retry", {}), "max_attempts": request.max_attempts}


def _analysis(text: str) -> str | dict[str, Any]:
    engine, _, model = text.partition(":")
    return {"engine": engine, "model": model} if model else engine


def _sweep_options(request: RunRequest) -> str:
    given = {
        "a path": request.paths,
        "-d": request.dataset,
        "-a": request.agents,
        "-m": request.models,
        "-k": request.n_trials,
        "--n-valid": request.n_valid,
        "-e": request.environment,
        "--ek": request.environment_kwargs,
        "--ve": request.verifier_env,
        "-t": request.task_names,
        "-x": request.exclude_task_names,
        "-l": request.n_tasks,
        "--ae": request.agent_env,
        "--ak": request.agent_kwargs,
        "--timeout-multiplier": request.timeout_multiplier,
    }
    return ", ".join(name for name, value in given.items() if value)
