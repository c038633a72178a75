"""What an analysis reads of its trial: the attempt's files and the task's, bounded, and by name.

A file is named relative to the attempt's folder (``trial/result.json``); the task's own files, where its
folder is on this host, are named below ``task/``. Nothing outside of these two folders can be named, and no link is
followed: an agent may have put anything there.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from parallelhassnes import walk
from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import facts

TASK = "task"
MAX_TEXT_BYTES = 4 * 1024 * 1024
MAX_FILES = 2000
MAX_COMMANDS = 5000


class AgentAction(NamedTuple):
    """Something that the agent did."""

    step: int
    """Number of the trajectory's step, from 1."""
    text: str
    """The tool's arguments in one line, or what was typed."""


@dataclass(frozen=True)
class TrialFiles:
    """One ended attempt of a trial."""

    attempt_dir: Path
    step: StepSpec

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """``final.json``."""
        return safe_read.read_object(self.attempt_dir / "final.json") or {}

    @cached_property
    def trial(self) -> Mapping[str, Any]:
        """The ``trial`` part of the report."""
        return safe_read.mapping(self.report.get("trial"))

    @cached_property
    def result(self) -> Mapping[str, Any]:
        """Harbor's ``result.json``."""
        return safe_read.read_object(self.attempt_dir / "trial" / "result.json") or {}

    @property
    def status(self) -> str:
        return safe_read.text(self.report.get("status")) or "lost"

    @cached_property
    def facts(self) -> facts.AttemptFacts:
        """How the attempt stands."""
        return facts.of_report(self.report.get("status"), self.report, self.step)

    @property
    def failure_class(self) -> str | None:
        """Why the attempt did not succeed; None where it succeeded."""
        return safe_read.text(safe_read.mapping(self.report.get("failure")).get("class"))

    @property
    def agent(self) -> str | None:
        return facts.agent_of(self.step) or self.facts.agent

    @property
    def task_dir(self) -> Path | None:
        """The task's folder, where it is on this host."""
        config = safe_read.mapping(self.step.spec.get("config"))
        path = safe_read.mapping(config.get("task")).get("path")
        return Path(path) if isinstance(path, str) and Path(path).is_dir() else None

    # --- files ------------------------------------------------------------------------------------------

    def path(self, name: str) -> Path | None:
        """Tell where the file of that name is; None where there is none, or the file is not the trial's."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            return None
        base: Path | None = self.attempt_dir
        if parts[0] == TASK:
            base, parts = self.task_dir, parts[1:]
        if base is None:
            return None
        path = base
        for part in parts:
            path = path / part
            if path.is_symlink():
                return None
        return path if path.is_file() or (base == self.attempt_dir and walk.kind(path) == "file") else None

    def text(self, name: str, limit: int = MAX_TEXT_BYTES, *, end: bool = False) -> str | None:
        """Return the first (or last) ``limit`` bytes of a file as text; None where there is no such file."""
        path = self.path(name)
        data = None if path is None else safe_read.read_bytes(path, limit, end=end)
        return None if data is None else data.decode("utf-8", "replace")

    @cached_property
    def names(self) -> list[str]:
        """Files of the trial, then of its task; of either the first ``MAX_FILES``."""
        found = [*islice(_below(self.attempt_dir, ""), MAX_FILES)]
        if self.task_dir is not None:
            found += islice(_below(self.task_dir, f"{TASK}/"), MAX_FILES)
        return found

    def _each(self, suffix: str) -> list[str]:
        """Return the files called so of the trial, or of each step of a multi-step one in the order of the result."""
        steps = [
            safe_read.text(safe_read.mapping(each).get("step_name"))
            for each in safe_read.sequence(self.result.get("step_results"))
        ]
        names = [f"trial/{suffix}", *(f"trial/steps/{step}/{suffix}" for step in steps if step)]
        return [name for name in names if self.path(name) is not None]

    @cached_property
    def verifier_outputs(self) -> list[str]:
        return self._each("verifier/test-stdout.txt")

    @cached_property
    def trajectories(self) -> list[str]:
        return self._each("agent/trajectory.json")

    @cached_property
    def instructions(self) -> list[str]:
        return self._task_files("instruction.md")

    @cached_property
    def tests(self) -> list[str]:
        return [name for name in self.names if name.startswith("task/") and "/tests/" in name]

    @cached_property
    def solutions(self) -> list[str]:
        return [name for name in self.names if name.startswith("task/") and "/solution/" in name]

    @cached_property
    def environment(self) -> list[str]:
        return [name for name in self.names if name.startswith("task/environment/")]

    def _task_files(self, ending: str) -> list[str]:
        return [n for n in self.names if n.startswith("task/") and n.endswith(f"/{ending}")]

    # --- what the agent did -------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> list[Mapping[str, Any]]:
        """The steps of all trajectories (ATIF), in order."""
        found: list[Mapping[str, Any]] = []
        for name in self.trajectories:
            path = self.path(name)
            document = safe_read.read_object(path) if path else None
            found += [safe_read.mapping(s) for s in safe_read.sequence((document or {}).get("steps"))]
        return found

    @cached_property
    def commands(self) -> list[AgentAction]:
        """What the agent did, in order: every tool call but the one that says that it is done."""
        found: list[AgentAction] = []
        for number, step in enumerate(self.steps, 1):
            for call in safe_read.sequence(step.get("tool_calls")):
                one = safe_read.mapping(call)
                name = str(one.get("function_name") or "")
                if name == "mark_task_complete":
                    continue
                arguments = safe_read.mapping(one.get("arguments"))
                said = arguments.get("keystrokes") or arguments.get("command") or arguments.get("cmd")
                text = said if isinstance(said, str) else f"{name} {json.dumps(arguments)}"
                if text.strip():
                    found.append(AgentAction(number, text))
        return found[:MAX_COMMANDS]

    def lines_with(self, name: str, *words: str) -> Iterator[tuple[int, str]]:
        """Yield (number, line) of the file's lines that hold all the words."""
        for number, line in enumerate((self.text(name) or "").splitlines(), 1):
            if all(word in line for word in words):
                yield number, line


def _below(folder: Path, prefix: str) -> Iterator[str]:
    """Yield regular files below a folder; nothing behind links."""
    for path, _ in walk.files(folder):
        yield f"{prefix}{path}"
