"""``audit verify`` finds what was changed, and nothing where nothing was."""

import json
import shutil

import pytest
from stores import attempt_dirs, command, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick


def rewrite(path, text):
    path.chmod(0o600)
    path.write_text(text)


@pytest.fixture
def store(root):
    """A store with a batch of two steps that have ended, and the first one's attempt."""
    ctx = context(root)
    batch = put(
        ctx,
        table(
            job("a", shell("s", 'echo out; echo more > "$PARALLELHASSNES_ATTEMPT_DIR/kept.txt"')),
            job("b", command("s", "false")),
        ),
    )
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    return ctx, batch, next(attempt_dirs(ctx, batch))


def problems(ctx):
    return [(each.what, each.place.rpartition("/")[2]) for each in verify(ctx.layout).problems]


def test_an_untouched_store_is_as_it_was_written(store):
    ctx, batch, _ = store
    found = verify(ctx.layout, [batch])
    assert found.ok, found.problems
    assert (found.attempts, found.notes) == (2, [])
    assert found.bytes > 500
    done = program(ctx.layout.root, "audit", "verify", "latest", "--json")
    assert json.loads(done.stdout)["ok"] is True


def test_a_changed_a_missing_and_an_added_file_are_found(store):
    ctx, _, attempt = store
    rewrite(attempt / "stdout.log", "other")
    (attempt / "kept.txt").unlink()
    (attempt / "more").mkdir()
    (attempt / "more" / "new.txt").write_text("")
    assert sorted(problems(ctx)) == [("added", "new.txt"), ("changed", "stdout.log"), ("missing", "kept.txt")]
    done = program(ctx.layout.root, "audit", "verify", check=False)
    assert done.returncode == 1
    assert "stdout.log" in done.stdout


def test_a_new_seal_over_a_changed_file_is_found_by_the_ledger(store):
    ctx, _, attempt = store
    rewrite(attempt / "stdout.log", "other")
    document = json.loads((attempt / "seal.json").read_text())
    del document["files"]["stdout.log"]
    (attempt / "stdout.log").unlink()
    rewrite(attempt / "seal.json", json.dumps(document))
    assert set(problems(ctx)) == {("changed", "seal.json")}


def test_a_seal_that_is_gone_and_an_attempt_that_is_gone_are_found(store):
    ctx, batch, attempt = store
    (attempt / "seal.json").unlink()
    other = list(attempt_dirs(ctx, batch))[1]
    other.rename(ctx.layout.root / "away")
    assert sorted(problems(ctx)) == [("missing", other.name), ("unsealed", "seal.json")]


@pytest.mark.parametrize("name", ["launch_table.json", "batch_meta.json", "a/job.json"])
def test_a_changed_record_of_the_batch_is_found(store, name):
    ctx, batch, _ = store
    path = ctx.layout.batch(batch) / name
    path.write_text(path.read_text().replace("echo", "ECHO").replace('"created_at":"2', '"created_at":"3'))
    assert [what for what, _ in problems(ctx)] == ["changed"]


def test_a_ledger_without_one_of_its_lines_is_found(store):
    ctx, batch, _ = store
    path = ctx.layout.batch(batch) / "ledger.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"launched"' not in line or '"a"' not in line]
    path.write_text("\n".join(kept) + "\n")
    found = problems(ctx)
    assert ("ledger", "ledger.jsonl:2") in found
    assert len(found) >= 2  # the broken chain, and the attempt without a line of its launch


def test_the_status_in_the_ledger_is_that_of_the_attempt(store):
    ctx, _batch, attempt = store
    path = attempt / "state.json"
    rewrite(path, path.read_text().replace('"succeeded"', '"failed"'))
    assert ("changed", "state.json") in problems(ctx)


def test_a_running_attempt_is_a_note(root):
    ctx = context(root)
    flag = root / "go"
    batch = put(ctx, table(job("j", shell("s", f"until test -e {flag}; do sleep 0.02; done"))))
    tick(ctx)
    found = verify(ctx.layout)
    assert found.ok
    assert [note.what for note in found.notes] == ["live"]
    flag.touch()
    wait_for(lambda: idle(ctx), "the end")
    assert verify(ctx.layout, [batch]).attempts == 1


def test_a_rebuild_writes_the_ends_that_no_settle_could(store):
    ctx, batch, _ = store
    path = ctx.layout.batch(batch) / "ledger.jsonl"
    kept = path.read_text().splitlines()
    assert '"ended"' in kept[-1]
    path.write_text("\n".join(kept[:-1]) + "\n")  # as a crash before the line leaves it
    shutil.rmtree(ctx.layout.system / "checkpoints", ignore_errors=True)
    assert not verify(ctx.layout).ok
    rebuild(ctx)
    rebuild(ctx)
    assert verify(ctx.layout).ok
    assert len(path.read_text().splitlines()) == len(kept)


def test_sealed_files_are_read_only_and_closed_to_others(store):
    _, _, attempt = store
    for path in attempt.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o277 == 0
