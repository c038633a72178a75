"""Harbor task folders, looked at by ourselves: Harbor skips a broken one without a word.

A folder is a task if it holds ``task.toml``, or most of what a task holds without one.
"""

import re
import tomllib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parallelhassnes.tables.expanders.task_env import SectionEnvs, envs_of
from parallelhassnes.tables.model import PassPart
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.tables.parse.table_paths import is_text

_SIGNS = ("instruction.md", "environment", "tests", "solution", "task.yaml")
"""``task.yaml`` is what Terminal-Bench 1 has."""


@dataclass(frozen=True)
class FoundTask:
    """A task that trials can be made of."""

    name: str
    """Harbor's name of it: ``[task] name``, else the folder's."""
    config: dict[str, Any] = field(hash=False)
    """Harbor's TaskConfig: ``path`` and ``source``, or what a download needs."""
    checksum: str = ""
    """Harbor's content hash; empty where nothing is on this disk."""
    envs: SectionEnvs = field(default_factory=dict, hash=False)
    """What it takes from outside."""
    passing: PassPart | None = None
    """What it says of passing: ``[metadata.parallelhassnes.pass]``."""


def is_task_dir(folder: Path) -> bool:
    if (folder / "task.toml").exists():
        return True
    return sum((folder / sign).exists() for sign in _SIGNS) >= 2


def tasks_in(
    folder: Path, at: str, problems: Problems, wanted: "TaskFilter | None" = None, *, verify: bool = True
) -> list[FoundTask]:
    """Return the task that ``folder`` is, or the tasks that it holds, in order of their names.

    Every broken one is a problem that names file and line, and so is a folder without a task.

    Args:
        wanted: which of them are taken; that it leaves none is the caller's to report.
    """
    if not folder.is_dir():
        problems.add(at, f"{folder} is not a folder", "name a task folder or a folder of tasks")
        return []
    if is_task_dir(folder):
        if wanted and not wanted.choose([folder]):
            return []
        found = read_task(folder, problems, verify=verify)
        return [found] if found else []
    children = sorted(
        child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir() and is_task_dir(child)
    )
    if not children:
        problems.add(at, f"{folder} holds no task", "a task folder has task.toml, instruction.md, environment/, tests/")
        return []
    kept = wanted.choose(children) if wanted else children
    tasks = [read_task(child, problems, source=folder.name, verify=verify) for child in kept]
    return [task for task in tasks if task]


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks are taken, by Harbor's rules: globs over the names of their folders, then the first n."""

    names: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    limit: int | None = None
    seen: list[str] = field(default_factory=list, compare=False)
    """The names that were there to choose from."""

    def takes(self, name: str) -> bool:
        """Tell whether a task of that name is meant; the limit aside."""
        self.seen.append(name)
        named = not self.names or any(fnmatchcase(name, glob) for glob in self.names)
        return named and not any(fnmatchcase(name, glob) for glob in self.excluded)

    def choose(self, folders: list[Path]) -> list[Path]:
        """Return those of the task folders that are meant."""
        return [folder for folder in folders if self.takes(folder.name)][: self.limit]

    def report_none_left(self, at: str, problems: Problems) -> None:
        """Say why no task is left; nothing where there was none to choose from, which is reported elsewhere.

        Args:
            at: pointer to the object that has ``task_names`` and ``exclude_task_names``.
        """
        if not self.seen or not (self.names or self.excluded):
            return
        there = ", ".join(sorted(set(self.seen))[:5])
        if not any(fnmatchcase(name, glob) for name in self.seen for glob in self.names or ("*",)):
            message = f"no task is named {' or '.join(self.names)}"
            problems.add(at + "/task_names", message, f"there are for example {there}")
        else:
            problems.add(
                at + "/exclude_task_names",
                f"every task is excluded by {' and '.join(self.excluded)}",
                f"change exclude_task_names (-x); there are for example {there}",
            )


def read_task(  # noqa: C901 - a message for each way in which a task can be broken
    folder: Path, problems: Problems, *, source: str | None = None, verify: bool = True
) -> FoundTask | None:
    """Return one task, read and checked as Harbor will at its start; None where a problem was reported."""
    from harbor.models.task.task import Task
    from harbor.publisher.packager import Packager

    toml = folder / "task.toml"
    if not is_text(folder):
        problems.add("", "its path is not UTF-8", "rename it", where=str(folder))
        return None
    if not toml.is_file():
        fix = "add it"
        if (folder / "task.yaml").is_file():
            fix = "it is a task of Terminal-Bench 1: harbor tasks migrate makes a Harbor task of it"
        problems.add("", "is missing, though its folder looks like a task", fix, where=str(toml))
        return None
    if not (folder / "environment").is_dir():
        problems.add("", "has no environment/ folder", "add one with a Dockerfile", where=str(folder))
        return None
    try:
        text = toml.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.add("", f"cannot be read: {error}", "save it as UTF-8", where=str(toml))
        return None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task = Task(folder, disable_verification=not verify)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"line {line[1]}" if line else f"line {text.count(chr(10)) + 1}"
        problems.add(place, f"is not TOML: {error}", where=str(toml))
        return None
    except ValidationError as error:
        for item in error.errors(include_url=False)[:20]:
            loc = [str(part) for part in item["loc"]]
            message = f"{'.'.join(loc)}: {item['msg']}" if loc else item["msg"]
            problems.add(_toml_line(text, loc), message, where=str(toml))
        return None
    except UnicodeDecodeError as error:
        which = _not_utf8(folder)
        problems.add("", f"is not UTF-8: {error}", "save it as UTF-8", where=str(which))
        return None
    except (OSError, ValueError, RuntimeError) as error:
        problems.add("", str(error).splitlines()[0], "see Harbor's task format", where=str(folder))
        return None
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            problems.warn(f"{toml}: {str(warning.message).splitlines()[0]}")
    for overlap in _overlaps(task):
        problems.warn(f"{toml}: {overlap}")
    digest, _ = Packager.compute_content_hash(folder)
    config: dict[str, Any] = {"path": str(folder)}
    if source:
        config["source"] = source
    try:
        passing = _passing(task.config.metadata)
    except ValidationError:
        place = _toml_line(text, ["metadata", "parallelhassnes", "pass"])
        problems.add(
            place,
            "metadata.parallelhassnes.pass is no rule",
            'write reward = "NAME", at_least = 0.5 or both',
            where=str(toml),
        )
        return None
    return FoundTask(task.name, config, f"sha256:{digest}", envs_of(task.config), passing)


def _overlaps(task: Any) -> list[str]:
    """Tell what Harbor says of artifacts that would lie in one place, where it does not warn of them itself, as up to 0.24."""
    from harbor.models.task import artifacts

    if not hasattr(artifacts, "ArtifactCollision"):
        return []
    where = artifacts.convention_source_for_os(task.config.environment.os)
    entries = [task.config.artifacts, *([*task.config.artifacts, *step.artifacts] for step in task.config.steps or ())]
    validate: Callable[..., Iterable[Any]] = getattr(artifacts, "validate_artifact_entries")  # noqa: B009 - returned nothing
    found = (validate(each, convention_source=where) for each in entries)
    return list(dict.fromkeys(collision.describe() for each in found for collision in each))


def _passing(metadata: Any) -> PassPart | None:
    ours = metadata.get("parallelhassnes") if isinstance(metadata, dict) else None
    found = ours.get("pass") if isinstance(ours, dict) else None
    if isinstance(found, dict) and isinstance(found.get("at_least"), int):
        found = {**found, "at_least": float(found["at_least"])}
    return None if found is None else PassPart.model_validate(found)


def _not_utf8(folder: Path) -> Path:
    """Return the instruction that Harbor could not decode."""
    for path in (folder / "instruction.md", *sorted(folder.glob("steps/*/instruction.md"))):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return path
        except OSError:
            continue
    return folder


def _toml_line(text: str, loc: list[str]) -> str:
    """Return the line of a key in a TOML text, as near as can be told without a parser that keeps lines."""
    for name in reversed(loc):
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(rf"\s*(?:\[+[^\]]*\b{re.escape(name)}\s*\]|{re.escape(name)}\s*=)", line):
                return f"line {number}"
    return ""
