"""After ``preload`` a trial imports nothing, and the process may still fork."""

import json
import os
import subprocess
import sys

from harness import TEMP, make_task, trial_spec

PROGRAM = """
import asyncio, json, sys, threading
from pathlib import Path
from harness import make_attempt
from parallelhassnes.steps import registry

root, spec = Path(sys.argv[1]), json.loads(sys.argv[2])
kind = registry.kind("trial")
kind.preload()
import temp_environment  # the test's own stand-in for a sandbox
threads = threading.active_count()
loop = asyncio.get_event_loop_policy()._local._loop
litellm = "litellm" in sys.modules
before = set(sys.modules)
code = kind.work(make_attempt(root, "trial", spec))
new = sorted(set(sys.modules) - before)
print(json.dumps([code, threads, loop is None, litellm, new]))
"""


def run_trial(tmp_path, agent):
    spec = trial_spec(make_task(tmp_path), agent, TEMP)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(spec)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_oracle_trial_imports_nothing_after_preload(tmp_path):
    code, threads, no_loop, litellm, new = run_trial(tmp_path, "oracle")
    assert (code, threads, no_loop, litellm) == (0, 1, True, False)
    assert new == []


def test_a_nop_trial_imports_nothing_after_preload(tmp_path):
    assert run_trial(tmp_path, "nop")[-1] == []
