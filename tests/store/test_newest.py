"""The newest batch is the one that arrived last: whatever mtimes, clocks and folders of others say."""

import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from stores import command, context, job, program, put, table

from parallelhassnes import names
from parallelhassnes.errors import UnknownId
from parallelhassnes.refs import resolve
from parallelhassnes.schedule import ingest
from parallelhassnes.store import batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.show import show
from parallelhassnes.views.system_scoreboard import system_scoreboard

YEAR = 365 * 86400.0


@pytest.fixture
def ctx(root):
    made = context(root)
    drain = made.layout.runners / made.config.runner_id / "drain"
    drain.parent.mkdir(parents=True, exist_ok=True)
    drain.touch()
    return made


def one(name: str) -> bytes:
    return table(job(name, command("s", "true")))


def drop(ctx, name: str, mtime: float) -> str:
    """Put a table into incoming/ whose file is of that time; the batch."""
    path = ctx.layout.incoming / f"{name}.json"
    path.write_bytes(one(name))
    os.utime(path, (mtime, mtime))
    (done,) = ingest.ingest_incoming(ctx)
    return done.batch_id


def newest(ctx) -> str:
    """As every view has it."""
    board = system_scoreboard(ctx.layout)
    first = max(board.batches, key=lambda line: line.arrival)
    found = {resolve(ctx.layout, "latest").batch_id, show(ctx.layout, "latest").id, first.batch_id}
    assert len(found) == 1
    return found.pop()


def test_a_tables_age_says_nothing_about_its_arrival(ctx):
    now = time.time()
    first = drop(ctx, "future", now + YEAR)
    assert newest(ctx) == first
    second = put(ctx, one("now"))
    assert newest(ctx) == second
    third = drop(ctx, "old", now - YEAR)
    assert newest(ctx) == third
    assert ctx.layout.batch_ids() == [first, second, third]


def test_a_clock_that_went_back_makes_no_batch_older_than_those_there(ctx):
    ahead = put(ctx, one("a"))
    tomorrow = names.new_batch_id(datetime.now(UTC) + timedelta(days=1))
    rename(ctx.layout, ahead, tomorrow)
    assert newest(ctx) == tomorrow
    behind = [put(ctx, one("b")), drop(ctx, "c", time.time()), put(ctx, one("d"))]
    assert ctx.layout.batch_ids() == [tomorrow, *behind]
    assert newest(ctx) == behind[-1]


def rename(layout: Layout, batch_id: str, name: str) -> None:
    """Give a batch another id, as far as readers look."""
    layout.batch(batch_id).rename(layout.batch(name))
    meta = layout.batch(name) / batches.META
    meta.write_text(meta.read_text().replace(batch_id, name))


def test_batches_of_an_earlier_version_that_are_named_by_mtime_are_placed_by_their_arrival(ctx):
    first = put(ctx, one("a"))
    future = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + YEAR)) + "-0a1b2c3d"
    rename(ctx.layout, first, future)
    second = put(ctx, one("b"))
    assert second < future
    assert newest(ctx) == second


@pytest.mark.parametrize(
    "meta",
    [
        {"batch_id": "zz", "jobs": ["a"], "status": "done"},
        {"batch_id": "another", "created_at": "2999-01-01T00:00:00Z", "steps_total": 1, "job_ids": []},
        {"batch_id": "zz", "created_at": "some day"},
        [],
    ],
)
def test_a_folder_of_others_shadows_nothing_and_is_named(ctx, meta):
    folder = ctx.layout.batch("zz")
    folder.mkdir()
    (folder / batches.META).write_text(json.dumps(meta))
    with pytest.raises(UnknownId, match="there is no batch yet"):
        resolve(ctx.layout, "latest")
    mine = put(ctx, one("a"))
    assert newest(ctx) == mine
    (line,) = [one for one in system_scoreboard(ctx.layout).batches if one.batch_id == "zz"]
    assert line.trouble
    assert "batch_meta.json" in line.held
    shown = program(ctx.layout.root, "scoreboard").stdout
    assert "zz" in shown
    assert program(ctx.layout.root, "show", "latest", "--json").stdout
    shutil.rmtree(folder)


def test_ids_go_on_after_any_arrival():
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    for microsecond in (0, 976, 977, 500_000, 998_999, 999_999):
        arrival = names.arrival_of(now.replace(microsecond=microsecond))
        following = names.new_batch_id(now - timedelta(days=1), after=arrival)
        assert arrival < names.arrival_of(now + timedelta(seconds=2))
        assert following > arrival
        assert following[: len(arrival)] > arrival
        chain = following[: len(arrival)]
        for _ in range(2100):
            later = names.new_batch_id(now - timedelta(days=1), after=chain)[: len(arrival)]
            assert later > chain
            chain = later
    assert names.arrival_in("20261121T120000Z-0a1b2c3d") is None
    assert names.arrival_in("B") is None
