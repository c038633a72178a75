"""A ``gc`` costs what has changed or is due since the one before; its notes hide nothing, and may go at any time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stores import attempt_dirs, command, context, environment, idle, job, program, put, table, wait_for

from parallelhassnes import packed
from parallelhassnes.actions import packs
from parallelhassnes.actions.stored import removing, retention, retention_notes
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule.context import open_context
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.layout import RETENTION_NOTES

DAY = 86_400
LATER = '[retention]\npack_after_days = 300\n[[retention.rules]]\nname = "late"\nafter_days = 100\n'
NOW = '[[retention.rules]]\nname = "all"\nafter_days = 0\n'


def ended(ctx, *jobs):
    batch_id = put(ctx, table(*(jobs or (job("j", command("a", "true"), command("b", "false")),))))
    program(ctx.layout.root, "tick")
    wait_for(lambda: idle(ctx), "the batch to end")
    program(ctx.layout.root, "tick")
    return batch_id


def many(count):
    return job("j", *(command(f"s{number}", "true") for number in range(count)))


def ruled(ctx, toml):
    path = ctx.layout.root / "parallelhassnes.toml"
    path.write_text(path.read_text().partition("[")[0] + toml)
    return open_context(ctx.layout.root)


LOOK = """
import sys
from pathlib import Path
from parallelhassnes.actions.stored import retention
from parallelhassnes.schedule.context import open_context

ctx, opened = open_context(Path(sys.argv[1])), []
sys.addaudithook(lambda event, said: opened.append(str(said[0])) if event == "open" else None)
read = lambda: int(Path("/proc/self/io").read_text().split()[1])
before = read()
retention.plan(ctx)
print(read() - before, sum(ctx.layout.runs.name in name and ".py" not in name for name in opened))
"""


def cost(ctx):
    """Bytes that a look reads, and files of the store that it opens, in a process that begins."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(ctx.layout.root)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        timeout=60,
    )
    return tuple(map(int, done.stdout.split()))


@pytest.mark.parametrize("state", ["as it ran", "packed", "without its files"])
def test_a_second_look_costs_the_same_however_many_attempts_there_are(root, state):
    found = {}
    for count in (2, 60):
        (folder := root / str(count)).mkdir()
        ctx = context(folder, f"durable = false\n{NOW if state == 'without its files' else LATER}")
        batch_id = ended(ctx, many(count))
        if state == "packed":
            packs.pack(ctx, batch_id)
        if state == "without its files":
            removing.carry_out(ctx, retention.plan(ctx))
        first = cost(ctx)
        found[count] = cost(ctx)
        assert first[0] > found[count][0]
    assert first[0] > 40_000
    assert found[60][1] == found[2][1] <= 4
    assert found[60][0] <= 20_000  # a ledger's last line may speak of up to 200 attempts


def test_one_batch_that_has_changed_is_all_that_is_looked_through(root):
    ctx = context(root, f"durable = false\n{LATER}")
    made = [ended(ctx) for _ in range(3)]
    retention.plan(ctx)
    with (ctx.layout.batch(made[1]) / ledger.LEDGER).open("ab") as stream:
        stream.write(b'{"event":"noted"}\n')
    looked = []
    real, removals.of = removals.of, lambda folder: looked.append(Path(folder).name) or real(folder)
    try:
        retention.plan(ctx)
    finally:
        removals.of = real
    assert looked == [made[1]]


def test_what_becomes_due_goes_though_nothing_has_changed(root, monkeypatch):
    ctx = context(root, f"durable = false\n{LATER}")
    batch_id = ended(ctx)
    assert retention.plan(ctx).said.is_nothing
    assert retention.plan(ctx).said.is_nothing
    real = retention.time.time
    monkeypatch.setattr(retention.time, "time", lambda: real() + 99.9 * DAY)
    assert retention.plan(ctx).said.is_nothing
    monkeypatch.setattr(retention.time, "time", lambda: real() + 101 * DAY)
    made = retention.plan(ctx)
    assert len(made.goes[batch_id]) == 2
    assert made.said.packed == []
    done = removing.carry_out(ctx, made)
    assert (done.ok, done.rules[0].attempts) == (True, 2)
    assert retention.plan(ctx).said.is_nothing
    monkeypatch.setattr(retention.time, "time", lambda: real() + 301 * DAY)
    assert retention.plan(ctx).said.packed == [batch_id]
    assert verify(ctx.layout).ok


def _other_rules(ctx, batch_id):
    return ruled(ctx, NOW)


def _a_tombstone(ctx, batch_id):
    """Here a ``gc`` was killed behind its line."""
    made = retention.plan(ruled(ctx, NOW))
    found = {place: each.tombstone for place, each in made.goes[batch_id].items()}
    removals.bury(ctx.layout.batch(batch_id), "all", "after 0 days", found)
    return ruled(ctx, LATER)


def _unpacked_for_now(ctx, batch_id):
    packs.pack(ctx, batch_id)
    retention.plan(ctx)
    packs.unpack(ctx, batch_id, for_now=True)
    return ctx


def _half_unpacked(ctx, batch_id):
    """Here an ``unpack`` was killed behind its first rename: the ledger and the archive's index are as they were."""
    batch_dir = ctx.layout.batch(batch_id)
    packs.pack(ctx, batch_id)
    retention.plan(ctx)
    retention.plan(ctx)
    (batch_dir / "j" / "steps").mkdir()
    return ctx


@pytest.mark.parametrize("change", [_other_rules, _a_tombstone, _unpacked_for_now, _half_unpacked])
def test_a_note_hides_nothing_that_is_to_be_done(root, change):
    ctx = context(root, f"durable = false\n{LATER}")
    batch_id = ended(ctx)
    assert retention.plan(ctx).said.is_nothing
    assert retention.plan(ctx).said.is_nothing
    ctx = change(ctx, batch_id)
    for _ in range(2):
        made = retention.plan(ctx)
        assert made.said.rules or made.said.finished or made.said.packed == [batch_id]
    done = removing.carry_out(ctx, made)
    assert (done.ok, done.kept) == (True, [])
    assert retention.plan(ctx).said.is_nothing
    assert verify(ctx.layout).ok


def test_what_a_noted_batch_has_taken_over_is_kept(root):
    ctx = context(root, f"durable = false\n{LATER}")
    first = ended(ctx)
    made = json.loads(program(root, "rerun", first, "--failed", "--json").stdout)["batch_id"]
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the rerun to end")
    program(root, "tick")
    only_first = f'[[retention.rules]]\nname = "late"\nafter_days = 100\nexperiments = ["none"]\n{NOW}'
    ctx = ruled(ctx, only_first)
    for _ in range(2):
        said = retention.plan(ctx).said
        assert said.kept == [f"{first}: 1 of its attempts are taken over or judged by {made}"]
    ctx = ruled(ctx, '[[retention.rules]]\nname = "keep"\nexperiments = ["x"]\nkeep = true\n')
    retention.plan(ctx)
    notes = retention_notes.read(ctx.layout, ctx.config.retention)
    assert {batch: len(note.taken) for batch, note in notes.items()} == {first: 0, made: 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"made_by": 3}',
        b'{"made_by": %s}',
        b'{"made_by": %s, "batches": []}',
        b'{"made_by": %s, "batches": {"%b": [1, "x", null, [], []]}}',
        b'{"made_by": %s, "batches": {"%b": ["x", NaN, null, [], []]}}',
        b'{"made_by": %s, "batches": {"%b": ["x", null, null, [3], []]}}',
        b'{"made_by": %s, "batches": {"%b": ["x", null, null, 3, []]}}',
        b'{"made_by": %s, "batches": {"gone": ["x", null, null, [], []]}}',
    ],
)
def test_spoilt_notes_are_made_anew(root, content):
    ctx = context(root, f"durable = false\n{NOW}")
    batch_id = ended(ctx)
    made_by = json.dumps(retention_notes._MADE_BY).encode()
    rules = json.dumps(retention_notes._digest(ctx.config.retention)).encode()
    (ctx.layout.system / RETENTION_NOTES).write_bytes(
        content.replace(b"%s", made_by + b', "rules": ' + rules).replace(b"%b", batch_id.encode())
    )
    assert len(retention.plan(ctx).goes[batch_id]) == 2
    removing.carry_out(ctx, retention.plan(ctx))
    retention.plan(ctx)
    assert list(retention_notes.read(ctx.layout, ctx.config.retention)) == [batch_id]


def test_a_look_through_reads_no_seal_of_what_is_not_due(root):
    ctx = context(root, f"durable = false\n{LATER}")
    ended(ctx, many(10))
    for folder in attempt_dirs(ctx, ctx.layout.batch_ids()[0]):
        (folder / "seal.json").unlink()
    made = retention.plan(ctx)
    assert (made.said.kept, made.goes) == ([], {})


def test_by_rule_no_batch_is_gone_through_that_is_too_young_or_packed(root, monkeypatch):
    ctx = context(root, "durable = false\n[retention]\npack_after_days = 1\n")
    young, old = ended(ctx), ended(ctx)
    packs.pack(ctx, old)
    asked = []
    monkeypatch.setattr(packs, "why_not", lambda _, batch_id: asked.append(batch_id) or "")
    assert packs.finished(ctx, 1.0) == []
    assert asked == []
    assert packs.finished(ctx, 0.0) == asked == [young]


@pytest.mark.parametrize("loss", ["folder", "gone", "empty"])
def test_a_ledger_that_cannot_be_read_is_told_by_gc_and_by_doctor(root, loss):
    ctx = context(root, f"durable = false\n{NOW}")
    whole, mute = ended(ctx), ended(ctx)
    retention_notes_before = retention.plan(ruled(ctx, LATER))
    assert retention_notes_before.said.is_nothing
    path = ctx.layout.batch(mute) / ledger.LEDGER
    path.rename(root / "aside")
    if loss != "gone":
        path.mkdir() if loss == "folder" else path.touch()
    ctx = ruled(ctx, NOW)
    done = program(root, "gc", "--yes", check=False)
    what = "is a folder, not a file" if loss == "folder" else "is gone or empty"
    assert f"passed over {path}: {what}" in done.stderr
    said = f"{whole}: may be taken over or judged by {mute}, which cannot be read; mend it as `parallelhassnes doctor` says"
    assert said in done.stdout + done.stderr
    assert removals.of(ctx.layout.batch(whole)) == {}
    told = json.loads(program(root, "doctor", "--json", check=False).stdout)
    (check,) = (each for each in told["checks"] if each["name"] == f"batch {mute}")
    assert (check["state"], check["text"]) == (
        "trouble",
        f"damaged: {path}: {what}; put the file back, or remove the folder of the batch",
    )
    path.rmdir() if loss == "folder" else path.unlink(missing_ok=True)
    (root / "aside").rename(path)
    assert len(retention.plan(ctx).goes) == 2


def test_a_regrade_whose_table_is_gone_keeps_all(root):
    ctx = context(root, f"durable = false\n{NOW}")
    whole, again = ended(ctx), ended(ctx)
    folder = ctx.layout.batch(again)
    meta = json.loads((folder / batches.META).read_bytes())
    meta["regrade"] = {"batch": whole, "verifier": ["t"]}
    (folder / batches.META).write_text(json.dumps(meta))
    (folder / batches.TABLE).unlink()
    batches.read_batch.cache_clear()
    said = retention.plan(ctx).said
    assert all(f"judged by {again}, which cannot be read" in line for line in said.kept)
    assert said.rules == []
    told = json.loads(program(root, "doctor", "--json", check=False).stdout)
    assert any(f"{folder / batches.TABLE}: is gone" in each["text"] for each in told["checks"]), told["checks"]


def test_two_at_once_and_a_killed_one_leave_whole_notes(root):
    ctx = context(root, f"durable = false\n{LATER}")
    ended(ctx)
    command_line = [sys.executable, "-m", "parallelhassnes", "gc", "--dry-run", "--root", str(root)]
    running = [subprocess.Popen(command_line, env=environment(), stdout=subprocess.DEVNULL) for _ in range(3)]
    running[-1].kill()
    running.pop().wait(60)
    assert [each.wait(60) for each in running] == [0, 0]
    assert len(retention_notes.read(ctx.layout, ctx.config.retention)) == 1
    assert not packed.is_there(ctx.layout.batch(ctx.layout.batch_ids()[0]))


def test_a_packed_batch_is_weighed_by_the_seals_beside_its_archive(root, monkeypatch):
    """Each seal was read from the archive, which was a millisecond an attempt."""
    ctx = context(root, f"durable = false\n{NOW}")
    batch_id = ended(ctx, many(12))
    batch_dir = ctx.layout.batch(batch_id)
    loose = retention.plan(ctx).goes[batch_id]
    packs.pack(ctx, batch_id)
    opened = []
    real = packed.Pack.open
    monkeypatch.setattr(packed.Pack, "open", lambda pack, place: opened.append(place) or real(pack, place))
    assert retention.plan(ctx).goes[batch_id] == loose
    assert not [place for place in opened if place.endswith("seal.json")]
    (batch_dir / packed.SEALS).write_bytes((batch_dir / packed.SEALS).read_bytes().replace(b'"size":', b'"size":1'))
    assert retention.plan(ctx).goes[batch_id] == loose
    assert len([place for place in opened if place.endswith("seal.json")]) == 12
