"""Nothing stops silently: passes that fail or that nobody makes are tried again and told by every view; processes say what they are."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from servers import serving
from stores import (
    CHECKOUT,
    attempt_dirs,
    command,
    context,
    environment,
    idle,
    job,
    program,
    put,
    python,
    read,
    shell,
    states,
    table,
    wait_for,
)

from parallelhassnes.execute import launcher
from parallelhassnes.schedule import health
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import process_identity
from parallelhassnes.store.records import parse_time

pytestmark = pytest.mark.timeout(240)
FAST = "durable = false\n"


def views(root: Path, step: str) -> dict[str, str]:
    """What each view says that changes nothing."""
    with serving(root, "--no-tick") as server:
        answer = server.client.get("/health", timeout=30)
        page = server.client.get("/", timeout=30).text
    return {
        "scoreboard": program(root, "scoreboard", "--json").stdout,
        "explain": program(root, "explain", step).stdout,
        "doctor": json.dumps(
            [
                c
                for c in json.loads(program(root, "doctor", "--json", check=False).stdout)["checks"]
                if c["state"] == "trouble"
            ]
        ),
        "page": page,
        "/health": answer.text,
    }


def test_a_stopped_process_that_holds_the_lock_is_told_by_every_view_with_its_pid(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true"))))
    code = "import sys,time; from parallelhassnes.store import locks; locks.hold(sys.argv[1]); print('held', flush=True); time.sleep(300)"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(ctx.layout.tick_lock)], stdout=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        assert health.troubles(ctx.layout) == []
        tick(ctx)
        then = time.time() - 60
        os.utime(ctx.layout.pass_wanted, (then, then))
        health.wish(ctx.layout)  # another wish leaves the time of the first
        said = views(root, f"{batch}/j/s")
        said["tick"] = program(root, "tick").stdout
        said["tick --quiet"] = program(root, "tick", "--quiet").stderr
        for view, text in said.items():
            assert f"process {holder.pid} is stopped" in text, view
            assert f"kill -CONT {holder.pid}" in text, view
        holder.send_signal(signal.SIGCONT)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    wait_for(lambda: states(ctx, batch) == {"j/s": ["succeeded"]}, "the waker to serve the wish")
    assert health.troubles(ctx.layout) == []


def test_a_pass_that_fails_in_a_supervisor_is_told_and_tried_again_until_it_succeeds(root, tmp_path):
    package = tmp_path / "lib" / "parallelhassnes"
    shutil.copytree(CHECKOUT / "parallelhassnes", package, ignore=shutil.ignore_patterns("__pycache__"))
    ctx = context(root, FAST)
    agent = {"step_id": "b", "kind": "agent", "prompt": "x", "depends_on": ["a"], "working_directory": str(root)}
    script = f"touch {root}/runs-now; until [ -e {root}/go ]; do sleep 0.05; done"
    batch = put(ctx, table(job("j", shell("a", script), agent)))
    env = {"PYTHONPATH": str(package.parent)}
    program(root, "tick", "--no-codex", env=env, cwd=tmp_path)
    wait_for((root / "runs-now").exists, "the first step")
    away = package.with_name("away")
    package.rename(away)  # what an upgrade does for some seconds
    (root / "go").touch()
    found = wait_for(lambda: health.failing(ctx.layout), "the failure to be noted")
    assert "ModuleNotFoundError" in found.error or "No module" in found.error, found
    assert "Traceback" in Path(found.log).read_text()
    for view, text in views(root, f"{batch}/j/b").items():
        if view not in ("tick", "tick --quiet"):  # a tick of a whole package makes a pass that succeeds
            assert "no pass has succeeded since" in text, view
    away.rename(package)
    wait_for(lambda: states(ctx, batch).get("j/b") == ["succeeded"], "somebody to go on")
    wait_for(lambda: health.failing(ctx.layout) is None, "the note to go")


def test_lasting_trouble_is_told_once_by_quiet_ticks_and_again_when_it_is_another(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true"))))
    path = ctx.layout.batch(batch) / "j" / "job.json"
    whole = path.read_bytes()
    path.write_bytes(b"{")
    assert str(path) in program(root, "tick", "--quiet").stderr
    assert [program(root, "tick", "--quiet").stderr for _ in range(2)] == ["", ""]
    (ctx.layout.incoming / "left.json").symlink_to(root / "loop")
    (root / "loop").symlink_to(root / "loop")
    second = program(root, "tick", "--quiet").stderr
    assert "left.json" in second
    assert str(path) not in second
    (ctx.layout.incoming / "left.json").unlink()
    path.write_bytes(whole)
    program(root, "tick", "--until-idle", "--quiet")
    assert program(root, "tick", "--quiet").stderr == ""


def test_a_claimed_attempt_does_not_wait_for_what_its_process_does_for_others(root):
    ctx = context(root, FAST + "concurrency = 4\n")
    batch = put(ctx, table(job("j", *(command(f"s{n}", "true") for n in range(400)))))
    program(root, "tick", "--until-idle", timeout_sec=200)
    waits = []
    for path in attempt_dirs(ctx, batch):
        claimed = (path / "meta.json").stat().st_mtime
        waits.append(parse_time(read(path / "state.json")["started_at"]) - claimed)
    assert len(waits) == 400
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    assert max(waits) < 1.0 + load, sorted(waits)[-5:]


COUNTS = """
import os, sys
from parallelhassnes.execute import launcher
from parallelhassnes.schedule import launch, settle, tick
from parallelhassnes.cli.app import main

launcher.PATIENCE_SEC = 1e9  # what is done counts, not how long that takes
acts = []
def counted(module, name, what):
    whole = getattr(module, name)
    def count(*arguments, **named):
        acts.append(what)
        return whole(*arguments, **named)
    setattr(module, name, count)
def take_over(*arguments, whole=launcher.take_over):
    taken = whole(*arguments)
    if taken:
        acts.clear()
    return taken
def run_taken(whole=launcher.run_taken):
    if launcher.has_taken():
        with open(OUT, "a") as out:
            out.write(" ".join(acts) + "\\n")
    whole()
launcher.take_over, launcher.run_taken = take_over, run_taken
counted(settle, "_settle", "settle")
counted(launcher, "start", "fork")
counted(tick, "launch_ready", "pass")
counted(tick.add_steps, "complete", "add")
counted(settle.JobState, "put_ticket", "ticket")
main()
"""


def test_between_a_claim_and_its_start_a_process_does_a_bounded_number_of_things(root, tmp_path):
    """Whatever else ends meanwhile, and however many steps an end sets free."""
    ctx = context(root, FAST + "concurrency = 8\n")
    first = shell("first", f"until [ -e {root}/go ]; do sleep 0.02; done")
    many = [command(f"m{n}", "true", depends_on=["first"]) for n in range(150)]
    more = [command(f"n{n}", "true", depends_on=["m5"]) for n in range(100)]
    batch = put(ctx, table(job("j", first, *many, *more)))
    out = tmp_path / "acts"
    source = f"OUT = {str(out)!r}\n{COUNTS}"
    python(source, "tick", "--root", str(root))
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "the batch to end", 150)
    assert len(list(attempt_dirs(ctx, batch))) == 251
    claims = [Counter(line.split()) for line in out.read_text().splitlines()]
    assert claims
    for acts in claims:
        assert acts["settle"] + acts["fork"] + acts["pass"] <= launcher.MOST_ACTS + 2, acts  # and the waker's fork
        assert acts["add"] == 0
        assert acts["ticket"] <= launcher.MOST_ACTS, acts


def test_processes_say_what_they_are_and_of_which_root(root):
    ctx = context(root, FAST)
    step = shell("s", f"touch {root}/there; until [ -e {root}/go ]; do sleep 0.05; done")
    batch = put(ctx, table(job("j", step, shell("later", "true", retry={"backoff_sec": 600}))))
    program(root, "tick")
    wait_for((root / "there").exists, "the worker")
    (path,) = (p for p in attempt_dirs(ctx, batch) if p.parents[1].name == "s")
    state = read(path / "state.json")
    assert title(state["pid"]) == f"parallelhassnes supervisor of {batch}/j/s in {root}"
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "the end")
    assert not [pid for pid in processes_of(root) if " tick" in title(pid)]


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def processes_of(root: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and process_identity.is_alive(int(entry.name), None):
            try:
                if str(root) in title(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_health_says_what_is_true_and_503_where_nothing_ticks(root):
    ctx = context(root, FAST)
    with serving(root, "--no-tick") as server:
        answer = server.client.get("/health", timeout=30)
        assert (answer.status_code, answer.json()["ticking"]) == (503, False)
        assert "nobody else has ticked" in answer.json()["trouble"][0]
        tick(ctx)
        assert server.client.get("/health", timeout=30).status_code == 200


def test_health_of_a_server_whose_ticking_process_dies_each_time(root):
    context(root, FAST + "[api]\ntick_sec = 0.2\n")
    with serving(root) as server:
        wait_for(lambda: server.client.get("/health", timeout=30).json()["ticking"], "a tick")
        (root / "runs" / "_system" / "config_versions").rename(root / "away")
        (root / "runs" / "_queue").rename(root / "queue")
        (root / "runs" / "_queue").write_text("no folder")

        def told():
            answer = server.client.get("/health", timeout=30)
            return answer.status_code == 503 and answer.json()["trouble"]

        wait_for(told, "503")
        (root / "runs" / "_queue").unlink()
        (root / "queue").rename(root / "runs" / "_queue")
        wait_for(lambda: server.client.get("/health", timeout=30).status_code == 200, "200")
