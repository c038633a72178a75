"""Whatever a worker leaves, ``conclude`` says something valid about it."""

import asyncio
import json
import os
from types import SimpleNamespace

import pytest
from harness import finish, make_attempt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial import environment_end
from parallelhassnes.steps.trial import result as trial_result

SPEC = {"task_name": "org/hello", "config": {"agent": {"name": "oracle"}, "task": {"path": "/t"}}}


@pytest.fixture
def attempt(tmp_path):
    made = make_attempt(tmp_path, "trial", SPEC)
    (made.dir / "trial").mkdir()
    return made


def leave(attempt, name, document):
    path = attempt.dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


DRY = (
    "Command failed (exit 1): claude\nstdout: "
    '{"type":"result","is_error":true,"api_error_status":400,"result":"Credit balance is too low"}\nstderr: None'
)


def info(name, message=""):
    return {"exception_type": name, "exception_message": message}


@pytest.mark.parametrize(
    ("result", "reason", "expected"),
    [
        ({"verifier_result": {"rewards": {"reward": 0}}}, "exited", ("succeeded", None)),
        ({"verifier_result": {"rewards": {"reward": 0}}}, "lost", ("succeeded", None)),
        (
            {"verifier_result": {"rewards": {"reward": 0}}, "exception_info": info("AgentTimeoutError")},
            "exited",
            ("succeeded", None),
        ),
        (
            {"verifier_result": {"rewards": {"reward": 0}}, "exception_info": info("ApiRateLimitError")},
            "exited",
            ("failed", "rate_limit"),
        ),
        (
            {"verifier_result": {"rewards": {"reward": 1}}, "exception_info": info("AgentAuthenticationError")},
            "exited",
            ("failed", "auth"),
        ),
        (
            {"verifier_result": {"rewards": {"reward": 0}}, "exception_info": info("NonZeroAgentExitCodeError", DRY)},
            "exited",
            ("failed", "quota"),
        ),
        (
            {"verifier_result": {"rewards": {"reward": 1}}, "exception_info": info("UnknownApiError", DRY)},
            "exited",
            ("failed", "quota"),
        ),
        (
            {"verifier_result": {"rewards": {"reward": 0}}, "exception_info": info("ContextWindowExceededError")},
            "exited",
            ("succeeded", None),
        ),
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": info("ValueError", "Model name is required"),
            },
            "exited",
            ("failed", "configuration"),
        ),
        # Harbor's own word, from 0.25 on.
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": {**info("PodEvictedError"), "policy": {"should_retry": True, "should_grade": False}},
            },
            "exited",
            ("failed", "infrastructure"),
        ),
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": {
                    **info("QuirkError"),
                    "policy": {"should_retry": True, "should_grade": True, "has_valid_reward": False},
                },
            },
            "exited",
            ("failed", "transient_provider"),
        ),
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": info("NonZeroAgentExitCodeError"),
                "reward_valid": False,
            },
            "exited",
            ("failed", "agent_error"),
        ),
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": info("ContentPolicyViolationError"),
                "reward_valid": False,
            },
            "exited",
            ("succeeded", None),
        ),
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": info("BadRequestError", "tool_use ids were found without tool_result"),
                "reward_valid": False,
            },
            "exited",
            ("succeeded", None),
        ),
        ({"verifier_result": {"rewards": {"reward": 1}}, "reward_valid": False}, "exited", ("failed", "verifier")),
        ({"verifier_result": {"rewards": {"reward": 1}}, "reward_valid": "no"}, "exited", ("succeeded", None)),
        # What came up before the tests began is the agent's phase, although they ran afterwards.
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": {**info("MemoryError"), "occurred_at": "2026-01-01T00:00:01Z"},
                "agent_execution": {"started_at": "2026-01-01T00:00:00Z"},
                "verifier": {"started_at": "2026-01-01T00:00:02Z"},
            },
            "exited",
            ("failed", "infrastructure"),
        ),
        (
            {
                "verifier_result": {"rewards": {"reward": 0}},
                "exception_info": {**info("MemoryError"), "occurred_at": "2026-01-01T00:00:03Z"},
                "agent_execution": {"started_at": "2026-01-01T00:00:00Z"},
                "verifier": {"started_at": "2026-01-01T00:00:02Z"},
            },
            "exited",
            ("succeeded", None),
        ),
        ({"verifier_result": {"rewards": {"a": 1, "b": 0}}}, "exited", ("succeeded", None)),
        ({"verifier_result": {"rewards": {}}}, "exited", ("failed", "verifier")),
        ({"verifier_result": {"rewards": {"reward": "1"}}}, "exited", ("failed", "verifier")),
        ({"exception_info": info("CancelledError")}, "canceled", ("canceled", "canceled")),
        ({"exception_info": info("CancelledError")}, "exited", ("failed", "infrastructure")),
        ({"exception_info": info("CancelledError")}, "lost", ("lost", "lost")),
        ({"exception_info": info("CancelledError")}, "timeout", ("failed", "infrastructure")),
        (
            {"exception_info": info("CancelledError"), "agent_execution": {"started_at": "2026-01-01T00:00:00Z"}},
            "timeout",
            ("failed", "agent_timeout"),
        ),
        (
            {"exception_info": info("CancelledError"), "verifier": {"started_at": "2026-01-01T00:00:00Z"}},
            "timeout",
            ("failed", "verifier"),
        ),
        ({"exception_info": info("RuntimeError")}, "exited", ("failed", "infrastructure")),
        ({"exception_info": info("RuntimeError")}, "timeout", ("failed", "infrastructure")),
        (
            {"exception_info": info("RuntimeError"), "agent_execution": {"started_at": "2026-01-01T00:00:00Z"}},
            "exited",
            ("failed", "agent_error"),
        ),
        ({"config": {"verifier": {"disable": True}}}, "exited", ("succeeded", None)),
        ({"config": {"install_only": True}}, "exited", ("succeeded", None)),
        ({}, "exited", ("failed", "verifier")),
        (
            {
                "step_results": [
                    {"step_name": "a", "verifier_result": {"rewards": {"reward": 1}}},
                    {"step_name": "b", "exception_info": info("RateLimitError")},
                ],
                "verifier_result": {"rewards": {"reward": 1}},
            },
            "exited",
            ("failed", "rate_limit"),
        ),
        (
            {
                "step_results": [
                    {
                        "step_name": "a",
                        "verifier_result": {"rewards": {"reward": 1}},
                        "exception_info": info("AgentTimeoutError"),
                    }
                ],
                "verifier_result": {"rewards": {"reward": 1}},
            },
            "exited",
            ("succeeded", None),
        ),
    ],
)
def test_the_result_is_the_verdict(attempt, result, reason, expected):
    leave(attempt, "trial/result.json", result)
    outcome, report = finish(attempt, WorkerEnd(0, reason))
    assert (outcome.status, outcome.failure and outcome.failure.failure_class) == expected
    assert report["trial"]["rewards"] == trial_result.rewards_of(result)


@pytest.mark.parametrize(
    ("left", "code", "reason", "expected"),
    [
        ({}, -9, "exited", ("failed", "infrastructure")),
        ({}, 1, "exited", ("failed", "internal")),
        ({}, 0, "exited", ("failed", "internal")),
        ({}, None, "lost", ("lost", "lost")),
        ({}, -15, "canceled", ("canceled", "canceled")),
        ({"tmp/phase": "agent"}, -9, "timeout", ("failed", "agent_timeout")),
        ({"tmp/phase": "environment_setup"}, -9, "timeout", ("failed", "infrastructure")),
        (
            {"worker_error.json": {"class": "ValueError", "message": "no\nsuch", "phase": "create"}},
            1,
            "exited",
            ("failed", "task_definition"),
        ),
        (
            {"worker_error.json": {"class": "ValueError", "message": 3, "phase": []}},
            1,
            "exited",
            ("failed", "task_definition"),
        ),
        (
            {"worker_error.json": {"class": "CancelledError", "phase": "create"}},
            143,
            "canceled",
            ("canceled", "canceled"),
        ),
        ({"worker_error.json": "{"}, 1, "exited", ("failed", "internal")),
        (
            {"trial/exception.txt": "Traceback\n  x\nharbor.trial.errors.AgentSetupTimeoutError: slow\n"},
            1,
            "exited",
            ("failed", "infrastructure"),
        ),
        ({"trial/result.json": '{"verifier_result": {"rew'}, -9, "exited", ("failed", "infrastructure")),
    ],
)
def test_without_a_result(attempt, left, code, reason, expected):
    for name, document in left.items():
        leave(attempt, name, document)
    outcome, report = finish(attempt, WorkerEnd(code, reason))
    assert (outcome.status, outcome.failure.failure_class) == expected
    assert report["trial"]["task"]["name"] == "org/hello"
    assert report["trial"]["agent"]["name"] == "oracle"
    assert "\n" not in outcome.failure.line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "trial_name",
        "task_name",
        "task_checksum",
        "config",
        "agent_info",
        "agent_result",
        "verifier_result",
        "exception_info",
        "started_at",
        "finished_at",
        "environment_setup",
        "agent_setup",
        "agent_execution",
        "verifier",
        "step_results",
        "rewards",
        "exception_type",
        "exception_message",
        "step_name",
        "n_input_tokens",
        "cost_usd",
        "model_info",
        "environment",
        "type",
        "results",
        "summary",
        "passed",
        "tests",
    ]
)
SHAPED = st.recursive(
    JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=12
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(KEYS, SHAPED), SHAPED, st.sampled_from(["exited", "timeout", "canceled", "lost"]))
def test_garbage_of_any_shape(attempt, result, other, reason):
    leave(attempt, "trial/result.json", result)
    leave(attempt, "trial/verifier/ctrf.json", other)
    leave(attempt, "worker_error.json", other)
    finish(attempt, WorkerEnd(0, reason))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        "",
        "\x00",
        "nul",
        '{"x": 1e999}',
        '{"x": NaN}',
        "9" * 5000,
        '{"task_name": "\\ud800"}',
    ],
)
def test_files_that_are_no_json(attempt, text):
    leave(attempt, "trial/result.json", text)
    _, report = finish(attempt, WorkerEnd(1, "exited"))
    json.dumps(report, allow_nan=False).encode()


def test_pipes_links_and_huge_files_are_not_read(attempt, monkeypatch):
    (attempt.dir / "trial" / "verifier").mkdir()
    os.mkfifo(attempt.dir / "trial" / "verifier" / "ctrf.json")
    (attempt.dir / "trial" / "sandbox.json").symlink_to("/etc/passwd")
    with (attempt.dir / "trial" / "result.json").open("wb") as file:
        file.truncate(safe_read.MAX_JSON_BYTES + 1)
    outcome, report = finish(attempt, WorkerEnd(0, "exited"))
    assert outcome.failure.failure_class == "internal"
    assert "too large" in outcome.failure.line
    assert report["trial"]["tests"] is None
    assert "sandbox" not in report["trial"]


def test_what_the_sandbox_says_is_reported(attempt):
    leave(attempt, "trial/sandbox.json", {"kind": "bwrap", "unsupported": ["RUN"]})
    _, report = finish(attempt, WorkerEnd(1, "exited"))
    assert report["trial"]["sandbox"] == {"kind": "bwrap", "unsupported": ["RUN"]}


COMPOSE = (
    "Docker compose command failed for environment hello. Command: docker compose --project-name hello__env "
    f"-f {'/long' * 80}/compose.json build. Return code: 17. Stdout: #1 building\nStep 2: ok\n{{}}\n. Stderr: None. "
)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN", None),
        ("#5 Get:1 http://deb\n" * 5000 + "failed to solve: exit code: 100", "failed to solve: exit code: 100"),
        ("#5 x\nwrite /x: no space left on device", "write /x: no space left on device"),
    ],
)
def test_a_failed_compose_command_is_told_by_its_reason(attempt, output, reason):
    leave(attempt, "trial/result.json", {"exception_info": info("RuntimeError", COMPOSE.format(output))})
    outcome, final = finish(attempt, WorkerEnd(0, "exited"))
    expected = "RuntimeError: Docker compose command failed for environment hello: "
    assert outcome.failure.line == expected + (reason or output)
    assert outcome.failure.failure_class == "infrastructure"
    assert len(final["trial"]["exception"]["message"]) <= 4000


def test_a_compose_command_that_said_nothing_is_told_by_its_exit_code(attempt):
    message = "Docker compose command failed for environment hello. Command: x. Return code: 137. Stdout: None. Stderr: None. "
    leave(attempt, "trial/result.json", {"exception_info": info("RuntimeError", message)})
    outcome, _ = finish(attempt, WorkerEnd(0, "exited"))
    assert outcome.failure.line.endswith("for environment hello: exit code 137")


def test_an_environment_is_taken_down_whatever_becomes_of_the_look_at_it(tmp_path):
    stopped = []

    class Environment:
        async def stop(self, delete):
            stopped.append(delete)

    trial = SimpleNamespace(agent_environment=Environment(), result=None)  # nothing to look at
    environment_end.Watched.watch(SimpleNamespace(dir=tmp_path), trial)
    with pytest.raises(AttributeError):
        asyncio.run(trial.agent_environment.stop(delete=True))
    assert stopped == [True]
