"""Every change of a store is found by ``audit verify --against`` with the file's name; a store without changes never fails."""

import json
import random
import shutil
from pathlib import Path

import pytest
from harness import TEMP, make_task
from stores import attempt_dirs, command, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.actions import approve, cancel_retry, pause_resume
from parallelhassnes.admin import tokens
from parallelhassnes.admin.audit import verify
from parallelhassnes.admin.audit.make_checkpoint import checkpoint
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.evidence import checkpoints
from parallelhassnes.store.layout import Layout

DERIVED = {
    "index.json",
    "scoreboard.batch.json",
    "scoreboard.shown.json",
    "spans.batch.json",
    "trials.batch.json",
    "spent.json",
    "scoreboard.system.json",
    "retention.json",
    "current.json",
    "sent.json",
}
"""Files that are made again from the others, or that say nothing of what happened."""
CHANGES = 200


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path]:
    """A store in which everything has happened that leaves a record, and a checkpoint of it that was kept elsewhere."""
    root = tmp_path_factory.mktemp("written")
    ctx = context(root)
    folder = make_task(root, "hello")
    agents = [{"name": "oracle", "n_trials": 2}, {"name": "nop"}]
    put(ctx, table(sweep={"path": str(folder), "agents": agents, "environment": TEMP}))
    second = put(
        ctx,
        table(
            job(
                "a", shell("s", 'echo out; echo more > "$PARALLELHASSNES_ATTEMPT_DIR/kept.txt"'), command("t", "false")
            ),
            job(
                "b",
                shell("s", f"test -e {root}/quick || sleep 60"),
                command("g", "true", gate="human"),
                command("h", "true", gate="human"),
            ),
        ),
    )
    tick(ctx)
    live = ctx.layout.batch(second) / "b" / "steps" / "s" / "attempts"
    wait_for(lambda: live.exists() and any(live.iterdir()), "the step that is canceled")
    cancel_retry.cancel(ctx, resolve(ctx.layout, f"{second}/b/s"))
    approve.approve(ctx, f"{second}/b/g")
    approve.reject(ctx, f"{second}/b/h", "no")
    pause_resume.pause(ctx, second)
    pause_resume.resume(ctx, second)
    tokens.create(ctx, "ci", "read")
    wait_for(lambda: idle(ctx), "the batches")
    cancel_retry.retry(ctx, resolve(ctx.layout, f"{second}/a/t"))
    wait_for(lambda: idle(ctx), "the retry")
    (root / "quick").touch()
    program(root, "rerun", second, "--failed")
    tick(ctx)
    wait_for(lambda: idle(ctx), "the rerun")
    made = checkpoint(ctx, full=True)
    kept = tmp_path_factory.mktemp("kept") / "checkpoint.json"
    shutil.copyfile(root / made.path, kept)
    return root, kept


@pytest.fixture
def store(written, tmp_path) -> tuple[Layout, Path]:
    """A copy of that store; and the checkpoint."""
    root, kept = written
    shutil.copytree(root, tmp_path / "store", symlinks=True)
    # Hard links of attempts that two batches share stay apart in the copy.
    return Layout(tmp_path / "store"), kept


def found(layout: Layout, kept: Path) -> list[tuple[str, str, str]]:
    done = verify.verify(layout, against=[kept])
    return [(each.what, each.place, each.text) for each in done.problems]


def places(layout: Layout, kept: Path) -> str:
    return "\n".join(f"{place} {text}" for _, place, text in found(layout, kept))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old}"
    path.chmod(0o600)
    path.write_text(text.replace(old, new))


def swept(layout: Layout) -> Path:
    return layout.batch(layout.batch_ids()[0])


def stepped(layout: Layout) -> Path:
    return layout.batch(layout.batch_ids()[1])


def test_a_store_without_changes_never_fails(store):
    layout, kept = store
    assert found(layout, kept) == []
    done = verify.verify(layout, against=[kept])
    assert done.notes == []
    assert (done.batches, done.checkpoints >= 2) == (3, True)


def test_derived_files_may_be_deleted(store):
    layout, kept = store
    for path in [*layout.runs.rglob("index.json"), *layout.runs.rglob("scoreboard.*")]:
        path.unlink()
    assert found(layout, kept) == []


def test_a_verdict_that_was_rewritten_is_found(store):
    layout, kept = store
    verdict = next(swept(layout).glob("*/verdict.json"))
    edit(verdict, '"passes":', '"passes":1')
    assert f"{verdict.relative_to(layout.runs)}" in places(layout, kept)


def test_a_verdict_is_made_again_from_the_sealed_attempts(store):
    """Its own hash and the seal's fit, as after everything was written anew: only the attempts say otherwise."""
    from parallelhassnes.admin.audit.audit_batch import BatchAudit
    from parallelhassnes.admin.audit.audit_job import JobsAudit, TaskFolders

    layout, _ = store
    batch = swept(layout)
    sealed = next(batch.glob("*/steps/verdict/attempts/*/publish/verdict.json"))
    edit(sealed, '"task_broken":', '"task_broken":null,"was":')
    looked = BatchAudit(layout, batch.name)
    list(looked.records())
    said = list(JobsAudit(looked, TaskFolders(strict=False), restarted=False).findings())
    assert [each.place.rpartition("/")[2] for each in said] == ["verdict.json"]
    assert "the sealed attempts give another verdict: task_broken" in said[0].text


def test_a_batch_under_another_name_and_one_that_is_gone_are_found(store):
    layout, kept = store
    batch = swept(layout)
    shutil.copytree(batch, batch.with_name("20300101T000000Z-aaaaaaaa"), symlinks=True)
    assert "20300101T000000Z-aaaaaaaa/batch_meta.json" in places(layout, kept)
    shutil.rmtree(batch)
    assert ("missing", batch.name) in [each[:2] for each in found(layout, kept)]


def test_a_ledger_that_was_cut_is_found(store):
    layout, kept = store
    for path in (swept(layout) / "ledger.jsonl", layout.system / "ledger.jsonl"):
        before = path.read_bytes()
        path.write_bytes(b"".join(before.splitlines(keepends=True)[:-1]))
        place = str(path.relative_to(layout.runs))
        assert any(what == "checkpoint" and where == place for what, where, _ in found(layout, kept))
        path.write_bytes(before)


def test_a_history_that_was_written_anew_is_found(store):
    """Twenty lines of Python make a chain that holds together; the checkpoint that lies elsewhere does not."""
    import hashlib

    layout, kept = store
    path = swept(layout) / "ledger.jsonl"
    prev, made = "", b""
    for raw in path.read_bytes().splitlines():
        line = {**json.loads(raw), "prev": prev, "by": "nobody@nowhere"}
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
        prev, made = hashlib.sha256(text).hexdigest(), made + text + b"\n"
    path.write_bytes(made)
    shutil.rmtree(layout.system / "checkpoints")
    said = found(layout, kept)
    assert any(w == "checkpoint" and "written anew" in text for w, _, text in said)
    assert ("checkpoint", f"_system/checkpoints/{json.loads(kept.read_text())['number']}.json") in [
        each[:2] for each in said
    ]


def test_two_attempts_that_were_swapped_are_found(store):
    layout, kept = store
    one, other = sorted(next(stepped(layout).glob("a/steps/t/attempts")).iterdir())[:2]
    spare = one.with_name("spare")
    one.rename(spare), other.rename(one), spare.rename(other)
    text = places(layout, kept)
    assert one.name in text
    assert other.name in text


def test_steps_that_were_swapped_are_found(store):
    layout, kept = store
    batch = swept(layout)
    steps = [path.parents[1] for path in batch.glob("*/steps/oracle*/attempts/*")]
    one, other = sorted(set(steps))[:2]
    spare = one.with_name("spare")
    one.rename(spare), other.rename(one), spare.rename(other)
    assert f"{one.relative_to(layout.runs)}/attempts/" in places(layout, kept)


@pytest.mark.parametrize("name", ["a/overrides.json", "control.json"])
def test_what_operators_never_said_is_found(store, name):
    layout, kept = store
    path = stepped(layout) / name
    path.write_text(
        json.dumps({"schema_version": 1, "canceled": {"s": "2026-01-01T00:00:00.000000Z"} if "over" in name else True})
    )
    assert f"{path.relative_to(layout.runs)}" in places(layout, kept)
    path.unlink()
    again = (stepped(layout) / "b" / "overrides.json").read_bytes()
    (stepped(layout) / "b" / "overrides.json").unlink()
    assert f"{stepped(layout).name}/b/overrides.json" in places(layout, kept)
    assert again


def test_a_configuration_that_was_changed_and_a_token_that_was_added_are_found(store):
    layout, kept = store
    snapshot = next((layout.system / "config_versions").iterdir())
    edit(snapshot, '"grace_sec":3.0', '"grace_sec":9.0')
    shutil.copyfile(layout.system / "tokens" / "ci.json", layout.system / "tokens" / "mine.json")
    text = places(layout, kept)
    assert f"_system/config_versions/{snapshot.name}" in text
    assert "_system/tokens/mine.json" in text


def test_a_checkpoint_of_the_store_that_was_changed_or_removed_is_found(store):
    layout, kept = store
    first = layout.system / "checkpoints" / "1.json"
    edit(first, '"by":"', '"by":"x')
    assert "_system/checkpoints/1.json" in places(layout, kept)
    first.unlink()
    assert ("checkpoint", "_system/checkpoints/1.json", "is missing") in found(layout, kept)


def test_a_number_far_away_costs_no_look_at_those_before_it(store):
    layout, kept = store
    first, last = layout.system / "checkpoints" / "1.json", checkpoints.numbers(layout)[-1]
    shutil.copyfile(first, first.with_name(f"{10**200}.json"))
    first.with_name(f"{10**200 + 1}.json").mkdir()
    told = {Path(place).stem: text for what, place, text in found(layout, kept) if what == "checkpoint"}
    assert told[f"{last + 1}"] == f"is missing, and so are those up to {10**200 - 1}.json"
    assert told[f"{10**200}"] == "is number 1"
    assert "cannot be read" in told[f"{10**200 + 1}"]


def test_a_task_that_was_edited_is_a_note_and_with_tasks_a_change(store):
    layout, kept = store
    program(layout.root, "audit", "verify", "--against", str(kept), "--tasks")
    instruction = layout.root / "hello" / "instruction.md"
    instruction.write_text(instruction.read_text() + "Be quick.\n")
    done = verify.verify(layout, against=[kept])
    assert done.ok
    assert {note.what for note in done.notes} == {"task"}
    said = program(layout.root, "audit", "verify", "--tasks", check=False)
    assert (said.returncode, "has been edited since" in said.stdout) == (1, True)


def records(layout: Layout) -> list[Path]:
    """Every file of the store that is neither derived nor a lock, a log of the harness or a part of the queue."""
    kept = []
    for path in sorted(layout.runs.rglob("*")):
        parts = path.relative_to(layout.runs).parts
        if not path.is_file() or path.is_symlink() or path.name in DERIVED or path.suffix == ".lock":
            continue
        if (parts[0] == "_queue" and parts[1] != "accepted") or path.name.endswith(".ack.json"):
            continue
        if parts[0] == "_system" and len(parts) == 2 and path.name not in ("harness_config.json", "ledger.jsonl"):
            continue
        kept.append(path)
    return kept


def change(files: dict[Path, bytes], draw: random.Random) -> tuple[str, Path, list[Path]]:
    """Change one file at random; what was done, which file is to be named, and every one that was touched."""
    path = draw.choice(sorted(files))
    kind = draw.choice(["byte", "rename", "delete", "copy", "swap"])
    if path.parent.name == "accepted" or (kind == "byte" and not files[path]):
        kind = "byte" if files[path] else "delete"
    if kind == "byte":
        data = bytearray(files[path])
        data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        put_back(path, bytes(data))
    elif kind == "rename":
        path.rename(new := path.with_name(f"{path.name}.old"))
        return kind, path, [path, new]
    elif kind == "copy":
        new = Path(shutil.copyfile(path, path.with_name(f"copy-of-{path.name}")))
        return kind, new, [new]
    elif kind == "swap":
        other = draw.choice([each for each in sorted(files) if files[each] != files[path]])
        put_back(path, files[other])
        put_back(other, files[path])
        return kind, path, [path, other]
    else:
        path.unlink()
    return kind, path, [path]


def put_back(path: Path, data: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if data is not None:
        path.write_bytes(data)


def test_random_changes_are_found_with_the_files_name(store):
    layout, kept = store
    draw = random.Random(20260101)
    files = {path: path.read_bytes() for path in records(layout)}
    assert len(files) > 100
    missed = []
    for number in range(CHANGES):
        kind, path, touched = change(files, draw)
        place = path.relative_to(layout.runs).as_posix()
        if place not in places(layout, kept):
            missed.append((number, kind, place))
        for each in touched:
            put_back(each, files.get(each))
    assert missed == []
    assert found(layout, kept) == []


def test_the_ledgers_of_an_earlier_version_are_read_and_what_they_lack_is_said(store):
    """As that version wrote them: without the rules in the first line, and without what this one adds."""
    layout, _ = store
    shutil.rmtree(layout.system / "checkpoints")
    import hashlib

    new = {
        "audit",
        "batch_id",
        "trials",
        "published",
        "merkle_root",
        "label",
        "kind",
        "task",
        "task_sha256",
        "must_score",
        "files",
        "found",
    }
    for path in [*layout.runs.glob("2*/ledger.jsonl"), layout.system / "ledger.jsonl"]:
        prev, made, seq = "", b"", 0
        for raw in path.read_bytes().splitlines():
            line = {k: v for k, v in json.loads(raw).items() if k not in new}
            if line["event"] in ("writes", "configured"):
                continue
            line |= {"prev": prev, "seq": seq}
            text = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
            prev, made, seq = hashlib.sha256(text).hexdigest(), made + text + b"\n", seq + 1
        path.write_bytes(made)
    for path in layout.runs.glob("2*/jobs.sha256"):
        path.unlink()
    done = verify.verify(layout)
    assert done.problems == []
    assert {note.what for note in done.notes} == {"uncovered"}
    assert all("earlier version" in n.text or "no record" in n.text for n in done.notes)
    verdict = next(swept(layout).glob("*/verdict.json"))
    edit(verdict, '"passes":', '"passes":1')
    assert [each.place.rpartition("/")[2] for each in verify.verify(layout).problems] == ["verdict.json"]


def test_a_store_that_runs_or_was_moved_does_not_fail(root, tmp_path):
    ctx = context(root)
    flag = root / "go"
    batch = put(ctx, table(job("j", shell("s", f"until test -e {flag}; do sleep 0.02; done"), shell("t", "exit 1"))))
    tick(ctx)
    wait_for(lambda: len(list(attempt_dirs(ctx, batch))) == 2, "both")
    pause_resume.pause(ctx, batch)
    done = verify.verify(ctx.layout)
    assert done.ok, done.problems
    pause_resume.resume(ctx, batch)
    flag.touch()
    wait_for(lambda: idle(ctx), "the end")
    kept = tmp_path / "kept.json"
    shutil.copyfile(root / checkpoint(ctx).path, kept)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved, symlinks=True)
    assert found(Layout(moved), kept) == []
