"""Workers that do what workers must not do; each is still ended in time, and nothing of it is left."""

import json
import os
import signal
import subprocess
import sys

import pytest
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
    read,
    shell,
    states,
    table,
    wait_for,
)

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.admin.doctor import diagnose
from parallelhassnes.execute import own_files, processes
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import process_identity

FAST = "grace_sec = 0.3\n"


def settings(root, more=""):
    """A root whose supervisors are in a hurry."""
    ctx = context(root)
    (root / "parallelhassnes.toml").write_text(
        f"heartbeat_sec = 0.1\ngrace_sec = 0.3\ndurable = false\nmin_free_disk_mb = 0\n{more}"
    )
    from parallelhassnes.schedule.context import open_context

    return open_context(ctx.layout.root)


def assert_nothing_else_was_added(ctx, *made):
    """The audit finds what a worker put into the store beside its own folder, by name, and nothing else."""
    found = {(finding.what, finding.place.rpartition("/")[2]) for finding in verify(ctx.layout).problems}
    assert found <= {("added", name) for name in made}


def run(ctx, step, **more):
    """Run a batch of one step to its end; the states of its attempts."""
    batch = put(ctx, table(job("j", step), retry={"max_attempts": 2, "backoff_sec": 0}, **more))
    tick(ctx)

    def ended():
        return idle(ctx)

    wait_for(ended, "the end of the step")
    found = [read(path / "state.json") for path in attempt_dirs(ctx, batch)]
    for path, state in zip(attempt_dirs(ctx, batch), found, strict=True):
        assert (path / "seal.json").exists()
        assert not processes.with_run_id(state["run_id"])
    return found


def test_one_that_forks_away_into_its_own_session(root):
    away = "(setsid sh -c 'trap \"\" TERM HUP; sleep 300' &) ; sleep 0.1"
    (state,) = run(settings(root), shell("s", away))
    assert state["status"] == "succeeded"


def test_one_that_forks_away_with_another_environment(root):
    pids = root / "pids"
    away = f"(env -i setsid sh -c 'echo $$ > {pids}; sleep 300' &) ; until test -s {pids}; do sleep 0.01; done"
    (state,) = run(settings(root), shell("s", away))
    assert state["status"] == "succeeded"
    assert not process_identity.is_alive(int(pids.read_text()), None)


def test_one_that_ignores_sigterm_is_killed_after_the_grace(root):
    (state,) = run(settings(root), shell("s", "trap '' TERM; sleep 300 & wait; sleep 300", timeout_sec=3))
    assert (state["status"], state["failure"]["failure_class"]) == ("failed", "agent_timeout")
    assert state["exit_code"] == -signal.SIGKILL


def test_one_that_closes_its_pipes_and_goes_on(root):
    (state,) = run(settings(root), shell("s", "exec <&- >&- 2>&-; sleep 300", timeout_sec=0.3))
    assert state["failure"]["failure_class"] == "agent_timeout"


def test_one_that_stops_itself_is_continued_to_end(root):
    (state,) = run(settings(root), shell("s", "kill -STOP $$; sleep 300", timeout_sec=0.3))
    assert state["failure"]["failure_class"] == "agent_timeout"


def test_one_that_eats_memory_ends_at_its_limit(root):
    eat = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))\nbytearray(1 << 30)"
    (state,) = run(settings(root), command("s", sys.executable, "-c", eat))
    assert (state["status"], state["exit_code"]) == ("failed", 1)


def test_one_that_writes_past_a_file_size_limit(root):
    (state,) = run(settings(root), shell("s", "ulimit -f 10; head -c 1000000 /dev/zero > big"))
    assert state["status"] == "failed"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root; run as root")
def test_one_that_fills_the_disk_leaves_the_store_whole(root):
    small = root / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("no file system can be mounted here; run where mount(8) works")
    try:
        ctx = settings(small)
        batch = put(ctx, table(job("j", shell("s", "cat /dev/zero > full; true")), retry={"max_attempts": 1}))
        tick(ctx)

        def ended():
            tick(ctx)
            return idle(ctx)

        wait_for(lambda: states(ctx, batch), "the attempt")
        path = next(attempt_dirs(ctx, batch))
        wait_for(lambda: os.statvfs(small).f_bavail == 0, "the disk to be full")
        # Nothing can be written any more, not even the end; every file that is there is whole.
        for found in ctx.layout.runs.rglob("*.json"):
            read(found)
        (path / "work" / "full").unlink()
        wait_for(ended, "the end, once there is room")
        assert (path / "seal.json").exists()
        assert not any(ctx.layout.temp.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_one_in_which_nothing_moves_is_shown_as_stuck(root):
    ctx = settings(root, "stuck_after_sec = 0.3\n")
    batch = put(ctx, table(job("j", shell("s", f"until test -e {root}/go; do sleep 0.05; done"))))
    tick(ctx)
    (path,) = wait_for(lambda: list(attempt_dirs(ctx, batch)), "the attempt")
    state = wait_for(lambda: (s := read(path / "state.json")).get("stuck_since") and s, "the note")
    assert state["status"] == "running"
    from parallelhassnes.views.batch_scoreboard import batch_scoreboard

    assert batch_scoreboard(ctx.layout, batch).running[0].stuck_since == state["stuck_since"]
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "the end")
    assert "stuck_since" not in read(path / "state.json")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_output_is_movement(root):
    ctx = settings(root, 'stuck_after_sec = 3\non_stuck = "retry"\n')
    (state,) = run(ctx, shell("s", "for n in $(seq 16); do echo $n; sleep 0.25; done"))
    assert state["status"] == "succeeded"


def test_a_stuck_one_is_stopped_and_retried_where_that_is_wanted(root):
    ctx = settings(root, 'stuck_after_sec = 3\non_stuck = "retry"\n')
    once = f"test -e {root}/once || {{ touch {root}/once; sleep 300; }}"
    first, second = run(ctx, shell("s", once))
    assert (first["status"], first["failure"]["failure_class"]) == ("failed", "infrastructure")
    assert "stuck" in first["failure"]["line"]
    assert second["status"] == "succeeded"


HERE = 'cd "$PARALLELHASSNES_ATTEMPT_DIR"'
RECORDS = "meta.json state.json final.json final.txt seal.json publish"
DONE_TO_ITS_OWN_FILES = {
    "removes everything in its folder": f"{HERE}; rm -rf ./*",
    "puts folders in the place of records": f"{HERE}; rm -rf {RECORDS}; mkdir {RECORDS}; touch seal.json/x",
    "puts links in the place of records": f"{HERE}; echo mine > ../../outside; for n in {RECORDS} tmp stdout.log; do rm -rf $n; ln -s ../../outside $n; done",
    "puts pipes in the place of records": f"{HERE}; rm -rf {RECORDS} *.log; mkfifo {RECORDS} stdout.log",
    "forges its seal and its end": f'{HERE}; echo \'{{"files":{{}}}}\' > seal.json; echo \'{{"status":"failed"}}\' > state.json',
    "publishes a job of its own": f"{HERE}; mkdir publish; echo garbage > publish/job.json; echo '{{}}' > publish/current.json",
    "takes every permission": f"{HERE}; mkdir -p a/b; touch a/b/c; chmod -R 000 .",
    "asks in a wrong way to be ended": f"{HERE}; echo '[]' > ../../cancel.json",
    "removes its lock": f"{HERE}; rm ../../step.lock",
    "gives files names that are no text": f"{HERE}; touch $(printf 'a\\377b') $(printf '\\033[2J')",
}


@pytest.mark.parametrize("script", DONE_TO_ITS_OWN_FILES.values(), ids=DONE_TO_ITS_OWN_FILES)
def test_one_that_spoils_our_files_is_ended_and_sealed_all_the_same(root, script):
    ctx = settings(root)
    batch = put(ctx, table(job("j", shell("s", f"{script}; sleep 0.3"), shell("t", "true", depends_on=["s"]))))
    tick(ctx)

    def over():  # a batch waits while one of its files cannot be read
        tick(ctx)
        return idle(ctx) and not any(ctx.layout.blocked.glob("*"))

    wait_for(over, "the end of both steps")
    assert states(ctx, batch) == {"j/s": ["succeeded"], "j/t": ["succeeded"]}
    for path in attempt_dirs(ctx, batch):
        assert (path / "seal.json").is_file()
        assert read(path / "meta.json")["run_id"] == path.name.partition("_")[2]
        assert read(path / "final.json")["status"] == "succeeded"
    assert_nothing_else_was_added(ctx, "outside", "cancel.json")
    outside = ctx.layout.step(batch, "j", "s") / "outside"
    assert not outside.exists() or outside.read_text() == "mine\n"
    assert diagnose(ctx)


CLOSED = {
    "takes every permission": DONE_TO_ITS_OWN_FILES["takes every permission"],
    "takes every permission of its job": f"{HERE}; chmod -R 000 ../../../..",
    "puts a folder in the place of the log": f"{HERE}; rm supervisor.log; mkdir supervisor.log",
    "puts a pipe in the place of the log": f"{HERE}; rm supervisor.log; mkfifo supervisor.log",
    "puts a link in the place of the log": f"{HERE}; rm supervisor.log; touch ../../../../outside; ln -s ../../../../outside supervisor.log",
}


@pytest.mark.parametrize("supervisor", ["lives", "dies"])
@pytest.mark.parametrize("script", CLOSED.values(), ids=CLOSED)
def test_one_that_closes_our_files_to_an_ordinary_user_is_ended(root, script, supervisor):
    """As a user who is not root, whom permissions bind."""
    ctx = settings(root)
    wait = "sleep 0.3" if supervisor == "lives" else "sleep 300"
    gate = f"test -e {root}/once && exit 0; until test -e {root}/go; do sleep 0.02; done"
    step = shell("s", f"{gate}; {script}; touch {root}/once; {wait}")
    batch = put(ctx, table(job("j", step), retry={"max_attempts": 2, "backoff_sec": 0}))
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ticking = [*bound, sys.executable, "-m", "parallelhassnes", "tick", "--json", "--root", str(root)]

    def bound_tick():
        done = subprocess.run(ticking, env=environment(), cwd=CHECKOUT, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        assert json.loads(done.stdout)["ok"]
        return idle(ctx) and not any(ctx.layout.blocked.glob("*"))

    bound_tick()
    path = wait_for(lambda: next(attempt_dirs(ctx, batch), None), "the attempt")
    pid = wait_for(lambda: read(path / "state.json").get("pid"), "its supervisor")
    (root / "go").touch()
    wait_for((root / "once").exists, "what it does")
    if supervisor == "dies":
        os.kill(pid, signal.SIGKILL)
    wait_for(bound_tick, "the end")
    ends = {"lives": ["succeeded"], "dies": ["lost", "succeeded"]}
    assert states(ctx, batch) == {"j/s": ends[supervisor]}
    assert_nothing_else_was_added(ctx, "outside")
    outside = ctx.layout.batch(batch) / "outside"
    assert not outside.exists() or outside.read_text() == ""


@pytest.mark.parametrize(
    "script",
    [
        f"{HERE}; cd /; while [ -e $OLDPWD ]; do rm -rf $OLDPWD; done; sleep 30",  # a beat may come in between
        f"{HERE}; mkdir ../../outside; cd /; mv $OLDPWD /tmp/moved.$$; ln -s ../../outside $OLDPWD; rm -r /tmp/moved.$$; sleep 30",
    ],
    ids=["removes it", "puts a link in its place"],
)
def test_one_that_removes_its_own_folder_is_lost_and_not_repeated_for_ever(root, script):
    ctx = settings(root)
    batch = put(ctx, table(job("j", shell("s", script)), retry={"max_attempts": 2, "backoff_sec": 0}))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the end of both attempts")
    assert states(ctx, batch) == {"j/s": ["lost", "lost"]}
    for path in attempt_dirs(ctx, batch):
        assert read(path / "final.json")["status"] == "lost"
        assert not processes.with_run_id(path.name.partition("_")[2])
    assert_nothing_else_was_added(ctx, "outside")


def test_what_a_worker_says_commands_no_terminal(root):
    ctx = settings(root)
    evil = "printf '\\033[2J\\033]0;evil\\007red\\233' >&2; exit 3"
    batch = put(ctx, table(job("j", shell("s", evil))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the end")
    for asked in (["show", f"{batch}/j/s"], ["scoreboard", batch], ["errors", batch]):
        said = program(root, *asked).stdout
        assert not {"\033", "\007", "\x9b"} & set(said)


def test_nothing_above_a_log_is_opened_for_it(tmp_path):
    above = tmp_path / "above"
    (above / "here").mkdir(parents=True)
    log = above / "here" / "waker.log"
    os.mkfifo(log)
    above.chmod(0o500)
    os.close(own_files.open_log(log))
    assert log.is_file()
    assert above.stat().st_mode & 0o777 == 0o500
    above.chmod(0o700)
