"""Whether a trial's container or sandbox died under it, asked of its engine while it can be asked.

Harbor sees such a death only as commands that fail: an agent that ends badly, a verifier that leaves no reward. Whose
fault that was only the engine knows, and after Harbor has taken the environment down nobody knows. So the worker asks just
before that, and only of a trial that has no reward or has an exception. What died is told in ``environment_end.json`` of
the attempt, written by rename; a container or sandbox that lives leaves none. A process that was killed inside of
one that lives on is the task's or the agent's own affair.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import leftovers, trial_paths
from parallelhassnes.store import atomic

if TYPE_CHECKING:
    from harbor.trial.trial import Trial


FILE = "environment_end.json"


class Watched:
    """Harbor's environment's own ``stop``, with a look at the environment before it.

    Harbor calls it once, shielded from cancels; the worker knows a stop that still runs by this method's name.
    """

    def __init__(self, attempt: StepAttempt, trial: "Trial") -> None:
        self._attempt, self._trial = attempt, trial
        self._environment = trial.agent_environment
        self._stop = self._environment.stop

    @classmethod
    def watch(cls, attempt: StepAttempt, trial: "Trial") -> None:
        """Have the trial's environment looked at before it is taken down."""
        setattr(trial.agent_environment, "stop", cls(attempt, trial).stop)  # noqa: B010 - a method of this one object

    async def stop(self, delete: bool) -> None:
        try:
            await self._look()
        finally:  # whatever became of the look, nothing is left behind
            await self._stop(delete=delete)

    async def _look(self) -> None:
        result = self._trial.result
        verified = result.verifier_result is not None and result.verifier_result.rewards
        broken = [step for step in result.step_results or [] if step.exception_info is not None]
        if result.agent_setup and (result.exception_info or broken or not verified):
            import asyncio  # a worker has it, a supervisor that reads this module does not

            line = await asyncio.to_thread(self._death)
            if line is not None:
                with contextlib.suppress(OSError):
                    atomic.write_json(self._attempt.dir / FILE, {"line": line}, durable=False)

    def _death(self) -> str | None:
        own = getattr(self._environment, "death", None)
        if own is not None:
            return safe_read.text(own())
        config = self._attempt.step.spec.get("config")
        program = leftovers.PROGRAMS.get(trial_paths.environment_of(dict(safe_read.mapping(config))))
        if program is None:
            return None
        prefix = leftovers.project_prefix(trial_paths.trial_name(self._attempt))
        return of_container(program, f"{prefix}env")


def read(attempt: StepAttempt) -> str | None:
    """Tell how the attempt's container or sandbox died; None where nobody saw that."""
    found = safe_read.read_object(attempt.dir / FILE, 65_536) or {}
    return safe_read.text(found.get("line"), 500)


def of_container(program: str, project: str) -> str | None:
    """Tell how a Compose project's main container ended, in a line; None where it runs, or where that cannot be told."""
    label = f"label={leftovers.PROJECT_LABEL}={project}"
    shown = leftovers.engine(program, "ps", "--all", "--no-trunc", "--filter", label, "--format", "{{.ID}}\t{{.Names}}")
    if shown is None:
        away = leftovers.engine_trouble(os.environ) if program == "docker" else None
        return f"the container's engine went away under the trial: {away}" if away else None
    rows = [line.split("\t") for line in shown.splitlines() if "\t" in line]
    main = next((row[0] for row in rows if "main" in row[1].removeprefix(project)), None)
    if main is None:
        return "the container is gone: somebody removed it under the trial"
    told = leftovers.engine(program, "inspect", "--format", "{{json .State}}", main)
    try:
        state = safe_read.mapping(json.loads(told or ""))
    except (ValueError, RecursionError):
        return None
    if state.get("Running") is not False or state.get("Restarting"):
        return None
    if state.get("ExitCode") == 0 and state.get("OOMKilled") is not True:
        return None  # its own program ended, as the task has it
    return _told(state)


def _told(state: Mapping[str, Any]) -> str:
    code = safe_read.whole(state.get("ExitCode"))
    how = f"it ended with exit code {code}" if code is not None else "it ended"
    if state.get("OOMKilled") is True:
        how += ", out of memory"
    elif code == 137:
        how += ", killed"
    more = safe_read.first_line(safe_read.text(state.get("Error")) or "")
    return f"the container died under the trial: {how}{f' ({more})' if more else ''}"
