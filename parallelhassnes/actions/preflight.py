"""What a plan needs from outside, and what of it is not there: told before anything is queued.

One line per variable, however many trials need it. What cannot work is refused: a Compose file that takes a variable that
no attempt is given, a key that no client can send, and of a ``run``, which begins at once, an agent that is given no key at all. What may
come later is a warning: a named variable without a value here, for which the steps wait; a key that the configuration may still name.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parallelhassnes.config import PASSED_IF_SET
from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.errors import InvalidInput, Problem
from parallelhassnes.execute.secret_forms import is_key, looks_secret, why_no_key
from parallelhassnes.plan import Plan, StepSpec
from parallelhassnes.schedule import ephemeral_secrets
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.tables.expanders import agent_keys, compose_env

ENGINE_PROVIDERS = {"api": "openai", "claude": "anthropic", "codex": "openai"}
"""Engine of an analysis → the provider whose key it would use."""
OF_WORKERS = frozenset(
    {
        "TMPDIR",
        "PARALLELHASSNES_RUN_ID",
        "PARALLELHASSNES_BATCH_ID",
        "PARALLELHASSNES_JOB_ID",
        "PARALLELHASSNES_STEP_ID",
        "PARALLELHASSNES_ATTEMPT_DIR",
    }
)
"""Variables that every worker is given (``attempt_process.environment``)."""
_SHOWN = 3
_VARIABLE = re.compile(r"\$\{(\w+)")


class _Needs:
    """Variable → who needs it, each once, in the order of the plan."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, ...], dict[str, None]] = {}

    def add(self, names: tuple[str, ...], who: str) -> None:
        self.found.setdefault(names, {})[who] = None

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for names, who in self.found.items():
            shown = list(who)[:_SHOWN]
            more = f" and {len(who) - len(shown)} more" if len(who) > len(shown) else ""
            yield names, f"{', '.join(shown)}{more}"


def check(ctx: Context, plan: Plan, name: str, *, here: bool = False) -> list[str]:
    """Say what the plan needs and what is not there.

    Args:
        name: the table's, for messages.
        here: it is to run at once.

    Returns:
        The warnings, a line per variable.

    Raises:
        InvalidInput: what cannot work as it stands.
    """
    found = _Look(ctx, plan)
    for step in (step for job in plan.jobs for step in job.steps):
        found.at(step)
    keyless = list(found.without_keys())
    refused = [*found.without_models(), *found.problems(), *found.wrong_keys(), *(keyless if here else ())]
    if refused:
        raise InvalidInput([Problem(name, "", message, fix) for message, fix in refused])
    told = [f"{message}; {fix}" for message, fix in keyless]
    return [*told, *found.warnings(), *(() if told else _forgotten(ctx, plan))]


class _Look:
    """One look through a plan."""

    def __init__(self, ctx: Context, plan: Plan) -> None:
        self.named = frozenset((*ctx.config.secrets, *plan.secrets))
        self.plan = plan
        try:
            self.known = ctx.secrets()
            self.place = f"the environment or {ctx.config.env_file}" if ctx.config.env_file else "the environment"
        except BadEnvFile:  # said where the values are needed
            self.known = {**os.environ}
            self.place = f"the environment, and {ctx.config.env_file} cannot be read"
        self.keyless, self.unsure = _Needs(), _Needs()
        self.compose, self.files, self.wanted = _Needs(), _Needs(), _Needs()
        self.modelless: dict[str, None] = {}
        self.keys = dict.fromkeys(name for name in plan.secrets if is_key(name))
        """Variables whose values somebody is given as a key."""
        self._agents: dict[tuple[int, frozenset[str]], None] = {}
        self._folders: dict[tuple[str, frozenset[str]], None] = {}

    def at(self, step: StepSpec) -> None:
        """Take in what one step needs."""
        if step.kind == "analysis" and (key := step.spec.get("key_name")) in self.named:
            self.keys[str(key)] = None
        if step.kind != "trial":
            return
        config = mapping(step.spec.get("config"))
        environment, agent = mapping(config.get("environment")), mapping(config.get("agent"))
        passed = frozenset((*self.named, *step.env))
        # Thousands of trials share one agent and one task.
        if (id(agent), passed) not in self._agents:
            self._agents[id(agent), passed] = None
            self._at_agent(agent, passed, step.env)
        path = mapping(config.get("task")).get("path")
        docker = not environment.get("import_path") and environment.get("type") in (None, "docker")
        if path and docker:
            given = passed.union(mapping(environment.get("env")))
            extra = tuple(map(str, environment.get("extra_docker_compose") or ()))
            if (str((path, extra)), given) not in self._folders:
                self._folders[str((path, extra)), given] = None
                self._at_compose(Path(path), [Path(each) for each in extra], given)

    def _at_agent(self, agent: Mapping[str, Any], passed: frozenset[str], env: Mapping[str, str]) -> None:
        if (
            agent.get("name") in agent_keys.NEED_A_MODEL
            and not agent.get("model_name")
            and not agent.get("import_path")
        ):
            self.modelless[str(agent["name"])] = None
            return
        keys = agent_keys.looked_for(agent)
        if keys is None:
            return
        given = passed.union(mapping(agent.get("env")))
        if passed_on := [each for each in keys.names if each in given]:
            for each in filter(is_key, passed_on):
                text = mapping(agent.get("env")).get(each, env.get(each))
                taken = _VARIABLE.findall(text) if isinstance(text, str) else [each]
                self.keys |= dict.fromkeys(taken)
            return
        model = agent.get("model_name")
        who = f"{agent['name']} with {model}" if model else str(agent["name"])
        others = any(looks_secret(each) or agent_keys.points_elsewhere(each) for each in given)
        (self.keyless if keys.certain and not others else self.unsure).add(keys.names, who)

    def _at_compose(self, folder: Path, extra: list[Path], given: frozenset[str]) -> None:
        place = folder / "environment"
        own = given | _of_task(folder) | compose_env.beside(place)
        own |= {*PASSED_IF_SET, *OF_WORKERS, *compose_env.OF_HARBOR, *compose_env.OF_COMPOSE}
        for path in (place / "docker-compose.yaml", *extra):
            found = compose_env.read(path, place)
            if found is None:
                continue
            for missing in found.missing_files:
                self.files.add((missing,), str(path))
            for used in found.used:
                if not used.needed or own.intersection(used.unless):
                    continue
                if used.name not in own:
                    self.compose.add((used.name,), str(path))
                elif used.name in self.named:
                    self.wanted.add((used.name,), str(path))

    def without_models(self) -> Iterator[tuple[str, str]]:
        """Yield the agents that do nothing without a model and are given none, with what to do."""
        for name in self.modelless:
            yield f"{name} is given no model, and needs one", "name it in model_name, or add -m openai/gpt-5.2"

    def without_keys(self) -> Iterator[tuple[str, str]]:
        """Yield the agents that are given no key, with what to do."""
        for names, who in self.keyless:
            here = next((each for each in names if self.known.get(each)), None)
            set_here = f"{here} is set but not passed on" if here else f"{' or '.join(names)} is not passed on"
            yield f"{who} is given no key: {set_here}", _naming(here or names[0])

    def problems(self) -> Iterator[tuple[str, str]]:
        """Tell what cannot work, with what to do."""
        for (variable,), who in self.compose:
            here = " is set but not passed on" if self.known.get(variable) else " is not passed on"
            yield (
                f"{who} takes {variable}, which{here}",
                f"{_naming(variable)}, or write ${{{variable}:-}} there if it may be empty",
            )
        for (file,), who in self.files:
            yield (f"{who} names the env_file {file}, which is not there", "make it, or say required: false")

    def wrong_keys(self) -> Iterator[tuple[str, str]]:
        """Yield the keys that are set here and that no client can send, with what to do; never a character of them."""
        for name in self.keys:
            if why := why_no_key(self.known.get(name) or ""):
                yield f"{name} can be no key: {why}", f"write it anew in {self.place}"

    def warnings(self) -> Iterator[str]:
        """Tell what is not here and may come."""
        for names, who in self.unsure:
            yield f"{who} looks for {' or '.join(names)}, and none is passed on; if that is how it logs in: {_naming(names[0])}"
        users = {variable: who for (variable,), who in self.wanted}
        for variable in dict.fromkeys((*self.plan.secrets, *users)):
            if not self.known.get(variable) and not variable.startswith(ephemeral_secrets.PREFIX):
                who = f" ({users[variable]} takes it)" if variable in users else ""
                yield f"{variable} is not set in {self.place}{who}; steps wait until it is"


def _naming(variable: str) -> str:
    return f"name it in secrets, or add --secret {variable}"


def _of_task(folder: Path) -> frozenset[str]:
    """Return the variables that ``[environment.env]`` of a task gives to Compose."""
    import tomllib

    try:
        document = tomllib.loads((folder / "task.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # said where the task is read
        return frozenset()
    return frozenset(map(str, mapping(mapping(document.get("environment")).get("env"))))


def _forgotten(ctx: Context, plan: Plan) -> list[str]:
    """Return one line per provider key that is set here, that a model or an analysis of the plan would use, and that nobody passes on."""
    steps = [step for job in plan.jobs for step in job.steps]
    providers = {step.queue_key.partition("/")[0] for step in steps if "/" in step.queue_key}
    providers |= {
        ENGINE_PROVIDERS[engine]
        for step in steps
        if step.kind == "analysis"
        and (engine := step.spec.get("engine")) in ENGINE_PROVIDERS
        and not step.spec.get("key_name")
    }
    named = {*plan.secrets, *ctx.config.secrets}
    lines: dict[str, None] = {}
    for provider in sorted(providers):
        names = agent_keys.provider_keys(provider)
        if (here := next((each for each in names if os.environ.get(each)), None)) is None:
            continue
        if not named.intersection(names):
            lines[f"{here} is set but not passed on; {_naming(here)}"] = None
    return list(lines)
