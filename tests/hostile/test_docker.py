"""Trials in Docker, where agent and verifier share the container unless the task separates them."""

import json
import shlex
import subprocess
import sys

import pytest

TOML = 'version = "1.0"\n[agent]\ntimeout_sec = 60.0\n[verifier]\ntimeout_sec = 60.0\n'
BACKGROUND = "setsid bash -c {} >/dev/null 2>&1 &"
WATCHED = "sleep 0.5; echo 1 >/logs/verifier/reward.txt; sleep 0.5"
TRIALS = {
    # Harbor prefers reward.json, which the tests of this task do not write.
    "left": (
        "mkdir -p /logs/verifier && echo '{\"reward\": 1}' >/logs/verifier/reward.json",
        "echo 0 >/logs/verifier/reward.txt",
    ),
    "loop": (
        BACKGROUND.format(shlex.quote("while :; do echo 1 >/logs/verifier/reward.txt; sleep 0.05; done")),
        WATCHED,
    ),
    "descriptor": (
        BACKGROUND.format(
            shlex.quote(
                "until [ -s /logs/verifier/reward.txt ]; do sleep 0.05; done; "
                "exec 3>>/logs/verifier/reward.txt; touch /tmp/open; exec sleep 300"
            )
        ),
        f"{WATCHED}; until [ -e /tmp/open ]; do sleep 0.05; done",
    ),
    "tests": (
        BACKGROUND.format(
            shlex.quote("until [ -e /tests/data ]; do sleep 0.01; done; echo forged >/tests/data; exec sleep 300")
        ),
        f"{WATCHED}; until grep -q forged /tests/data; do sleep 0.05; done",
    ),
    "honest": (
        BACKGROUND.format(shlex.quote("while :; do date >>/app/log; sleep 0.05; done")),
        "sleep 0.3; [ -s /app/log ] && echo 1 >/logs/verifier/reward.txt",
    ),
}
"""Name → what the agent does, what the tests do."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict:
    """The report of each trial; they run at once."""
    top = tmp_path_factory.mktemp("docker")
    for trial, (solution, tests) in TRIALS.items():
        files = {
            "task.toml": TOML,
            "instruction.md": "Nothing.\n",
            "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /app\n",
            "solution/solve.sh": f"#!/bin/bash\n{solution}\n",
            "tests/test.sh": f"#!/bin/bash\n{tests}\n",
            "tests/data": "data\n",
        }
        for name, text in files.items():
            path = top / "tasks" / trial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    sweep = {"path": str(top / "tasks"), "agents": [{"name": "oracle"}]}
    (top / "table.json").write_text(json.dumps({"sweep": sweep, "retry": {"max_attempts": 1}}))
    (top / "root").mkdir()
    command = [sys.executable, "-m", "parallelhassnes", "run", "-c", str(top / "table.json")]
    command += ["-e", "docker", "--root", str(top / "root"), "--fail-on", "never"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = {}
    for path in (top / "root").glob("runs/*/*/steps/oracle*/attempts/*/final.json"):
        report = json.loads(path.read_text())
        found[report["trial"]["trial_name"].partition("__")[0]] = report
    assert set(found) == set(TRIALS)
    return found


@pytest.mark.docker
def test_a_reward_that_is_left_is_not_the_verifiers(reports):
    """The report says what was shared."""
    assert reports["left"]["trial"]["reward"] == 0
    assert reports["left"]["trial"]["verification"] == "verifier shared with agent"


@pytest.mark.docker
@pytest.mark.parametrize(
    ("trial", "why"),
    [
        ("loop", "reward.txt was written after the verifier had ended"),
        ("descriptor", "which the agent left, has a file of /logs/verifier open"),
        ("tests", "/tests/data is not what was brought"),
    ],
)
def test_a_process_that_is_left_and_meddles_has_no_reward_counted(reports, trial, why):
    report = reports[trial]
    assert (report["status"], report["failure"]["class"]) == ("failed", "verifier")
    assert report["failure"]["line"].startswith("the reward is not counted: tampering suspected: ")
    assert why in report["failure"]["line"]
    said = report["trial"]["verification"]
    assert said.startswith("verifier shared with agent; tampering suspected: ")


@pytest.mark.docker
def test_an_honest_service_that_is_left_costs_no_reward(reports):
    """It runs while the tests do, and logs elsewhere."""
    assert reports["honest"]["trial"]["reward"] == 1
    assert reports["honest"]["trial"]["verification"] == "verifier shared with agent"
