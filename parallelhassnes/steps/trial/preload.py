"""What a trial imports, imported before the fork, and what it would make of that, made.

A forked worker shares these modules with its parent; whatever is missing here every worker imports
again for itself, at twice the cost of the trial. A test runs a trial and compares ``sys.modules``, and what
``re`` and pydantic have compiled, before and after. litellm is left out on purpose (175 MB and seconds of CPU; only agents that call a
model from the host need it).
"""

import contextlib
import inspect
import os
import re
import sys
from collections.abc import MutableMapping
from functools import cache, partial
from importlib import import_module
from types import SimpleNamespace

from parallelhassnes.plan import SANDBOX, TrialSpec
from parallelhassnes.steps.trial import trial_paths
from parallelhassnes.store.records import Control

HARBOR_ENVIRONMENT = {
    # Each Harbor command would start a detached sender.
    "HARBOR_TELEMETRY": "0",
    # litellm would fetch its price list over the network on import.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}

MODULES = (
    "harbor.trial.trial",
    "harbor.trial.single_step",
    "harbor.trial.multi_step",
    "harbor.trial.sync_trajectory",
    "harbor.agents.factory",
    "harbor.agents.oracle",
    "harbor.agents.nop",
    "harbor.environments.factory",
    "harbor.environments.docker.docker",
    "harbor.verifier.verifier",
    "asyncio",
    "asyncio.unix_events",
    "encodings.ascii",
    "encodings.utf_8_sig",
    "gzip",
    "dirhash",
    "scantree",
    "attr",
    "multiprocessing.pool",
    "concurrent.futures.thread",
    "parallelhassnes.steps.trial.restored_agent",
    "parallelhassnes.steps.trial.trial_worker",
)

MODEL_MODULES = (
    "openai.resources",
    "litellm._service_logger",
    "litellm.integrations.prometheus_services",
    "litellm.llms.litellm_proxy.chat.transformation",
    "litellm.llms.openai.chat.gpt_audio_transformation",
    "litellm.llms.openai_like.dynamic_config",
    "litellm.llms.vertex_ai.vertex_ai_partner_models.anthropic.transformation",
    "litellm.proxy._experimental.mcp_server.stdio_gate",
    "litellm.proxy._types",
    "litellm.proxy.openai_files_endpoints.common_utils",
    "litellm.types.integrations.prometheus",
)
"""What litellm imports only at its first call to a model; a second and more of CPU in each worker."""


def set_harbor_environment(environ: MutableMapping[str, str]) -> None:
    """Keep Harbor and litellm off the network, whatever the environment said before."""
    environ.update(HARBOR_ENVIRONMENT)


@cache
def preload() -> None:
    """Import everything above. Starts no thread and no event loop, so that the process may fork."""
    set_harbor_environment(os.environ)
    for name in MODULES:
        import_module(name)
    import_module(SANDBOX.partition(":")[0])
    _build_models()
    _choose_task_files_plainly()
    _compile_patterns()


def _build_models() -> None:
    """Have pydantic build now what it would build at first use, and so in every worker."""
    from pydantic import BaseModel

    open_ends: list[type[BaseModel]] = [BaseModel]
    while open_ends:
        model = open_ends.pop()
        open_ends += model.__subclasses__()
        if model.__module__.startswith("harbor.") and not model.__pydantic_complete__:
            model.model_rebuild(raise_errors=False)
    for own in (TrialSpec, Control):
        own.model_rebuild()


def _compile_patterns() -> None:
    """Have ``re`` keep what it would compile at first use."""
    from harbor.constants import ORG_NAME_PATTERN

    for pattern in (ORG_NAME_PATTERN, trial_paths.NOT_OF_A_NAME):
        re.compile(pattern)


def _choose_task_files_plainly() -> None:
    """Have Harbor tell by regular expressions which files of a task count, as each trial does for its hash.

    Where there is Hyperscan, pathspec would have it compile the six patterns anew in each, which takes longer than all else of that.
    """
    from harbor.publisher import packager
    from pathspec import PathSpec

    if "backend" not in inspect.signature(PathSpec.from_lines).parameters:  # before pathspec 1.0
        return
    from_lines = partial(PathSpec.from_lines, backend="simple")
    from_lines("gitignore", packager.DEFAULT_IGNORES)
    vars(packager)["pathspec"] = SimpleNamespace(PathSpec=SimpleNamespace(from_lines=from_lines))


@cache
def preload_agent(name: str) -> None:
    """Import the class of this Harbor agent too.

    For an agent that calls its model from the host (``terminus-2``) that is litellm: seconds of CPU and
    130 MB, once instead of in every worker. As safe before a fork as ``preload``. A name that Harbor does
    not know, and an agent whose packages are not installed, are left for their trial to fail on.
    """
    from harbor.agents.factory import AgentFactory
    from harbor.models.agent.name import AgentName

    set_harbor_environment(os.environ)
    if name in AgentName.values():
        with contextlib.suppress(ImportError):
            AgentFactory.get_agent_class(AgentName(name))
    if "litellm" in sys.modules:
        for module in MODEL_MODULES:
            # These are its inner parts: another version may have fewer of them.
            with contextlib.suppress(ImportError):
                import_module(module)
