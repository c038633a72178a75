"""The fold of a ledger: the same from the cache and from the whole, whatever became of the cache."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.steps.trial_data.ended_line import spent
from parallelhassnes.store import atomic
from parallelhassnes.store.evidence import ledger
from parallelhassnes.views import projection

STEPS = ("j1/a", "j1/b", "j2/a")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Thousands of lines that do not wait for a disk, which may be slow."""
    before = atomic.is_durable()
    atomic.set_durable(False)
    yield
    atomic.set_durable(before)


def launched(batch: Path, key: str, number: int = 1, **more: object) -> None:
    job_id, step_id = key.split("/")
    ledger.append(
        batch,
        "launched",
        job_id=job_id,
        step_id=step_id,
        run_id=f"r{number}",
        attempt=f"20261121T000000Z_r{number}",
        number=number,
        queue_key="prep",
        **more,
    )


def ended(batch: Path, key: str, status: str = "succeeded", number: int = 1, **more: object) -> None:
    job_id, step_id = key.split("/")
    ledger.append(
        batch,
        "ended",
        job_id=job_id,
        step_id=step_id,
        run_id=f"r{number}",
        attempt=f"20261121T000000Z_r{number}",
        number=number,
        status=status,
        ended_at="2026-11-21T00:00:01.000000Z",
        **more,
    )


def statuses(fold: projection.Fold) -> dict[str, str]:
    return {key: row.status for key, row in fold.steps.items()}


def test_events_are_folded_and_repeated_ones_count_once(tmp_path: Path) -> None:
    launched(tmp_path, "j1/a")
    ended(tmp_path, "j1/a", "failed", failure={"failure_class": "infrastructure", "line": "no disk"})
    ended(tmp_path, "j1/a", "failed", failure={"failure_class": "infrastructure", "line": "no disk"})
    launched(tmp_path, "j1/b", stand_in=True)
    fold = projection.load(tmp_path)
    assert statuses(fold) == {"j1/a": "failed", "j1/b": "running"}
    assert (fold.attempts, fold.stand_in) == (1, True)
    assert fold.steps["j1/a"].line == "no disk"
    assert +fold.tally == {"failed": 1, "running": 1}


def test_a_retry_makes_an_ended_step_due_and_frees_what_was_canceled(tmp_path: Path) -> None:
    launched(tmp_path, "j1/a")
    ended(tmp_path, "j1/a", "failed")
    ledger.append(tmp_path, "canceled", target="B", attempts=[], steps=["j1/b", "j2/a"])
    fold = projection.load(tmp_path)
    assert set(fold.canceled) == {"j1/b", "j2/a"}
    ledger.append(tmp_path, "retry", target="B/j1", attempts=["x"], steps=["j1/a"])
    projection.advance(fold, tmp_path)
    assert set(fold.canceled) == {"j2/a"}
    assert fold.steps["j1/a"].retry_at is not None
    assert +fold.tally == {"retry": 1}
    launched(tmp_path, "j1/a", number=2)
    projection.advance(fold, tmp_path)
    assert +fold.tally == {"running": 1}


def test_a_cache_is_continued_from_where_it_ends(tmp_path: Path) -> None:
    launched(tmp_path, "j1/a")
    fold = projection.load(tmp_path)
    assert projection.save(fold, tmp_path, force=True)
    ended(tmp_path, "j1/a")
    again = projection.load(tmp_path)
    assert again.cached == fold.offset < again.offset
    assert statuses(again) == {"j1/a": "succeeded"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"schema_version": 99}),
        lambda text: json.dumps(json.loads(text) | {"ledger_offset": 10**9}),
        lambda text: json.dumps(json.loads(text) | {"ledger_offset": 17}),
        lambda text: json.dumps(json.loads(text) | {"ledger_line": "0" * 64}),
        lambda text: json.dumps(json.loads(text) | {"ledger_line": None}),
        lambda text: json.dumps(json.loads(text) | {"batch_id": "another"}),
        lambda text: json.dumps(json.loads(text) | {"steps": {"j1/a": ["succeeded"]}}),
        lambda text: json.dumps(json.loads(text) | {"steps": None}),
    ],
)
def test_a_cache_that_does_not_fit_is_made_anew(tmp_path: Path, damage) -> None:
    launched(tmp_path, "j1/a")
    ended(tmp_path, "j1/a")
    whole = projection.load(tmp_path)
    projection.save(whole, tmp_path, force=True)
    path = tmp_path / projection.CACHE
    path.write_bytes(atomic.summed(damage(atomic.unsummed(path.read_bytes()).decode()).encode()))
    found = projection.load(tmp_path)
    assert found.cached == -1
    assert (found.steps, found.offset, found.tally) == (whole.steps, whole.offset, whole.tally)


@pytest.mark.parametrize("place", ["number", "word", "check"])
def test_a_cache_in_which_anything_was_changed_is_made_anew(tmp_path: Path, place) -> None:
    launched(tmp_path, "j1/a")
    ended(tmp_path, "j1/a")
    whole = projection.load(tmp_path)
    projection.save(whole, tmp_path, force=True)
    path = tmp_path / projection.CACHE
    old, new = {
        "number": ('"attempts":1', '"attempts":7'),
        "word": ("succeeded", "failed"),
        "check": ("check", "chekc"),
    }[place]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    found = projection.load(tmp_path)
    assert (found.cached, found.steps, found.attempts) == (-1, whole.steps, whole.attempts)


def test_a_cache_of_another_ledger_that_is_as_long_is_made_anew(tmp_path: Path) -> None:
    launched(tmp_path, "j1/a")
    path = tmp_path / ledger.LEDGER
    sound = path.read_bytes()
    projection.save(projection.load(tmp_path), tmp_path, force=True)
    path.write_bytes(sound.replace(b'"j1"', b'"j2"'))
    assert list(projection.load(tmp_path).steps) == ["j2/a"]
    path.unlink()
    assert projection.load(tmp_path).steps == {}


def test_a_process_that_stays_reads_the_lines_that_are_new(tmp_path: Path) -> None:
    """What a caller does to a fold is its own; what is kept is continued."""
    launched(tmp_path, "a/s")
    first = projection.load(tmp_path)
    first.steps.clear()
    first.canceled["a/s"] = True
    read = []
    seen = ledger.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "read", lambda folder, offset: (read.append(offset), seen(folder, offset))[1])
        ended(tmp_path, "a/s")
        second = projection.load(tmp_path)
        again = projection.load(tmp_path)
    assert read == [first.offset, second.offset]
    assert statuses(second) == statuses(again) == {"a/s": "succeeded"}
    assert not again.canceled


@pytest.mark.parametrize("what", ["shorter", "as long", "gone", "cache written anew", "cache gone"])
def test_what_a_process_keeps_is_made_anew_where_it_does_not_fit(tmp_path: Path, what) -> None:
    launched(tmp_path, "a/s")
    ended(tmp_path, "a/s")
    projection.save(projection.load(tmp_path), tmp_path, force=True)
    assert statuses(projection.load(tmp_path)) == {"a/s": "succeeded"}
    path = tmp_path / ledger.LEDGER
    whole = path.read_text()
    if what == "shorter":
        path.write_text(whole[: whole.index("\n") + 1])
    elif what == "as long":
        path.write_text(whole.replace("succeeded", "canceled_"))
    elif what == "gone":
        path.unlink()
    else:
        cache = json.loads((tmp_path / projection.CACHE).read_text())
        (tmp_path / projection.CACHE).unlink()
        cache["steps"]["a/s"][0] = "lost"
        if what == "cache written anew":
            del cache["check"]
            atomic.write_kept(tmp_path / projection.CACHE, cache)
    now = {"shorter": "running", "as long": "canceled_", "cache written anew": "lost", "cache gone": "succeeded"}
    assert statuses(projection.load(tmp_path)) == ({"a/s": now[what]} if what in now else {})


def test_of_many_batches_those_that_were_looked_at_last_are_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(projection, "MOST_KEPT", 2)
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        launched(tmp_path / name, "a/s")
        projection.load(tmp_path / name)
    kept = [folder.name for folder in projection._kept if folder.parent == tmp_path]
    assert kept == ["two", "three"]
    launched(tmp_path / "three", "a/t")
    launched(tmp_path / "three", "a/u")
    assert len(projection.load(tmp_path / "three").steps) == 3
    assert tmp_path / "three" not in projection._kept, "what is too large for a process is not kept"


def test_lines_that_are_cut_or_foreign_are_passed_over(tmp_path: Path) -> None:
    launched(tmp_path, "j1/a")
    with (tmp_path / ledger.LEDGER).open("ab") as stream:
        stream.write(b'{"event":"launched"}\nnot json\n{"event":"ended","job_id":"j1"')
    fold = projection.load(tmp_path)
    assert statuses(fold) == {"j1/a": "running"}
    ended(tmp_path, "j1/a")
    projection.advance(fold, tmp_path)
    assert statuses(fold) == {"j1/a": "succeeded"}


@pytest.mark.parametrize(
    "odd",
    [
        {"failure": "text"},
        {"trial": [1]},
        {"trial": {"tokens": [1]}},
        {"trial": {"result": "scored", "tokens": "abc"}},
        {"number": "two"},
        {"event": "retry", "target": 5},
        {"event": ["ended"]},
        {"event": "canceled", "steps": [["a"]]},
    ],
)
@pytest.mark.parametrize("long", [False, True])
def test_a_line_of_any_shape_stops_no_reader(tmp_path: Path, monkeypatch, odd, long) -> None:
    monkeypatch.setattr(ledger, "_CHUNK", 1 << 20 if long else 7)
    launched(tmp_path, "j1/a")
    line = {
        "event": "ended",
        "job_id": "x",
        "step_id": "y",
        "number": 1,
        "attempt": "z",
        "status": "failed",
        "at": "",
        "kind": "trial",
        "steps": [],
    }
    with (tmp_path / ledger.LEDGER).open("a") as stream:
        stream.write(json.dumps(line | odd) + "\n5\n" + "[" * 9000 + "]" * 9000 + "\n")
    ended(tmp_path, "j1/a")
    assert statuses(projection.load(tmp_path))["j1/a"] == "succeeded"
    for _, event in ledger.read(tmp_path):
        spent(event)


def test_a_long_line_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    launched(tmp_path, "j1/a")
    fold = projection.load(tmp_path)
    with (tmp_path / ledger.LEDGER).open("ab") as stream:
        stream.write(b'{"event":"canceled","steps":["' + b"a" * (1 << 20))
    assert projection.advance(fold, tmp_path) == []
    assert statuses(fold) == {"j1/a": "running"}


def test_a_long_tail_is_read_like_a_short_one(tmp_path: Path) -> None:
    followed = projection.Fold(tmp_path.name)
    number = 0
    while ledger.size(tmp_path) < 1 << 20:
        number += 1
        launched(tmp_path, "j1/a", number)
        ended(tmp_path, "j1/a", "failed", number)
        if number % 400 == 0:
            projection.advance(followed, tmp_path)
    projection.advance(followed, tmp_path)
    long = projection.load(tmp_path)
    assert (long.steps, long.offset, long.attempts) == (followed.steps, followed.offset, followed.attempts)
    with (tmp_path / ledger.LEDGER).open("ab") as stream:
        stream.write(b'{"event":"ended","job_id"')
    assert projection.load(tmp_path).offset == long.offset


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.booleans(), st.integers(0, 3)), max_size=25))
def test_tails_and_the_whole_give_the_same(tmp_path_factory, events) -> None:
    batch = tmp_path_factory.mktemp("batch")
    numbers = dict.fromkeys(STEPS, 0)
    followed = projection.Fold(batch.name)
    for key, retried, looks in events:
        numbers[key] += 1
        launched(batch, key, numbers[key])
        if looks == 1:
            projection.advance(followed, batch)
        retry = {"retry_at": "2026-11-21T00:01:00.000000Z"} if retried else {}
        ended(batch, key, "failed" if retried else "succeeded", numbers[key], **retry)
        if looks > 1:
            followed = projection.load(batch)
            projection.save(followed, batch, force=looks == 3)
    projection.advance(followed, batch)
    (batch / projection.CACHE).unlink(missing_ok=True)
    whole = projection.load(batch)
    assert (followed.steps, +followed.tally, followed.attempts, followed.unread) == (
        whole.steps,
        +whole.tally,
        whole.attempts,
        whole.unread,
    )
