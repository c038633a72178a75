"""Archives that have lost something, are not mounted, or were written by somebody who means harm: no file goes for want of them, and each is one line."""

import json
import os
import shutil
import threading

import pytest
from archives import contents, ended
from stores import command, context, job, program

from parallelhassnes.actions.archive import pull_batch, push_batch
from parallelhassnes.actions.stored import removing, retention
from parallelhassnes.errors import UserError
from parallelhassnes.store.archives import object_store
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.evidence import removals

REST = '[[retention.rules]]\nname = "rest"\nafter_days = 0\n'
UP = '[[retention.rules]]\nname = "up"\nafter_days = 0\narchived = true\n'


@pytest.fixture
def archived(root, tmp_path):
    """A store with a batch that its archive has, and rules by which one that it lacks would go."""
    folder = tmp_path / "archive"
    ctx = context(root, f'durable = false\narchive = "{folder}"\n{UP}{REST}')
    batch_id = ended(ctx, job("j", command("a", "true"), command("b", "true")))
    program(root, "archive", "push", batch_id)
    return ctx, batch_id, folder


def kept(ctx, batch_id, says):
    """See that ``gc`` removes nothing, and says why."""
    before = contents(ctx.layout.batch(batch_id))
    done = program(ctx.layout.root, "gc", "--yes", check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert says in done.stderr
    assert contents(ctx.layout.batch(batch_id)) == before


def linked(path):
    """Have a link to what is not mounted in the place of a file or folder."""
    path.rename(path.parent / f"{path.name}-away")
    path.symlink_to("/mnt/not-mounted")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", ["", "batches", "batches/B", "batches/B/heads", "batches/B/heads/00000001.json"])
def test_a_link_that_leads_nowhere_says_nothing_of_what_was_there(archived, part):
    ctx, batch_id, folder = archived
    shutil.rmtree(ctx.layout.archive, ignore_errors=True)  # nobody has noted what was sent
    linked(folder / part.replace("B", batch_id))
    kept(ctx, batch_id, "is a link that leads nowhere; mount what it leads to, or remove the link")
    for verb in ("push", "pull", "verify"):
        done = program(ctx.layout.root, "archive", verb, batch_id, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert "is a link that leads nowhere" in done.stderr


def test_an_archive_without_any_batch_is_no_reason_to_go_by_the_next_rule(archived):
    ctx, batch_id, folder = archived
    shutil.rmtree(ctx.layout.archive, ignore_errors=True)
    shutil.move(folder, folder.with_name("away"))
    for _ in range(2):
        kept(ctx, batch_id, "there is no batch at all; mount it, correct its address, or push a first batch there")
        folder.mkdir(exist_ok=True)
    toml = ctx.layout.root / "parallelhassnes.toml"
    toml.write_text(toml.read_text().removesuffix(REST))
    assert "are not in" in program(ctx.layout.root, "gc", "--yes").stdout  # no rule would remove it: nothing to mount


def test_a_batch_that_the_archive_had_and_has_no_more_is_trouble_whatever_else_it_has(archived):
    ctx, batch_id, folder = archived
    other = ended(ctx, job("j", command("a", "true")))
    program(ctx.layout.root, "archive", "push", other)
    shutil.move(folder / "batches" / batch_id, folder.with_name("lost"))
    done = removing.carry_out(ctx, retention.plan(ctx))
    assert [line.split(":")[0] for line in done.failed] == [batch_id]
    assert (removals.of(ctx.layout.batch(batch_id)), len(removals.of(ctx.layout.batch(other)))) == ({}, 1)
    kept(ctx, batch_id, "has no such batch any more, which was sent there; mount it, or bring back what it had")
    program(ctx.layout.root, "archive", "push", batch_id)
    assert removing.carry_out(ctx, retention.plan(ctx)).ok


def test_an_older_copy_of_an_archive_is_trouble_too(root, tmp_path):
    folder = tmp_path / "archive"
    ctx = context(root, f'durable = false\narchive = "{folder}"\n{UP}{REST}')
    batch_id = ended(ctx, job("j", command("a", "false")))
    program(root, "archive", "push", batch_id)
    shutil.copytree(folder, tmp_path / "older")
    program(root, "retry", batch_id, "--failed")
    program(root, "tick", "--until-idle", check=False)
    program(root, "archive", "push", batch_id)
    shutil.rmtree(folder)
    shutil.move(tmp_path / "older", folder)
    kept(ctx, batch_id, "has less of this batch than was sent there")


@pytest.mark.parametrize("part", ["heads", "seals", "blobs"])
def test_what_is_larger_than_memory_is_refused_unread(archived, other, part):
    ctx, batch_id, folder = archived
    above = folder if part == "blobs" else folder / "batches" / batch_id
    for path in (above / part).rglob("*"):
        if path.is_file():
            os.truncate(path, 1 << 40)
    for verb in ("verify", "pull"):
        done = program(other.layout.root, "archive", verb, batch_id, "--from", str(folder), check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert "is larger than anything that a push writes" in done.stderr
    kept(ctx, batch_id, "is larger than anything that a push writes")
    program(ctx.layout.root, "archive", "push", batch_id, "--repair")
    assert pull_batch.verify(other, batch_id, push_batch.opened(ctx, None)).state == "whole"


@pytest.mark.parametrize(
    "said",
    [
        {"number": 7},
        {"batch_id": "20990101T000000Z-aaaaaaaa"},
        {"attempts": 10**30},
        {"attempts": 1},
        {"tasks": ["../../secret"]},
        {"records": [{"sha256": "../../../secret", "size": 1}]},
    ],
)
def test_a_head_that_says_what_is_not_so_is_refused_by_whoever_reads_it(archived, other, said):
    _, batch_id, folder = archived
    path = folder / remote.head_key(batch_id, 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    for verb in ("verify", "pull"):
        done = program(other.layout.root, "archive", verb, batch_id, "--from", str(folder), check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert path.name in done.stderr
    assert not other.layout.batch(batch_id).exists()


def test_a_blob_that_says_less_than_it_is_and_unpacks_to_more_is_refused(archived, other):
    ctx, batch_id, folder = archived
    path = folder / remote.head_key(batch_id, 1)
    document = json.loads(path.read_text())
    document["records"][0]["size"] = 1 << 30  # by which it might unpack to a thousand times as much
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is not what it is named by"):
        pull_batch.verify(other, batch_id, push_batch.opened(ctx, None))


def test_what_an_archive_calls_a_batch_stays_on_its_line(archived):
    ctx, batch_id, folder = archived
    path = folder / remote.head_key(batch_id, 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "x\n20990101T000000Z-evil\x1b[2J", "at": "\r"}))
    said = program(ctx.layout.root, "archive", "list").stdout
    assert (said.count("\n"), "\x1b" in said, "\r" in said) == (1, False, False)


def test_of_two_who_write_a_key_at_once_one_is_told_that_it_did(tmp_path):
    stores = [object_store.open_store(str(tmp_path / "archive"), {}, at=tmp_path) for _ in range(4)]
    wrote, start = [], threading.Barrier(len(stores))

    def write(number):
        start.wait()
        wrote.extend((key, number) for key in range(100) if stores[number].create(f"heads/{key}", b"%d" % number))

    running = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert sorted(key for key, _ in wrote) == list(range(100))
    assert all(stores[0].read(f"heads/{key}") == b"%d" % number for key, number in wrote)


def test_an_archive_among_the_batches_is_refused(batch):
    ctx, batch_id = batch
    for named in (str(ctx.layout.runs / "elsewhere"), "runs"):
        refused = program(ctx.layout.root, "archive", "push", batch_id, "--to", named, cwd=ctx.layout.root, check=False)
        assert refused.returncode == 2
        assert (
            refused.stderr == f"{named}: is in {ctx.layout.runs}, whose folders are batches; name a folder elsewhere\n"
        )
    assert [path.name for path in ctx.layout.runs.iterdir() if path.name[0] != "_"] == [batch_id]


def test_what_was_done_before_one_failed_is_told(batch, tmp_path):
    ctx, batch_id = batch
    words = ("archive", "push", batch_id, "nothing", "--to", str(tmp_path / "archive"))
    plain = program(ctx.layout.root, *words, check=False)
    assert plain.returncode == 2
    assert plain.stdout.startswith(f"{batch_id}  pushed")
    said = program(ctx.layout.root, *words, "--json", check=False)
    document = json.loads(said.stdout)
    assert (said.returncode, document["ok"], "no batch nothing" in document["error"]) == (2, False, True)
    assert [each["batch_id"] for each in document["batches"]] == [batch_id]
