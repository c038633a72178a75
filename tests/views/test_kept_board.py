"""A batch's scoreboard that is kept: it says what one made anew says, at every moment, and a look at it costs what it shows."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import command, context, idle, job, program, put, shell, table, wait_for

from benchmarks import growth
from parallelhassnes.actions import cancel_retry, pause_resume
from parallelhassnes.refs import Found
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_scoreboard as boards
from parallelhassnes.views import batch_summary
from parallelhassnes.views.batch_scoreboard import KEPT, batch_scoreboard
from parallelhassnes.views.scoreboard_models import BatchScoreboard


@pytest.fixture
def every_board_is_kept(monkeypatch):
    monkeypatch.setattr(boards, "MANY_STEPS", 0)


def still(board: BatchScoreboard) -> dict:
    """A board without what differs from one look to the next."""
    document = board.model_dump(exclude={"at"})
    for step in document["running"]:
        for name in ("age_sec", "heartbeat_age_sec", "phase", "alive", "host"):
            step.pop(name)
    return document


def is_kept(layout: Layout, batch_id: str) -> bool:
    return boards._kept(layout, batch_id, boards._stamp(layout, batch_id)) is not None


def assert_the_same_kept_and_made_anew(layout: Layout, batch_id: str) -> BatchScoreboard:
    """Two looks in the middle of whatever goes on: between them nothing may have moved."""

    def looks() -> tuple[BatchScoreboard, BatchScoreboard] | None:
        before = boards._stamp(layout, batch_id)
        batch_scoreboard(layout, batch_id)
        again = batch_scoreboard(layout, batch_id)
        from_file = is_kept(layout, batch_id)
        (layout.batch(batch_id) / KEPT).unlink(missing_ok=True)
        made = batch_scoreboard(layout, batch_id)
        return (again, made) if from_file and boards._stamp(layout, batch_id) == before else None

    again, made = wait_for(looks, "two looks at the same")
    assert still(again) == still(made)
    return made


@pytest.mark.usefixtures("every_board_is_kept")
def test_a_kept_board_says_what_one_made_anew_says_whatever_was_done(root: Path) -> None:
    ctx = context(root, "concurrency = 2\ndurable = false\n")
    waits = f"until [ -e {root}/go ]; do sleep 0.02; done"
    batch_id = put(
        ctx,
        table(
            job("j", shell("s", waits), command("t", "true", depends_on=["s"]), command("k", "true", queue_key="key")),
            job("l", shell("u", f"{waits}; exit 3"), command("v", "true", depends_on=["u"])),
        ),
    )
    seen = []
    for act in _acts(ctx, batch_id):
        act()
        board = assert_the_same_kept_and_made_anew(ctx.layout, batch_id)
        seen.append((board.state, board.held, json.dumps([g.model_dump() for g in board.blocked])))
    assert len(set(seen)) >= len(seen) - 2, "each act is seen"
    assert seen[-1][0] == "attention"


def _acts(ctx: Context, batch_id: str) -> Iterator[Callable[[], object]]:
    config = ctx.layout.root / "parallelhassnes.toml"
    text = config.read_text()
    yield lambda: None
    yield lambda: config.write_text(f"{text}[limits]\nkey = 0\n")
    yield lambda: pause_resume.pause(ctx, batch_id)
    yield lambda: (pause_resume.resume(ctx, batch_id), config.write_text(text))
    yield lambda: (program(ctx.layout.root, "tick"), wait_for(lambda: _running(ctx, batch_id) == 2, "two attempts"))
    yield lambda: cancel_retry.cancel(ctx, Found(batch_id, "j", "t"))
    yield lambda: (ctx.layout.root.joinpath("go").touch(), tick(ctx), wait_for(lambda: idle(ctx), "the rest"))


def _running(ctx: Context, batch_id: str) -> int:
    return batch_scoreboard(ctx.layout, batch_id).counts.running


@pytest.mark.usefixtures("every_board_is_kept")
def test_what_runs_is_looked_at_again_though_the_board_is_kept(root: Path) -> None:
    ctx = context(root, "durable = false\n")
    batch_id = put(ctx, table(job("j", shell("s", f"until [ -e {root}/go ]; do sleep 0.02; done"))))
    tick(ctx)

    def beats() -> BatchScoreboard | None:
        board = batch_scoreboard(ctx.layout, batch_id)
        is_beating = board.running and None not in (board.running[0].age_sec, board.running[0].heartbeat_age_sec)
        return board if is_beating and is_kept(ctx.layout, batch_id) else None

    first = wait_for(beats, "a heartbeat")
    time.sleep(0.05)  # an age, not a wait
    second = batch_scoreboard(ctx.layout, batch_id)
    assert second.running[0].age_sec > first.running[0].age_sec
    assert second.running[0].alive
    (root / "go").touch()
    wait_for(lambda: idle(ctx), "its end")
    assert batch_scoreboard(ctx.layout, batch_id).running == []


@pytest.mark.usefixtures("every_board_is_kept")
@pytest.mark.parametrize("rot", ["", "{", "[]", "{}", "board", "of another version", "a folder"])
def test_a_kept_board_may_vanish_or_rot(root: Path, rot: str, monkeypatch) -> None:
    ctx = context(root)
    batch_id = put(ctx, table(job("j", command("s", "true"))))
    board = batch_scoreboard(ctx.layout, batch_id)
    path = ctx.layout.batch(batch_id) / KEPT
    kept = json.loads(path.read_text())
    if rot == "a folder":
        path.unlink()
        path.mkdir()
    elif rot == "of another version":
        kept["board"]["state"] = "done"
        path.write_text(json.dumps(kept))
        monkeypatch.setattr(batch_summary, "_MADE_BY", "0.0.1")
    else:
        path.write_text(json.dumps({**kept, "board": {"at": 1}}) if rot == "board" else rot)
    assert still(batch_scoreboard(ctx.layout, batch_id)) == still(board)


def test_a_board_of_few_steps_or_of_many_lines_is_not_kept(tmp_path: Path, monkeypatch) -> None:
    growth.wide(tmp_path / "few", 100)
    growth.wide(tmp_path / "many", 1_000)
    monkeypatch.setattr(boards, "MOST_ROWS", 0)
    for root in (tmp_path / "few", tmp_path / "many"):
        batch_scoreboard(Layout(root), "b")
        assert not (Layout(root).batch("b") / KEPT).exists()


def _cost(layout: Layout) -> tuple[int, int]:
    """Functions called and bytes read by a look."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    sys.setprofile(count)
    try:
        batch_scoreboard(layout, "b")
    finally:
        sys.setprofile(None)
    return calls, bytes_read() - before


def test_a_look_at_an_unchanged_batch_costs_what_it_shows(tmp_path: Path) -> None:
    costs = []
    for steps in (1_000, 10_000):
        growth.wide(tmp_path / str(steps), steps)
        layout = Layout(tmp_path / str(steps))
        batch_scoreboard(layout, "b")
        batch_scoreboard(layout, "b")
        costs.append(_cost(layout))
    (few_calls, few_bytes), (many_calls, many_bytes) = costs
    assert many_calls <= few_calls + 20
    assert many_bytes <= few_bytes + 200
