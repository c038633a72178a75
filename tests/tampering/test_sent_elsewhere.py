"""Checkpoints and heads in a folder, and in a bucket that locks what it has, against a store whose history was written anew."""

import hashlib
import json
import re
import time
from pathlib import Path

import pytest
from stores import command, context, idle, job, program, put, table, wait_for

from parallelhassnes.actions.archive import push_batch
from parallelhassnes.schedule import checkpointing
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic, identity
from parallelhassnes.store.archives import object_store
from parallelhassnes.store.evidence import checkpoints, ledger


@pytest.fixture(params=["folder", pytest.param("locked", marks=pytest.mark.seaweedfs)])
def place(request, tmp_path, monkeypatch):
    """Where checkpoints are to be sent: an address."""
    if request.param == "folder":
        (tmp_path / "away").mkdir()
        return str(tmp_path / "away")
    return request.getfixturevalue("bucket_server").offer(monkeypatch).make_locked_bucket(f"b{time.time_ns()}")


def sent_from(root, place, *, batches=1):
    """Run batches in a store that sends its checkpoints; the context and the batches."""
    ctx = context(root, f'durable = false\n[audit]\nsend_to = "{place}"\n')
    ids = []
    for known in range(batches):
        ids.append(put(ctx, table(job("j", command("a", "false"), command("b", "true")))))
        tick(ctx)
        wait_for(lambda: idle(ctx) and not ctx.layout.checkpoint_wanted.exists(), "the batch")
        wait_for(
            lambda known=known: (
                len(checkpoints.numbers(ctx.layout)) > known and not checkpointing.unsent(ctx.layout, ctx.config.audit)
            ),
            "the sending",
        )
    return ctx, ids


def verified(root, *words):
    done = program(root, "audit", "verify", *words, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def write_anew(ctx, batch_id):
    """Give a batch another history, whole by its own chain, and the store no checkpoints that know the old one."""
    path = ctx.layout.batch(batch_id) / ledger.LEDGER
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    head = ""
    out = []
    for line in lines:
        line["prev"] = head
        if line["event"] == "submitted":
            line["by"] = "somebody@else"
        data = atomic.dumps(line).encode()
        head = hashlib.sha256(data.rstrip(b"\n")).hexdigest()
        out.append(data)
    path.write_bytes(b"".join(out))
    for each in checkpoints.folder(ctx.layout).iterdir():
        each.unlink()


def test_a_history_that_was_written_anew_fails_against_what_was_sent(root, place):
    ctx, (first, second) = sent_from(root, place, batches=2)
    code, said = verified(root, "--against", place)
    assert code == 0, said
    write_anew(ctx, first)
    assert verified(root)[0] == 0  # by itself it is whole
    program(root, "audit", "checkpoint", "--full")
    code, said = verified(root, "--against", place)
    assert code == 1
    assert re.search(rf"^checkpoint {first}/ledger.jsonl: is not what .* knows up to line \d+", said, re.MULTILINE), (
        said
    )
    assert f"1.json: {place} has 2 of this number" in said
    assert second not in said


@pytest.mark.seaweedfs
def test_what_was_sent_to_a_bucket_that_locks_cannot_be_removed_and_a_hidden_one_is_missed(
    root, bucket_server, monkeypatch
):
    url = bucket_server.offer(monkeypatch).make_locked_bucket(f"b{time.time_ns()}")
    ctx, _ = sent_from(root, url, batches=2)
    bucket = url.split("/")[2]
    _, listing = bucket_server.ask("GET", f"/{bucket}", "versions=")
    versions = re.findall(r"<Version>.*?<Key>(.*?)</Key>.*?<VersionId>(.*?)</VersionId>", listing, re.DOTALL)
    assert len(versions) == len(checkpoints.numbers(ctx.layout))
    for key, version in versions:
        status, said = bucket_server.ask("DELETE", f"/{bucket}/{key}", f"versionId={version}")
        assert (status, "AccessDenied" in said) == (403, True)
    key = next(each for each, _ in versions if "/00000001-" in each)
    assert (
        bucket_server.ask("DELETE", f"/{bucket}/{key}")[0] == 204
    )  # a mark is put over it; whoever may not remove cannot even do that
    code, said = verified(root, "--against", url)
    assert (code, "1.json: " in said, "has later ones, and this one not any more" in said) == (1, True, True)


def test_heads_of_an_archive_are_compared_like_checkpoints(root, place):
    ctx = context(root, "durable = false\n")
    batch_id = put(ctx, table(job("j", command("a", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx) and not ctx.layout.checkpoint_wanted.exists(), "the batch")
    push_batch.push(ctx, batch_id, push_batch.opened(ctx, place))
    code, said = verified(root, "--against", place)
    assert (code, "has no checkpoint of the store by this id, and 1 head of it" in said) == (0, True), said
    write_anew(ctx, batch_id)
    code, said = verified(root, batch_id, "--against", place)
    assert code == 1
    assert f"checkpoint {batch_id}/ledger.jsonl: is not what head 1 in {place} knows" in said


def test_another_stores_place_and_a_place_that_is_away_are_told(root, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    ctx, _ = sent_from(root, away)
    store_id = identity.store_id(ctx.layout.runs)
    (away / "checkpoints" / store_id).rename(away / "checkpoints" / "other")
    code, said = verified(root, "--against", str(away))
    assert (code, "has no checkpoint of the store by this id" in said) == (1, True)
    done = program(root, "audit", "verify", "--against", "file:///no/such/place", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = program(root, "audit", "verify", "--against", "s3://key:hush@bucket/x", check=False)
    assert (done.returncode, "hush" in done.stderr) == (2, False)


def test_a_place_that_cannot_be_written_to_is_told_and_gets_what_it_lacks_later(root, tmp_path):
    away = tmp_path / "gone" / "away"
    ctx = context(root, f'durable = false\n[audit]\nsend_to = "{away}"\n')
    put(ctx, table(job("j", command("a", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx) and not ctx.layout.checkpoint_wanted.exists(), "the batch")
    away.parent.write_text("a file, where a folder is to be")
    said = program(root, "audit", "checkpoint", check=False)
    assert (said.returncode, "was not sent" in said.stdout) == (1, True), said
    code, said = verified(root)
    assert (code, f"{away} lacks it" in said) == (0, True), said
    away.parent.unlink()
    away.mkdir(parents=True)
    program(root, "audit", "checkpoint")
    store = object_store.open_store(str(away), {}, at=Path())
    names = [name for name, _ in store.names(f"checkpoints/{identity.store_id(ctx.layout.runs)}")]
    assert [checkpoints.kept_as(name)[0] for name in names] == checkpoints.numbers(ctx.layout)
    code, said = verified(root, "--against", str(away))
    assert (code, "unsent" in said) == (0, False), said


def test_a_spoilt_or_strange_object_there_is_named_and_stops_nothing(root, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    ctx, _ = sent_from(root, away)
    folder = away / "checkpoints" / identity.store_id(ctx.layout.runs)
    kept = max(folder.iterdir())
    kept.write_bytes(b"[" * 100_000)
    (folder / f"99999999-{'a' * 64}.json").write_text("{}")
    (folder / "readme").write_text("x")
    code, said = verified(root, "--against", str(away))
    assert code == 1
    assert f"99999999-{'a' * 64}.json: cannot be used: it is not what it is named by" in said
