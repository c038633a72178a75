"""What is kept of a file is read again when the file was written in place, however alike its size and its time of writing are made."""

import json
import os
import re
from pathlib import Path

import pytest
from stores import command, context, idle, job, put, table, wait_for

import parallelhassnes
from parallelhassnes import file_stamp, packed
from parallelhassnes.results import trial_plans
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic, currents, index
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status, projection

NOT_A_STAMP = {
    "actions/imports/stage_attempt.py": "a copy beside what it was copied from",
    "api/http/file_responses.py": "what an archive says of a file",
    "store/archives/packing.py": "what an archive says of a file",
    "store/evidence/checkpoints.py": "whether a ledger got lines since",
    "store/evidence/seal.py": "whether a file is as it was made",
    "steps/trial/result.py": "which file was written last",
}


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file in place, and set its time back."""
    before, data = path.stat(), path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    as_of = file_stamp.at(path)
    while file_stamp.at(path) == as_of:  # the clock of files may stand still for some milliseconds
        with path.open("r+b") as stream:
            stream.write(data.replace(old, new))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


@pytest.fixture
def batch(root):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", command("one", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    return ctx, batch_id


def test_the_board_of_a_batch(batch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    projection.save(projection.load(batch_dir), batch_dir, force=True)
    assert projection.load(batch_dir).attempts == 1
    whole = (batch_dir / projection.CACHE).read_bytes()
    other = atomic.summed(atomic.unsummed(whole).replace(b'"attempts":1', b'"attempts":7'))
    rewritten(batch_dir / projection.CACHE, whole, other)
    assert projection.load(batch_dir).attempts == 7


def test_the_index_of_a_batch(batch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    assert [step.step_id for step in index.kept(batch_dir)["j"]] == ["one"]
    rewritten(batch_dir / index.INDEX, b'"one"', b'"two"')
    assert [step.step_id for step in index.kept(batch_dir)["j"]] == ["two"]


def test_how_a_step_stands(batch):
    ctx, batch_id = batch
    job_dir = ctx.layout.job(batch_id, "j")
    standing = currents.take(job_dir)
    assert standing.catch_up()
    rewritten(job_dir / currents.CURRENT, b'"number":1', b'"number":2')
    assert not standing.catch_up()


def test_what_a_view_was_made_from(batch):
    ctx, batch_id = batch
    status = batch_status.read_told(ctx.layout, batch_id)

    def made_from() -> str:
        return f"{batch_status.stamp(ctx.layout, batch_id, 0)} {trial_plans.made_from(status)}"

    seen = {made_from()}
    for name, old, new in (
        ("ledger.jsonl", b'"ended"', b'"Ended"'),
        ("batch_meta.json", batch_id.encode(), batch_id.upper().encode()),
        ("j/job.json", b'"one"', b'"two"'),
    ):
        rewritten(ctx.layout.batch(batch_id) / name, old, new)
        seen.add(made_from())
    assert len(seen) == 4


def test_which_files_were_removed(batch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    place, sealed = next(filter(None, (ledger.sealed_by(line) for _, line in ledger.read(batch_dir))))
    ledger.append(
        batch_dir,
        removals.EVENT,
        by="ann",
        rule="r",
        says="s",
        attempts=[{"attempt": place, "seal": sealed, "merkle_root": "", "files": 1, "bytes": 2}],
    )
    assert [stone.rule for stone in removals.of(batch_dir).values()] == ["r"]
    rewritten(batch_dir / ledger.LEDGER, b'"rule":"r"', b'"rule":"s"')
    assert [stone.rule for stone in removals.of(batch_dir).values()] == ["s"]


def test_the_index_of_an_archive(tmp_path):
    path = tmp_path / packed.INDEX
    path.write_text(json.dumps({"attempts": {"j/steps/s/attempts/a": [1, 2, 3]}, "rest": {}}))
    assert packed.of(tmp_path).attempts["j/steps/s/attempts/a"].at == 1
    rewritten(path, b"[1,", b"[8,")
    assert packed.of(tmp_path).attempts["j/steps/s/attempts/a"].at == 8


def test_the_configuration(root):
    path = root / "parallelhassnes.toml"
    path.write_text("concurrency = 3\n")
    assert configuration.in_force(Layout(root)).config.concurrency == 3
    rewritten(path, b"3", b"4")
    assert configuration.in_force(Layout(root)).config.concurrency == 4


def test_when_a_batch_arrived(root):
    ctx = context(root)
    folder = ctx.layout.batch("by-hand")
    folder.mkdir()
    (folder / "batch_meta.json").write_text('{"batch_id":"by-hand","created_at":"2026-01-02T03:04:05.000000Z"}')
    first = ctx.layout.arrivals()["by-hand"]
    rewritten(folder / "batch_meta.json", b"2026-01-02", b"2026-01-03")
    assert ctx.layout.arrivals()["by-hand"] > first


def test_nothing_else_takes_a_files_time_for_its_version():
    package = Path(parallelhassnes.__file__).parent
    named = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"st_[mc]time_ns", path.read_text())
    }
    assert named == {*NOT_A_STAMP, "file_stamp.py"}
