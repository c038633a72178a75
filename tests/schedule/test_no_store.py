"""A root whose store is not there, because its disk is not mounted or it was moved away: nothing makes it again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import command, context, idle, job, program, put, shell, states, table, wait_for

from parallelhassnes.admin.init import ensure
from parallelhassnes.schedule.context import open_context
from parallelhassnes.store import identity, locks

pytestmark = pytest.mark.timeout(240)
FAST = "durable = false\n"
TASK = ("examples/tasks/hello", "-a", "nop", "-e", "sandbox")


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("bare", ["", "runs"], ids=["the root is a mount point", "runs is one"])
def test_nothing_but_init_and_run_makes_a_store(root, bare):
    (root / "parallelhassnes.toml").write_text(FAST)
    (root / bare).mkdir(exist_ok=True)
    before = tree(root)
    text = table(job("j", command("s", "true"))).decode()
    for arguments in (
        ["tick"],
        ["tick", "--quiet"],
        ["tick", "--until-idle"],
        ["submit", "-"],
        ["doctor", "--rebuild"],
        ["cancel", "latest"],
        ["pause", "latest"],
        ["api", "--port", "0"],
        ["audit", "checkpoint"],
    ):
        done = program(root, *arguments, check=False, input=text)
        assert done.returncode == 2, arguments
        (line,) = done.stderr.splitlines()
        assert f"there is no store in {root}" in line, arguments
        assert "parallelhassnes init" in line
    for arguments in (["scoreboard"], ["validate", "-"], ["logs", "latest"], ["audit", "verify"]):
        assert "Traceback" not in program(root, *arguments, check=False, input=text).stderr
    assert tree(root) == before
    program(root, "init")
    assert (root / "runs" / "_queue" / "incoming").is_dir()
    assert (root / "runs" / "_system" / identity.STORE_ID).read_text().strip()
    program(root, "tick")


def test_run_makes_a_store_and_says_so(root):
    done = program(root, "run", *TASK, "--fail-on", "never", "-q", check=False)
    assert f"made a store in {root / 'runs'}" in done.stderr
    assert (root / "runs" / "_system" / identity.STORE_ID).exists()


@pytest.mark.parametrize("root_is_there", [True, False], ids=["", "with a root that is not there yet"])
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["run", "nosuch"], "run nosuch: does not exist; looked in "),
        (["run", TASK[0], "-a", "nosuch"], "unknown agent 'nosuch'"),
        (["run", TASK[0], "-e", "nosuch"], "nosuch"),
        (["run", "-c", "nosuch.json"], "nosuch.json"),
        (["run", *TASK, "--detach", "--limit", "nosuch"], "nosuch"),
        (["harbor", "run", "-p", "nosuch"], "-p nosuch: does not exist; looked in "),
    ],
)
def test_a_run_that_is_refused_makes_nothing(tmp_path, arguments, why, root_is_there):
    root = tmp_path / "root"
    if root_is_there:
        root.mkdir()
    done = program(root, *arguments, check=False)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert tree(tmp_path) == (["root"] if root_is_there else [])


def test_a_dry_run_makes_nothing(tmp_path):
    root = tmp_path / "root"
    assert "1 trial" in program(root, "run", *TASK, "--dry-run").stdout
    assert tree(tmp_path) == []


@pytest.mark.namespaces
def test_run_makes_the_folder_of_its_root(tmp_path):
    root = tmp_path / "above" / "root"
    done = program(root, "run", *TASK, "--fail-on", "never", "-q", check=False)
    assert f"made a store in {root / 'runs'}" in done.stderr
    assert program(root, "scoreboard").stdout


def test_a_root_that_is_a_file_is_refused(tmp_path):
    root = tmp_path / "root"
    root.write_text("")
    for arguments in (["run", *TASK], ["scoreboard"]):
        done = program(root, *arguments, check=False)
        assert (done.returncode, "is not a folder" in done.stderr) == (2, True), done.stderr
    assert root.read_text() == ""


def test_a_store_of_an_earlier_version_and_one_that_lost_its_system_folder_are_known(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true"))))
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the batch")
    (ctx.layout.system / identity.STORE_ID).unlink()
    program(root, "tick")
    assert (ctx.layout.system / identity.STORE_ID).exists()
    wait_for(lambda: not locks.is_held(ctx.layout.tick_lock), "quiet")
    subprocess.run(["rm", "-rf", str(ctx.layout.system)], check=True)
    program(root, "tick")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def workers_of(root: Path) -> Iterator[int]:
    """Processes that say in ``ps`` that they are about this root."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if said.startswith(b"parallelhassnes ") and os.fsencode(root) + b"\0" in said:
            yield int(name)


def busy(root: Path, go: Path) -> str:
    """A root with an attempt that runs until ``go``, one that waits for it, and a retry that is waited for."""
    ctx = context(root, FAST)
    again = {"classes": {"agent_error": {"retry": True, "max_attempts": 2, "backoff_sec": 8}}}
    steps = [
        shell("a", f"touch {go}.begun; until [ -e {go} ]; do sleep 0.02; done"),
        command("b", "true", depends_on=["a"]),
        command("c", "false", retry=again),
    ]
    batch = put(ctx, table(job("j", *steps)))
    program(root, "tick")
    wait_for(Path(f"{go}.begun").exists, "the attempt")
    wait_for(lambda: locks.is_held(ctx.layout.waker_lock), "who wakes the retry")
    return batch


def test_processes_of_a_root_that_was_moved_away_end_and_do_not_make_it_again(root, tmp_path):
    batch = busy(root, tmp_path / "go")
    there = tmp_path / "moved"
    root.rename(there)
    (tmp_path / "go").touch()
    wait_for(lambda: not list(workers_of(root)), "all of its processes to end")
    assert not root.exists()
    logs = (there / "runs" / "_system").glob("*.log")
    assert "there is no store in" in "".join(path.read_text() for path in logs)
    moved = open_context(there)
    ensure(moved)

    def over() -> bool:
        program(there, "tick")
        return idle(moved) and "j/b" in states(moved, batch)

    wait_for(over, "the batch to go on where it is now")
    found = states(moved, batch)
    assert found["j/b"] == ["succeeded"]
    assert found["j/a"][-1] == "succeeded"
    assert found["j/c"] == ["failed", "failed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system")
def test_a_root_whose_disk_is_unmounted_stays_bare(root, tmp_path):
    mounted = ["mount", "-t", "tmpfs", "none", str(root)]
    if subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        busy(root, tmp_path / "go")
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
    for _ in range(2):
        done = program(root, "tick", "--quiet", check=False)
        assert done.returncode == 2
        assert "there is no store in" in done.stderr
    (tmp_path / "go").touch()
    wait_for(lambda: not list(workers_of(root)), "all of its processes to end")
    assert tree(root) == []
