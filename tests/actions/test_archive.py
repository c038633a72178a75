"""Archives elsewhere: pushed, cut off, pushed again, pulled on another machine and read there; in a folder and on a real server of buckets."""

import dataclasses
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import tarfile
import threading
import time
from pathlib import Path

import buckets
import pytest
import zstandard
from archives import contents, ended, tarred
from stores import CHECKOUT, attempt_dirs, command, context, idle, job, program, put, shell, started, table, wait_for

from parallelhassnes.actions import packs
from parallelhassnes.actions.archive import pull_batch, push_batch
from parallelhassnes.actions.stored import removing, retention
from parallelhassnes.actions.uploads import Archive, upload
from parallelhassnes.admin.audit.verify import verify as audit
from parallelhassnes.config import RetentionConfig, RetentionRule
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.process import archiving
from parallelhassnes.schedule.settle import settle_ended
from parallelhassnes.store import locks
from parallelhassnes.store.archives import object_store
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.queue import tickets


def test_a_batch_that_was_pushed_is_verified_pulled_and_read_elsewhere(batch, place, other):
    ctx, batch_id = batch
    program(ctx.layout.root, "archive", "push", "latest", "--to", place)
    seen = program(ctx.layout.root, "archive", "verify", batch_id, "--from", place).stdout
    assert "whole  3 attempts" in seen
    assert "as it is here" in seen
    assert program(ctx.layout.root, "archive", "list", "--from", place).stdout.startswith(f"{batch_id}  3 attempts")
    program(other.layout.root, "archive", "pull", batch_id[:-1], "--from", place)
    before, after = contents(ctx.layout.batch(batch_id)), contents(other.layout.batch(batch_id))
    assert after == before
    assert (other.layout.batch(batch_id) / "j/steps/a/attempts").is_dir()
    assert not [p for p in other.layout.runs.rglob("empty") if p.stat().st_mode & 0o6000]
    assert audit(other.layout).ok
    for words in (["show", "latest"], ["results", "latest"], ["compare", "latest", "latest"], ["logs", "latest/j/b"]):
        here, there = (program(c.layout.root, *words, check=False) for c in (ctx, other))
        assert (there.returncode, there.stdout) == (here.returncode, here.stdout), words
    assert not any(other.layout.temp.iterdir())
    again = json.loads(program(ctx.layout.root, "archive", "push", batch_id, "--to", place, "--json").stdout)
    assert [(each["state"], each["sent_bytes"]) for each in again["batches"]] == [("was there", 0)]


def test_a_packed_batch_goes_up_as_it_would_unpacked(batch, place, other):
    ctx, batch_id = batch
    store = push_batch.opened(ctx, place)
    first = push_batch.push(ctx, batch_id, store)
    packs.pack(ctx, batch_id)
    second = push_batch.push(ctx, batch_id, store)
    assert (first.sent_attempts, second.sent_attempts) == (3, 0)
    elsewhere = push_batch.opened(ctx, f"{place}2")
    assert push_batch.push(ctx, batch_id, elsewhere).sent_attempts == 3
    seals = remote.ended_attempts(line for _, line in ledger.read(ctx.layout.batch(batch_id)))
    for digest in seals:
        assert remote.read_attempt(store, batch_id, digest) == remote.read_attempt(elsewhere, batch_id, digest)
    pull_batch.pull(other, batch_id, elsewhere)
    assert audit(other.layout).ok


def test_a_ledger_that_has_grown_is_one_blob_more_and_nothing_is_sent_twice(root, place, other):
    ctx = context(root, "durable = false\n")
    batch_id = ended(ctx, job("j", command("a", "false"), *(command(f"s{n}", "true") for n in range(20))))
    store = push_batch.opened(ctx, place)
    push_batch.push(ctx, batch_id, store)
    first = remote.newest_head(store, batch_id)
    program(root, "retry", f"{batch_id}/j/a")
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the retry to end")
    done = push_batch.push(ctx, batch_id, store)
    second = remote.newest_head(store, batch_id)
    assert (done.state, done.sent_attempts, done.attempts) == ("pushed", 1, 22)
    assert second.ledger.blobs[: len(first.ledger.blobs)] == first.ledger.blobs
    assert (second.number, second.prev) == (2, remote.head_digest(store, first))
    pull_batch.pull(other, batch_id, store)
    assert audit(other.layout).ok
    assert contents(other.layout.batch(batch_id)) == contents(ctx.layout.batch(batch_id))


def test_a_batch_that_goes_on_comes_paused_and_can_be_taken_over(root, place, other, tmp_path):
    ctx, gate = context(root, "durable = false\n"), tmp_path / "gate"
    wait = f"until test -e {gate}; do sleep 0.02; done"
    batch_id = put(ctx, table(job("j", command("a", "true"), shell("w", wait), command("z", "true", depends_on=["w"]))))
    program(root, "tick")
    wait_for(lambda: len(list(ctx.layout.batch(batch_id).glob("*/steps/a/attempts/*/seal.json"))) == 1, "the first end")
    store = push_batch.opened(ctx, place)
    wait_for(lambda: push_batch.push(ctx, batch_id, store).attempts == 1, "the first end to be settled")
    seen, named = [], Path.rename

    def rename(source, target):
        if target == other.layout.batch(batch_id):
            seen.append(json.loads((source / "control.json").read_text())["paused"])
        return named(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)  # it is paused when it gets its name
        pulled = pull_batch.pull(other, batch_id, store)
    assert seen == [seen[0]]
    assert (pulled.over, pulled.attempts) == (False, 1)
    program(other.layout.root, "doctor", "--rebuild", check=False)
    program(other.layout.root, "tick")
    assert json.loads((other.layout.batch(batch_id) / "control.json").read_text())["paused"]["reason"]
    assert len(list(attempt_dirs(other, batch_id))) == 1
    gate.touch()
    wait_for(lambda: idle(ctx), "the batch to end")
    program(root, "tick")
    assert push_batch.push(ctx, batch_id, store).over
    with pytest.raises(UserError, match="is another"):
        pull_batch.pull(other, batch_id, store)
    program(other.layout.root, "resume", batch_id)
    program(other.layout.root, "tick", "--until-idle", "--quiet")
    assert {path.parts[-3] for path in attempt_dirs(other, batch_id)} == {"a", "w", "z"}


def test_two_who_push_at_once_leave_one_whole_batch(batch, place, other):
    ctx, batch_id = batch
    stores = [push_batch.opened(ctx, place) for _ in range(4)]
    failed = []

    def work(store):
        try:
            push_batch.push(ctx, batch_id, store)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert pull_batch.verify(ctx, batch_id, stores[0]).here == "same"
    pull_batch.pull(other, batch_id, stores[0])
    assert audit(other.layout).ok


def test_another_batch_by_the_same_id_is_refused(batch, place, other):
    ctx, batch_id = batch
    store = push_batch.opened(ctx, place)
    push_batch.push(ctx, batch_id, store)
    pull_batch.pull(other, batch_id, store)
    ledger.append(other.layout.batch(batch_id), "note", by="there")
    ledger.append(ctx.layout.batch(batch_id), "note", by="here")
    push_batch.push(ctx, batch_id, store)
    with pytest.raises(UserError, match="another ledger, which does not go on as the one here"):
        push_batch.push(other, batch_id, store)
    assert pull_batch.verify(other, batch_id, store).here == "another"
    assert pull_batch.verify(ctx, batch_id, store).here == "same"


def test_what_was_changed_in_the_archive_is_found_and_never_comes_here(batch, tmp_path, other):
    ctx, batch_id = batch
    folder = tmp_path / "archive"
    push_batch.push(ctx, batch_id, push_batch.opened(ctx, str(folder)))
    store = push_batch.opened(other, str(folder))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        data = path.read_bytes()
        for spoilt in (data[:-1], bytes([data[0] ^ 1]) + data[1:], data.replace(b"0", b"1", 1) + b" ", None):
            path.unlink()
            if spoilt is not None:
                path.write_bytes(spoilt)
            if spoilt is not None and path.suffix == ".json" and json_equal(spoilt, data):
                continue
            for act in (pull_batch.verify, pull_batch.pull):
                with pytest.raises(UserError):
                    act(other, batch_id, store)
                assert not other.layout.batch(batch_id).exists()
                assert not any(other.layout.temp.iterdir())
        path.write_bytes(data)
    pull_batch.pull(other, batch_id, store)
    assert audit(other.layout).ok


def json_equal(one, two):
    """A head may say another time or person: nothing of the batch depends on that."""
    try:
        one, two = json.loads(one), json.loads(two)
    except ValueError:
        return False
    free = ("at", "by", "name", "store_id", "prev", "attempts", "size", "place", "number")
    return {k: v for k, v in one.items() if k not in free} == {k: v for k, v in two.items() if k not in free}


def test_an_uploaded_task_goes_along_once(root, place, other, tmp_path):
    ctx = context(root, "durable = false\n")
    sent = Archive("hello.tar.gz", io.BytesIO(tarred(CHECKOUT / "examples" / "tasks" / "hello", "hello")))
    task = upload(ctx, [sent]).tasks[0]
    ids = [ended(ctx, job("j", command("a", "echo", str(root / task.path)))) for _ in range(2)]
    store = push_batch.opened(ctx, place)
    for batch_id in ids:
        push_batch.push(ctx, batch_id, store)
    assert [name for name, _ in store.names("tasks")] == [f"{task.sha256}.json"]
    pull_batch.pull(other, ids[0], store)
    assert contents(other.layout.tasks) == contents(ctx.layout.tasks)
    assert audit(other.layout).ok


def test_what_a_rule_has_removed_does_not_come_back(batch, tmp_path, other):
    ctx, batch_id = batch
    before, after = (push_batch.opened(ctx, str(tmp_path / name)) for name in ("before", "after"))
    push_batch.push(ctx, batch_id, before)
    rule = RetentionRule(name="rest", outcomes=("failed", "succeeded"), after_days=0)
    here = dataclasses.replace(ctx, config=ctx.config.model_copy(update={"retention": RetentionConfig(rules=(rule,))}))
    assert removing.carry_out(here, retention.plan(here)).ok
    assert removals.of(ctx.layout.batch(batch_id))
    for store in (before, after):
        push_batch.push(ctx, batch_id, store)
        assert pull_batch.verify(ctx, batch_id, store).here == "same"
        pull_batch.pull(other, batch_id, store)
        found = audit(other.layout)
        assert (found.ok, found.notes) == (True, [])
        assert contents(other.layout.batch(batch_id)) == contents(ctx.layout.batch(batch_id))
        shutil.rmtree(other.layout.batch(batch_id))


# --- archives that somebody has written by hand ---


def entry(name, kind=tarfile.REGTYPE, data=b"", link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, 0o755
    info.pax_headers = {"mtime": "1.000000000"}
    return info, data if info.isreg() else None


def rewritten(folder, path, blobs, top, change):
    """Have a head, or an attempt, name a tar with other members; the hashes fit."""
    store = object_store.open_store(str(folder), {}, at=folder)
    document = json.loads(path.read_text())
    with remote.members(store, [remote.Blob(**each) for each in document[blobs]], top) as found:
        members = change([(info, content and content.read()) for info, content in found])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, None if data is None else io.BytesIO(data))
    data = zstandard.ZstdCompressor().compress(out.getvalue())
    digest = hashlib.sha256(data).hexdigest()
    key = folder / remote.blob_key(digest)
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(data)
    path.write_text(json.dumps({**document, blobs: [{"sha256": digest, "size": len(data)}]}))


def without(members, *tops):
    return [each for each in members if each[0].name.split("/")[0] not in tops]


RECORDS = {
    "a job that leads elsewhere": lambda m, out: [*without(m, "k"), entry("k", tarfile.SYMTYPE, link=str(out))],
    "a path upwards": lambda m, out: [*m, entry("../evil", data=b"x")],
    "an absolute path": lambda m, out: [*m, entry(str(out / "evil"), data=b"x")],
    "a pipe for a record": lambda m, out: [*m, entry("control.json", tarfile.FIFOTYPE)],
    "a link for a record": lambda m, out: [*without(m, "batch_meta.json"), entry("batch_meta.json", tarfile.SYMTYPE)],
    "a device": lambda m, out: [*m, entry("null", tarfile.CHRTYPE)],
    "a hard link": lambda m, out: [*m, entry("passwd", tarfile.LNKTYPE, link="/etc/passwd")],
    "a pack": lambda m, out: [*m, entry("packed.json", data=b"{}")],
    "a name twice": lambda m, out: [*m, entry("twice"), entry("twice")],
}
ATTEMPTS = {
    "another seal": lambda m, out: [entry(i.name, data=d + b" ") if i.name.endswith("seal.json") else (i, d) for i, d in m],
    "no seal": lambda m, out: [each for each in m if not each[0].name.endswith("seal.json")],
    "a file beside it": lambda m, out: [*m, entry("beside", data=b"x")],
    "a path upwards": lambda m, out: [*m, entry("attempt/../../evil", data=b"x")],
    "a link to one": lambda m, out: [entry("attempt", tarfile.SYMTYPE, link=str(out))],
    "a file too many": lambda m, out: [*m, entry("attempt/bomb", data=bytes(1 << 20))],
    "a longer file": lambda m, out: [entry(i.name, data=d + b"x") if i.name.endswith("meta.json") else (i, d) for i, d in m],
}  # fmt: skip


@pytest.mark.parametrize(
    "what", [*(f"records: {each}" for each in RECORDS), *(f"attempt: {each}" for each in ATTEMPTS)]
)
def test_what_no_push_has_written_is_refused_by_verify_as_by_pull_and_nothing_is_made(batch, tmp_path, other, what):
    ctx, batch_id = batch
    folder, outside = tmp_path / "archive", tmp_path / "outside"
    outside.mkdir()
    push_batch.push(ctx, batch_id, push_batch.opened(ctx, str(folder)))
    part, _, name = what.partition(": ")
    if part == "records":
        rewritten(folder, folder / remote.head_key(batch_id, 1), "records", "", lambda m: RECORDS[name](m, outside))
    else:
        path = next((folder / "batches" / batch_id / "seals").iterdir())
        rewritten(folder, path, "blobs", "attempt", lambda m: ATTEMPTS[name](m, outside))
    for verb in ("verify", "pull"):
        done = program(other.layout.root, "archive", verb, batch_id, "--from", str(folder), check=False)
        assert done.returncode == 2, done.stderr
        assert "bring this object back from a copy of the archive" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not any(outside.iterdir())
    assert not any(other.layout.temp.iterdir())
    assert not other.layout.batch(batch_id).exists()


def test_a_folder_that_no_batch_is_called_by_is_none(batch, tmp_path, other):
    ctx, batch_id = batch
    folder = tmp_path / "archive"
    push_batch.push(ctx, batch_id, push_batch.opened(ctx, str(folder)))
    (folder / "batches" / "_tasks").mkdir()
    shutil.copytree(folder / "batches" / batch_id / "heads", folder / "batches" / "_system" / "heads")
    assert program(other.layout.root, "archive", "list", "--from", str(folder)).stdout.count("\n") == 1
    program(other.layout.root, "archive", "pull", "latest", "--from", str(folder))
    assert other.layout.batch(batch_id).is_dir()


def test_what_was_lost_or_spoilt_in_an_archive_is_mended_by_a_push_that_looks(root, tmp_path, other):
    ctx = context(root, "durable = false\n")
    sent = Archive("hello.tar.gz", io.BytesIO(tarred(CHECKOUT / "examples" / "tasks" / "hello", "hello")))
    task = upload(ctx, [sent]).tasks[0]
    batch_id = ended(ctx, job("j", command("a", "echo", str(root / task.path)), command("b", "false")))
    folder = tmp_path / "archive"
    store = push_batch.opened(ctx, str(folder))
    push_batch.push(ctx, batch_id, store)
    quiet = push_batch.push(ctx, batch_id, store, repair=True)
    assert (quiet.state, quiet.mended, quiet.sent_bytes) == ("was there", 0, 0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        data = path.read_bytes()
        for spoilt in (data[:-2], None):
            if path.parent.name == "heads" and spoilt is None:
                continue  # there is a newer one by now
            path.unlink()
            if spoilt is not None:
                path.write_bytes(spoilt)
            with pytest.raises(UserError):
                pull_batch.verify(ctx, batch_id, store)
            done = program(root, "archive", "push", batch_id, "--to", str(folder), "--repair")
            assert done.stderr == ""
            assert pull_batch.verify(ctx, batch_id, store).here == "same", path
            if path.parent.name != "heads":  # of which there is another then
                assert path.read_bytes() == data
    pull_batch.pull(other, batch_id, store)
    assert audit(other.layout).ok


def test_a_mending_push_keeps_what_a_rule_has_removed_here(batch, tmp_path, other):
    ctx, batch_id = batch
    store = push_batch.opened(ctx, str(tmp_path / "archive"))
    push_batch.push(ctx, batch_id, store)
    seals = remote.ended_attempts(line for _, line in ledger.read(ctx.layout.batch(batch_id)))
    before = {digest: remote.read_attempt(store, batch_id, digest) for digest in seals}
    rule = RetentionRule(name="rest", outcomes=("failed", "succeeded"), after_days=0)
    here = dataclasses.replace(ctx, config=ctx.config.model_copy(update={"retention": RetentionConfig(rules=(rule,))}))
    assert removing.carry_out(here, retention.plan(here)).ok
    push_batch.push(ctx, batch_id, store, repair=True)
    assert {digest: remote.read_attempt(store, batch_id, digest) for digest in seals} == before
    assert pull_batch.verify(ctx, batch_id, store).here == "same"


def test_a_spoilt_head_keeps_no_other_batch_from_being_listed(root, tmp_path):
    ctx = context(root, "durable = false\n")
    first, second = (ended(ctx, job("j", command("a", "true"))) for _ in range(2))
    folder = tmp_path / "archive"
    store = push_batch.opened(ctx, str(folder))
    for batch_id in (first, second):
        push_batch.push(ctx, batch_id, store)
    for spoilt in (b"[" * 100_000, b"{}", b"\xff", b"[]"):
        (folder / remote.head_key(first, 1)).write_bytes(spoilt)
        done = program(root, "archive", "list", "--from", str(folder), check=False)
        assert (done.returncode, done.stderr) == (1, "")
        one, two = done.stdout.splitlines()
        assert one.startswith(f"{first}  cannot be used: {folder}/batches/{first}/heads/00000001.json")
        assert two.startswith(f"{second}  1 attempt")
        said = json.loads(program(root, "archive", "list", "--from", str(folder), "--json", check=False).stdout)
        assert (said["ok"], [bool(each["trouble"]) for each in said["batches"]]) == (False, [True, False])


@pytest.mark.parametrize("part", ["records", "attempt"])
def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(batch, tmp_path, other, part, monkeypatch):
    ctx, batch_id = batch
    folder = tmp_path / "archive"
    monkeypatch.setattr(remote, "_MOST_PLAIN", 1 << 20)
    monkeypatch.setattr(remote, "_MOST_TIMES", 10)
    push_batch.push(ctx, batch_id, push_batch.opened(ctx, str(folder)))
    bomb = entry("bomb" if part == "records" else "attempt/bomb", data=bytes(8 << 20))
    if part == "records":
        rewritten(folder, folder / remote.head_key(batch_id, 1), "records", "", lambda m: [*m, bomb])
    else:
        path = next((folder / "batches" / batch_id / "seals").iterdir())
        rewritten(folder, path, "blobs", "attempt", lambda m: [*m, bomb])
    store = push_batch.opened(other, str(folder))
    for act in (pull_batch.verify, pull_batch.pull):
        with pytest.raises(UserError, match=r"unpacks to more|is not of the size that was sealed"):
            act(other, batch_id, store)
    assert not any(other.layout.temp.iterdir())


def test_a_batch_canceled_before_anything_of_it_ran_is_sent_as_it_ended(root, tmp_path, other):
    archive = tmp_path / "archive"
    ctx = context(root, f'durable = false\narchive = "{archive}"\narchive_while_running = true\n')
    batch_id = put(ctx, table(job("j", command("a", "true"))))
    program(root, "pause", batch_id)
    program(root, "tick")
    program(root, "cancel", batch_id)
    store = push_batch.opened(other, str(archive))
    wait_for(lambda: (head := remote.newest_head(store, batch_id)) and head.over, "the batch to be sent")
    wait_for(lambda: not locks.is_held(archiving.sending_lock(ctx.layout)), "the sender to leave")


# --- kills and cuts ---------------------------------------------------------------------------------------------


def test_a_push_killed_at_any_moment_leaves_nothing_that_is_taken_for_whole(root, place, other):
    ctx = context(root, "durable = false\n")
    batch_id = ended(ctx, job("j", *(shell(f"s{n}", "head -c 200000 /dev/urandom") for n in range(30))), concurrency=8)
    chance, kills, store = random.Random(), 0, push_batch.opened(ctx, place)
    for _ in range(60):
        running = started(root, "archive", "push", batch_id, "--to", place)
        time.sleep(chance.uniform(0.0, 1.2))
        running.send_signal(signal.SIGKILL)
        killed = running.wait() == -signal.SIGKILL
        running.communicate()
        kills += killed
        if not killed or kills >= 8:
            break
        if remote.newest_head(store, batch_id) is None:
            with pytest.raises(UserError, match=r"not whole there yet|is not there"):
                pull_batch.pull(other, batch_id, store)
        else:
            assert pull_batch.verify(ctx, batch_id, store).here == "same"
    there = len(list(store.names(f"batches/{batch_id}/seals")))
    done = push_batch.push(ctx, batch_id, store)
    assert done.sent_attempts == 30 - there
    pull_batch.pull(other, batch_id, store)
    assert audit(other.layout).ok


@pytest.mark.seaweedfs
def test_cut_connections_are_tried_again_and_lose_nothing(root, bucket_server, monkeypatch, other):
    ctx = context(root, "durable = false\n")
    batch_id = ended(ctx, job("j", *(shell(f"s{n}", "head -c 100000 /dev/urandom") for n in range(20))), concurrency=8)
    url, seed = bucket_server.make_bucket(f"cut{time.time_ns()}"), random.randrange(1 << 30)
    proxy = buckets.Proxy(bucket_server.port, 4, seed)
    for name, value in {**bucket_server.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}.items():
        monkeypatch.setenv(name, value)
    try:
        store = push_batch.opened(ctx, url)
        wait_for(lambda: tried(lambda: push_batch.push(ctx, batch_id, store)), f"a push through cuts of seed {seed}")
        wait_for(lambda: tried(lambda: pull_batch.pull(other, batch_id, store)), f"a pull through cuts of seed {seed}")
    finally:
        proxy.close()
    assert proxy.cuts
    assert audit(other.layout).ok
    assert contents(other.layout.batch(batch_id)) == contents(ctx.layout.batch(batch_id))


def tried(act):
    try:
        return act()
    except object_store.StoreTrouble:
        return None


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.seaweedfs
@pytest.mark.parametrize(
    ("change", "bucket", "said"),
    [
        ({}, "no-such-bucket", r"there is no such bucket \(404, NoSuchBucket\); make it, or correct the address"),
        (
            {"AWS_ACCESS_KEY_ID": "nobody"},
            None,
            r"access is denied \(403, InvalidAccessKeyId\); look at the credentials",
        ),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, None, r"access is denied \(403, SignatureDoesNotMatch\)"),
        (buckets.READER, None, r"access is denied \(403, AccessDenied\); .* what they may do there"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            None,
            r"cannot be reached; look at the network and at the endpoint",
        ),
        ({"AWS_ENDPOINT_URL": "http://no.such.host.invalid"}, None, r"cannot be reached; look at the network"),
    ],
)
def test_what_is_wrong_is_one_line_without_a_secret(batch, bucket_server, change, bucket, said):
    ctx, batch_id = batch
    url = f"s3://{bucket}/archive" if bucket else bucket_server.make_bucket(f"e{time.time_ns()}")
    env = {**bucket_server.env, **change}
    done = program(ctx.layout.root, "archive", "push", batch_id, "--to", url, env=env, check=False)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"{re.escape(url)}: {said}.*\n", done.stderr), done.stderr
    assert env["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    assert env["AWS_ACCESS_KEY_ID"] not in done.stdout + done.stderr


def test_an_address_that_may_hold_a_credential_is_refused_without_being_shown(batch, root):
    _, batch_id = batch
    for url in ("s3://key:hush@bucket/x", "az://container/x?sig=hush", "ftp://hush", "s3://", "gs:///"):
        done = program(root, "archive", "push", batch_id, "--to", url, check=False)
        assert done.returncode == 2
        assert ("hush" in done.stderr) == url.startswith("ftp"), done.stderr
        assert len(done.stderr.splitlines()) == 1
    (root / "parallelhassnes.toml").write_text('archive = "s3://key:hush@bucket/x"\n')
    done = program(root, "submit", "examples/table.json", check=False)
    assert "may hold a credential" in done.stderr
    assert "hush" not in done.stderr


def test_without_an_archive_it_says_where_to_name_one(batch, root):
    done = program(root, "archive", "list", check=False)
    assert done.stderr.startswith("no archive is named; give its URL, or write archive =")


@pytest.mark.seaweedfs
def test_credentials_of_env_file_are_used_and_written_nowhere(batch, bucket_server, root):
    _, batch_id = batch
    url = bucket_server.make_bucket(f"f{time.time_ns()}")
    (root / "keys.env").write_text("".join(f"{name}={value}\n" for name, value in bucket_server.env.items()))
    (root / "parallelhassnes.toml").write_text(f'durable = false\nenv_file = "keys.env"\narchive = "{url}"\n')
    program(root, "archive", "push", batch_id)
    program(root, "archive", "verify", batch_id)
    (root / "keys.env").unlink()
    secret = buckets.KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [path for path in root.rglob("*") if path.is_file() and secret in path.read_bytes()]


# --- while it runs ----------------------------------------------------------------------------------------------


def test_each_attempt_goes_up_after_its_end_and_the_batch_when_it_is_over(root, tmp_path, other):
    archive, gate = tmp_path / "archive", tmp_path / "gate"
    ctx = context(root, f'durable = false\narchive = "{archive}"\narchive_while_running = true\n')
    wait = f"until test -e {gate}; do sleep 0.02; done"
    batch_id = put(ctx, table(job("j", command("a", "true"), shell("w", wait), command("z", "true", depends_on=["w"]))))
    program(root, "tick")
    store = push_batch.opened(other, str(archive))
    wait_for(lambda: list(store.names(f"batches/{batch_id}/seals")), "the first attempt to be sent")
    assert not idle(ctx)
    gate.touch()
    wait_for(lambda: (head := remote.newest_head(store, batch_id)) and head.over, "the batch to be sent")
    wait_for(lambda: not locks.is_held(archiving.sending_lock(ctx.layout)), "the sender to leave")
    assert pull_batch.pull(other, batch_id, store).attempts == 3
    assert audit(other.layout).ok
    assert audit(ctx.layout).ok
    program(root, "tick")
    program(root, "tick")
    assert ctx.layout.at_rest.exists()


def test_an_archive_that_cannot_be_reached_is_in_nobodys_way_and_is_tried_again(root, tmp_path):
    archive = tmp_path / "gone" / "archive"
    ctx = context(root, f'durable = false\narchive = "{archive}"\narchive_while_running = true\n')
    batch_id = ended(ctx, job("j", *(command(f"s{n}", "true") for n in range(5))))
    wait_for(lambda: archiving.last_trouble(ctx.layout), "the trouble to be noted")
    wait_for(lambda: not locks.is_held(archiving.sending_lock(ctx.layout)), "the sender to leave")
    assert "no such folder" in archiving.last_trouble(ctx.layout)
    found = json.loads(program(root, "doctor", "--json", check=False).stdout)
    assert [each["state"] for each in found["checks"] if each["name"] == "archive"] == ["trouble"]
    archive.parent.mkdir()
    program(root, "tick")  # too early: not again within the minute
    assert not archive.exists()
    long_ago = time.time() - 100
    os.utime(ctx.layout.archive / "failed.json", (long_ago, long_ago))
    program(root, "tick")
    store = push_batch.opened(ctx, str(archive))
    wait_for(lambda: remote.newest_head(store, batch_id), "the batch to be sent")
    wait_for(lambda: not archiving.last_trouble(ctx.layout), "the trouble to be over")


def test_a_batch_that_is_over_is_wished_for_once_its_last_ticket_has_gone(root, tmp_path, monkeypatch):
    """Who saw to the wish before has seen a ticket, and a batch that goes on: it would get no last head."""
    ctx = context(root, f'durable = false\narchive = "{tmp_path / "away"}"\narchive_while_running = true\n')
    put(ctx, table(job("j", shell("a", f"until [ -e {root}/go ]; do sleep 0.02; done"))))
    program(root, "tick")
    lock = wait_for(lambda: locks.hold(ctx.layout.tick_lock), "the lock")
    (root / "go").touch()
    wait_for(lambda: tickets.ended(ctx.layout), "the end, which nobody else can settle")
    had_ticket = []
    monkeypatch.setattr(archiving, "wish", lambda *_: had_ticket.append(bool(tickets.ended(ctx.layout))))
    settle_ended(ctx)
    locks.release(lock)
    assert had_ticket == [True, False]


def test_a_sender_that_is_killed_goes_on_where_it_was(root, tmp_path, other):
    archive = tmp_path / "archive"
    ctx = context(
        root, f'durable = false\narchive = "{archive}"\narchive_while_running = true\narchive_mb_per_sec = 0.5\n'
    )
    batch_id = put(ctx, table(job("j", *(shell(f"s{n}", "head -c 200000 /dev/urandom") for n in range(20)))))
    program(root, "tick")
    store = push_batch.opened(other, str(archive))
    wait_for(lambda: idle(ctx), "the batch to end")
    for _ in range(3):  # what is left takes a sender more than a second each time
        archiving.wish(ctx, batch_id)
        program(root, "tick")
        os.kill(wait_for(lambda: locks.holder(archiving.sending_lock(ctx.layout)), "a sender"), signal.SIGKILL)
    archiving.wish(ctx, batch_id)
    program(root, "tick")
    wait_for(lambda: (head := remote.newest_head(store, batch_id)) and head.over, "the batch to be sent")
    assert pull_batch.pull(other, batch_id, store).attempts == 20
    assert audit(other.layout).ok


def test_a_wish_that_was_seen_to_by_one_who_was_killed_is_a_wish_still(root, tmp_path):
    archive = tmp_path / "archive"
    ctx = context(root, "durable = false\n")
    batch_id = ended(ctx, job("j", command("a", "true")))
    ctx = context(root, f'durable = false\narchive = "{archive}"\narchive_while_running = true\n')
    seen_to = archiving.seen_to(ctx.layout)
    seen_to.mkdir(parents=True)
    (seen_to / batch_id).touch()
    program(root, "tick")
    store = push_batch.opened(ctx, str(archive))
    wait_for(lambda: (head := remote.newest_head(store, batch_id)) and head.over, "the batch to be sent")
    wait_for(lambda: not locks.is_held(archiving.sending_lock(ctx.layout)), "the sender to leave")
    assert not archiving.has_wishes(ctx.layout)


def test_ctrl_c_ends_a_command_that_waits_for_a_server(root):
    pytest.importorskip("obstore")
    context(root)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {**buckets.KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        running = started(root, "archive", "list", "--from", "s3://bucket/x", env=env)
        waiting, _ = silent.accept()
        with waiting:
            waiting.recv(1)
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == -signal.SIGINT
        running.communicate()


def test_a_server_that_never_answers_is_given_up_in_one_line(root):
    pytest.importorskip("obstore")
    context(root, "archive_timeout_sec = 1\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {**buckets.KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        began = time.monotonic()
        done = program(root, "archive", "list", "--from", "s3://bucket/x", env=env, check=False)
        took = time.monotonic() - began
    assert (done.returncode, done.stderr) == (
        2,
        "s3://bucket/x: does not answer within 1 s; say it again later; archive_timeout_sec of parallelhassnes.toml is how long to wait\n",
    )
    assert took < 30


def test_a_rate_is_kept(tmp_path):
    store = object_store.open_store(str(tmp_path / "archive"), {}, at=tmp_path, mb_per_sec=1.0)
    began = time.monotonic()
    for number in range(5):
        store.create(f"blobs/{number}", bytes(100_000))
    assert time.monotonic() - began >= 0.4


def test_settings_that_belong_together(root):
    (root / "parallelhassnes.toml").write_text("archive_while_running = true\n")
    done = program(root, "init", check=False)
    done = program(root, "submit", "examples/table.json", check=False)
    assert "archive_while_running needs archive" in done.stderr


@pytest.mark.timeout(60)
def test_what_is_not_named_as_a_head_is_none_and_a_repair_beside_it_ends(batch, tmp_path):
    ctx, batch_id = batch
    url = str(tmp_path / "archive")
    program(ctx.layout.root, "archive", "push", batch_id, "--to", url)
    heads = tmp_path / "archive" / remote.BATCHES / batch_id / "heads"
    for name in ("abc.json", "x00000002.json"):
        (heads / name).write_text("x")
    assert "was there" in program(ctx.layout.root, "archive", "push", batch_id, "--to", url, "--repair").stdout
    (heads / "99999999.json").write_text("x")
    for said in ("pushed", "was there"):
        assert said in program(ctx.layout.root, "archive", "push", batch_id, "--to", url, "--repair").stdout
    assert "whole" in program(ctx.layout.root, "archive", "verify", batch_id, "--from", url).stdout


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_an_archive_is_named_and_not_waited_for(batch, tmp_path, make):
    ctx, batch_id = batch
    url = str(tmp_path / "archive")
    program(ctx.layout.root, "archive", "push", batch_id, "--to", url)
    [head] = (tmp_path / "archive" / remote.BATCHES / batch_id / "heads").iterdir()
    head.unlink()
    make(head)
    with pytest.raises(
        UserError, match=rf"heads/00000001\.json cannot be read \(.*\); move {re.escape(str(head))} away"
    ):
        push_batch.push(ctx, batch_id, object_store.open_store(url, {}, at=tmp_path))
    shutil.rmtree(tmp_path / "archive")
    program(ctx.layout.root, "archive", "push", batch_id, "--to", url)
    blob = next(path for path in (tmp_path / "archive" / "blobs").rglob("*") if path.is_file())
    blob.unlink()
    make(blob)
    done = program(ctx.layout.root, "archive", "push", batch_id, "--to", url, "--repair", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"blobs/{blob.parent.name}/{blob.name} cannot be" in done.stderr
    assert f"; move {blob} away" in done.stderr
    assert (
        "cannot be read" in program(ctx.layout.root, "archive", "verify", batch_id, "--from", url, check=False).stderr
    )
    blob.rmdir() if make is os.mkdir else blob.unlink()
    assert "1 object put right" in program(ctx.layout.root, "archive", "push", batch_id, "--to", url, "--repair").stdout


def test_a_store_that_has_less_or_another_takes_nothing_from_a_good_archive(batch, tmp_path):
    ctx, batch_id = batch
    url = str(tmp_path / "archive")
    program(ctx.layout.root, "archive", "push", batch_id, "--to", url)
    attempt = next(path for path in attempt_dirs(ctx, batch_id) if (path / "stdout.log").exists())
    kept, log = tmp_path / "kept", attempt / "stdout.log"
    said = log.read_bytes()
    log.chmod(0o600)

    def refused(says: str) -> None:
        done = program(ctx.layout.root, "archive", "push", batch_id, "--to", url, "--repair", check=False)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert says in done.stderr
        assert "whole" in program(ctx.layout.root, "archive", "verify", batch_id, "--from", url).stdout

    log.write_bytes(said + b"more")
    refused("stdout.log: is not what was sealed; see what `parallelhassnes audit verify")
    log.unlink()
    refused("stdout.log: is not what was sealed")
    attempt.rename(kept)
    refused("is gone here, and cannot be sent")
    kept.rename(attempt)
    log.write_bytes(said)
    program(ctx.layout.root, "archive", "push", batch_id, "--to", url, "--repair")
    assert "whole" in program(ctx.layout.root, "archive", "verify", batch_id, "--from", url).stdout
    log.write_bytes(said + b"another")
    other = str(tmp_path / "other")
    done = program(ctx.layout.root, "archive", "push", batch_id, "--to", other, check=False)
    assert (done.returncode, done.stdout) == (2, "")
