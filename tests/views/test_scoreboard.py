"""Both scoreboards of stores that real ticks have made."""

import json
import os
import shutil
from pathlib import Path

import jsonschema
import pytest
import stores

from benchmarks import growth
from parallelhassnes.actions import cancel_retry
from parallelhassnes.admin import schemas
from parallelhassnes.refs import Found
from parallelhassnes.report.run_summary import RunDone
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.layout import SNAPSHOT, Layout
from parallelhassnes.views import runners
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.scoreboard_models import BatchScoreboard
from parallelhassnes.views.system_scoreboard import system_scoreboard

MIXED = (
    stores.job(
        "j1",
        stores.shell("prepare", "exit 3"),
        stores.command("t1", "true", depends_on=["prepare"]),
        stores.command("t2", "true", depends_on=["t1"]),
    ),
    stores.job("j2", stores.command("ok", "true"), stores.command("then", "true", depends_on=["ok"])),
)


def drained(root: Path, *jobs: dict, toml: str = "", **more: object) -> tuple[Context, str]:
    """A store in which one tick has run the table to its end."""
    ctx = stores.context(root, toml)
    batch_id = stores.put(ctx, stores.table(*jobs, **more))
    stores.program(root, "tick")
    stores.wait_for(lambda: stores.idle(ctx), "the batch to end")
    return ctx, batch_id


def still(board: BatchScoreboard) -> dict:
    """A board without what differs from one look to the next."""
    return board.model_dump(exclude={"at"})


def test_counts_reasons_and_failures(root: Path) -> None:
    ctx, batch_id = drained(root, *MIXED, experiment="nightly")
    board = batch_scoreboard(ctx.layout, batch_id)
    assert board.counts.model_dump() == {
        "blocked": 2,
        "ready": 0,
        "running": 0,
        "succeeded": 2,
        "failed": 1,
        "needs_attention": 0,
        "canceled": 0,
        "lost": 0,
    }
    assert (board.state, board.jobs_total, board.steps_total) == ("attention", 2, 5)
    (group,) = board.blocked
    assert (group.reason, group.steps, group.final) == ("j1/prepare failed", ["j1/t1", "j1/t2"], True)
    (failed,) = board.failures
    assert (failed.step, failed.failure_class) == ("j1/prepare", "agent_error")
    assert "exit code 3" in failed.line
    assert json.loads((root / failed.attempt / "state.json").read_text())["status"] == "failed"
    line = system_scoreboard(ctx.layout).batches[0]
    assert (line.counts, line.state, line.trouble) == (board.counts, "attention", True)


def test_what_waits_runs_and_is_ready(root: Path) -> None:
    ctx = stores.context(root, "concurrency = 1\n")
    gate = root / "gate"
    batch_id = stores.put(
        ctx,
        stores.table(
            stores.job(
                "j1",
                stores.shell("first", f"until [ -e {gate} ]; do sleep 0.02; done"),
                stores.command("second", "true", depends_on=["first"]),
            ),
            stores.job("j2", stores.command("other", "true", queue_key="prep")),
        ),
    )
    before = batch_scoreboard(ctx.layout, batch_id)
    assert (before.state, before.counts.ready, before.counts.blocked) == ("waiting", 2, 1)
    stores.program(root, "tick")
    board = stores.wait_for(
        lambda: (b := batch_scoreboard(ctx.layout, batch_id)).running[0].phase != "starting" and b, "a beat"
    )
    assert (board.state, board.counts.running, board.counts.ready) == ("running", 1, 1)
    assert board.blocked[0].reason == "waiting for j1/first"
    (running,) = board.running
    assert (running.step, running.alive, running.number) == ("j1/first", True, 1)
    assert 0 <= running.age_sec < 60
    assert 0 <= running.heartbeat_age_sec < 30
    assert (root / running.attempt / "state.json").is_file()
    system = system_scoreboard(ctx.layout)
    assert {line.queue_key: (line.live, line.ready) for line in system.queue}["prep"] == (0, 1)
    assert system.live == 1
    gate.touch()
    stores.wait_for(lambda: stores.idle(ctx), "the batch to end")
    assert batch_scoreboard(ctx.layout, batch_id).state == "done"


def test_a_missing_secret_blocks_and_a_dry_run_is_marked(root: Path) -> None:
    ctx = stores.context(root)
    secret = stores.put(
        ctx, stores.table(stores.job("j1", stores.command("a", "true")), secrets=["NO_SUCH_SECRET_HERE"])
    )
    agent = stores.put(
        ctx, stores.table(stores.job("j1", {"step_id": "a", "kind": "agent", "prompt": "Do nothing at all."}))
    )
    stores.program(root, "tick", "--no-codex")
    board = batch_scoreboard(ctx.layout, secret)
    assert (board.state, board.counts.blocked) == ("blocked", 1)
    assert "NO_SUCH_SECRET_HERE" in board.held
    assert "NO_SUCH_SECRET_HERE" in board.blocked[0].reason
    stores.wait_for(lambda: batch_scoreboard(ctx.layout, agent).state == "done", "the stand-in")
    assert batch_scoreboard(ctx.layout, agent).stand_in
    lines = {line.batch_id: line for line in system_scoreboard(ctx.layout).batches}
    assert (lines[agent].stand_in, lines[secret].stand_in, lines[secret].trouble) == (True, False, True)


def test_cancel_and_retry_are_seen_at_once(root: Path) -> None:
    ctx, batch_id = drained(root, *MIXED)
    drain = ctx.layout.runners / ctx.config.runner_id / "drain"
    drain.parent.mkdir(parents=True, exist_ok=True)
    drain.touch()  # a retry starts what it can at once
    cancel_retry.retry(ctx, Found(batch_id=batch_id), cancel_retry.Only(failed=True))
    board = batch_scoreboard(ctx.layout, batch_id)
    assert (board.counts.ready, board.counts.failed, board.state) == (1, 0, "waiting")
    assert board.blocked[0].reason == "waiting for j1/prepare"
    cancel_retry.cancel(ctx, Found(batch_id=batch_id))
    board = batch_scoreboard(ctx.layout, batch_id)
    assert (board.counts.canceled, board.counts.ready, board.counts.blocked) == (2, 0, 0)
    assert system_scoreboard(ctx.layout).batches[0].counts == board.counts


def test_caches_may_vanish_rot_or_be_stale(root: Path) -> None:
    ctx, batch_id = drained(root, *MIXED)
    board, system = batch_scoreboard(ctx.layout, batch_id), system_scoreboard(ctx.layout)
    cache, snapshot = (ctx.layout.batch(batch_id) / "scoreboard.batch.json", ctx.layout.system / SNAPSHOT)
    assert snapshot.is_file()
    for text in (None, "", "{", "[1]", '{"schema_version":7}'):
        for path in (cache, snapshot):
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
        assert still(batch_scoreboard(ctx.layout, batch_id)) == still(board)
        assert system_scoreboard(ctx.layout).batches == system.batches
    old = snapshot.read_text()
    stores.put(ctx, stores.table(stores.job("x", stores.command("a", "true"))))
    snapshot.write_text(old)
    assert len(system_scoreboard(ctx.layout).batches) == 2


def test_readers_race_with_a_draining_batch(root: Path) -> None:
    """At every moment the counts add up, nothing that ended is forgotten, and no view fails."""
    ctx = stores.context(root, "concurrency = 4\ndurable = false\n")
    jobs = [
        stores.job(f"j{i}", stores.command("a", "true"), stores.command("b", "true", depends_on=["a"]))
        for i in range(30)
    ]
    batch_id = stores.put(ctx, stores.table(*jobs))
    ticking = stores.started(root, "tick")
    over = 0
    while not (ticking.poll() is not None and stores.idle(ctx)):
        board = batch_scoreboard(ctx.layout, batch_id)
        line = system_scoreboard(ctx.layout).batches[0]
        for counts in (board.counts, line.counts):
            assert sum(counts.model_dump().values()) == 60
            assert counts.succeeded >= over
            over = counts.succeeded
    ticking.communicate()
    assert batch_scoreboard(ctx.layout, batch_id).counts.succeeded == 60


def test_a_sandboxed_sweep_has_a_matrix(root: Path, examples: Path) -> None:
    done = stores.program(
        root, "run", str(examples / "tasks/hello"), "-a", "oracle", "-a", "nop", "-k", "2", "-e", "sandbox", "--json"
    )
    board = json.loads(done.stdout)
    assert board["columns"] == ["oracle", "nop"]
    (job,) = board["jobs"]
    assert (job["cells"]["oracle"]["passes"], job["cells"]["oracle"]["scored"], job["cells"]["oracle"]["n"]) == (
        2,
        2,
        2,
    )
    assert (job["cells"]["nop"]["passes"], job["cells"]["nop"]["mean_reward"]) == (0, 0.0)
    assert job["verdict"]["task_broken"] is False
    assert board["verdicts"] == {"good": 1}
    jsonschema.validate(board, json.loads(schemas.text(RunDone)))


def test_the_boards_are_valid_against_their_schemas(root: Path) -> None:
    ctx, batch_id = drained(root, *MIXED)
    for name, document in (
        ("scoreboard.system.schema.json", system_scoreboard(ctx.layout)),
        ("scoreboard.batch.schema.json", batch_scoreboard(ctx.layout, batch_id)),
    ):
        jsonschema.validate(json.loads(document.model_dump_json()), json.loads(schemas.text(schemas.SCHEMAS[name])))


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_the_published_schemas_are_current(name: str) -> None:
    published = (stores.CHECKOUT / "schemas" / name).read_text()
    assert published == schemas.text(schemas.SCHEMAS[name]), "run python -m parallelhassnes.admin.schemas"


def test_the_page_of_all_fields_is_current_and_is_where_the_documents_say() -> None:
    page = stores.CHECKOUT / "schemas" / schemas.FIELDS
    assert page.read_text() == schemas.fields(), "run python -m parallelhassnes.admin.schemas"
    assert "../schemas/fields.md" in (stores.CHECKOUT / "docs" / "results.md").read_text()


def test_a_store_that_is_not_there_is_empty(root: Path) -> None:
    ctx = stores.context(root)
    shutil.rmtree(ctx.layout.runs)
    board = system_scoreboard(ctx.layout)
    assert (board.batches, board.live, board.queue) == ([], 0, [])
    assert not ctx.layout.runs.exists()


def test_an_index_that_is_gone_is_made_anew(root: Path) -> None:
    ctx, batch_id = drained(root, *MIXED)
    before = batch_scoreboard(ctx.layout, batch_id)
    path = ctx.layout.batch(batch_id) / "index.json"
    text = path.read_text()
    path.unlink()
    assert still(batch_scoreboard(ctx.layout, batch_id)) == still(before)
    assert path.read_text() == text


def test_a_runner_runs_what_runs_now_and_not_what_ran_when_it_last_looked(root: Path) -> None:
    ctx = stores.context(root)
    stores.put(ctx, stores.table(stores.job("j", stores.shell("s", f"until [ -e {root}/go ]; do sleep 0.02; done"))))
    tick(ctx)
    (root / "runners" / "earlier").mkdir()
    live = {line.runner_id: line.live for line in system_scoreboard(ctx.layout).runners}
    assert live == {"local": 1, "earlier": 0}
    (root / "go").touch()
    stores.wait_for(lambda: stores.idle(ctx), "its end")
    assert [line.live for line in system_scoreboard(ctx.layout).runners] == [0, 0]
    assert [each.live for each in runners.runners(ctx.layout).runners] == [0, 0]


def test_a_look_at_the_store_asks_three_times_after_a_batch_that_is_as_it_was(tmp_path, monkeypatch):
    """Its record, its ledger, its control: what a look at a large store costs."""
    asked = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: asked.append(str(path)) or real(path, **more))
    found = {}
    for count in (10, 30):
        root = tmp_path / str(count)
        growth.waiting_batches(root, count)
        system_scoreboard(Layout(root))
        system_scoreboard(Layout(root))
        asked.clear()
        system_scoreboard(Layout(root))
        found[count] = len(asked)
    assert found[30] - found[10] == 3 * 20
