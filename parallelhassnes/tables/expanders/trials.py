"""Trials: from the Harbor sections of a table to the Harbor ``TrialConfig`` that will run.

Harbor's models ignore unknown keys, so keys are compared first; then Harbor itself validates, once per
distinct set of settings, and the result is shared by all repeats and tasks.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from parallelhassnes.plan import SANDBOX
from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.expanders.tasks import FoundTask, is_task_dir, read_task
from parallelhassnes.tables.parse.field_names import check_keys
from parallelhassnes.tables.parse.located_errors import json_type, pointer
from parallelhassnes.tables.parse.secret_check import check_env, templates

SANDBOX_OPTIONS = frozenset({"unsupported", "engine", "network", "verification"})
_IDENTITY = {"trial_name", "trials_dir", "job_id"}
WITHOUT_MODEL = frozenset({"oracle", "nop"})
_NO_MODEL = frozenset({"", "-", "none", "null", "nil", "n/a", "na", "default"})


class Settings(NamedTuple):
    """A trial without its task, validated."""

    config: dict[str, Any]
    """Harbor's TrialConfig in JSON mode without task and identity; shared, so never changed."""
    agent: str
    model: str | None
    queue_key: str
    label: str


class TrialExpander:
    """Makes trials for one table."""

    def __init__(self, context: Expansion) -> None:
        self.context = context
        self._settings: dict[str, Settings | None] = {}
        self._tasks: dict[Path, FoundTask | None] = {}
        self._named: dict[str, FoundTask] = {}
        self.remote: dict[str, dict[str, Any]] = {}
        """Tasks that have to be downloaded before a trial starts, by their JSON."""

    def settings(
        self, raw: Mapping[str, Any], places: Mapping[str, str], queue_key: str | None = None
    ) -> Settings | None:
        """Return ``raw`` holds Harbor's TrialConfig without ``task``; ``places`` the pointer of each of its keys.

        None where something was wrong with it; that was reported.
        """
        raw = {key: value for key, value in raw.items() if value is not None}
        known = json.dumps([raw, queue_key], sort_keys=True)
        if self._settings.get(known) is None:
            if known in self._settings and len(self.context.problems.found) > 1000:
                return None
            self._settings[known] = self._make(raw, places, queue_key)
        return self._settings[known]

    def _make(self, raw: dict[str, Any], places: Mapping[str, str], queue_key: str | None) -> Settings | None:
        from harbor.models.trial.config import TrialConfig

        problems = self.context.problems
        before = len(problems.found)
        raw["environment"] = self.environment(raw.get("environment"), places.get("environment", "/environment"))
        raw["agent"] = self.agent(raw.get("agent"), places.get("agent", "/agent"))
        for section, place in places.items():
            if section not in ("environment", "agent") and section in raw:
                check_keys(problems, place, TrialConfig.model_fields[section].annotation, raw[section])
                self._look_into(raw[section], place)
        if isinstance(raw.get("user_agent"), dict):
            raw["user_agent"] = self.user_agent(raw["user_agent"], places.get("user_agent", "/user_agent"))
        self._absolute(raw, "extra_instruction_paths", places)
        if len(problems.found) > before:
            return None
        config = self._validate({**raw, "task": {"path": "/"}}, places)
        if config is None:
            return None
        return self.described(config, queue_key, places.get("queue_key", ""))

    def described(self, config: dict[str, Any], queue_key: str | None, at: str) -> Settings:
        """Return key and label of a TrialConfig in JSON mode, whose ``task`` is dropped."""
        config.pop("task", None)
        agent = config["agent"]
        name = agent.get("name") or str(agent.get("import_path")).rsplit(":", 1)[-1]
        model = agent.get("model_name")
        for section in ("agent", "environment", "verifier"):
            for variable in templates(config.get(section, {}).get("env")):
                self.context.used_variables[variable] = None
        if queue_key:
            key = self.context.key(queue_key, at)
        else:
            key = self.context.key(model, at) if model else self.context.agent_key(name)
        return Settings(config, name, model, key, f"{name} · {model}" if model else name)

    def _validate(self, raw: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any] | None:
        from harbor.models.trial.config import TrialConfig

        problems = self.context.problems
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                config = TrialConfig.model_validate(raw)
            except ValidationError as error:
                for item in error.errors(include_url=False, include_context=False):
                    section = str(item["loc"][0]) if item["loc"] else ""
                    place = places.get(section, next(iter(places.values()), ""))
                    problems.add(place + pointer(*item["loc"][1:]), _plain(str(item["msg"]), item.get("input")))
                return None
        for warning in caught:
            problems.warn(str(warning.message))
        return dump_trial(config)

    def agent(self, raw: Any, at: str) -> dict[str, Any]:
        """Return an agent by name, or Harbor's AgentConfig, checked."""
        from harbor.models.agent.name import AgentName
        from harbor.models.trial.config import AgentConfig

        problems = self.context.problems
        agent: dict[str, Any] = {"name": raw} if isinstance(raw, str) else dict(raw or {})
        check_keys(problems, at, AgentConfig, agent)
        self._look_into(agent, at)
        if not agent.get("name") and not agent.get("import_path"):
            problems.add(at, "names no agent", "give its name, such as oracle, or its import_path")
        name = agent.get("name")
        if isinstance(name, str) and not agent.get("import_path") and name not in AgentName.values():
            problems.unknown_value(at if isinstance(raw, str) else at + "/name", "agent", name, AgentName.values())
        model = agent.get("model_name")
        if isinstance(model, str) and (model.strip().lower() in _NO_MODEL or agent.get("name") in WITHOUT_MODEL):
            agent.pop("model_name")
        self._absolute(agent, "skills", {"skills": at + "/skills"}, optional=True)
        self._file(agent, "load_trajectory", at)
        return agent

    def user_agent(self, raw: Mapping[str, Any], at: str) -> dict[str, Any]:
        """Return Harbor's UserAgentConfig with the files that it names by their absolute paths."""
        agent = dict(raw)
        self._absolute(agent, "skills", {"skills": at + "/skills"}, optional=True)
        for key in ("user_persona_path", "user_prompt_template_path", "load_trajectory"):
            self._file(agent, key, at)
        if isinstance(agent.get("bridge"), dict):
            agent["bridge"] = dict(agent["bridge"])
            self._file(agent["bridge"], "prompt_path", at + "/bridge")
            if isinstance(agent["bridge"].get("kwargs"), dict):
                agent["bridge"]["kwargs"] = dict(agent["bridge"]["kwargs"])
                self._file(agent["bridge"]["kwargs"], "acpx_config_path", at + "/bridge/kwargs")
        return agent

    def environment(self, raw: Any, at: str) -> dict[str, Any]:
        """Return an environment by type, or Harbor's EnvironmentConfig, checked; ``sandbox`` becomes its import path."""
        from harbor.models.environment_type import EnvironmentType
        from harbor.models.trial.config import EnvironmentConfig

        problems = self.context.problems
        if raw is None:
            raw = self.context.defaults.environment
        environment: dict[str, Any] = {"type": raw} if isinstance(raw, str) else dict(raw)
        place = at if isinstance(raw, str) else at + "/type"
        if environment.get("type") is None and not environment.get("import_path"):
            environment["type"] = self.context.defaults.environment
        kind = environment.get("type")
        if isinstance(kind, str) and ":" in kind:
            environment["import_path"] = environment.pop("type")
        also: frozenset[str] = frozenset()
        if kind == "sandbox":
            del environment["type"]
            environment["import_path"] = SANDBOX
            also = SANDBOX_OPTIONS
        check_keys(problems, at, EnvironmentConfig, environment, also=also)
        if kind == "sandbox":
            options = {key: environment.pop(key) for key in also & environment.keys()}
            for key, value in options.items():
                if not isinstance(value, str):
                    problems.add(at + pointer(key), f"must be a string, not {json_type(value)}")
            if options:
                environment["kwargs"] = {**(environment.get("kwargs") or {}), **options}
        types = {member.value for member in EnvironmentType}
        if "type" in environment and isinstance(kind, str) and kind not in types:
            problems.unknown_value(place, "environment", kind, types | {"sandbox"})
        self._look_into(environment, at)
        compose = {"extra_docker_compose": at + "/extra_docker_compose"}
        self._absolute(environment, "extra_docker_compose", compose)
        return environment

    def task(self, raw: Mapping[str, Any], at: str, *, verify: bool = True) -> FoundTask | None:
        """Return a step's task: a folder, checked; or one to be downloaded, as it stands."""
        known = json.dumps([raw, verify], sort_keys=True)
        if known not in self._named:
            found = self._find(raw, at, verify=verify)
            if found is None:
                return None
            self._named[known] = found
        return self._named[known]

    def _find(self, raw: Mapping[str, Any], at: str, *, verify: bool) -> FoundTask | None:
        from harbor.models.trial.config import TaskConfig

        problems = self.context.problems
        before = len(problems.found)
        check_keys(problems, at, TaskConfig, dict(raw))
        try:
            task = TaskConfig.model_validate(dict(raw))
            if task.is_git_task() or task.is_package_task():
                task.get_task_id()
        except ValidationError as error:
            problems.add_validation(at, error)
        except ValueError as error:
            problems.add(at, f"is no task: {error}", "a package is written org/name")
        if len(problems.found) > before:
            return None
        if task.is_git_task() or task.is_package_task():
            return self._remote(task, at)
        folder = self.context.bases.need(str(task.path), at + "/path", "task", problems)
        if folder is None:
            return None
        if folder not in self._tasks:
            if folder.is_dir() and is_task_dir(folder):
                self._tasks[folder] = read_task(folder, problems, verify=verify)
            else:
                problems.add(at + "/path", f"{folder} is not a task folder", "name one, or use a sweep")
                self._tasks[folder] = None
        found = self._tasks[folder]
        if found and task.source:
            return replace(found, config={**found.config, "source": task.source})
        return found

    def _remote(self, task: Any, at: str) -> FoundTask | None:
        if self.context.defaults.no_network:
            self.context.problems.add(at, "has to be downloaded, and the network is switched off")
            return None
        config = task.model_dump(mode="json", exclude_defaults=True)
        self.remote[json.dumps(config, sort_keys=True)] = config
        return FoundTask(task.get_task_id().get_name(), config)

    def _look_into(self, section: Any, at: str) -> None:
        if isinstance(section, dict):
            for name in ("env", "kwargs"):
                check_env(section.get(name), at + pointer(name), self.context.problems)

    def _file(self, section: dict[str, Any], key: str, at: str) -> None:
        """Make the path of a file absolute, which is looked for when the trial starts, elsewhere."""
        if isinstance(section.get(key), str):
            found = self.context.bases.need(section[key], at + pointer(key), "file", self.context.problems)
            section[key] = str(found) if found else section[key]

    def _absolute(
        self, section: dict[str, Any], key: str, places: Mapping[str, str], *, optional: bool = False
    ) -> None:
        """Make the paths of a list absolute; ``optional`` leaves those that are no file (an ``org/name`` of skills)."""
        value = section.get(key)
        if not isinstance(value, list):
            return
        made = []
        for index, text in enumerate(value):
            found = self.context.bases.find(text) if isinstance(text, str) else None
            if found is None and not optional and isinstance(text, str):
                place = places.get(key, "") + pointer(index)
                self.context.bases.need(text, place, "file", self.context.problems)
            made.append(str(found) if found else text)
        section[key] = made


def dump_trial(config: Any) -> dict[str, Any]:
    """Return a Harbor TrialConfig in JSON mode, without what names one attempt and without Harbor's defaults.

    100,000 trials are written into the store, so a kilobyte of defaults in each would be too much.

    Harbor blots out values under names such as ``AUTHOR`` when it writes; the table's check has refused real
    secrets already, so the values are put back and the trial gets what the table says.
    """
    options: dict[str, Any] = {"mode": "json", "exclude_defaults": True, "context": {"redact_sensitive_env": False}}
    dumped: dict[str, Any] = config.model_dump(exclude=_IDENTITY, **options)
    # An agent that is Harbor's default would be left out whole; it is named always.
    dumped["agent"] = config.agent.model_dump(**options)
    dumped["environment"] = config.environment.model_dump(**options)
    for section in ("agent", "environment", "verifier", "user_agent"):
        model = getattr(config, section, None)
        if model is not None and model.env:
            dumped[section]["env"] = dict(model.env)
    return dumped


def trial_spec(
    settings: Settings,
    task: FoundTask,
    repeat: int,
    pass_rule: dict[str, Any] | None = None,
    *,
    keep: Sequence[bool | None] = (),
) -> dict[str, Any]:
    """Return the content of ``plan.TrialSpec``; made by hand, because a model would copy the shared settings.

    Args:
        keep: what is said of keeping the workspace, the nearest first.
    """
    spec = {
        "config": {"task": task.config, **settings.config},
        "task_name": task.name,
        "task_checksum": task.checksum,
        "repeat": repeat,
    }
    if next((said for said in keep if said is not None), False):
        spec["keep_workspace"] = True
    return spec if pass_rule is None else {**spec, "pass_rule": pass_rule}


def _plain(message: str, value: object) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    text = text.splitlines()[0].rstrip(".")
    text = text[0].lower() + text[1:]
    return f"{text}, not {json_type(value)}" if text.startswith("must be a valid") else text
