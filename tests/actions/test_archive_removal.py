"""Files of attempts that go because an archive has them, and come back from there; never without it, and whatever is killed, spoilt or at it beside."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from archives import LEAVES, contents, ended
from stores import attempt_dirs, command, context, idle, job, program, put, shell, started, table, wait_for

from parallelhassnes import packed
from parallelhassnes.actions import packs
from parallelhassnes.actions.archive import pull_batch, push_batch, restore
from parallelhassnes.actions.stored import removing, retention
from parallelhassnes.actions.stored.remove_local import push_and_remove
from parallelhassnes.admin.audit.verify import verify as audit
from parallelhassnes.config import load_config
from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.schedule.context import open_context
from parallelhassnes.store import locks
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.evidence import ledger, removals

GONE_UP = '[[retention.rules]]\nname = "up"\nafter_days = 0\narchived = true\n'


def rules(ctx, toml):
    """The same root under other settings."""
    (ctx.layout.root / "parallelhassnes.toml").write_text(
        f"heartbeat_sec = 0.2\ngrace_sec = 3\ndurable = false\n{toml}"
    )
    return open_context(ctx.layout.root)


def whole(ctx, batch_id):
    return contents(ctx.layout.batch(batch_id), ledger=False)


def away(ctx, batch_id):
    return set(removals.of(ctx.layout.batch(batch_id)))


def events(ctx, batch_id):
    return [line["event"] for _, line in ledger.read(ctx.layout.batch(batch_id))]


def numbers(ctx, batch_id):
    asked = [["results", batch_id], ["errors", batch_id], ["scoreboard", batch_id], ["status", batch_id]]
    said = [program(ctx.layout.root, *words, "--json", check=False).stdout for words in asked]
    return [re.sub(r'"(at|generated_at|age_sec|seconds|ticked_at)":("[^"]*"|[0-9.]+)', "", text) for text in said]


def failed(root, *words):
    done = program(root, *words, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
    return done.stderr


def blobs(folder, batch_id):
    """The blobs of a batch's attempts."""
    found = []
    for path in (folder / "batches" / batch_id / "seals").iterdir():
        found += [folder / remote.blob_key(each["sha256"]) for each in json.loads(path.read_text())["blobs"]]
    return found


def test_files_that_the_archive_has_go_and_come_back_byte_for_byte(batch, place):
    ctx, batch_id = batch
    root = ctx.layout.root
    before, said = whole(ctx, batch_id), numbers(ctx, batch_id)
    done = program(root, "archive", "push", "latest", "--to", place, "--remove-local").stdout
    assert re.search(r"3 of them sent now, .* MB, files of 3 removed here, .* MB\n", done)
    assert set(whole(ctx, batch_id)) < set(before)
    assert numbers(ctx, batch_id) == said
    assert audit(ctx.layout).removed == {"remove-local": 3}
    assert "3 attempts removed by rule remove-local, as their tombstones say" in program(root, "audit", "verify").stdout
    address = push_batch.opened(ctx, place).address
    where = f"`parallelhassnes archive pull {batch_id} --from {address}` brings the files back"
    assert where in program(root, "logs", f"{batch_id}/j/a").stderr
    assert where in program(root, "show", f"{batch_id}/j/a").stdout
    assert where in failed(root, "artifact", f"{batch_id}/j/a", "noise")
    assert "as it is here" in program(root, "archive", "verify", batch_id, "--from", place).stdout
    again = program(root, "archive", "push", batch_id, "--to", place, "--remove-local").stdout
    assert again == f"{batch_id}  was there  3 attempts\n"
    for _ in range(2):
        back = program(root, "archive", "pull", batch_id, "--from", place).stdout
        assert re.fullmatch(rf"{batch_id}  restored  3 attempts, [0-9.]+ MB\n", back)
        assert whole(ctx, batch_id) == before
        assert numbers(ctx, batch_id) == said
        assert (audit(ctx.layout).ok, audit(ctx.layout).removed, audit(ctx.layout).notes) == (True, {}, [])
        assert not any(ctx.layout.temp.iterdir())
        done_again = program(root, "archive", "push", batch_id, "--to", place, "--remove-local").stdout
        assert len(away(ctx, batch_id)) == 3
    assert done_again.count("0 of them sent now, 0.00 MB, files of 3") == 1
    assert events(ctx, batch_id)[-5:] == ["removed", "restored", "removed", "restored", "removed"]


def test_of_an_archive_where_one_byte_is_wrong_nothing_goes_and_nothing_comes(batch, tmp_path):
    ctx, batch_id = batch
    folder = tmp_path / "archive"
    store = push_batch.opened(ctx, str(folder))
    push_batch.push(ctx, batch_id, store)
    before = contents(ctx.layout.batch(batch_id))
    ctx = rules(ctx, f'archive = "{folder}"\n{GONE_UP}')
    seals = list((folder / "batches" / batch_id / "seals").iterdir())
    for path in (*blobs(folder, batch_id), *seals):
        data = path.read_bytes()
        for spoilt in (data[:-3], bytes([data[0] ^ 1]) + data[1:], None):
            path.unlink()
            if spoilt is not None:
                path.write_bytes(spoilt)
            said = failed(ctx.layout.root, "archive", "push", batch_id, "--to", str(folder), "--remove-local")
            assert f"{batch_id}: what would go of it is kept: {folder}/" in said
            done = program(ctx.layout.root, "gc", "--yes", check=False)
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert (done.stdout, "what would go of it is kept" in done.stderr) == ("", True)
            assert contents(ctx.layout.batch(batch_id)) == before
        path.write_bytes(data)
    assert removing.carry_out(ctx, retention.plan(ctx)).rules[0].attempts == 3
    gone = contents(ctx.layout.batch(batch_id))
    for path in blobs(folder, batch_id):
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert "is not what it is named by" in failed(ctx.layout.root, "archive", "pull", batch_id)
        assert contents(ctx.layout.batch(batch_id)) == gone
        path.write_bytes(data)
    assert not any(ctx.layout.temp.iterdir())


def test_an_archive_that_cannot_be_reached_keeps_files_and_is_in_no_other_rules_way(root, tmp_path):
    folder = tmp_path / "mount" / "archive"
    folder.parent.mkdir()
    ctx = context(root, "durable = false\n")
    first, second, plain = (
        ended(ctx, job("j", command("a", "true")), experiment=label) for label in ("e1", "e2", "plain")
    )
    store = push_batch.opened(ctx, str(folder))
    ctx = rules(ctx, f'archive = "{folder}"\n')
    for batch_id in (first, second):
        push_batch.push(ctx, batch_id, store)
    ctx = rules(
        ctx,
        f'archive = "{folder}"\n{GONE_UP}experiments = ["e*"]\n[[retention.rules]]\nname = "rest"\nafter_days = 0\n',
    )
    made = retention.plan(ctx)
    folder.parent.rename(tmp_path / "away")
    for done in (removing.carry_out(ctx, made), removing.carry_out(ctx, retention.plan(ctx))):
        assert not done.ok
        assert [line for line in done.failed if "what goes once it is archived is kept: " in line] == done.failed
        assert len(done.failed) == 1
    assert (away(ctx, first), away(ctx, second)) == (set(), set())
    assert len(away(ctx, plain)) == 1
    said = failed(root, "archive", "push", first, "--remove-local")
    assert "there is no such folder" in said
    (tmp_path / "away").rename(folder.parent)
    shutil.move(folder, tmp_path / "empty")
    for is_there in (False, True):  # the mount has gone, and its parent is there; then its empty folder is
        done = removing.carry_out(ctx, retention.plan(ctx))
        assert (done.ok, done.rules) == (False, [])
        assert all(f"{folder} has no such batch any more, which was sent there" in line for line in done.failed)
        if not is_there:
            folder.mkdir()
    assert (away(ctx, first), away(ctx, second)) == (set(), set())
    program(root, "archive", "push", first, second)  # it is lost, and its owner says so by this
    done = removing.carry_out(ctx, retention.plan(ctx))
    assert (done.ok, [use.rule for use in done.rules]) == (True, ["up"])


def test_a_rule_speaks_of_what_the_archive_has_and_of_nothing_else(root, tmp_path):
    folder = tmp_path / "archive"
    ctx = context(root, f'durable = false\narchive = "{folder}"\n{GONE_UP}')
    first, second = (ended(ctx, job("j", command("a", "true"))) for _ in range(2))
    program(root, "archive", "push", first)
    told = program(root, "gc", "--dry-run").stdout.splitlines()
    assert re.fullmatch(
        rf"up \(after 0 days; archived\): .* of 1 attempt in 1 batch, .* would be removed, once all are read in {folder}",
        told[0],
    )
    assert told[1:] == [f"kept: {second}: 1 of its attempts are not in {folder} yet"]
    assert (away(ctx, first), away(ctx, second)) == (set(), set())
    done = program(root, "gc", "--yes").stdout.splitlines()
    assert done[0].endswith(f" removed, all of them whole in {folder}")
    assert (len(away(ctx, first)), away(ctx, second)) == (1, set())
    assert removals.of(ctx.layout.batch(first)).popitem()[1].archive == str(folder)
    program(root, "archive", "pull", first)
    assert away(ctx, first) == set()
    ctx = rules(ctx, f'archive = "{folder}"\n{GONE_UP.replace("= 0", "= 0.5")}')
    assert retention.plan(ctx).goes == {}  # what came back today is new today
    program(root, "retry", f"{second}/j/a", check=False)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (GONE_UP, "the rule up asks for what is archived, and archive is not set"),
        (
            'archive = "x"\n[[retention.rules]]\nname = "k"\nkeep = true\narchived = true\n',
            "the rule k removes nothing",
        ),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused_when_it_is_read(root, toml, said):
    (root / "parallelhassnes.toml").write_text(toml)
    with pytest.raises(InvalidInput) as caught:
        load_config(root)
    (line,) = caught.value.lines()
    assert said in line
    context(root, "")
    (root / "parallelhassnes.toml").write_text(toml)
    assert said in failed(root, "gc", "--yes")


def test_a_batch_that_goes_on_or_is_held_is_refused_before_anything_is_sent(root, place, tmp_path):
    ctx, gate = context(root, "durable = false\n"), tmp_path / "gate"
    wait = f"until test -e {gate}; do sleep 0.02; done"
    batch_id = put(ctx, table(job("j", command("a", "true"), shell("w", wait))))
    program(root, "tick")
    wait_for(lambda: len(list(ctx.layout.batch(batch_id).glob("*/steps/a/attempts/*/seal.json"))) == 1, "the first end")
    words = ["archive", "push", batch_id, "--to", place, "--remove-local"]
    assert f"{batch_id} runs, and nothing of it is removed; push it once it is over" in failed(root, *words)
    program(root, "pause", batch_id)
    gate.touch()
    wait_for(lambda: idle(ctx), "the batch to end")
    program(root, "tick")
    assert f"{batch_id} is held (" in failed(root, *words)
    assert list(push_batch.opened(ctx, place).names("batches")) == []
    assert "do not go together" in failed(root, *words, "--repair")
    program(root, "resume", batch_id)
    program(root, *words)
    assert len(away(ctx, batch_id)) == 2


def test_a_packed_batch_stays_packed_without_the_files_and_with_them(batch, place):
    ctx, batch_id = batch
    before = whole(ctx, batch_id)
    packs.pack(ctx, batch_id)
    size = (ctx.layout.batch(batch_id) / packed.ARCHIVE).stat().st_size
    store = push_batch.opened(ctx, place)
    assert push_and_remove(ctx, batch_id, store).removed_attempts == 3
    assert (ctx.layout.batch(batch_id) / packed.ARCHIVE).stat().st_size < size
    assert (audit(ctx.layout).ok, audit(ctx.layout).removed) == (True, {"remove-local": 3})
    assert pull_batch.pull(ctx, batch_id, store).state == "restored"
    assert packed.of(ctx.layout.batch(batch_id)) is not None
    assert (audit(ctx.layout).ok, audit(ctx.layout).removed) == (True, {})
    packs.unpack(ctx, batch_id)
    assert whole(ctx, batch_id) == before


def test_on_another_machine_all_files_come_where_the_archive_has_them(batch, place, other):
    ctx, batch_id = batch
    before, store = whole(ctx, batch_id), push_batch.opened(ctx, place)
    push_and_remove(ctx, batch_id, store)
    pulled = pull_batch.pull(other, batch_id, store)
    assert (pulled.state, pulled.elsewhere) == ("pulled", [])
    assert whole(other, batch_id) == before
    assert (audit(other.layout).ok, audit(other.layout).removed) == (True, {})
    assert (away(other, batch_id), events(other, batch_id)[-2:]) == (set(), ["removed", "restored"])


def test_what_a_rerun_has_taken_over_is_kept_and_what_it_takes_over_later_comes_back_from_the_old_batch(root, place):
    ctx = context(root, "durable = false\n")
    batch_id = ended(ctx, job("j", shell("a", LEAVES), command("b", "false")))
    before = {path.parts[-3]: contents(path) for path in attempt_dirs(ctx, batch_id)}
    made = []
    for _ in range(2):
        made.append(json.loads(program(root, "rerun", batch_id, "--failed", "--json").stdout)["batch_id"])
        program(root, "tick")
        wait_for(lambda: idle(ctx), "the rerun to end")
        program(root, "tick")
        if len(made) == 1:
            done = program(root, "archive", "push", batch_id, "--to", place, "--remove-local").stdout
            assert done.endswith(
                f"files of 1 removed here, 0.00 MB, files kept: 1 of its attempts are taken over or judged by {made[0]}\n"
            )
            assert {name.split("/")[2] for name in away(ctx, batch_id)} == {"b"}
            program(root, "archive", "push", made[0], "--to", place, "--remove-local")
            program(root, "archive", "push", batch_id, "--to", place, "--remove-local")
            assert (len(away(ctx, batch_id)), len(away(ctx, made[0]))) == (2, 2)
    later = made[1]
    assert [stone.archived_as for stone in removals.of(ctx.layout.batch(later)).values()] == [batch_id]
    assert f"archive pull {later} --from" in program(root, "logs", f"{later}/j/a").stderr
    program(root, "archive", "pull", later, "--from", place)  # the archive has no batch by that id
    (taken,) = (path for path in attempt_dirs(ctx, later) if path.parts[-3] == "a")
    assert contents(taken) == before["a"]
    assert audit(ctx.layout).ok
    program(root, "archive", "push", later, "--to", place)
    assert "as it is here" in program(root, "archive", "verify", later, "--from", place).stdout


def test_of_a_batch_that_took_over_records_alone_the_files_come_on_another_machine_too(root, place, other):
    ctx = context(root, "durable = false\n")
    batch_id = ended(ctx, job("j", shell("a", LEAVES), command("b", "false")))
    (folder,) = (path for path in attempt_dirs(ctx, batch_id) if path.parts[-3] == "a")
    before, store = contents(folder), push_batch.opened(ctx, place)
    push_and_remove(ctx, batch_id, store)
    later = json.loads(program(root, "rerun", batch_id, "--failed", "--json").stdout)["batch_id"]
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the rerun to end")
    program(root, "tick")
    push_and_remove(ctx, later, store)
    assert pull_batch.verify(ctx, later, store).elsewhere == []
    pull_batch.pull(ctx, later, store)
    push_batch.push(ctx, later, store)  # until now it had the records alone by this id
    assert pull_batch.verify(ctx, later, store).here == "same"
    push_and_remove(ctx, later, store)
    assert pull_batch.pull(other, later, store).elsewhere == []
    (taken,) = (path for path in attempt_dirs(other, later) if path.parts[-3] == "a")
    assert contents(taken) == before
    assert audit(other.layout).ok


def test_an_archive_of_the_records_alone_says_where_the_files_are_until_it_gets_them(batch, tmp_path, other):
    ctx, batch_id = batch
    first, second = (push_batch.opened(ctx, str(tmp_path / name)) for name in ("first", "second"))
    before = whole(ctx, batch_id)
    push_and_remove(ctx, batch_id, first)
    push_batch.push(ctx, batch_id, second)
    assert pull_batch.verify(ctx, batch_id, second).elsewhere == [first.address]
    said = program(other.layout.root, "archive", "pull", batch_id, "--from", second.url).stdout
    assert f"; of some it has the records alone, and their files are in {first.address}" in said
    assert (audit(other.layout).ok, len(away(other, batch_id))) == (True, 3)
    for each in (ctx, other):
        line = failed(each.layout.root, "archive", "pull", batch_id, "--from", second.url)
        assert line == (
            f"{batch_id}: {second.url} has none of the files that were removed here; pull from {first.address}\n"
        )
    assert pull_batch.pull(other, batch_id, first).state == "restored"
    assert whole(other, batch_id) == before
    pull_batch.pull(ctx, batch_id, first)
    push_batch.push(ctx, batch_id, second)  # now with the files
    assert pull_batch.verify(ctx, batch_id, second).here == "same"
    shutil.rmtree(other.layout.batch(batch_id))
    assert pull_batch.pull(other, batch_id, second).elsewhere == []
    assert whole(other, batch_id) == before
    assert push_and_remove(ctx, batch_id, second).removed_attempts == 3


def test_a_mending_push_never_puts_records_in_the_place_of_what_only_the_archive_has(batch, tmp_path):
    ctx, batch_id = batch
    store = push_batch.opened(ctx, str(tmp_path / "archive"))
    push_and_remove(ctx, batch_id, store)
    seals = remote.ended_attempts(line for _, line in ledger.read(ctx.layout.batch(batch_id)))
    before = {digest: remote.read_attempt(store, batch_id, digest) for digest in seals}
    push_batch.push(ctx, batch_id, store, repair=True)
    for digest, place in seals.items():  # as if a rule had removed the files while they were sent
        remote.send_attempt(push_batch.Mending(store), ctx.layout.batch(batch_id), place, digest)
    assert {digest: remote.read_attempt(store, batch_id, digest) for digest in seals} == before
    path = next((tmp_path / "archive" / "batches" / batch_id / "seals").iterdir())
    path.unlink()
    push_batch.push(ctx, batch_id, store, repair=True)
    for act in (pull_batch.verify, pull_batch.pull):
        with pytest.raises(UserError, match=r"are not those that were sealed|has the records alone"):
            act(ctx, batch_id, store)


def test_files_without_their_line_go_with_the_next_gc_and_come_with_the_next_pull(batch, tmp_path, monkeypatch):
    ctx, batch_id = batch
    before, store = whole(ctx, batch_id), push_batch.opened(ctx, str(tmp_path / "archive"))
    push_and_remove(ctx, batch_id, store)
    gone = contents(ctx.layout.batch(batch_id))
    ctx = rules(ctx, '[[retention.rules]]\nname = "none"\nafter_days = 10000\n')

    def cut(*_):
        raise KeyboardInterrupt

    for collects in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(removals, "tell_restored", cut)
            with pytest.raises(KeyboardInterrupt):
                pull_batch.pull(ctx, batch_id, store)
        assert whole(ctx, batch_id) == before
        assert (len(away(ctx, batch_id)), audit(ctx.layout).ok) == (3, True)
        made = retention.plan(ctx)
        assert made.said.finished == 3
        if collects:
            removing.carry_out(ctx, made)
            assert contents(ctx.layout.batch(batch_id)) == gone
    pull_batch.pull(ctx, batch_id, store)
    removing.carry_out(ctx, made)  # of what was half gone when it looked, and is back
    assert whole(ctx, batch_id) == before
    assert (audit(ctx.layout).ok, audit(ctx.layout).removed, audit(ctx.layout).notes) == (True, {}, [])


def test_a_line_that_says_that_files_are_back_hides_nothing(batch, tmp_path):
    ctx, batch_id = batch
    push_and_remove(ctx, batch_id, push_batch.opened(ctx, str(tmp_path / "archive")))
    batch_dir = ctx.layout.batch(batch_id)
    stones = removals.of(batch_dir)
    removals.tell_restored(batch_dir, dict.fromkeys(stones, "0" * 64), "x")
    assert removals.of(batch_dir) == stones
    assert audit(ctx.layout).ok
    removals.tell_restored(batch_dir, {place: stone.seal for place, stone in stones.items()}, "x")
    found = audit(ctx.layout)
    assert not found.ok
    assert {each.what for each in found.problems} == {"missing"}
    for attempts in (None, 3, [{}], [{"attempt": "../../x", "seal": "y"}], [["a"]]):
        ledger.append(batch_dir, "restored", by="x", attempts=attempts)
    assert removals.of(batch_dir) == {}
    assert "is not what we write" in {each.text for each in audit(ctx.layout).problems}


def test_only_one_at_a_time_removes_or_brings_back(batch, tmp_path):
    ctx, batch_id = batch
    folder = str(tmp_path / "archive")
    with locks.held(ctx.layout.gc_lock):
        said = failed(ctx.layout.root, "archive", "push", batch_id, "--to", folder, "--remove-local")
    assert said.startswith("another gc is at work on this store, or what brings removed files back; wait")
    program(ctx.layout.root, "archive", "push", batch_id, "--to", folder, "--remove-local")
    with locks.held(ctx.layout.gc_lock):
        assert "another gc is at work" in failed(ctx.layout.root, "archive", "pull", batch_id, "--from", folder)
        assert "was there" in program(ctx.layout.root, "archive", "push", batch_id, "--to", folder).stdout


def test_killed_at_any_moment_or_several_at_once_every_file_is_here_or_there(root, place):
    ctx = context(root, f'durable = false\narchive = "{place}"\n{GONE_UP}')
    batch_id = ended(ctx, job("j", *(shell(f"s{n}", "head -c 50000 /dev/urandom") for n in range(12))), concurrency=8)
    before, chance = whole(ctx, batch_id), random.Random()
    push_batch.push(ctx, batch_id, push_batch.opened(ctx, None))
    words = [
        ["archive", "push", batch_id, "--remove-local"],
        ["archive", "pull", batch_id],
        ["gc", "--yes"],
        ["pack", batch_id],
        ["unpack", batch_id],
        ["audit", "verify"],
    ]
    kills = 0
    for _ in range(6):
        running = [started(root, *each) for each in chance.sample(words, 3)]
        time.sleep(chance.uniform(0.3, 1.5))
        running[0].send_signal(signal.SIGKILL)
        for each in running:
            _, said = each.communicate(timeout=100)
            assert "Traceback" not in said
            kills += each.returncode == -signal.SIGKILL
        program(root, "tick")
        assert audit(ctx.layout).ok
    program(root, "gc", "--yes")
    program(root, "archive", "push", batch_id, "--remove-local")
    assert (len(away(ctx, batch_id)), audit(ctx.layout).ok) == (12, True)
    program(root, "archive", "pull", batch_id)
    if packed.of(ctx.layout.batch(batch_id)) is not None:
        packs.unpack(ctx, batch_id)
    assert whole(ctx, batch_id) == before
    assert audit(ctx.layout).ok
    assert not any(ctx.layout.temp.iterdir())


def test_no_space_for_what_comes_back_leaves_the_batch_as_it_was(small_disk, tmp_path):
    floors = "min_free_disk_mb = 0\nmin_free_files = 0\nmin_free_memory_mb = 0\n"
    ctx = context(small_disk, f"durable = false\n{floors}")
    batch_id = ended(ctx, job("j", *(shell(f"s{n}", "head -c 100000 /dev/urandom") for n in range(5))))
    before, words = whole(ctx, batch_id), ["archive", "pull", batch_id, "--from", str(tmp_path / "archive")]
    program(small_disk, "archive", "push", batch_id, "--to", str(tmp_path / "archive"), "--remove-local")
    gone = contents(ctx.layout.batch(batch_id))
    with (small_disk / "full").open("wb", buffering=0) as full, contextlib.suppress(OSError):
        while full.write(b"x" * 4096):
            pass
    done = program(small_disk, *words, check=False)
    assert (done.returncode != 0, done.stderr.count("\n"), "free some space" in done.stderr) == (True, 1, True), done
    assert contents(ctx.layout.batch(batch_id)) == gone
    assert not any(ctx.layout.temp.iterdir())
    (small_disk / "full").unlink()
    program(small_disk, *words)
    assert whole(ctx, batch_id) == before
    assert audit(ctx.layout).ok


def test_what_a_gc_has_noted_by_its_rules_says_nothing_of_a_removal_by_hand(batch, tmp_path):
    ctx, batch_id = batch
    folder = str(tmp_path / "archive")
    ctx = rules(ctx, '[[retention.rules]]\nname = "late"\nafter_days = 10000\n')
    program(ctx.layout.root, "gc", "--yes")  # there is nothing to do in the batch, and the next gc passes it over
    words = ["archive", "push", batch_id, "--to", folder, "--remove-local"]
    assert "files of 3 removed here" in program(ctx.layout.root, *words).stdout
    program(ctx.layout.root, "gc", "--yes")
    program(ctx.layout.root, "archive", "pull", batch_id, "--from", folder)
    ctx = rules(ctx, f'archive = "{folder}"\n{GONE_UP}')
    assert removing.carry_out(ctx, retention.plan(ctx)).rules[0].attempts == 3
    program(ctx.layout.root, "gc", "--yes")
    program(ctx.layout.root, "archive", "pull", batch_id)
    assert removing.carry_out(ctx, retention.plan(ctx)).rules[0].attempts == 3
    assert audit(ctx.layout).ok


def test_an_attempt_that_gets_into_the_archive_after_a_gc_goes_with_the_next(batch, tmp_path):
    ctx, batch_id = batch
    ctx = rules(ctx, f'archive = "{tmp_path / "archive"}"\n{GONE_UP}')
    for _ in range(2):
        assert removing.carry_out(ctx, retention.plan(ctx)).rules == []
    program(ctx.layout.root, "archive", "push", batch_id)
    assert removing.carry_out(ctx, retention.plan(ctx)).rules[0].attempts == 3


def test_a_batch_of_which_nothing_ever_ran_has_nothing_to_remove(root, tmp_path):
    ctx = context(root, "durable = false\n")
    batch_id = put(ctx, table(job("j", command("a", "true"))))
    program(root, "pause", batch_id)
    program(root, "tick")
    program(root, "cancel", batch_id)
    program(root, "resume", batch_id, check=False)
    words = ["archive", "push", batch_id, "--to", str(tmp_path / "archive"), "--remove-local"]
    for said in ("pushed  0 attempts, 0 of them sent now", "was there  0 attempts"):
        assert said in program(root, *words).stdout
    assert away(ctx, batch_id) == set()


@pytest.mark.seaweedfs
def test_a_server_that_is_away_or_never_answers_keeps_every_file_and_ctrl_c_ends_the_wait(
    batch, bucket_server, monkeypatch
):
    ctx, batch_id = batch
    url = bucket_server.offer(monkeypatch).make_bucket(f"r{time.time_ns()}")
    before = contents(ctx.layout.batch(batch_id))
    program(ctx.layout.root, "archive", "push", batch_id, "--to", url)
    ctx = rules(ctx, f'archive = "{url}"\n{GONE_UP}')
    nobody = {**bucket_server.env, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    done = program(ctx.layout.root, "gc", "--yes", "--quiet", env=nobody, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"what goes once it is archived is kept: {url}: cannot be reached" in done.stderr
    done = program(ctx.layout.root, "archive", "push", batch_id, "--remove-local", env=nobody, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {**bucket_server.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        running = started(ctx.layout.root, "gc", "--yes", env=env)
        waiting, _ = silent.accept()
        with waiting:
            waiting.recv(1)
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == -signal.SIGINT
        running.communicate()
    assert contents(ctx.layout.batch(batch_id)) == before
    assert removing.carry_out(ctx, retention.plan(ctx)).rules[0].attempts == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_folder_closed_to_its_owner_comes_back_for_a_user_who_is_not_root(tmp_path):
    source, target = tmp_path / "a" / "closed", tmp_path / "b" / "closed"
    source.mkdir(parents=True)
    target.parent.mkdir()
    (source / "x").write_text("x")
    source.chmod(0o500)
    for path in (tmp_path, source, source.parent, target.parent):
        os.chown(path, 65534, 65534)
    pid = os.fork()
    if not pid:
        os.chdir(tmp_path)
        os.setgid(65534), os.setuid(65534)
        try:
            restore._rename(Path("a/closed"), Path("b/closed"))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (target / "x").read_text() == "x"
    assert target.stat().st_mode & 0o777 == 0o500
