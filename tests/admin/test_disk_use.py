"""What the store takes on disk is told whole, once, and to whom it belongs."""

import json
import os

import pytest
from stores import attempt_dirs, command, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.actions import packs
from parallelhassnes.admin.disk_use import RECORDS, STORE, disk_use

MEGABYTE = 1 << 20


def ran(root, last="true"):
    ctx = context(root, "durable = false\n")
    large = f"head -c {MEGABYTE} /dev/urandom > $PARALLELHASSNES_ATTEMPT_DIR/noise"
    batch_id = put(ctx, table(job("j", shell("large", large), command("small", last))))
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the batch to end")
    program(root, "tick")
    return ctx, batch_id


@pytest.fixture
def batch(root):
    return ran(root)


def on_disk(*folders):
    """Bytes and inodes, each once, counted by another walk."""
    found = {}
    for folder in folders:
        for above, _, files in os.walk(folder):
            for path in (above, *(os.path.join(above, name) for name in files)):
                info = os.lstat(path)
                found[info.st_ino] = info.st_blocks * 512
    return sum(found.values()), len(found)


def test_every_byte_is_counted_once_whatever_it_is_told_apart_by(batch):
    ctx, batch_id = batch
    for _ in range(2):
        size, files = on_disk(ctx.layout.batch(batch_id))
        for by in ("batch", "kind", "environment"):
            found = disk_use(ctx.layout, by, [batch_id])
            assert (found.files, sum(row.attempts for row in found.rows)) == (files, 2), by
            assert abs(found.bytes - size) <= 2, by  # parts of an archive are whole bytes
        (row,) = disk_use(ctx.layout, "batch", [batch_id]).rows
        assert row.name == batch_id
        packs.pack(ctx, batch_id)


def test_a_step_has_what_its_files_take_also_in_an_archive(batch):
    ctx, batch_id = batch
    before = {row.name: row for row in disk_use(ctx.layout, "kind", [batch_id]).rows}
    assert before.keys() == {"command", RECORDS}
    assert before["command"].bytes > MEGABYTE > before[RECORDS].bytes
    packs.pack(ctx, batch_id)
    after = {row.name: row for row in disk_use(ctx.layout, "kind", [batch_id]).rows}
    assert after["command"].bytes > MEGABYTE * 0.9
    assert after["command"].attempts == 2


def test_what_another_batch_shares_counts_once_and_the_store_has_a_row(root):
    ctx, batch_id = ran(root, last="false")
    made = json.loads(
        program(ctx.layout.root, "rerun", batch_id, "--failed", "--edit", "concurrency=1", "--json").stdout
    )
    program(ctx.layout.root, "tick")
    wait_for(lambda: idle(ctx), "the rerun to end")
    assert len(list(attempt_dirs(ctx, made["batch_id"]))) == 2
    found = json.loads(program(ctx.layout.root, "du", "--json").stdout)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows.keys() == {batch_id, made["batch_id"], STORE}
    assert sum(row["bytes"] > MEGABYTE for row in rows.values()) == 1
    assert abs(found["bytes"] - on_disk(ctx.layout.runs, ctx.layout.runners)[0]) < MEGABYTE / 4
    done = program(ctx.layout.root, "du", "--by", "colour", check=False)
    assert (done.returncode, "--by colour: is not known" in done.stderr) == (2, True)


def test_what_is_shown_is_a_table_with_heads_and_a_sum(batch):
    ctx, batch_id = batch
    heads, *shown, total = program(ctx.layout.root, "du").stdout.splitlines()
    assert heads.split() == ["batch", "MB", "files", "attempts"]
    assert {line.split()[0] for line in shown} == {batch_id, STORE}
    assert total.split()[:2] == ["in", "all"]
