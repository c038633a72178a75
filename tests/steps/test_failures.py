"""The failure table, and its agreement with the report's schema."""

import pytest

from parallelhassnes.steps import failures, report

CASES = [
    ("ApiRateLimitError", "", "agent", "rate_limit"),
    ("RateLimitError", "You exceeded your current quota", "agent", "quota"),
    ("litellm.exceptions.RateLimitError", "slow down", "agent", "rate_limit"),
    ("ApiOverloadedError", "", "agent", "overloaded"),
    ("ServiceUnavailableError", "", "agent", "overloaded"),
    ("InternalServerError", "Missing credentials. Please pass an api_key", "agent", "auth"),
    ("InternalServerError", "boom", "agent", "transient_provider"),
    ("Timeout", "", "agent", "transient_provider"),
    ("AgentAuthenticationError", "", "agent", "auth"),
    ("ApiUsageLimitError", "", "agent", "quota"),
    ("NotFoundError", "", "agent", "unknown_model"),
    ("ContextLengthExceededError", "", "agent", "context_length"),
    ("AgentSafetyRefusalError", "", "agent", "refusal"),
    ("AgentTimeoutError", "", "agent", "agent_timeout"),
    ("NonZeroAgentExitCodeError", "no space left on device", "agent", "agent_error"),
    ("RewardFileNotFoundError", "", "verifier", "verifier"),
    ("VerifierTimeoutError", "", "verifier", "verifier"),
    ("EnvironmentStartTimeoutError", "", "verifier", "infrastructure"),
    ("AddTestsDirError", "", "verifier", "infrastructure"),
    ("RuntimeError", "Docker compose command failed for environment x.", "environment_setup", "infrastructure"),
    ("RuntimeError", "Command timed out after 3 seconds", "agent", "infrastructure"),
    ("FileNotFoundError", "[Errno 2] No such file or directory: 'docker'", "environment_setup", "infrastructure"),
    ("FileNotFoundError", "[Errno 2] No such file or directory: '/t/Dockerfile'", "create", "task_definition"),
    ("OSError", "[Errno 28] No space left on device", "create", "infrastructure"),
    ("OSError", "[Errno 40] Too many levels of symbolic links: '/t/environment/x'", "create", "task_definition"),
    ("RuntimeError", "Task requires 1 GPU(s) but sandbox environment does not support GPU allocation. Please", "create", "task_definition"),
    ("ValueError", "network_mode='allowlist' is not supported by EnvironmentType.DOCKER environment.", "environment_setup", "task_definition"),
    ("SandboxBuildFailedError", "", "environment_setup", "task_definition"),
    ("MissingExtraError", "", "create", "task_definition"),
    ("ValueError", "Agent name x is not valid.", "create", "task_definition"),
    ("ValueError", "no support for skills", "environment_setup", "task_definition"),
    ("ValueError", "from the agent's own code", "agent", "agent_error"),
    ("SomethingElse", "", "environment_setup", "infrastructure"),
    ("SomethingElse", "", "agent", "agent_error"),
    ("SomethingElse", "", "verifier", "verifier"),
    ("SomethingElse", "", "create", "internal"),
    ("SomethingElse", "", None, "internal"),
    ("CancelledError", "", "agent", "canceled"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message", "phase", "expected"), CASES)
def test_the_class_of_an_exception(name, message, phase, expected):
    assert failures.classify(name, message, phase) == expected


def test_the_table_names_only_known_classes():
    known = set(failures.CLASSES)
    assert {rule.failure_class for rule in failures.RULES} <= known
    assert known >= failures.INFRASTRUCTURE_CLASSES
    assert set(failures.TIMEOUT_CLASSES.values()) <= known


def test_the_schema_lists_the_same_classes():
    declared = report.schema()["properties"]["failure"]["properties"]["class"]["enum"]
    assert tuple(declared) == failures.CLASSES


def test_the_types_exist_in_harbor():
    """A renamed exception would silently fall through to the rules by phase."""
    from pathlib import Path

    import harbor

    source = "\n".join(p.read_text() for p in Path(harbor.__file__).parent.rglob("*.py"))
    foreign = {
        "CancelledError", "KeyboardInterrupt", "InternalServerError", "RateLimitError", "ServiceUnavailableError",
        "AuthenticationError", "PermissionDeniedError", "NotFoundError", "APIConnectionError", "Timeout",
        "UnsupportedTaskError",
    }  # fmt: skip
    import builtins

    ours = {name for rule in failures.RULES for name in rule.types} - foreign
    unknown = {n for n in ours if f"class {n}" not in source and not hasattr(builtins, n)}
    assert unknown <= {"ValidationError", "TOMLDecodeError"}
