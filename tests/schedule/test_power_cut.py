"""After a power cut: what did not wait for the disk is torn or gone, what did is whole; the next tick goes on."""

import os
import signal
import subprocess

from harness import TEMP, make_task
from stores import (
    attempt_dirs,
    command,
    context,
    idle,
    job,
    program,
    put,
    read,
    shell,
    states,
    step_of,
    table,
    wait_for,
)

from parallelhassnes.actions import pause_resume
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule import reboot
from parallelhassnes.schedule.job_state import ticket_of
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic, batches, hosts, process_identity
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import dump


def tear(path):
    """What a file is whose name reached the disk before its content."""
    path.write_bytes(b"")


def all_but_the_durable_is_lost(ctx, batch):
    """The worst that a power cut may leave, the host's start after it included."""
    for folder in (ctx.layout.ready, ctx.layout.running, ctx.layout.ended, ctx.layout.delayed):
        subprocess.run(["rm", "-r", str(folder)], check=True)
        folder.mkdir()
    for path in ctx.layout.batch(batch).glob("*/current.json"):
        tear(path)
    runner = ctx.layout.runners / ctx.config.runner_id
    tear(runner / "health.json")
    (ctx.layout.system / "starts").mkdir(exist_ok=True)
    tear(ctx.layout.system / "starts" / "docker.json")
    tear(ctx.layout.system / "spent.json")
    tear(ctx.layout.batch(batch) / "scoreboard.batch.json")
    (runner / "boot_id").write_text("an earlier start\n")


def test_a_batch_goes_on_and_repeats_nothing_that_was_sealed(root):
    ctx = context(root, "concurrency = 2\n")
    go = root / "go"
    done = shell("a", f"until [ -e {go} ]; do sleep 0.02; done")
    after = shell("b", "true", depends_on=["a"])
    batch = put(ctx, table(job("j", done, after), job("k", command("long", "sleep", "300"))))
    tick(ctx)
    pause_resume.drain(ctx, None, "")
    go.touch()
    wait_for(lambda: states(ctx, batch).get("j/a") == ["succeeded"], "the first")
    (live,) = [path for path in attempt_dirs(ctx, batch) if step_of(path) == "k/long"]
    wait_for(lambda: "worker_pid" in read(live / "state.json"), "the worker")
    os.kill(read(live / "state.json")["pid"], signal.SIGKILL)
    lines = ctx.layout.batch(batch) / ledger.LEDGER
    wait_for(lambda: b'"ended"' in lines.read_bytes(), "its line")
    (first,) = [path for path in attempt_dirs(ctx, batch) if step_of(path) == "j/a"]
    over = lambda: not process_identity.is_alive(read(first / "state.json")["pid"], None)  # noqa: E731
    wait_for(over, "the end of its supervisor, which still works in the queue")
    tear(live / "state.json")
    lines.write_bytes(lines.read_bytes()[:-20])
    all_but_the_durable_is_lost(ctx, batch)

    program(root, "undrain")

    def ended():
        tick(ctx)
        return (live / "seal.json").exists()

    wait_for(ended, "the end of the one that was torn")
    wait_for(lambda: states(ctx, batch).get("j/b") == ["succeeded"], "what waited for the first")
    assert states(ctx, batch)["j/a"] == ["succeeded"]
    wait_for(lambda: states(ctx, batch)["k/long"] == ["lost", "running"], "the lost one's successor")
    program(root, "cancel", batch)
    wait_for(lambda: idle(ctx), "the cancel")
    program(root, "tick")
    found = verify(ctx.layout, [batch])
    assert found.ok, found.problems
    assert hosts.read_note(ctx.layout.runners / ctx.config.runner_id / hosts.NOTE) == hosts.machine()


def test_a_published_verdict_that_was_torn_is_made_again(root):
    ctx = context(root)
    sweep = {"path": str(make_task(root.parent)), "agents": [{"name": "oracle"}]}
    batch = put(ctx, table(sweep={**sweep, "environment": TEMP}))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    verdict = ctx.layout.batch(batch) / "hello" / "verdict.json"
    before = verdict.read_bytes()
    tear(verdict)
    all_but_the_durable_is_lost(ctx, batch)
    program(root, "tick")
    assert verdict.read_bytes() == before
    assert {*map(tuple, states(ctx, batch).values())} == {("succeeded",)}


def test_an_end_whose_line_outlived_what_is_derived_is_written_and_paid_once(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("one", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    job_dir = ctx.layout.job(batch, "j")
    for keep in (None, "", (job_dir / "current.json").read_text()):
        spec = batches.read_job(job_dir)
        ticket, name = ticket_of(spec, spec.step("one"))
        atomic.write_json(ctx.layout.ended / name, dump(ticket))  # which the crash has left
        (job_dir / "current.json").unlink()
        if keep is not None:
            (job_dir / "current.json").write_text(keep)
        program(root, "tick")
        wait_for(lambda: idle(ctx), "its ticket to go")
        events = [line["event"] for _, line in ledger.read(ctx.layout.batch(batch))]
        assert events.count("ended") == 1
    assert verify(ctx.layout, [batch]).ok


def test_only_the_first_tick_after_a_start_does_that(root):
    ctx = context(root)
    tick(ctx)
    assert reboot.recover(ctx) is False
    (ctx.layout.runners / ctx.config.runner_id / "boot_id").write_text("an earlier start\n")
    assert reboot.recover(ctx) is True
    assert reboot.recover(ctx) is False
