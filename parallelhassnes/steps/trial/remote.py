"""Trials in sandboxes at somebody else's: which one it is, remembered as soon as Harbor knows it, and its end where a worker died.

Harbor's environments keep their sandbox in an attribute, which they set when the provider has made it. The worker watches that attribute and writes the
record (``steps.trial_data.remote_sandboxes``) before anything else is done with the sandbox. When the environment's ``stop`` has come to its end the record goes.

Who removes a sandbox by its record makes Harbor's own environment of the same class and config, has it take hold of the sandbox by its id, and calls its ``stop``.
How a class takes hold of one is in ``_HOLDS`` for Harbor's; a class of yours says it by a method ``async def reconnect(self, sandbox_id)``.
"""

import functools
import importlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import trial_paths
from parallelhassnes.steps.trial_data import remote_sandboxes
from parallelhassnes.steps.trial_data.remote_sandboxes import RemoteSandbox

if TYPE_CHECKING:
    from harbor.trial.trial import Trial

_ATTRIBUTES = frozenset({"_sandbox", "_devbox"})
"""Of Harbor's environments: what they have when the sandbox is there."""
_IDS = ("id", "object_id", "sandbox_id", "container_id")
_HERE = frozenset({"docker", "podman", "singularity", "apple-container", "sandbox"})
"""Environments of this host, which ``leftovers`` sees to, or which end with the worker."""
_REMOVING_SEC = 150.0


# --- in the worker --------------------------------------------------------------------------------------


def watch(attempt: StepAttempt, trial: "Trial") -> None:
    """Have the trial's sandbox remembered while it is up."""
    config = dict(safe_read.mapping(attempt.step.spec.get("config")))
    name = trial_paths.environment_of(config)
    if name in _HERE:
        return
    environment, runs = trial.agent_environment, attempt.job_dir.parent.parent
    own, stop = type(environment), environment.stop

    def noticing(self: Any, attribute: str, value: Any) -> None:
        own.__setattr__(self, attribute, value)
        if attribute in _ATTRIBUTES and (sandbox_id := _id(value)):
            section = dict(safe_read.mapping(config.get("environment")))
            made = RemoteSandbox(run_id=attempt.run_id, environment=name, sandbox_id=sandbox_id, config=section)
            remote_sandboxes.note(runs, made)

    async def stopping(delete: bool) -> None:
        with _Complaints(environment.logger) as complaints:
            await stop(delete=delete)
        if delete and not complaints.told:
            remote_sandboxes.forget(runs, attempt.run_id)

    environment.__class__ = type(own.__name__, (own,), {"__setattr__": noticing, "__module__": own.__module__})
    setattr(environment, "stop", stopping)  # noqa: B010 - a method of this one object


class _Complaints(logging.Handler):
    """What Harbor's environments log in the place of raising it: that a sandbox could not be taken down."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


def _id(handle: Any) -> str | None:
    found = (getattr(handle, name, None) for name in _IDS)
    return next((each for each in found if isinstance(each, str) and each), None)


# --- after its death --------------------------------------------------------------------------------------


def sweep(attempt: StepAttempt) -> list[str]:
    """Remove the attempt's sandbox, where it has left one; a line of that."""
    runs = attempt.job_dir.parent.parent
    found = remote_sandboxes.of_attempt(runs, attempt.run_id)
    return [f"sandbox {found.text}"] if found is not None and remove(runs, found.run_id) else []


def remove(runs: Path, run_id: str) -> bool:
    """Remove a sandbox by its record, in a process of its own; whether that went well."""
    words = (sys.executable, "-m", "parallelhassnes.schedule.entry_points", "remove_sandbox", str(runs.parent), run_id)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_REMOVING_SEC, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def remove_here(runs: Path, run_id: str) -> None:
    """Remove a sandbox by its record, in this process, whose environment has the provider's key; raises what the provider's program does."""
    import asyncio  # what only reads this module has no use for it

    found = remote_sandboxes.of_attempt(runs, run_id)
    if found is not None:
        asyncio.run(_remove(found))
        remote_sandboxes.forget(runs, run_id)


async def _remove(found: RemoteSandbox) -> None:
    with tempfile.TemporaryDirectory(prefix="remove-") as folder:
        environment = _environment(found, Path(folder))
        own = getattr(environment, "reconnect", None)
        hold = own or functools.partial(_HOLDS.get(found.environment, _unknown), environment)
        try:
            await hold(found.sandbox_id)
        except Exception as error:  # each provider's program has its own
            if "notfound" in type(error).__name__.lower():
                return
            raise
        with _Complaints(environment.logger) as complaints:
            await environment.stop(delete=True)
        if complaints.told:
            raise RuntimeError(f"{found.text}: {complaints.told[0]}")


def _environment(found: RemoteSandbox, folder: Path) -> Any:
    """Make Harbor's environment of the same class and config; of the task it needs nothing but that there is a definition."""
    from harbor.environments.factory import EnvironmentFactory
    from harbor.models.task.config import EnvironmentConfig as TaskEnvironment
    from harbor.models.trial.config import EnvironmentConfig
    from harbor.models.trial.paths import TrialPaths

    definition = folder / "environment"
    definition.mkdir()
    (definition / "Dockerfile").write_text("FROM scratch\n", encoding="ascii")
    return EnvironmentFactory.create_environment_from_config(
        config=EnvironmentConfig.model_validate(found.config),
        environment_dir=definition,
        environment_name="removed",
        session_id=f"{found.run_id}__env",
        trial_paths=TrialPaths(folder / "trial"),
        task_env_config=TaskEnvironment(),
        logger=logging.getLogger("parallelhassnes.remote"),
    )


def _give(environment: Any, **attributes: Any) -> None:
    for name, value in attributes.items():
        setattr(environment, name, value)


async def _unknown(_environment: Any, sandbox_id: str) -> None:
    raise NotImplementedError(f"how to take hold of {sandbox_id} is not known; remove it at the provider's")


async def _daytona(environment: Any, sandbox_id: str) -> None:
    from harbor.environments.daytona.environment import DaytonaClientManager

    manager = await DaytonaClientManager.get_instance()
    client = await manager.get_client()
    _give(environment, _client_manager=manager, _sandbox=await client.get(sandbox_id))


async def _modal(environment: Any, sandbox_id: str) -> None:
    _give(environment, _sandbox=await importlib.import_module("modal").Sandbox.from_id.aio(sandbox_id))


async def _e2b(environment: Any, sandbox_id: str) -> None:
    _give(environment, _sandbox=await importlib.import_module("e2b").AsyncSandbox.connect(sandbox_id))


async def _runloop(environment: Any, sandbox_id: str) -> None:
    sdk = importlib.import_module("runloop_api_client").AsyncRunloopSDK
    client = sdk(bearer_token=os.environ.get("RUNLOOP_API_KEY"))
    _give(environment, _client=client, _devbox=client.devbox.from_id(sandbox_id))


_HOLDS: dict[str, Callable[[Any, str], Awaitable[None]]] = {
    "daytona": _daytona,
    "modal": _modal,
    "e2b": _e2b,
    "runloop": _runloop,
}
"""Environment type → how Harbor's class takes hold of a sandbox of its provider by its id."""
