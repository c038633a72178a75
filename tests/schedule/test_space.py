"""Full disks, floors and ceilings: nothing starts, nothing breaks, nothing is lost."""

import json
import os
import resource
import shutil
import subprocess

import pytest
from stores import attempt_dirs, command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.execute import logs
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import space
from parallelhassnes.store.queue import tickets

NO_FLOOR = "min_free_disk_mb = 0\n"


@pytest.mark.parametrize("floor", ["min_free_disk_mb", "min_free_files", "min_free_memory_mb"])
def test_below_a_floor_nothing_starts_and_everything_says_so(root, floor):
    ctx = context(root, f"{floor} = 900_000_000\n")
    batch = put(ctx, table(job("j", command("s", "true"))))
    done = program(root, "tick")
    assert floor in done.stdout
    cron = program(root, "tick", "--quiet")
    assert (cron.stdout, floor in cron.stderr) == ("", True)
    assert floor in json.loads(program(root, "tick", "--json").stdout)["waiting"][0]
    assert not tickets.running(ctx.layout)
    assert states(ctx, batch) == {}
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    assert floor in board["shortage"]
    found = json.loads(program(root, "doctor", "--json", check=False).stdout)
    assert any(check["state"] == "trouble" and floor in check["text"] for check in found["checks"])
    ctx = context(root)
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    cron = program(root, "tick", "--quiet")
    assert (cron.stdout, cron.stderr) == ("", "")


def test_the_disk_of_docker_has_the_same_floor(root, small_disk):
    ctx = context(root, "min_free_disk_mb = 20\nmin_free_files = 0\n")
    batch = put(ctx, table(job("j", command("s", "true"))))
    note = space.docker_root(ctx.layout.runs)
    note.write_text(f"{small_disk}\n")
    tick(ctx)
    assert states(ctx, batch) == {}
    told = json.loads(program(root, "scoreboard", "--json").stdout)["shortage"]
    assert f"MB free for {small_disk}, the floor is 20 MB" in told
    found = json.loads(program(root, "doctor", "--json", check=False).stdout)
    assert any(check["state"] == "trouble" and str(small_disk) in check["text"] for check in found["checks"])
    # One that is not of this host, or no path at all, says nothing.
    for other in ("/nowhere/at/all\n", "relative\n", "\0\xff\n", ""):
        note.write_text(other)
        assert ctx.shortage() is None
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


@pytest.mark.parametrize("name", logs.LOGS)
def test_a_log_of_300_mb_keeps_its_beginning_and_its_end(root, name):
    ctx = context(root, "max_log_mb = 1\n")
    to = "" if name == "stdout.log" else ">&2"
    # What is written just while the log is being cut may be lost, so the last line comes after that.
    size = f"n=$(stat -c %s $PARALLELHASSNES_ATTEMPT_DIR/{name})"
    cut = f"until {size}; [ $n -gt {1 << 19} ] && [ $n -le {1 << 20} ]; do sleep 0.02; done"
    script = f"echo first {to}; head -c 300000000 /dev/zero | tr '\\0' x {to}; {cut}; echo last {to}"
    batch = put(ctx, table(job("j", shell("s", script))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    log = next(attempt_dirs(ctx, batch)) / name
    text = log.read_text()
    assert log.stat().st_blocks * 512 <= 1 << 20 >= len(text)
    assert text.startswith("first\nxxx")
    assert text.endswith("xlast\n")
    assert "are cut out here" in text
    assert verify(ctx.layout).ok


def test_a_log_is_cut_while_its_writer_goes_on(root):
    ctx = context(root, "max_log_mb = 1\n")
    flag = root / "go"
    script = f"head -c 9000000 /dev/zero | tr '\\0' x; until test -e {flag}; do sleep 0.02; done; echo; echo last"
    batch = put(ctx, table(job("j", shell("s", script))))
    tick(ctx)
    log = wait_for(lambda: next(attempt_dirs(ctx, batch), None), "the attempt") / "stdout.log"
    wait_for(lambda: log.exists() and "cut out" in log.read_text(), "the cut")
    wait_for(lambda: log.stat().st_size > 1 << 19, "the end of what was cut, put back behind that")
    flag.touch()
    wait_for(lambda: idle(ctx), "the end")
    assert log.read_text().endswith("x\nlast\n")


def fillers(ctx, batch):
    """The attempts of the step that fills the disk."""
    return [path for path in attempt_dirs(ctx, batch) if path.parents[3].name == "j1"]


def saw_it(attempt):
    """Whether the supervisor of a worker that filled the disk has found it full: it then makes room in ``tmp``."""
    return not (attempt / "tmp").exists()


def test_a_disk_that_fills_up_while_a_batch_runs(small_disk):
    """The disk is filled under running attempts, and freed: all of them end, and the store is whole."""
    ctx = context(small_disk, NO_FLOOR + "concurrency = 3\n")
    go = small_disk.parent / "go"
    wait = f"until test -e {go}; do sleep 0.02; done"
    fill = f"{wait}; head -c 20000000 /dev/zero > $PARALLELHASSNES_ATTEMPT_DIR/big; exit 1"
    # Each time that the one fills the disk may cost the others an attempt.
    steps = [
        shell("s", fill, retry={"max_attempts": 4})
        if n == 1
        else shell("s", f"{wait}; echo done", retry={"max_attempts": 20})
        for n in range(6)
    ]
    batch = put(ctx, table(*(job(f"j{n}", step) for n, step in enumerate(steps)), retry={"backoff_sec": 0}))
    tick(ctx)
    wait_for(lambda: all((path / "stdout.log").exists() for path in attempt_dirs(ctx, batch)), "the workers")
    go.touch()
    ballast = small_disk / "ballast"

    def full():
        with ballast.open("ab") as stream:
            try:
                os.write(stream.fileno(), b"x" * 65_536)
            except OSError:
                return True
        return False

    wait_for(full, "a full disk")
    for _ in range(3):
        tick(ctx)
    wait_for(lambda: all(map(saw_it, fillers(ctx, batch))), "those who saw it")
    ballast.unlink()
    for path in list(attempt_dirs(ctx, batch)):
        (path / "big").unlink(missing_ok=True)

    def settled():
        tick(ctx)
        for path in filter(saw_it, fillers(ctx, batch)):  # somebody frees the disk again
            (path / "big").unlink(missing_ok=True)
        return idle(ctx)

    wait_for(settled, "the batch")
    found = states(ctx, batch)
    assert len(found) == 6
    assert all(statuses[-1] == "succeeded" for step, statuses in found.items() if step != "j1/s"), found
    assert set(found["j1/s"]) <= {"failed", "lost"}
    classes = {
        read(path / "state.json")["failure"]["failure_class"]
        for path in attempt_dirs(ctx, batch)
        if path.parents[3].name == "j1" and read(path / "state.json")["status"] == "failed"
    }
    assert classes == {"infrastructure"}
    unexpected = [each for each in verify(ctx.layout).problems if not each.place.endswith("/big")]
    assert not unexpected


def test_a_file_system_that_takes_no_more_files(small_disk):
    """There are bytes left, but no inodes: what starts then is lost or waits, each says so in a line, and all goes on."""
    ctx = context(small_disk, NO_FLOOR + "min_free_files = 0\nconcurrency = 3\n")
    steps = [job(f"j{n}", shell("s", "echo done", retry={"max_attempts": 9})) for n in range(8)]
    batch = put(ctx, table(*steps, retry={"backoff_sec": 0}))

    def allow(more):
        now = os.statvfs(small_disk)
        most = now.f_files - now.f_ffree + more
        subprocess.run(["mount", "-o", f"remount,nr_inodes={most}", str(small_disk)], check=True)

    for more in (0, 15, 25, 35):
        allow(more)
        done = program(small_disk, "tick", check=False)
        assert "Traceback" not in done.stdout + done.stderr
    allow(100_000)

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "the batch")
    found = states(ctx, batch)
    assert {statuses[-1] for statuses in found.values()} == {"succeeded"}
    assert len(found) == 8
    assert verify(ctx.layout).ok


def test_a_limit_on_file_sizes_ends_as_infrastructure(root):
    """A tick under RLIMIT_FSIZE: what its workers cannot write is the host's fault; the store is whole."""
    ctx = context(root, NO_FLOOR)
    script = (
        "dd if=/dev/zero of=$PARALLELHASSNES_ATTEMPT_DIR/big bs=1M count=3; echo No space left on device >&2; exit 1"
    )
    batch = put(ctx, table(job("j", shell("s", script)), job("k", command("s", "true")), retry={"max_attempts": 1}))
    limit = 400_000
    program(
        root,
        "tick",
        "--until-idle",
        "--quiet",
        "--fail-on",
        "never",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert states(ctx, batch) == {"j/s": ["failed"], "k/s": ["succeeded"]}
    path = next(attempt_dirs(ctx, batch))
    assert read(path / "state.json")["failure"]["failure_class"] == "infrastructure"
    assert verify(ctx.layout).ok
    shutil.rmtree(path / "tmp", ignore_errors=True)
