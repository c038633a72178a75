"""A file of one batch is torn, gone or somebody else's: that batch waits and says why, the others go on."""

import errno
import json
import os
import shutil
import signal

import pytest
from stores import attempt_dirs, command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.execute import processes
from parallelhassnes.schedule import quarantine
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.queue import tickets

FAST = "durable = false\n"
SPOILT = {
    "empty": b"",
    "half": b'{"schema_version":1,"batch',
    "zeros": b"\0" * 64,
    "a list": b"[]",
    "another": b'{"zork":1}',
}
GOOD = table(job("g", command("a", "true"), command("b", "true", depends_on=["a"])))
DONE = {"g/a": ["succeeded"], "g/b": ["succeeded"]}


def waits(root, *, then: str = "") -> str:
    return f"until [ -e {root}/go ]; do sleep 0.02; done; {then}"


def go_on(ctx):
    """What a user has: a tick to the end, in a process of its own."""
    program(ctx.layout.root, "tick", "--until-idle", "--fail-on", "never")


def others_go_on(ctx):
    good = put(ctx, GOOD)
    go_on(ctx)
    assert states(ctx, good) == DONE


def live(ctx, batch, step="s"):
    """The folder of a step's attempt once its worker runs."""

    def look():
        for path in attempt_dirs(ctx, batch):
            if path.parents[1].name == step and read(path / "state.json").get("worker_pid"):
                return path
        return None

    return wait_for(look, "the worker")


@pytest.mark.parametrize(
    ("name", "content"),
    [("j/job.json", "half"), ("j/job.json", "a list"), ("batch_meta.json", "another"), ("control.json", "empty")],
)
def test_a_damaged_batch_waits_for_its_file_and_says_so_and_the_others_go_on(root, name, content):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true"))))
    path = ctx.layout.batch(batch) / name
    whole = path.read_bytes() if path.exists() else None
    path.write_bytes(SPOILT[content])
    others_go_on(ctx)
    assert f"batch {batch} waits: damaged: {path}" in program(root, "tick").stdout
    assert states(ctx, batch) == {}
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    assert str(path) in next(b for b in board["batches"] if b["batch_id"] == batch)["held"]
    doctor = json.loads(program(root, "doctor", "--json", check=False).stdout)
    assert any(str(path) in c["text"] for c in doctor["checks"] if c["state"] == "trouble")
    for asked in (["explain", f"{batch}/j/s"], ["audit", "verify"]):
        answer = program(root, *asked, check=False)
        assert answer.returncode in (0, 1, 2), answer.stderr
    if whole is None:
        path.unlink()
    else:
        path.write_bytes(whole)
    go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    assert verify(ctx.layout).ok


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ready", "empty"),
        ("running", "another"),
        ("running", None),
        ("delayed", "zeros"),
        ("ended", "half"),
        ("ended", None),
    ],
)
def test_a_ticket_that_is_torn_or_no_file_is_made_anew(root, name, content):
    ctx = context(root, FAST + "concurrency = 3\n")
    script = waits(root, then=f"[ -e {root}/once ] || {{ touch {root}/once; kill -9 $PPID; }}")
    batch = put(ctx, table(job("j", shell("s", script)), retry={"backoff_sec": 0}))
    if name != "ready":
        tick(ctx)
        live(ctx, batch)
    (ticket,) = (path for path in ctx.layout.queue.glob(f"r*/**/{batch}.*.command"))
    if name == "delayed":
        spoilt = ctx.layout.delayed / f"00000000000001.{ticket.name}"
    elif name == "ended":
        spoilt = ctx.layout.ended / ticket.name
    else:
        ticket.unlink()
        spoilt = ticket
    if content is None:
        (spoilt / "folder").mkdir(parents=True)
    else:
        spoilt.write_bytes(SPOILT[content])
    (root / "go").touch()
    others_go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["lost", "succeeded"]}
    wait_for(lambda: verify(ctx.layout).ok, "the pass that makes it anew")
    assert idle(ctx)


@pytest.mark.parametrize("moment", ["ready", "running", "dead"])
def test_a_deleted_batch_leaves_nothing_and_holds_up_nobody(root, moment):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", shell("s", waits(root))), job("k", shell("t", waits(root)))))
    run_ids = []
    if moment != "ready":
        tick(ctx)
        for step in "st":
            state = read(live(ctx, batch, step) / "state.json")
            run_ids.append(state["run_id"])
            if moment == "dead":
                os.kill(state["pid"], signal.SIGKILL)
    # As a user's rm -r that a live attempt writes against: again until nothing is there.
    wait_for(
        lambda: (shutil.rmtree(ctx.layout.batch(batch), ignore_errors=True), not ctx.layout.batch(batch).exists())[1],
        "the removal",
    )
    others_go_on(ctx)
    assert not ctx.layout.batch(batch).exists()
    wait_for(lambda: not any(map(processes.with_run_id, run_ids)), "the end of what it ran")
    left = [path for path in ctx.layout.queue.rglob(f"*{batch}*") if "accepted" not in path.parts]
    assert left == []


def test_a_ticket_of_a_batch_that_never_was_is_dropped(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true"))))
    (ticket,) = ctx.layout.ready.glob(f"*/{batch}/*/{batch}.*")
    ghost = "20200101T000000Z-aaaaaa"
    text, name = ticket.read_text().replace(batch, ghost), ticket.name.replace(batch, ghost)
    for folder in (ctx.layout.ready / "command" / ghost / "00000", ctx.layout.running / "command", ctx.layout.ended):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (ctx.layout.delayed / f"00000000000001.{name}").write_text(text)
    others_go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    assert not list(ctx.layout.queue.rglob(f"*{ghost}*"))


def test_what_is_no_ticket_is_left_alone_everywhere_in_the_queue(root):
    ctx = context(root, FAST + "concurrency = 2\n")
    batch = put(
        ctx, table(job("j", shell("s", waits(root)), command("t", "true", depends_on=["s"]), command("u", "true")))
    )
    tick(ctx)
    live(ctx, batch)
    made = []
    for folder in [path for path in ctx.layout.queue.rglob("*") if path.is_dir()]:
        if folder.name in ("incoming", "tmp"):
            continue
        made += [folder / "README", folder / ".DS_Store", folder / "a.b.c.d", folder / "x.json~"]
        (folder / "folder").mkdir()
        (folder / "folder" / "notes.txt").touch()
    for path in made:
        path.write_text("hello")
    (root / "go").touch()
    others_go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["succeeded"], "j/t": ["succeeded"], "j/u": ["succeeded"]}
    program(root, "scoreboard")
    program(root, "doctor", check=False)
    assert [path for path in made if not path.exists()] == []


def test_the_state_of_a_queue_key_that_is_torn_pauses_it_until_somebody_resumes_it(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true", queue_key="mine"))))
    ctx.layout.limits.mkdir(exist_ok=True)
    (ctx.layout.limits / "mine.json").write_bytes(b"")
    others_go_on(ctx)
    said = program(root, "tick").stdout
    assert "mine is paused" in said
    assert "mine.json" in said
    assert states(ctx, batch) == {}
    program(root, "resume", "mine")
    go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


@pytest.mark.parametrize(
    ("name", "content"), [("state.json", "another"), ("state.json", None), ("meta.json", "half"), ("meta.json", None)]
)
def test_a_dead_attempt_whose_record_is_spoilt_is_ended_and_repeated(root, name, content):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", shell("s", waits(root))), retry={"backoff_sec": 0}))
    tick(ctx)
    path = live(ctx, batch)
    before = read(path / "meta.json")
    os.kill(read(path / "state.json")["pid"], signal.SIGKILL)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(SPOILT[content])
    (root / "go").touch()
    others_go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["lost", "succeeded"]}
    same = ("run_id", "batch_id", "job_id", "step_id", "kind", "queue_key", "number", "ticket")
    assert all(read(path / "meta.json")[key] == before[key] for key in same)
    assert verify(ctx.layout).ok


def test_an_attempt_whose_lock_file_is_removed_goes_on_alone(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", shell("s", waits(root)))))
    tick(ctx)
    path = live(ctx, batch)
    (path.parents[1] / "step.lock").unlink()
    for _ in range(2):
        assert tick(ctx).repaired == []
    assert tickets.running(ctx.layout)
    (root / "go").touch()
    go_on(ctx)
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_a_ledger_that_is_a_folder_holds_up_no_other_batch_and_no_view(root):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "true"))))
    ledger = ctx.layout.batch(batch) / "ledger.jsonl"
    ledger.unlink()
    ledger.mkdir()
    others_go_on(ctx)
    said = program(root, "scoreboard", check=False)
    assert said.returncode == 0, said.stderr
    said = program(root, "show", batch, check=False)
    assert (said.returncode, str(ledger) in said.stderr) == (2, True)


def test_a_refusal_that_names_no_file_is_noted_all_the_same(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    quarantine.note(ctx, batch, PermissionError(errno.EPERM, "Operation not permitted"))
    assert "Operation not permitted" in quarantine.every(ctx.layout)[batch]
