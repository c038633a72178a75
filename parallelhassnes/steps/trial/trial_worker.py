"""The work of a trial: one Harbor trial through Harbor's Python API, in a process of its own.

The first SIGTERM or SIGINT cancels the trial, which makes Harbor collect what there is, take the
environment down and write a full ``result.json``; later ones are ignored, because they would break
that. Nothing is printed: a failure outside of Harbor's own record goes to ``worker_error.json``.

Harbor runs ``docker compose exec -e NAME=VALUE``, and every user of the host may read a process's arguments. Compose takes the
value from its own environment where there is only a name, so the arguments get the names and the process the values. What
Docker's programs read themselves stays as it is: the container's ``PATH`` must not become theirs.
"""

import asyncio
import contextlib
import functools
import inspect
import os
import re
import signal
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.failures import Phase
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import (
    capped_agent,
    environment_end,
    image,
    job_plugins,
    leftovers,
    preload,
    remote,
    tampering,
    task,
    trial_paths,
    workspace,
)
from parallelhassnes.steps.trial_data import reward_file
from parallelhassnes.store import atomic

if TYPE_CHECKING:
    from harbor.models.trial.config import TrialConfig
    from harbor.trial.hooks import TrialHookEvent
    from harbor.trial.trial import Trial


EXIT_CANCELED = 128 + signal.SIGTERM
EXIT_ERROR = 1


def work(attempt: StepAttempt) -> int:
    """Run the trial to its end; 0 if Harbor wrote a result by itself, 143 if it was canceled, else 1."""
    preload.set_harbor_environment(os.environ)
    tmp = trial_paths.tmp_dir(attempt)
    tmp.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = str(tmp)
    # The process that forked us may have asked before, and the answer is kept.
    tempfile.tempdir = None
    progress = PhaseNote(trial_paths.phase_file(attempt))
    progress.enter("create")
    try:
        return asyncio.run(run(attempt, progress))
    except asyncio.CancelledError as error:
        _record_error(attempt, error, progress.phase)
        return EXIT_CANCELED
    except Exception as error:  # noqa: BLE001 - the border of the process: whatever it is goes on record
        _record_error(attempt, error, progress.phase)
        return EXIT_ERROR


class PhaseNote:
    """The phase that the trial is in, in memory and in a small file that is replaced at each change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.phase: Phase = "create"

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        with contextlib.suppress(OSError):  # a full disk must not end a trial that could still end well
            atomic.write_text(self._file, phase, durable=False)

    def follow(self, trial: "Trial") -> None:
        """Have Harbor's hooks report each phase."""
        from harbor.trial.hooks import TrialEvent

        phases: dict[TrialEvent, Phase] = {
            TrialEvent.START: "environment_setup",
            TrialEvent.AGENT_START: "agent",
            TrialEvent.VERIFICATION_START: "verifier",
        }
        for event, phase in phases.items():

            async def enter(_event: "TrialHookEvent", phase: Phase = phase) -> None:
                self.enter(phase)

            trial.add_hook(event, enter)


async def run(attempt: StepAttempt, progress: PhaseNote) -> int:
    """Run the trial in this event loop; the exit code."""
    from harbor.trial.trial import Trial

    reward_file.guard_harbor()
    mount_logs()
    canceled = _cancel_on_signal()
    config = _trial_config(attempt)
    compose = list(config.environment.extra_docker_compose)
    if _is_docker(config) and task.takes_overlay(attempt.step.spec["config"]):
        tag = await image.provide(attempt)
        overlay = task.write_overlay(attempt, trial_paths.tmp_dir(attempt), tag)
        config.environment.extra_docker_compose = [*compose, overlay]
    if _is_docker(config):
        from harbor.environments.docker.docker import DockerEnvironment

        keep_values_out(DockerEnvironment)
        await asyncio.to_thread(image.note_data_root, attempt.job_dir.parent.parent)
    trial = await Trial.create(config)
    # The environment exists by now. What Harbor records from here on is what the table asked for,
    # without our overlay and our link, so that the record can be replayed and compared.
    config.environment.extra_docker_compose = compose
    config.trials_dir = attempt.dir
    progress.follow(trial)
    tampering.arrange(trial, attempt.dir)
    remote.watch(attempt, trial)
    environment_end.Watched.watch(attempt, trial)
    capped_agent.arrange(trial, attempt)
    workspace.arrange(trial, attempt)
    plugins = job_plugins.Plugins(trial, attempt)
    try:
        await plugins.start(attempt.step.spec.get("plugins") or ())
        await trial.run()
        await plugins.end()
    except asyncio.CancelledError:
        if not canceled.is_set():
            raise
        await _environments_down()
        return EXIT_CANCELED
    finally:
        plugins.clear()
    if canceled.is_set():
        await _environments_down()
    return 0


def _trial_config(attempt: StepAttempt) -> "TrialConfig":
    """Return the Harbor config of this attempt; makes its fresh directory and the link of the trial's name."""
    from harbor.models.trial.config import TrialConfig

    spec = trial_paths.spec_of(attempt)
    name = trial_paths.trial_name(attempt)
    links = trial_paths.tmp_dir(attempt)
    config = TrialConfig.model_validate({**spec.config, "trial_name": name, "trials_dir": links})
    # A directory that is there already may hold an old reward, which Harbor would take for a new one.
    trial_paths.trial_dir(attempt).mkdir()
    (links / name).symlink_to(Path("..") / trial_paths.TRIAL_DIR)
    return config


def _is_docker(config: "TrialConfig") -> bool:
    from harbor.models.environment_type import EnvironmentType

    environment = config.environment
    return environment.import_path is None and environment.type is EnvironmentType.DOCKER


def _cancel_on_signal() -> asyncio.Event:
    """Cancel the current task at the first signal; returns the event that says so."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    canceled = asyncio.Event()

    def cancel() -> None:
        if not canceled.is_set() and task is not None:
            canceled.set()
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, cancel)
    return canceled


async def _environments_down() -> None:
    """Wait for environments that are still stopping.

    Harbor shields ``stop`` from a cancel and then no longer waits for it; the end of the event loop
    would cut it off and leave the container.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    stops = [task for task in others if _name(task).endswith(".stop")]
    if stops:
        await asyncio.wait(stops)


def _name(task: "asyncio.Task[object]") -> str:
    return str(getattr(task.get_coro(), "__qualname__", ""))


def _record_error(attempt: StepAttempt, error: BaseException, phase: Phase) -> None:
    """Write ``worker_error.json``, by rename; what cannot be written is left to the exit code."""
    message = str(error)
    if isinstance(error, ValidationError):
        # Its own text quotes the input, which may hold a secret.
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        message = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
    record = {
        "class": type(error).__name__,
        "message": safe_read.text(message, 4000),
        "phase": phase,
        "traceback": safe_read.text("".join(traceback.format_tb(error.__traceback__)), 20_000),
    }
    with contextlib.suppress(OSError):
        atomic.write_json(trial_paths.error_file(attempt), record, durable=False)


def mount_logs() -> None:
    """Have Harbor bind the logs of its containers to the trial's folder, in this process, unless a table says otherwise.

    Harbor up to 0.24 bound them by itself. Since then it brings them when a phase has ended, so that nobody sees the log of a live trial, and
    a trial that is killed has none.
    """
    from harbor.environments.base import BaseEnvironment
    from harbor.environments.factory import EnvironmentFactory

    make = EnvironmentFactory.create_environment_from_config
    if "auto_mounting" not in inspect.signature(BaseEnvironment.__init__).parameters or hasattr(make, "__wrapped__"):
        return

    @functools.wraps(make)
    def mounted(config: Any, *args: Any, **kwargs: Any) -> Any:
        kind = None if config.import_path or config.type is None else config.type.value
        if kind in leftovers.PROGRAMS and "auto_mounting" not in config.kwargs:
            kwargs["auto_mounting"] = True
        return make(config, *args, **kwargs)

    EnvironmentFactory.create_environment_from_config = mounted  # type: ignore[method-assign] # Harbor offers no other place


_DOCKERS_OWN = re.compile(
    r"(?:PATH|HOME|USER|PWD|TMPDIR|SHELL|TERM|LANG|(?:LD|LC|DOCKER|COMPOSE|BUILDKIT|BUILDX|XDG|SSH|GO|OTEL)_.*"
    r"|GODEBUG|GOMAXPROCS|SSL_CERT_(?:FILE|DIR))"
)
_values: ContextVar[dict[str, str]] = ContextVar("values")


def split(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return a Compose command with the names alone, and the values that go with them; only ``exec`` has any."""
    if command[:1] != ["exec"]:
        return command, {}
    made, values, at = [command[0]], {}, 1
    while at + 1 < len(command) and command[at] in ("-e", "-w", "-u"):
        option, value = command[at], command[at + 1]
        name, sign, rest = value.partition("=")
        if option == "-e" and sign and not _DOCKERS_OWN.fullmatch(name):
            value, values[name] = name, rest
        made += [option, value]
        at += 2
    return [*made, *command[at:]], values


def keep_values_out(environment: type[Any]) -> None:
    """Have Harbor's Docker environment pass values by the environment, in this process."""
    if hasattr(environment, "_keeps_values_out"):
        return
    environment._keeps_values_out = True  # noqa: SLF001 - Harbor offers no other place
    run: Callable[..., Awaitable[Any]] = environment._run_docker_compose_command  # noqa: SLF001
    variables: Callable[..., dict[str, str]] = environment._compose_env_vars  # noqa: SLF001

    @functools.wraps(run)
    async def run_by_names(self: Any, command: list[str], *args: Any, **kwargs: Any) -> Any:
        command, values = split(command)
        token = _values.set(values)
        try:
            return await run(self, command, *args, **kwargs)
        finally:
            _values.reset(token)

    @functools.wraps(variables)
    def with_values(self: Any, *args: Any, **kwargs: Any) -> dict[str, str]:
        return {**variables(self, *args, **kwargs), **_values.get({})}

    environment._run_docker_compose_command = run_by_names  # noqa: SLF001
    environment._compose_env_vars = with_values  # noqa: SLF001
