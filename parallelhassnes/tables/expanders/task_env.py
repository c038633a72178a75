"""What tasks take from this host's environment: ``${NAME}`` in the ``env`` of ``[environment]``, ``[verifier]`` and ``[solution]``.

Harbor looks such a variable up when the part starts, the verifier's after the agent has run. A worker has only the variables
that a table or the configuration names, so a task that takes another one could never be scored: it is refused before anything
is spent on it. Unlike what the table itself takes, it is not passed on unasked: a task may be a stranger's, and name any key.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from parallelhassnes.config import PASSED_IF_SET
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.tables.parse.secret_check import templates

type SectionEnvs = dict[str, dict[str, str]]
"""Section of ``task.toml`` → its ``env``; of all steps of a multi-step task together."""


class Taken(NamedTuple):
    """One variable that a trial of the plan takes."""

    task: str
    """Its folder."""
    section: str
    variable: str


def envs_of(config: Any) -> SectionEnvs:
    """Return the sections of Harbor's task config that take something from outside."""
    found: list[tuple[str, dict[str, str]]] = [
        ("environment", config.environment.env),
        ("verifier", config.verifier.env),
        ("solution", config.solution.env),
    ]
    found += [("verifier", step.verifier.env) for step in config.steps or ()]
    envs: SectionEnvs = {}
    for section, env in found:
        if templates(env):
            envs.setdefault(section, {}).update(env)
    return envs


def taken(task: str, envs: SectionEnvs, trial: Mapping[str, Any]) -> list[Taken]:
    """Tell what a trial of the task takes; ``trial`` is Harbor's TrialConfig in JSON mode, whose own ``env`` comes first."""
    found = []
    for section, env in envs.items():
        said = trial.get(section) or {}
        if section == "solution" and trial["agent"].get("name") != "oracle":
            continue
        if section == "verifier" and said.get("disable"):
            continue
        own = said.get("env") or {}
        left = {name: value for name, value in env.items() if name not in own}
        found += [Taken(task, section, variable) for variable in templates(left) if variable not in PASSED_IF_SET]
    return found


def check_taken(found: Mapping[Taken, None], passed: set[str], problems: Problems) -> list[str]:
    """Return the variables that the tasks need and that are passed on; one that is not is a problem, however many take it."""
    missing: dict[tuple[str, str], list[str]] = {}
    for each in found:
        if each.variable not in passed:
            missing.setdefault((each.section, each.variable), []).append(each.task)
    for (section, variable), tasks in missing.items():
        more = f" (so does that of {len(tasks) - 1} more tasks)" if len(tasks) > 1 else ""
        problems.add(
            "",
            f"[{section}.env] takes {variable} from the environment, and it is not passed on{more}",
            f"name it in secrets: of the table, with --secret {variable}, or in parallelhassnes.toml",
            where=f"{tasks[0]}/task.toml",
        )
    return [each.variable for each in found if each.variable in passed]
