"""What may start again later: in order on disk whatever an act died at, taken over from earlier versions, bounded by its delay."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from stores import attempt_dirs, command, context, idle, job, program, put, read, states, table, wait_for

from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import delayed, tickets
from parallelhassnes.store.records import StepNow, Ticket, dump, now_text

BATCH, OTHER = "20261121T000000Z-mmmmmmmm", "20261121T000001Z-mmmmmmmm"
AHEAD = 400 * 86_400.0


class Died(BaseException):
    """A kill: nothing in the package catches it."""


class _Acts:
    left: int | None = None
    began: float = 0.0
    """The end that an act notes a retry of, the same when it is done again."""


def _on_event(event: str, _arguments: object) -> None:
    if _Acts.left is None or not (event == "open" or event.startswith("os.")):
        return
    _Acts.left -= 1
    if _Acts.left < 0:
        _Acts.left = None
        raise Died


@contextmanager
def dying_at(act: int) -> Iterator[None]:
    """Die before the ``act``-th use of the file system in the block."""
    _Acts.left = act
    try:
        yield
    finally:
        _Acts.left = None


@pytest.fixture(scope="module", autouse=True)
def hook():
    sys.addaudithook(_on_event)  # for good: there is no way to take one back


def step(ended_at: float, delay: float) -> StepNow:
    ended, again = (now_text(datetime.fromtimestamp(at, UTC)) for at in (ended_at, ended_at + delay))
    return StepNow(status="failed", attempt="a", run_id="r", number=1, ended_at=ended, retry_at=again)


def ticket(batch_id: str = BATCH, name: str = "s") -> tuple[Ticket, str]:
    made = Ticket(batch_id=batch_id, job_id="j", step_id=name, queue_key="k", kind="command")
    return made, tickets.ticket_name(batch_id, 0, "j", name, "command")


def note(layout: Layout, delay: float, *, batch_id: str = BATCH, name: str = "s", now: float | None = None) -> None:
    delayed.put(layout, *ticket(batch_id, name), step(now or time.time(), delay))


def refuse(path: Path, error: Exception) -> None:
    raise AssertionError(f"{path}: {error}")


def a_pass(layout: Layout, now: float, wanted: float | None = None) -> bool:
    if delayed.is_out_of_order(layout, now):
        delayed.put_in_order(layout, now, refuse, lambda _: wanted)
    return delayed.promote_due(layout, now, refuse)


def ready(layout: Layout) -> list[str]:
    return sorted(path.name for _, _, folder in tickets.ready_folders(layout) for path in tickets.in_order(folder))


def fresh(folder: Path) -> Layout:
    shutil.rmtree(folder, ignore_errors=True)
    layout = Layout(folder)
    atomic.set_temp(layout.temp)
    for each in layout.folders():
        each.mkdir(parents=True)
    return layout


def flat(layout: Layout, due: float, name: str, delay: float | None = None) -> None:
    """As an earlier version noted it."""
    made, listed = ticket(name=name)
    said = "" if delay is None else f"-{int(delay * 1000)}"
    atomic.write_json(layout.delayed / f"{int(due * 1000):014d}{said}.{listed}", dump(made))


@pytest.fixture(autouse=True)
def not_durable(monkeypatch):
    monkeypatch.setattr(atomic._Settings, "durable", False)
    monkeypatch.setattr(atomic._Settings, "temp", None)


@pytest.fixture
def ahead(monkeypatch):
    """Have what is noted be noted under a clock that is ahead."""

    def use(seconds: float) -> None:
        clock = SimpleNamespace(time=lambda: time.time() + seconds)
        monkeypatch.setattr(delayed, "time", clock if seconds else time)

    return use


def prepare_put(_layout: Layout, _ahead: Callable[[float], None]) -> None:
    """Nothing is there yet."""


def prepare_another(layout: Layout, _ahead: Callable[[float], None]) -> None:
    note(layout, 500, batch_id=OTHER)


def prepare_flat(layout: Layout, _ahead: Callable[[float], None]) -> None:
    flat(layout, time.time() + 100, "s", 100)
    flat(layout, time.time() + 90, "t")


def prepare_set_back(layout: Layout, ahead: Callable[[float], None]) -> None:
    ahead(AHEAD)
    note(layout, 100, now=time.time() + AHEAD)
    note(layout, 200, name="t", now=time.time() + AHEAD)
    ahead(0)


def act_put(layout: Layout) -> None:
    note(layout, 100, now=_Acts.began)


def act_pass(layout: Layout) -> None:
    a_pass(layout, time.time(), 100)


def act_due(layout: Layout) -> None:
    a_pass(layout, time.time() + 600, 100)


@pytest.mark.parametrize(
    ("prepare", "act"),
    [
        (prepare_put, act_put),
        (prepare_another, act_put),
        (prepare_another, act_due),
        (prepare_flat, act_pass),
        (prepare_flat, act_due),
        (prepare_set_back, act_pass),
    ],
)
def test_an_act_that_dies_anywhere_and_is_done_again_loses_and_doubles_nothing(tmp_path, ahead, prepare, act):
    for dies_at in count():
        layout, _Acts.began = fresh(tmp_path / "root"), time.time()
        prepare(layout, ahead)
        before = {found.ticket for found in delayed.every(layout)}
        try:
            with dying_at(dies_at):
                act(layout)
        except Died:
            assert before <= {found.ticket for found in delayed.every(layout)} | set(ready(layout))
            act(layout)
        else:
            break
        now = time.time()
        a_pass(layout, now, 100)
        left = delayed.every(layout)
        wanted = before | ({ticket()[1]} if act is act_put else set())
        if act is act_due:
            assert (left, set(ready(layout))) == ([], wanted)
        else:
            assert sorted(found.ticket for found in left) == sorted(wanted)
            assert ready(layout) == []
            assert all(found.noted == found.at <= now + 501 for found in left)
            assert delayed.next_at(layout, now) <= left[0].at
        assert not a_pass(layout, now + 700)
        assert set(ready(layout)) == wanted
        assert list(layout.delayed.iterdir()) == []
    assert dies_at > 8


def test_a_clock_that_was_ahead_by_less_than_a_delay_makes_nobody_wait_longer_than_that_delay(tmp_path, ahead):
    layout = fresh(tmp_path)
    note(layout, 5000, batch_id=OTHER)
    ahead(60)
    note(layout, 30, now=time.time() + 60)
    ahead(0)
    now = time.time()
    assert delayed.next_at(layout, now) == now
    a_pass(layout, now)
    short, long = delayed.every(layout)
    assert short.noted <= now + 30
    assert 4990 < long.noted - now <= 5000
    assert not delayed.is_out_of_order(layout, now)


@pytest.mark.parametrize("lost", ["due", "noted", "both"])
def test_hints_that_were_lost_are_made_anew(tmp_path, lost):
    layout = fresh(tmp_path)
    note(layout, 100)
    note(layout, 200, batch_id=OTHER)
    if lost in ("due", "both"):
        shutil.rmtree(layout.delayed / "due")
    if lost in ("noted", "both"):
        (noted,) = layout.delayed.glob("noted.*")
        noted.unlink()
    now = time.time()
    a_pass(layout, now)
    assert not delayed.is_out_of_order(layout, now)
    a_pass(layout, now + 150)
    assert ready(layout) == [ticket()[1]]
    a_pass(layout, now + 250)
    assert ready(layout) == sorted([ticket()[1], ticket(OTHER)[1]])
    assert list(layout.delayed.iterdir()) == []


def test_many_that_are_due_at_once_are_moved_in_parts_soonest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(delayed, "MOST_PROMOTED", 3)
    layout = fresh(tmp_path)
    for number in range(7):
        note(layout, 10 + number, name=f"s{number}")
    now = time.time() + 100
    for number in (3, 6):
        assert a_pass(layout, now)
        assert ready(layout) == sorted(ticket(name=f"s{n}")[1] for n in range(number))
    assert not a_pass(layout, now)
    assert len(ready(layout)) == 7


def test_what_goes_away_leaves_neither_hint_nor_folder(tmp_path):
    layout = fresh(tmp_path)
    for name in "ab":
        note(layout, 100, name=name)
    waiting = delayed.by_ticket(layout, BATCH)
    assert delayed.has_any(layout, BATCH)
    assert delayed.batch_ids(layout) == [BATCH]
    for found in waiting.values():
        delayed.drop(layout, found)
    assert not delayed.has_any(layout, BATCH)
    a_pass(layout, time.time())
    assert list(layout.delayed.iterdir()) == []


@pytest.mark.parametrize("kept", ["", "-{delay}"], ids=["without its delay", "with its delay"])
def test_what_an_earlier_version_noted_is_taken_over_and_starts(root, kept):
    ctx = context(root, "durable = false\n")
    retry = {"classes": {"agent_error": {"retry": True, "max_attempts": 2, "backoff_sec": 3}}}
    batch = put(ctx, table(job("j", command("s", "false", retry=retry))))
    program(root, "tick")
    (found,) = wait_for(lambda: delayed.every(ctx.layout), "the retry to be noted")
    wait_for(lambda: list(ctx.layout.ended.iterdir()) == [], "the end to be settled")
    said = re.fullmatch(r"(\d+)-(\d+)\.(.*)", found.path.name)
    assert said
    old = ctx.layout.delayed / f"{said[1]}{kept.format(delay=said[2])}.{said[3]}"
    found.path.rename(old)
    shutil.rmtree(ctx.layout.delayed / "batches")
    shutil.rmtree(ctx.layout.delayed / "due")
    assert json.loads(program(root, "show", batch, "--json").stdout)
    program(root, "tick")
    wait_for(lambda: states(ctx, batch)["j/s"] == ["failed", "failed"], "the retry", 60)
    wait_for(lambda: idle(ctx), "its end")
    first, second = (read(path / "meta.json") for path in attempt_dirs(ctx, batch))
    assert second["created_at"] > first["created_at"]
    wait_for(lambda: list(ctx.layout.delayed.iterdir()) == [], "the folder to be empty")
