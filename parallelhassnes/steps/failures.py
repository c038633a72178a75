"""The failure classes, and the table that gives one to an exception.

The table is the documentation: rules are tried from top to bottom and the first that fits decides.
The exception types are Harbor's (``harbor.agents.errors``, ``harbor.trial.errors``,
``harbor.verifier.verifier``), litellm's for agents that run on the host, and Python's own.
"""

import re
from typing import Literal, NamedTuple, get_args

from parallelhassnes.config import FailureClass

type Phase = Literal["create", "environment_setup", "agent", "verifier"]
"""Where a trial stood: ``create`` is before Harbor has a trial at all, ``environment_setup`` includes
the setup of the agent."""

CLASSES: tuple[str, ...] = get_args(FailureClass.__value__)
"""Every failure class there is. ``task_definition`` is whatever is wrong with what was asked for (task,
table, program name); ``internal`` is our own fault; ``lost`` is an attempt whose end nobody saw."""

PROVIDER_CLASSES = frozenset(
    {"rate_limit", "overloaded", "transient_provider", "auth", "quota", "unknown_model"}
)
"""The classes in which a provider did not serve the agent: a score beside such an exception is not the agent's.

Harbor runs the tests also after an agent's program ended so, and the 0 that they give would be held against it. The
rule does not look at the score, because one that let a 1 count and a 0 be repeated would flatter the agent."""

INFRASTRUCTURE_CLASSES = frozenset({"infrastructure", "lost", "internal"})
"""The classes that say nothing about the task, the agent or its model."""


UNABLE = r"environment does not support|is not supported by \S+ environment"
"""What Harbor says of a task that asks for more than its environment can do: GPUs, a network policy …"""


class Rule(NamedTuple):
    """One row: it fits if every column that is given fits."""

    failure_class: str
    types: tuple[str, ...] = ()
    """Names of exception types; none means any."""
    message: str = ""
    """A regular expression searched for in the message, case ignored; empty means any."""
    phases: tuple[Phase, ...] = ()
    """None means any."""


RULES: tuple[Rule, ...] = (
    Rule("canceled", ("CancelledError", "KeyboardInterrupt")),
    # What a provider says outweighs the type that it says it with.
    Rule("auth", ("InternalServerError",), "missing credentials"),
    Rule("quota", ("RateLimitError", "ApiRateLimitError"), "insufficient_quota|exceeded your current quota|billing"),
    Rule("rate_limit", ("ApiRateLimitError", "RateLimitError")),
    Rule("overloaded", ("ApiOverloadedError", "ServiceUnavailableError")),
    Rule("auth", ("AgentAuthenticationError", "AuthenticationError", "PermissionDeniedError")),
    Rule("quota", ("ApiUsageLimitError",)),
    Rule("unknown_model", ("ModelNotFoundError", "NotFoundError", "ApiProviderResourceNotFoundError")),
    Rule(
        "context_length",
        ("ContextWindowExceededError", "ContextLengthExceededError", "OutputTokenExceededError", "OutputLengthExceededError"),
    ),
    Rule("refusal", ("AgentSafetyRefusalError",)),
    Rule(
        "transient_provider",
        (
            "ApiInternalServerError",
            "ApiConnectionClosedError",
            "ApiResponseStalledError",
            "UnknownApiError",
            "NetworkConnectionError",
            "ApiConnectionError",
            "InternalServerError",
            "APIConnectionError",
            "Timeout",
        ),
    ),
    Rule("agent_timeout", ("AgentTimeoutError",)),
    Rule("agent_error", ("NonZeroAgentExitCodeError",)),
    Rule(
        "verifier",
        ("VerifierTimeoutError", "RewardFileNotFoundError", "RewardFileEmptyError", "VerifierOutputParseError"),
    ),
    Rule(
        "infrastructure",
        ("EnvironmentStartTimeoutError", "AgentSetupTimeoutError", "HealthcheckError", "AddTestsDirError", "DownloadVerifierDirError"),
    ),
    # The machine, whatever the phase.
    Rule("infrastructure", (), r"no space left on device|cannot allocate memory|too many open files|disk quota exceeded"),
    Rule("infrastructure", (), r"docker compose command failed|docker daemon|cannot connect to the docker|docker is not installed|no such image"),
    Rule("infrastructure", ("FileNotFoundError",), r"'?docker'?$|no such file or directory: 'docker'"),
    Rule("infrastructure", ("RuntimeError",), "command timed out after"),
    Rule("infrastructure", ("MemoryError", "SandboxLikelyOutOfMemoryError", "ConnectionError", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError")),
    # What was asked for, and would fail again in the same way.
    Rule("task_definition", ("RuntimeError", "ValueError"), UNABLE),
    Rule("task_definition", ("OSError",), "too many levels of symbolic links"),
    Rule("task_definition", ("SandboxBuildFailedError", "MissingExtraError", "UnsupportedTaskError")),
    Rule(
        "task_definition",
        ("ValidationError", "ValueError", "FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "KeyError",
         "TypeError", "ImportError", "ModuleNotFoundError", "AttributeError", "TOMLDecodeError", "NotImplementedError"),
        phases=("create",),
    ),
    Rule("task_definition", ("ValueError", "FileNotFoundError", "TOMLDecodeError"), phases=("environment_setup",)),
    # By phase, where the type says nothing.
    Rule("internal", phases=("create",)),
    Rule("infrastructure", phases=("environment_setup",)),
    Rule("agent_error", phases=("agent",)),
    Rule("verifier", phases=("verifier",)),
)  # fmt: skip

TIMEOUT_CLASSES: dict[Phase, str] = {
    "create": "infrastructure",
    "environment_setup": "infrastructure",
    "agent": "agent_timeout",
    "verifier": "verifier",
}
"""The class of an attempt that the supervisor's deadline ended, by the phase it was in."""


def classify(exception_type: str, message: str, phase: Phase | None) -> str:
    """The class of an exception, from its type's name, its message and the phase it came up in.

    A qualified type name counts by its last part. ``internal`` where no rule fits, which only happens
    without a phase.
    """
    name = exception_type.rsplit(".", 1)[-1]
    for rule in RULES:
        if rule.types and name not in rule.types:
            continue
        if rule.phases and phase not in rule.phases:
            continue
        if rule.message and not re.search(rule.message, message, re.IGNORECASE):
            continue
        return rule.failure_class
    return "internal"
