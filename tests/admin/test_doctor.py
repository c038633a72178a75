"""doctor: what is derived can be deleted and comes back equal."""

import json
import shutil

from stores import command, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.admin import doctor
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic, locks
from parallelhassnes.store.layout import RETENTION_NOTES, SNAPSHOT


def snapshot(ctx):
    """Every queue entry and derived file, but for times of writing."""
    found = {}
    for folder in (
        ctx.layout.ready,
        ctx.layout.running,
        ctx.layout.delayed,
        ctx.layout.ended,
        ctx.layout.tables_by_sha,
    ):
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "_served":
                found[str(path.relative_to(ctx.layout.runs))] = json.loads(path.read_text())
    for path in ctx.layout.runs.glob("*/*/current.json"):
        found[str(path.relative_to(ctx.layout.runs))] = json.loads(path.read_text())
    for path in ctx.layout.runs.glob("*/index.json"):
        found[str(path.relative_to(ctx.layout.runs))] = json.loads(path.read_text())
    return found


def test_rebuild_makes_anew_what_is_kept_of_views_and_says_something_else(root):
    ctx = context(root)
    put(ctx, table(job("j", command("s", "true"), shell("bad", "exit 1"))))
    program(root, "tick", "--until-idle", "--fail-on", "never")

    def said():
        return json.loads(program(root, "scoreboard", "--json").stdout)["counts"]

    before, board = said(), ctx.layout.system / SNAPSHOT
    whole = board.read_bytes()
    board.write_bytes(whole.replace(b'"succeeded":1', b'"succeeded":7'))  # as its batch stands, so nobody asks again
    assert said() == before
    board.write_bytes(atomic.summed(atomic.unsummed(whole).replace(b'"succeeded":1', b'"succeeded":7')))  # on purpose
    assert said() != before
    (ctx.layout.system / RETENTION_NOTES).write_text("{}\n")
    program(root, "doctor", "--rebuild", check=False)
    assert said() == before
    assert not (ctx.layout.system / RETENTION_NOTES).exists()


def test_rebuild_restores_queue_indexes_and_scoreboards_equal(root):
    ctx = context(root, "concurrency = 1\n")
    batch = put(
        ctx,
        table(
            job("a", command("s", "true"), shell("bad", "exit 1"), command("dead", "true", depends_on=["bad"])),
            job("b", command("far", "true", depends_on=["a/dead"]), command("near", "true", depends_on=["a/s"])),
            job("c", command("think", "true", gate="human")),
        ),
    )
    waiting = put(ctx, table(job("late", command("s", "true")), secrets=["NOT_SET_ANYWHERE"]))
    tick(ctx)

    def quiet():
        left = [path for path in ctx.layout.ready.rglob("*.command") if waiting not in path.name]
        busy = [*ctx.layout.running.rglob("*.command"), *ctx.layout.ended.iterdir()]
        return not left and not busy and not locks.is_held(ctx.layout.tick_lock)

    wait_for(quiet, "what can run to have run")
    before = snapshot(ctx)
    boards = [program(root, "scoreboard", *which, "--json").stdout for which in ((), (batch,), (waiting,))]
    for path in ctx.layout.runs.iterdir():
        if path.name.startswith("_"):
            shutil.rmtree(path)
    for path in ctx.layout.runs.glob("*/scoreboard.batch.json"):
        path.unlink()
    program(root, "doctor", "--rebuild", check=False)
    assert snapshot(ctx) == before
    again = [program(root, "scoreboard", *which, "--json").stdout for which in ((), (batch,), (waiting,))]
    for one, other in zip(boards, again, strict=True):
        assert timeless(json.loads(one)) == timeless(json.loads(other))
    assert idle(ctx) is False


def timeless(document):
    """A scoreboard without the moment that it was made at."""
    if isinstance(document, dict):
        return {
            key: timeless(value)
            for key, value in document.items()
            if key not in ("generated_at", "at", "age_sec", "stamp")
        }
    if isinstance(document, list):
        return [timeless(value) for value in document]
    return document


def test_what_others_can_read_is_told(root):
    ctx = context(root, 'env_file = "keys.env"\n')
    (root / "keys.env").write_text("A=b\n")
    (ctx.layout.tokens).mkdir(parents=True, exist_ok=True)
    (ctx.layout.tokens / "t.json").write_text("{}")

    def said():
        return doctor._closed(ctx)

    (root / "keys.env").chmod(0o600)
    ctx.layout.runs.chmod(0o700)
    assert said().state == "ok"
    (root / "keys.env").chmod(0o640)
    ctx.layout.runs.chmod(0o755)
    (ctx.layout.tokens / "t.json").chmod(0o644)
    found = said()
    assert found.state == "trouble"
    for place in (root / "keys.env", ctx.layout.runs, ctx.layout.tokens / "t.json"):
        assert f"chmod go-rwx {place}" in found.text
