"""After ``preload`` a trial imports nothing, and the process may still fork."""

import json
from importlib.util import find_spec

import pytest
from harness import TEMP, make_task, trial_spec
from stores import python

pytestmark = pytest.mark.harbor

PROGRAM = """
import asyncio, json, re, sys, threading
from pathlib import Path
from harness import make_attempt
from pydantic._internal import _model_construction
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
made = []


def noted(owner, name):
    was = getattr(owner, name)

    def act(what, *args, **kwargs):
        made.append(f"{name} {what}")
        return was(what, *args, **kwargs)

    setattr(owner, name, act)


started = []
sys.addaudithook(lambda event, _: event in {"os.fork", "os.posix_spawn", "subprocess.Popen"} and started.append(event))
if keeper_process := sys.modules.get("parallelhassnes.sandbox.keeper_process"):
    tell = keeper_process.KeeperProcess.tell
    keeper_process.KeeperProcess.tell = lambda self, line: (started.append("job"), tell(self, line))
noted(re._compiler, "compile")
noted(_model_construction, "complete_model_class")
code = kind.work(attempt)
new = sorted(set(sys.modules) - before)
print(json.dumps([code, threads, loop is None, litellm, new, made, started]))
"""


SANDBOX = "parallelhassnes.sandbox.environment:SandboxEnvironment"
ENVIRONMENTS = [TEMP, {"import_path": SANDBOX}]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["temp", "sandbox"])
@pytest.mark.parametrize("agent", ["oracle", "nop"])
def test_a_trial_imports_and_compiles_nothing_after_preload(tmp_path, agent, environment):
    if find_spec("parallelhassnes.sandbox") is None and environment is not TEMP:
        pytest.skip("this checkout has no sandbox environment")
    spec = trial_spec(make_task(tmp_path), agent, environment)
    done = python(PROGRAM, str(tmp_path), json.dumps(spec))
    code, threads, no_loop, litellm, new, made, started = json.loads(done.stdout)
    assert (code, threads, no_loop, litellm) == (0, 1, True, False)
    assert new == []
    assert [each for each in made if not each.startswith("compile (?s:")] == []  # but pathlib's own, for ``rglob``
    if environment is not TEMP:
        # A keeper for the agent and one for the verifier; what Harbor runs in them, of which 0.26 has one more than 0.24.
        least = 4 if agent == "oracle" else 2
        assert started.count("subprocess.Popen") == 2
        assert started.count("job") in (least, least + 1)
        assert len(started) == started.count("subprocess.Popen") + started.count("job")


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
    done = python(AGENTS)
    assert json.loads(done.stdout) == [1, True, True]
