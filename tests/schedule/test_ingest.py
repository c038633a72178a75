"""Tables put into incoming/: good ones become batches, bad ones are told why, neither holds up another."""

import errno
import json
import os
import time
from pathlib import Path

import pytest
from stores import CHECKOUT, command, context, idle, job, program, put, read, started, states, table, wait_for

from parallelhassnes.actions import submit as submitting
from parallelhassnes.schedule import ingest
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic

GOOD = table(job("good", command("s", "true")))
STEP = command("s", "true")

BAD = {
    "not json": b"{not json",
    "an array": b"[1, 2]",
    "null": b"null",
    "a number": b"17",
    "no jobs": table(),
    "jobs as an object": b'{"spec_version":"2.0","jobs":{"a":1}}',
    "a job as a text": b'{"spec_version":"2.0","jobs":["a"]}',
    "steps as an object": b'{"spec_version":"2.0","jobs":[{"job_id":"a","steps":{}}]}',
    "a circle": table(job("a", command("x", "true", depends_on=["y"]), command("y", "true", depends_on=["x"]))),
    "waits for itself": table(job("a", command("x", "true", depends_on=["x"]))),
    "unknown reference": table(job("a", command("x", "true", depends_on=["z"]))),
    "traversal": table(job("../../x", STEP)),
    "absolute": table(job("/etc/x", STEP)),
    "step traversal": table(job("a", command("../x", "true"))),
    "id of 129": table(job("a" * 129, STEP)),
    "id not a text": table(job(7, STEP)),
    "job twice": table(job("a", STEP), job("a", STEP)),
    "step twice": table(job("a", STEP, STEP)),
    "unknown key": table(job("a", STEP), jbos=[]),
    "unknown kind": table(job("a", {**STEP, "kind": "comand"})),
    "negative": table(job("a", command("s", "true", timeout_sec=-1))),
    "zero": table(job("a", STEP), concurrency=0),
    "NaN": b'{"spec_version":"2.0","concurrency":NaN,"jobs":[]}',
    "true for a number": table(job("a", STEP), concurrency=True),
    "missing prompt": table(job("a", {"step_id": "s", "kind": "agent"})),
    "missing path": table(job("a", {"step_id": "s", "kind": "trial", "task": {"path": "no/such/task"}})),
    "huge prompt": table(job("a", {"step_id": "s", "prompt": "x" * (2 << 20)})),
    "deep": b'{"jobs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": b'{"spec_version":"2.0","jobs":[{"job_id":"\xff\xfe"}]}',
    "a NUL": b'{"spec_version":"2.0",\0"jobs":[]}',
    "100 MB": b'{"spec_version":"2.0","jobs":["' + b"x" * 100_000_000 + b'"]}',
}


def drop(ctx, name: str, data: bytes) -> None:
    """As any program would: written elsewhere, renamed in."""
    elsewhere = ctx.layout.root / "elsewhere.tmp"
    elsewhere.write_bytes(data)
    elsewhere.rename(ctx.layout.incoming / name)


def test_bad_tables_get_a_clear_error_each_and_a_good_one_beside_them_runs(root):
    ctx = context(root)
    for number, data in enumerate(BAD.values()):
        drop(ctx, f"bad{number}.json", data)
    drop(ctx, "good.json", GOOD)
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the good one")
    assert list(ctx.layout.incoming.iterdir()) == []
    for number, case in enumerate(BAD):
        errors = read(ctx.layout.rejected / f"bad{number}.json.error.json")["errors"]
        assert errors, case
        for error in errors:
            assert error["message"], case
            assert "Traceback" not in error["line"], case
            assert "could not be read: " not in error["line"], f"{case}: {error}"
            assert len(error["line"]) < 600, case
        assert (ctx.layout.rejected / f"bad{number}.json").exists()
    (batch,) = ctx.layout.batch_ids()
    assert states(ctx, batch) == {"good/s": ["succeeded"]}
    assert read(ctx.layout.accepted / f"{batch}.ack.json")["source_name"] == "good.json"


def test_submit_reports_a_bad_table_at_once_and_leaves_nothing(root):
    context(root)
    path = root / "bad.json"
    path.write_bytes(table(job("a", command("x", "true", depends_on=["z"], timout_sec=3)), jbos=[]))
    done = program(root, "submit", str(path), check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert any("jobs" in line and "jbos" in line for line in lines)
    assert any("timeout_sec" in line for line in lines)
    answer = json.loads(program(root, "submit", str(path), "--json", check=False).stdout)
    assert answer["ok"] is False
    assert {error["pointer"] for error in answer["errors"]} == {"/jbos", "/jobs/0/steps/0/timout_sec"}
    assert list((root / "runs" / "_queue" / "incoming").iterdir()) == []


def test_the_same_bytes_are_the_same_batch_unless_asked_otherwise(root):
    ctx = context(root)
    path = root / "table.json"
    path.write_bytes(GOOD)
    first = json.loads(program(root, "submit", str(path), "--json").stdout)
    second = json.loads(program(root, "submit", str(path), "--json").stdout)
    third = json.loads(program(root, "submit", str(path), "--again", "--json").stdout)
    assert (first["duplicate"], second["duplicate"], third["duplicate"]) == (False, True, False)
    assert first["batch_id"] == second["batch_id"] != third["batch_id"]
    assert first["ok"]
    assert (first["jobs"], first["steps"]) == (1, 1)
    drop(ctx, "again.json", GOOD)
    tick(ctx)
    assert len(ctx.layout.batch_ids()) == 2


@pytest.mark.parametrize("again", [True, False])
def test_a_submit_tells_of_its_own_batch_though_a_tick_made_it_and_others_came(root, monkeypatch, again):
    """What a tick and another submit do between the table's arrival in incoming/ and the lock."""
    ctx = context(root)
    earlier = put(ctx, GOOD)
    write, others = atomic.write_bytes, []

    def write_and_be_overtaken(path, data, **more):
        write(path, data, **more)
        if not others and Path(path).match("incoming/*.json"):
            others.append("")
            (taken,) = ingest.ingest_incoming(ctx)
            others[:] = [taken.batch_id, put(ctx, GOOD)]

    monkeypatch.setattr(submitting, "known", lambda *_: None)  # it was not there a moment ago
    monkeypatch.setattr(atomic, "write_bytes", write_and_be_overtaken)
    said = submitting.submit(ctx, GOOD, name="table.json", folders=[root], again=again)
    made, newest = others
    assert said.duplicate is not again
    if again:
        assert said.batch_id == made not in (earlier, newest)
    else:
        assert (made, said.batch_id) == (earlier, newest)


def test_submits_of_the_same_bytes_at_once_make_one_batch(root):
    ctx = context(root)
    path = root / "table.json"
    path.write_bytes(GOOD)
    running = [started(root, "submit", str(path)) for _ in range(6)]
    ids = {process.communicate(timeout=100)[0].strip() for process in running}
    assert len(ids) == 1
    assert ctx.layout.batch_ids() == sorted(ids)


def test_a_table_that_is_still_being_written_is_left_alone(root):
    ctx = context(root)
    half, rest = GOOD[:20], GOOD[20:]
    path = ctx.layout.incoming / "slow.json"
    with path.open("wb") as stream:
        stream.write(half)
        stream.flush()
        tick(ctx)
        assert path.exists(), "open for writing"
        stream.write(rest)
    path.write_bytes(half)
    tick(ctx)
    assert path.exists(), "closed, but it just stops, and is young"
    path.write_bytes(GOOD)
    tick(ctx)
    assert not path.exists()
    assert len(ctx.layout.batch_ids()) == 1


def test_a_table_is_taken_in_where_no_leases_are_given(root, monkeypatch):
    """A client of NFS 4 says of every file what others say of one that is being written."""

    def refuse(path: Path) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))

    monkeypatch.setattr(ingest, "_take_lease", refuse)
    ctx = context(root)
    path = ctx.layout.incoming / "table.json"
    path.write_bytes(GOOD)
    tick(ctx)
    assert path.exists(), "it may still be written"
    os.utime(path, (time.time() - 3,) * 2)
    tick(ctx)
    assert not path.exists()
    assert len(ctx.layout.batch_ids()) == 1
    wait_for(lambda: not [*ctx.layout.temp.iterdir()], "the end of whoever still writes there")


def test_half_a_table_that_nobody_goes_on_with_is_rejected(root):
    ctx = context(root)
    path = ctx.layout.incoming / "half.json"
    path.write_bytes(GOOD[:20])
    os.utime(path, (1, 1))
    tick(ctx)
    assert (ctx.layout.rejected / "half.json.error.json").exists()


def test_yaml_is_taken_and_temporary_names_are_not_looked_at(root):
    ctx = context(root)
    (ctx.layout.incoming / ".hidden.json").write_bytes(b"{")
    drop(
        ctx, "table.yaml", b"spec_version: '2.0'\njobs:\n- job_id: y\n  steps:\n  - step_id: s\n    command: ['true']\n"
    )
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    (batch,) = ctx.layout.batch_ids()
    assert states(ctx, batch) == {"y/s": ["succeeded"]}
    assert (ctx.layout.batch(batch) / "launch_table.yaml").exists()
    assert (ctx.layout.incoming / ".hidden.json").exists()


def test_an_ingest_that_died_is_done_again_to_the_same_end(root):
    """The table is still in incoming/, the batch is there already, some of it has run."""
    ctx = context(root)
    batch = put(ctx, GOOD)
    tick(ctx)
    wait_for(lambda: idle(ctx), "the step")
    accepted = ctx.layout.accepted / f"{batch}.json"
    companion = {"schema_version": 1, "batch_id": batch, "source_name": "table.json", "base_dirs": [], "again": True}
    (ctx.layout.incoming / f"{batch}.json.submit").write_text(json.dumps(companion))
    accepted.rename(ctx.layout.incoming / f"{batch}.json")
    tick(ctx)
    wait_for(lambda: idle(ctx), "nothing")
    assert accepted.exists()
    assert list(ctx.layout.incoming.iterdir()) == []
    assert states(ctx, batch) == {"good/s": ["succeeded"]}


@pytest.mark.parametrize("name", ["table.json", "launch_table.example.json"])
def test_the_examples_are_taken_unchanged(root, name):
    ctx = context(root)
    batch = put(ctx, (Path(CHECKOUT) / "examples" / name).read_bytes())
    assert (ctx.layout.batch(batch) / "launch_table.json").read_bytes() == (CHECKOUT / "examples" / name).read_bytes()


def test_the_five_commands_of_the_earlier_readme(root):
    program(root, "init")
    program(root, "submit", "examples/launch_table.example.json")
    program(root, "tick", "--concurrency", "4", "--no-codex")
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    assert [line["steps_total"] for line in board["batches"]] == [5]
    ctx = context(root)
    wait_for(lambda: idle(ctx), "the stand-ins")
    (batch,) = ctx.layout.batch_ids()
    board = json.loads(program(root, "scoreboard", batch, "--json").stdout)
    assert board["counts"]["succeeded"] == board["steps_total"] == 5
    assert board["stand_in"] is True
    assert "DRY RUN" in program(root, "scoreboard", batch).stdout
    for report in ctx.layout.batch(batch).glob("*/steps/*/attempts/*/final.json"):
        assert read(report)["stand_in"] is True
