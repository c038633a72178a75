"""What an attempt of a program that does nothing costs, in operations that no busy machine changes."""

import os
from collections import Counter

import pytest
from stores import command, context, job, program, put, python, shell, states, table, wait_for

from parallelhassnes.actions.archive.push_batch import push
from parallelhassnes.schedule import checkpointing
from parallelhassnes.schedule.settle import settle_ended
from parallelhassnes.store import batches, locks
from parallelhassnes.store.archives.object_store import open_store
from parallelhassnes.store.evidence import checkpoints, ledger
from parallelhassnes.store.queue import tickets

COUNTED = """
import os, sys

def counted(name):
    real = getattr(os, name)
    def act(*arguments, **options):
        place = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else arguments[0] if arguments else ""
        os.write(log, f"{name} {os.path.basename(os.fspath(place))}\\n".encode())
        return real(*arguments, **options)
    setattr(os, name, act)

def opened(event, said):
    if event == "open" and isinstance(said[0], (str, bytes, os.PathLike)) and f"{os.sep}runs{os.sep}" in os.fsdecode(said[0]):
        os.write(log, f"open {os.path.basename(os.fsdecode(said[0]))}\\n".encode())

log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(opened)
for name in ("fsync", "fork", "execve"):
    counted(name)
sys.argv[0] = "parallelhassnes"
from parallelhassnes.__main__ import main
main()
"""


def counts(root, jobs):
    """Operation → how often it was done for a batch of so many jobs of one step, one at a time."""
    root.mkdir()
    ctx, acts = context(root), root / "acts"
    batch = put(ctx, table(*(job(f"j{number}", command("s", "true")) for number in range(jobs))))
    arguments = ["tick", "--until-idle", "--concurrency", "1", "--quiet", "--root", str(root)]
    python(COUNTED, str(acts), *arguments)
    assert states(ctx, batch) == {f"j{number}/s": ["succeeded"] for number in range(jobs)}
    found = Counter(line.split()[0] for line in acts.read_text().splitlines())
    left = [path for path in ctx.layout.batch(batch).rglob("*") if path.name not in batches.DERIVED]
    found["inodes"] = len(left)
    found["bytes"] = sum(path.stat().st_size for path in left if path.is_file())
    return found


@pytest.mark.timeout(120)
def test_an_attempt_waits_for_the_disk_and_starts_processes_no_more_often_than_it_must(tmp_path):
    # On the disk: the attempt's folder with its meta.json and the four folders above it that are new, two lines of the
    # ledger; four records, the work folder, the seal and the attempt's folder again.
    must = {"fsync": 15, "fork": 1, "execve": 1, "inodes": 17}
    # Opened below runs/ by a path, and left there in files. Numbers of processes have more digits or fewer.
    most = {"open": 72, "bytes": 3_900}
    for look in range(5):  # a pass that the clock has made meanwhile costs more, and never less
        few, many = counts(tmp_path / f"few-{look}", 2), counts(tmp_path / f"many-{look}", 6)
        found = {name: (count - few[name]) / 4 for name, count in many.items()}
        if must.items() <= found.items() and all(found[name] <= bound for name, bound in most.items()):
            break
    assert {name: found[name] for name in must} == must
    assert {name: found[name] for name in most if found[name] > most[name]} == {}


@pytest.mark.timeout(120)
def test_the_ledger_is_waited_for_once_for_all_ends_that_a_pass_finds(root, monkeypatch):
    ctx = context(root)
    steps = [job(f"j{number}", shell("s", f"until [ -e {root}/go ]; do sleep 0.05; done")) for number in range(5)]
    batch_dir = ctx.layout.batch(put(ctx, table(*steps)))
    program(root, "tick", "--concurrency", "5")
    with locks.held(ctx.layout.tick_lock):
        (root / "go").touch()
        wait_for(lambda: len(tickets.ended(ctx.layout)) == 5, "five ends that nobody settles")
        left = []
        real = os.fsync
        monkeypatch.setattr(
            os,
            "fsync",
            lambda handle: left.append(len(tickets.ended(ctx.layout))) if is_ledger(handle) else real(handle),
        )

        def is_ledger(handle):
            return os.path.samestat(os.fstat(handle), (batch_dir / ledger.LEDGER).stat())

        assert settle_ended(ctx) == 5
    assert left == [5]  # once, and before the first ticket goes
    assert [line["event"] for _, line in ledger.read(batch_dir)].count("ended") == 5
    assert tickets.ended(ctx.layout) == []


@pytest.mark.timeout(120)
def test_a_checkpoint_and_an_archive_have_no_line_that_is_not_on_disk(root, tmp_path, monkeypatch):
    ctx = context(root)
    batch = put(ctx, table(job("j", command("s", "true"))))
    batch_dir = ctx.layout.batch(batch)
    program(root, "tick", "--until-idle")
    ledger.append_unsynced(batch_dir, "canceled", reason="nobody has waited for this line")
    heads, numbers, real = [], [], os.fsync

    def fsync(handle):
        if os.path.samestat(os.fstat(handle), (batch_dir / ledger.LEDGER).stat()):
            heads.append(len(list(tmp_path.rglob("heads/*"))))
            numbers.append(max(checkpoints.numbers(ctx.layout), default=0))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    push(ctx, batch, open_store(str(tmp_path / "archive"), {}, at=tmp_path))
    assert heads == [0]  # before the head that has the line
    made = checkpointing.make(ctx, full=True)
    assert made is not None
    assert len(numbers) == 2  # and before the checkpoint
    assert numbers[1] < int(made.path.stem)
