"""After ``preload`` a trial imports nothing, and the process may still fork."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from harness import TEMP, make_task, trial_spec

pytestmark = pytest.mark.harbor

PROGRAM = """
import asyncio, json, sys, threading
from pathlib import Path
from harness import make_attempt
from parallelhassnes.steps import registry

root, spec = Path(sys.argv[1]), json.loads(sys.argv[2])
kind = registry.kind("trial")
attempt = make_attempt(root, "trial", spec)
kind.preload(attempt.step)
import temp_environment  # the test's own stand-in for a sandbox
threads = threading.active_count()
loop = asyncio.get_event_loop_policy()._local._loop
litellm = "litellm" in sys.modules
before = set(sys.modules)
code = kind.work(attempt)
new = sorted(set(sys.modules) - before)
print(json.dumps([code, threads, loop is None, litellm, new]))
"""


SANDBOX = "parallelhassnes.sandbox.environment:SandboxEnvironment"
ENVIRONMENTS = [TEMP, {"import_path": SANDBOX}]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["temp", "sandbox"])
@pytest.mark.parametrize("agent", ["oracle", "nop"])
def test_a_trial_imports_nothing_after_preload(tmp_path, agent, environment):
    if find_spec("parallelhassnes.sandbox") is None and environment is not TEMP:
        pytest.skip("this checkout has no sandbox environment")
    spec = trial_spec(make_task(tmp_path), agent, environment)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(spec)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    code, threads, no_loop, litellm, new = json.loads(done.stdout)
    assert (code, threads, no_loop, litellm) == (0, 1, True, False)
    assert new == []


AGENTS = """
import asyncio, json, sys, threading
from parallelhassnes.steps.trial import preload
preload.preload()
for name in ("terminus-2", "oracle", "no-such-agent", "my.module:Agent"):
    preload.preload_agent(name)
loop = asyncio.get_event_loop_policy()._local._loop
print(json.dumps([threading.active_count(), loop is None, "litellm" in sys.modules]))
"""


def test_agents_can_be_preloaded_and_the_process_may_still_fork():
    done = subprocess.run(
        [sys.executable, "-c", AGENTS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, True, True]
