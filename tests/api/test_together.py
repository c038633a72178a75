"""Servers are views: two of them, a cron tick and a kill -9 make no difference to what is under ``runs/``."""

import hashlib
import signal
import subprocess
import sys
from collections import Counter

import pytest
from servers import serving
from stores import CHECKOUT, context, environment, idle, job, put, shell, states, table, wait_for

from parallelhassnes.admin.audit.verify import verify
from tests.together.run import together
from tests.together.shared import Pace

JOBS = 40


def test_two_servers_and_a_tick_run_every_step_once_though_one_is_killed(root):
    ctx = context(root, "concurrency = 6\n[api]\ntick_sec = 0.2\n")
    batch_id = put(
        ctx, table(*[job(f"j{n}", shell("s", f"echo x >> {root}/ran.{n}; sleep 0.05")) for n in range(JOBS)])
    )
    tick = f"while true; do {sys.executable} -m parallelhassnes tick --quiet --root {root}; sleep 0.2; done"
    cron = subprocess.Popen(["sh", "-c", tick], env=environment(), cwd=CHECKOUT, start_new_session=True)
    try:
        with serving(root) as one, serving(root) as other:
            wait_for(lambda: len(list(root.glob("ran.*"))) > 5, "some runs")
            one.end(signal.SIGKILL)
            assert other.client.post("/v1/tick").status_code == 200
            wait_for(lambda: idle(ctx), "the end")
            assert other.client.get("/v1/batches/latest").json()["state"] == "done"
    finally:
        cron.terminate()
        cron.wait(60)
    wait_for(lambda: verify(ctx.layout).ok, "the ticks that were at it")
    assert Counter(map(tuple, states(ctx, batch_id).values())) == {("succeeded",): JOBS}
    assert {path.read_text() for path in root.glob("ran.*")} == {"x\n"}


@pytest.mark.timeout(400)
def test_every_table_comes_to_what_it_comes_to_alone(tmp_path):
    """A short form of ``make together``: real trials and retries, both servers ended now and then."""
    pace = Pace(gap_sec=0.7, run_sec=3, trouble_sec=2, cron_sec=1)
    wrong, figures = together(tmp_path, 10, 1, pace=pace, only=("graph", "again"))
    assert wrong == []
    assert figures["trials"] > 0
    assert figures["most at once"] == 2
    assert figures["server kills"] + figures["server stops"] > 0


def test_a_killed_server_leaves_the_runs_as_they_were(root):
    ctx = context(root)
    put(ctx, table(job("j", shell("s", "true"))))
    with serving(root, "--no-tick") as server:
        server.client.get("/v1/batches")
        before = _everything(ctx)
        for path in ("/v1/batches", "/v1/batches/latest/scoreboard", "/v1/batches/latest/steps", "/"):
            assert server.client.get(path).status_code == 200
        server.end(signal.SIGKILL)
    assert _everything(ctx) == before


def _everything(ctx) -> dict[str, str]:
    """Every file under ``runs/`` with its hash, but the last look that was kept, or is being written."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in ctx.layout.runs.rglob("*")
        if ctx.layout.temp not in path.parents and path.is_file() and not path.name.startswith("scoreboard.")
    }
