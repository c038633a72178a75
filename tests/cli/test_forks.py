"""The forks that tests have in the place of programs: they begin, are spoken with and end as programs do."""

import json
import os
import signal
import subprocess
import sys

import pytest
import warm
from servers import serving
from stores import CHECKOUT, command, context, environment, job, program, started, table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are forks on Linux alone")


@pytest.mark.parametrize("words", ["", "--help", "statsu", "results", "tick --no-such", "api --port many"])
def test_they_say_and_end_as_a_fresh_one(tmp_path, words):
    fresh = subprocess.run(
        [sys.executable, "-m", "parallelhassnes", *words.split()],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    done = warm.run(words.split(), env=environment(), cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_they_read_what_is_typed(root):
    context(root)
    text = table(job("j", command("s", "true"))).decode()
    assert json.loads(program(root, "submit", "-", "--json", input=text).stdout)["steps"] == 1


def test_one_that_goes_on_is_asked_stopped_and_killed(root):
    context(root)
    with started(root, "api", "--port", "0", "--no-tick", "--json") as server:
        assert isinstance(server, warm.Program)
        assert json.loads(server.stdout.readline())["ok"]
        assert server.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(0.01)
        assert os.getsid(server.pid) == os.getsid(0)
        server.kill()
        assert server.wait(60) == -signal.SIGKILL == server.poll()
        server.kill()  # it knows that nobody is there
    with serving(root, "--no-tick") as server:
        assert server.client.get("/").status_code == 200
        assert "complete" in server.end(signal.SIGINT)
        assert server.process.returncode == 0


def test_what_depends_on_how_an_interpreter_begins_is_none():
    usual = environment()
    assert warm.serves(usual)
    assert warm.serves(environment({"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT}/tests", "HOME": "/nowhere"}))
    for name, value in {"PYTHONPATH": "/else", "PYTHONOPTIMIZE": "1", "LD_PRELOAD": "x.so", "TZ": "Asia/Tokyo"}.items():
        assert not warm.serves(environment({name: value})), name
