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


WARM = """
import asyncio, gc, json, os, signal, sys, tempfile, threading
from pathlib import Path
from parallelhassnes.execute import shared_heap
from parallelhassnes.steps.trial import preload
preload.preload()
from parallelhassnes.steps.trial import warm_up


def private_kb():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def copied():
    "What a fork copies that runs a trial."
    gc.collect()
    shared_heap.share()
    gc.freeze()
    reading, writing = os.pipe()
    if os.fork() == 0:
        before = private_kb()
        warm_up._run_one(warm_up._attempt(Path(sys.argv[1]) / "made", str(os.getpid())))
        os.write(writing, str(private_kb() - before).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 99))


def state():
    return {
        "threads": threading.active_count(),
        "loop": asyncio.get_event_loop_policy()._local._loop is None,
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "environment": dict(os.environ),
        "files": sorted(os.listdir(tempfile.gettempdir())),
        "folder": os.getcwd(),
        "mask": os.umask(0o022),
        "litellm": "litellm" in sys.modules,
        "open": len(os.listdir("/proc/self/fd")),
    }


folder = Path(sys.argv[1]) / "made"
for name, text in warm_up._TASK.items():
    (folder / "task" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "task" / name).write_text(text)
before, state_before = copied(), state()
started = []
sys.addaudithook(lambda event, _: event in {"os.fork", "os.posix_spawn", "os.exec", "subprocess.Popen"} and started.append(event))
warm_up.run()
gc.collect()
unlike = {name: [value, state()[name]] for name, value in state_before.items() if state()[name] != value}
made = list(started)
print(json.dumps([before, copied(), unlike, made]))
"""


def test_what_was_run_before_the_fork_is_not_copied_for_running_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "tmp").mkdir()
    done = python(WARM, str(tmp_path), env={"TMPDIR": str(tmp_path / "tmp")})
    before, after, unlike, started = json.loads(done.stdout)
    assert (unlike, started) == ({}, [])
    assert after < before * 0.8


BROKEN = """
import asyncio, os, signal, sys, tempfile, threading
from parallelhassnes.steps.trial import preload
preload.preload()
from parallelhassnes.steps.trial import warm_up


async def broken(attempt, progress):
    made = asyncio.get_running_loop().create_task(asyncio.sleep(60))
    if sys.argv[1] == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
        await made
    raise {"wrong": ValueError, "ended": SystemExit, "canceled": asyncio.CancelledError}[sys.argv[1]]("on purpose")


warm_up.trial_worker.run = broken
try:
    warm_up.run_once()
except KeyboardInterrupt:
    print("interrupted")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(threading.active_count(), os.listdir(tempfile.gettempdir()))
"""


@pytest.mark.parametrize("how", ["wrong", "ended", "canceled", "interrupted"])
def test_a_trial_of_nothing_that_fails_hinders_nobody_and_a_control_c_still_counts(tmp_path, how):
    done = python(BROKEN, how, env={"TMPDIR": str(tmp_path)})
    assert done.stdout.splitlines() == ["interrupted"] * (how == "interrupted") + ["1 []"]
    assert done.stderr == ""


def test_where_no_temporary_folder_can_be_made_trials_are_forked_all_the_same():
    program = "import tempfile\nfrom parallelhassnes.steps.registry import kind\n"
    program += "tempfile.tempdir = '/proc/nowhere'\nkind('trial').warm_up()\nassert tempfile.tempdir == '/proc/nowhere'"
    assert python(program).stderr == ""


def test_a_caller_that_is_in_an_event_loop_of_its_own_is_left_alone():
    program = "import asyncio\nfrom parallelhassnes.steps.registry import kind\n"
    program += "async def main(): kind('trial').warm_up()\nasyncio.run(main())"
    assert python(program).stderr == ""
