"""What every part of an expansion needs at hand."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.key_names import agent_key, normalise_queue_key
from parallelhassnes.plan import LEFT_OPEN, Enough, Resources, Retry, StepSpec, merged_classes
from parallelhassnes.tables.expanders.task_env import Taken, taken
from parallelhassnes.tables.expanders.tasks import FoundTask
from parallelhassnes.tables.model import EnoughPart, ResourcesPart, RetryPart
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.tables.parse.table_paths import Bases


@dataclass(frozen=True)
class TableDefaults:
    """What the configuration says where a table says nothing."""

    environment: str = "docker"
    """Harbor environment type of a trial that names none, or ``sandbox``."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Model name, queue key or pattern → the queue key to use instead."""
    secrets: tuple[str, ...] = ()
    """Variables that are passed to every step where they are set."""
    max_steps: int = 1_000_000
    """Steps that a table may unfold to."""
    no_network: bool = False
    """Refuse tasks and datasets that would have to be downloaded."""


class Draft(NamedTuple):
    """A job on its way to a JobSpec."""

    job_id: str
    labels: dict[str, str]
    steps: list[StepSpec]
    at: str
    """Its pointer in the table; empty where it was made, not written."""
    indices: tuple[int, ...] = ()
    """Where each step stands under ``steps``; those that could not be made are not among them."""
    enough: Enough | None = None


def too_many(steps: int, most: int, at: str) -> tuple[str, str, str]:
    """Return the problem of a table that unfolds to so many steps: where, what, and what to do."""
    what = f"unfolds to {steps:,} steps, and {most:,} may be"
    return at, what, "ask for fewer, in several tables, or raise max_steps in parallelhassnes.toml"


def rule(part: EnoughPart | None) -> Enough | None:
    """Return the table's ``enough`` as the plan has it."""
    return None if part is None else Enough.model_validate(part.model_dump())


def asked_of_cluster(part: ResourcesPart | None) -> Resources | None:
    """Return a step's ``resources`` as the plan has them."""
    return None if part is None else Resources.model_validate(part.model_dump())


@dataclass
class Expansion:
    """One expansion."""

    problems: Problems
    bases: Bases
    defaults: TableDefaults
    forgiving: bool = False
    """Earlier ParallelHassnes tables: a missing folder is a warning, because they name folders of other machines."""
    used_variables: dict[str, None] = field(default_factory=dict)
    """Variables that ``${NAME}`` templates take from outside, in order of appearance."""
    taken: dict[Taken, None] = field(default_factory=dict)
    """Variables that the tasks themselves take."""

    steps: int = 0
    """What has been unfolded so far, or is about to be."""

    def room_for(self, steps: int, at: str) -> bool:
        """Count these steps before they are made; False where that is more than a table may unfold to, which is reported."""
        before, self.steps = self.steps, self.steps + steps
        if self.steps <= self.defaults.max_steps:
            return True
        if before <= self.defaults.max_steps:
            self.problems.add(*too_many(self.steps, self.defaults.max_steps, at))
        return False

    def key(self, text: str, at: str) -> str:
        """Return a queue key of the table, normalised."""
        try:
            return normalise_queue_key(text, self.defaults.aliases)
        except UserError as error:
            self.problems.add(at, error.message, error.fix)
            return "invalid"

    def validated[T: BaseModel](self, model: type[T], raw: Any, at: str) -> T | None:
        """Tell what stands at a pointer as a model; None, with problems, where it is not one."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.problems.add_validation(at, error)
            return None

    def known_part(self, raw: Any, known: Collection[str], at: str) -> Any:
        """Return the keys of an object that are known; any other is a problem."""
        if not isinstance(raw, dict):
            return raw
        for key in raw.keys() - known:
            self.problems.unknown_key(at, key, known)
        return {key: value for key, value in raw.items() if key in known}

    def take(self, task: FoundTask, trial: Mapping[str, Any], env: Collection[str] = ()) -> None:
        """Note what the task of a trial takes from outside, beyond ``env``, which the step has of its own."""
        if task.envs:
            found = taken(str(task.config["path"]), task.envs, trial)
            self.taken |= {each: None for each in found if each.variable not in env}

    def agent_key(self, name: str) -> str:
        return normalise_queue_key(agent_key(name), self.defaults.aliases)

    def retry(self, *parts: RetryPart | None) -> Retry:
        """Return the first that says anything, value by value; what none says is left open to the configuration."""
        attempts = [part.max_attempts for part in parts if part and part.max_attempts is not None]
        backoffs = [part.backoff_sec for part in parts if part and part.backoff_sec is not None]
        classes = [part.classes for part in parts if part and part.classes is not None]
        statuses = [part.retry_on_statuses for part in parts if part and part.retry_on_statuses is not None]
        said: dict[str, Any] = {}
        if attempts:
            said["max_attempts"] = attempts[0]
        if backoffs:
            said["backoff_sec"] = backoffs[0]
        if statuses:
            said["on_statuses"] = tuple(statuses[0])
        if not said and not classes:
            return LEFT_OPEN
        left = tuple(name for name in LEFT_OPEN.open if name not in said)
        return Retry(**said, classes=merged_classes(*reversed(classes)), open=left)
