"""Trials in Docker, where agent and verifier share the container unless the task separates them."""

import json
import subprocess
import sys

import pytest

TOML = 'version = "1.0"\n[agent]\ntimeout_sec = 60.0\n[verifier]\ntimeout_sec = 60.0\n'


@pytest.mark.docker
def test_a_reward_that_is_left_is_not_the_verifiers(tmp_path, root):
    """Harbor prefers ``reward.json``, which the tests of this task do not write. The report says what was shared."""
    files = {
        "task.toml": TOML,
        "instruction.md": "Nothing.\n",
        "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /app\n",
        "solution/solve.sh": "#!/bin/sh\nmkdir -p /logs/verifier && echo '{\"reward\": 1}' >/logs/verifier/reward.json\n",
        "tests/test.sh": "#!/bin/sh\necho 0 >/logs/verifier/reward.txt\n",
    }
    for name, text in files.items():
        path = tmp_path / "forged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [
        sys.executable,
        "-m",
        "parallelhassnes",
        "run",
        str(tmp_path / "forged"),
        "-a",
        "oracle",
        "-n",
        "1",
    ]
    command += ["-e", "docker", "--root", str(root), "--fail-on", "never"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (final,) = root.glob("runs/*/*/steps/oracle.1/attempts/*/final.json")
    trial = json.loads(final.read_text())["trial"]
    assert trial["reward"] == 0
    assert trial["verification"] == "verifier shared with agent"
