"""What is between a trial's agent, its verifier and this host, as far as it has to be arranged around Harbor's trial.

The sandbox does most by itself (``sandbox/verification.py``, ``sandbox/network.py``). In every other environment agent and verifier
share one place, as Harbor has it, unless the task gives the verifier an environment of its own; ``/logs/verifier`` is then at
least empty when verification starts: a reward that an agent has left is not taken for the verifier's. What an agent's processes
do to it later is looked for (``tampering.py``).
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.steps.trial import task
from parallelhassnes.steps.trial.tampering import Witness

if TYPE_CHECKING:
    from harbor.trial.hooks import TrialHookEvent
    from harbor.trial.trial import Trial

SEPARATE = "separate environment"
SHARED = "verifier shared with agent"


def arrange(trial: "Trial", attempt_dir: Path) -> None:
    """Before a trial runs. Raises SandboxBuildFailedError where its agent needs a network that there will not be."""
    from harbor.environments.base import SandboxBuildFailedError

    from parallelhassnes.sandbox.environment import SandboxEnvironment
    from parallelhassnes.sandbox.network import local_ports

    environment = trial.agent_environment
    if not isinstance(environment, SandboxEnvironment):
        _watch_verification(trial, attempt_dir)
        return
    if trial.config.verifier.import_path:  # whatever it does, it may not begin by bringing tests
        environment.share_verification()
    if _runs_inside(trial.agent):
        agent = trial.config.agent
        if why := environment.no_network_for(agent.name or agent.import_path or "?"):
            raise SandboxBuildFailedError(why)
        environment.host_ports += local_ports(_values([agent.env, agent.kwargs]))


def kept_apart(config: dict[str, Any], sandbox: Mapping[str, Any] | None, suspected: str | None) -> str:
    """How the verifier was kept from the agent, for the report, with what is ``suspected``."""
    if sandbox is not None and isinstance(said := sandbox.get("verification"), str):
        return said
    verifier = mapping(task.task_toml(config).get("verifier"))
    apart = verifier.get("environment_mode") == "separate" or verifier.get("environment")
    said = SEPARATE if apart else SHARED
    return f"{said}; {suspected}" if suspected else said


def _runs_inside(agent: object) -> bool:
    """Whether an agent is a program of the environment; by name, because importing Harbor's class takes as long as a trial."""
    return any(base.__name__ == "BaseInstalledAgent" for base in type(agent).__mro__)


def _values(given: object) -> Iterator[object]:
    if isinstance(given, list | tuple):
        for value in given:
            yield from _values(value)
    elif isinstance(given, dict):
        yield from _values(list(mapping(given).values()))
    else:
        yield given


def _watch_verification(trial: "Trial", attempt_dir: Path) -> None:
    from harbor.models.task.config import TaskOS
    from harbor.models.trial.paths import EnvironmentPaths
    from harbor.trial.hooks import TrialEvent

    environment = trial.agent_environment
    # Of an environment whose code is not Harbor's nobody knows what it makes of files and whose processes it shows.
    is_known = trial.config.environment.import_path is None and environment.os is TaskOS.LINUX
    witness = Witness(environment, attempt_dir) if is_known else None

    async def begin(_event: "TrialHookEvent") -> None:
        # Not seen is not there: a container that is gone has no verification either.
        with contextlib.suppress(RuntimeError):
            folder = EnvironmentPaths.for_os(environment.os).verifier_dir
            await environment.empty_dirs([folder])
        if witness is not None:
            await witness.begin()

    trial.add_hook(TrialEvent.VERIFICATION_START, begin)
