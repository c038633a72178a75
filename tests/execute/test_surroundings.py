"""What is around the program as it starts: a folder with modules of its own, none at all, no init above it, a caller's lock."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import CHECKOUT, command, context, environment, idle, job, program, put, shell, states, table, wait_for

from parallelhassnes.execute import processes

pytestmark = pytest.mark.timeout(240)
FAST = "durable = false\n"
SHADOWS = ("calendar", "signal", "json", "random", "secrets", "typing", "subprocess")


def shadowed(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(
            "import os; os.write(2, b'SHADOW %s' % __file__.encode()); raise SystemExit(66)\n"
        )
    return folder


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_modules_in_the_current_folder_and_in_the_root_are_not_taken_for_the_librarys(root, tmp_path, start):
    ctx = context(root, FAST)
    shadowed(root)
    here = shadowed(tmp_path / "here")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "my_module.py").write_text("WORD = 'found'\n")
    code = "import my_module; print(my_module.WORD)"
    steps = [
        command("s", sys.executable, "-c", code),
        command(
            "t", "false", retry={"classes": {"agent_error": {"retry": True, "max_attempts": 2, "backoff_sec": 0.5}}}
        ),
    ]
    batch = put(ctx, table(job("j", *steps)))
    env = {"PARALLELHASSNES_START": start, "PYTHONPATH": f"{CHECKOUT}:{mine}"}
    for arguments in (["tick"], ["doctor"], ["audit", "checkpoint"]):
        done = program(root, *arguments, env=env, cwd=here, check=False)
        assert "SHADOW" not in done.stderr + done.stdout, arguments
    wait_for(lambda: idle(ctx), "both steps and the retry")
    assert states(ctx, batch) == {"j/s": ["succeeded"], "j/t": ["failed", "failed"]}
    logs = [path.read_text() for path in root.rglob("*.log") if path.is_file()]
    assert "SHADOW" not in "".join(logs)
    line = program(root, "cron", cwd=here).stdout.strip().removeprefix("* * * * * ")
    ticked = subprocess.run(["/bin/sh", "-c", line], cwd=here, env=environment(env), capture_output=True, text=True)
    assert (ticked.returncode, ticked.stderr) == (0, "")


def test_a_current_folder_that_is_gone_is_one_line_in_every_command(root, tmp_path):
    context(root, FAST)
    gone = tmp_path / "gone"
    for arguments in (
        ["tick"],
        ["scoreboard"],
        ["run", "x", "-a", "nop"],
        ["submit", "t.json"],
        ["init"],
        ["doctor"],
        ["logs", "latest"],
        ["cron"],
        ["api"],
        ["--version"],
    ):
        gone.mkdir()
        script = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m parallelhassnes {' '.join(arguments)}"
        done = subprocess.run(["sh", "-c", script], env=environment(), capture_output=True, text=True)
        assert done.returncode == 2, arguments
        (line,) = done.stderr.splitlines()
        assert line == "the current folder: No such file or directory; cd to one that is there"


@pytest.mark.namespaces
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a pid namespace with its own /proc")
def test_zombies_are_reaped_where_there_is_no_init(root):
    ctx = context(root, FAST + "concurrency = 3\n")
    orphans = "for n in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 0.5; ps -eo stat= > $PARALLELHASSNES_ATTEMPT_DIR/seen"
    batch = put(ctx, table(job("j", *(shell(f"s{n}", orphans) for n in range(9)))))
    container = subprocess.Popen(
        [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            sys.executable,
            "-m",
            "parallelhassnes",
            "tick",
            "--until-idle",
            "--quiet",
            "--root",
            str(root),
        ],
        env=environment(),
        cwd=CHECKOUT,
    )
    assert container.wait(120) == 0
    assert {tuple(found) for found in states(ctx, batch).values()} == {("succeeded",)}
    counts = [
        sum(state.startswith("Z") for state in path.read_text().split())
        for path in root.glob("runs/*/j/steps/*/attempts/*/seen")
    ]
    assert len(counts) == 9
    # Those of the three that run may be seen on a busy machine; those of the attempts before are gone.
    assert max(counts) < 15, counts


@pytest.mark.namespaces
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a pid namespace with its own /proc")
def test_the_first_process_of_a_container_hands_signals_on_and_ends_as_the_program_does(root):
    context(root, FAST)
    run = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "parallelhassnes"]
    refused = subprocess.run(
        [*run, "tick", "--root", str(root / "none")], env=environment(), cwd=CHECKOUT, capture_output=True
    )
    assert refused.returncode == 2
    server = subprocess.Popen(
        [*run, "api", "--port", "0", "--json", "--root", str(root)],
        env=environment(),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        assert "url" in server.stdout.readline()
        (first,) = processes.children(server.pid)
        os.kill(first, 15)
        assert server.wait(60) in (0, 143)


def test_attempts_of_a_server_do_not_keep_what_its_caller_passed_in(root):
    ctx = context(root, FAST)
    go, lock = root / "go", root / "caller.lock"
    batch = put(ctx, table(job("j", shell("s", f"touch {root}/begun; until test -e {go}; do sleep 0.05; done"))))
    server = subprocess.Popen(
        [
            "flock",
            "--no-fork",
            "-n",
            str(lock),
            sys.executable,
            "-m",
            "parallelhassnes",
            "api",
            "--port",
            "0",
            "--json",
            "--root",
            str(root),
        ],
        env=environment(),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        wait_for((root / "begun").exists, "the attempt")
        server.terminate()
        server.wait(60)
    end = time.monotonic() + 20
    while subprocess.run(["flock", "-n", str(lock), "true"]).returncode:  # its ticking process ends
        assert time.monotonic() < end
        time.sleep(0.1)
    assert states(ctx, batch) == {"j/s": ["running"]}
    go.touch()
    program(root, "tick")
    wait_for(lambda: states(ctx, batch) == {"j/s": ["succeeded"]}, "the end")
