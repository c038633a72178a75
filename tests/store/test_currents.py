"""``current.json`` and its journal say the same to everybody, whatever ended a writer, and a change costs the same at any size."""

import json
import os
import random
from pathlib import Path

import pytest

from parallelhassnes.store import atomic, currents
from parallelhassnes.store.currents import CURRENT, JOURNAL
from parallelhassnes.store.records import Current, StepNow, dump


@pytest.fixture(autouse=True)
def own_memory(monkeypatch):
    monkeypatch.setattr(currents, "_known", {})


def now(number=1, status="succeeded"):
    attempt = f"20261121T{number % 86_400:06d}Z_abcdefghijkl"
    return StepNow(status=status, attempt=attempt, run_id="abcdefghijkl", number=number, settled=True)


def large(folder: Path, count: int = 300) -> None:
    """A job beyond the size up to which the file is replaced."""
    standing = currents.begin_anew(folder)
    for number in range(count):
        standing.put(f"s{number}", now())
    standing.save(whole=True)
    assert (folder / CURRENT).stat().st_size > currents.WHOLE


def changed(folder: Path, step_id: str, number: int) -> None:
    standing = currents.take(folder)
    standing.put(step_id, now(number))
    standing.save()


def forget() -> None:
    """As a fresh process."""
    currents._known.clear()


def test_a_small_job_is_in_current_json_alone(tmp_path):
    for number in range(10):
        changed(tmp_path, f"s{number}", number)
        assert os.listdir(tmp_path) == [CURRENT]
    document = json.loads((tmp_path / CURRENT).read_bytes())
    assert document == dump(Current(steps={f"s{n}": now(n) for n in range(10)}))


def test_the_file_of_an_earlier_version_is_gone_on_with(tmp_path):
    before = Current(steps={f"s{n}": now(n) for n in range(300)}, dead={"x": "j/s1"})
    atomic.write_json(tmp_path / CURRENT, dump(before))
    assert currents.read(tmp_path) == before
    changed(tmp_path, "s7", 9)
    assert (tmp_path / JOURNAL).exists()
    assert currents.read(tmp_path).steps["s7"].number == 9
    assert currents.read(tmp_path).dead == {"x": "j/s1"}


@pytest.mark.parametrize("seed", range(8))
def test_processes_that_take_turns_and_readers_see_every_change(tmp_path, monkeypatch, seed):
    """Each of three processes remembers what it knew; whole writes, folds and power cuts of a line come in between."""
    chance = random.Random(seed)
    monkeypatch.setattr(currents, "WHOLE", chance.choice([0, 500, 3000]))
    memories = [{}, {}, {}]
    truth: dict[str, StepNow] = {}
    dead: dict[str, str] = {}
    for number in range(400):
        currents._known = chance.choice(memories)
        standing = currents.take(tmp_path)
        for _ in range(chance.randrange(3)):
            step_id = f"s{chance.randrange(60)}"
            if chance.random() < 0.7:
                standing.put(step_id, now(number))
                truth[step_id] = now(number)
                dead.pop(step_id, None)
            elif step_id not in truth:
                because = chance.choice(["", "j/a", "j/b"])
                standing.bury(step_id, because)
                dead = {**{k: v for k, v in dead.items() if k != step_id}, **({step_id: because} if because else {})}
        if chance.random() < 0.1:  # the process dies: what it was about to write comes again
            if (tmp_path / JOURNAL).exists() and chance.random() < 0.5:
                with (tmp_path / JOURNAL).open("ab") as stream:
                    stream.write(b'{"steps":{"s1":{"stat')
            memories[memories.index(currents._known)] = currents._known = {}
            standing = currents.take(tmp_path)
            for step_id, was in truth.items():
                standing.put(step_id, was)
            for step_id in {*standing._dead, *dead}:
                standing.bury(step_id, dead.get(step_id, ""))
        standing.save(whole=chance.random() < 0.05)
        if chance.random() < 0.05:
            currents.fold(tmp_path)
            assert not (tmp_path / JOURNAL).exists()
        assert currents.read(tmp_path) == Current(steps=truth, dead=dead)
    currents.fold(tmp_path)
    assert Current(**json.loads((tmp_path / CURRENT).read_bytes())) == Current(steps=truth, dead=dead)


def test_what_was_not_saved_is_not_taken_for_what_is_there(tmp_path):
    large(tmp_path)
    changed(tmp_path, "s1", 5)
    currents.take(tmp_path).put("s1", now(99))
    assert currents.take(tmp_path).get("s1") == now(5)


def test_a_journal_of_another_file_counts_for_nothing(tmp_path):
    """As a crash leaves it between the file that was written anew and the journal that goes."""
    large(tmp_path)
    changed(tmp_path, "s1", 5)
    stale = (tmp_path / JOURNAL).read_bytes()
    standing = currents.take(tmp_path)
    standing.put("s1", now(6))
    standing.save(whole=True)
    (tmp_path / JOURNAL).write_bytes(stale)
    for _ in range(2):
        assert currents.take(tmp_path).get("s1") == now(6)
        assert currents.read(tmp_path).steps["s1"] == now(6)
        forget()
    changed(tmp_path, "s2", 7)
    forget()
    assert currents.take(tmp_path).get("s1") == now(6)
    assert currents.take(tmp_path).get("s2") == now(7)


def test_another_process_does_not_go_on_with_the_journal_that_a_crash_left(tmp_path):
    """It remembers the job as of the file before: its lines would count for nothing, and it would not know the last change."""
    large(tmp_path)
    changed(tmp_path, "s1", 5)
    remembered = dict(currents._known)
    stale = (tmp_path / JOURNAL).read_bytes()
    forget()
    standing = currents.take(tmp_path)
    standing.put("s1", now(6))
    standing.save(whole=True)
    (tmp_path / JOURNAL).write_bytes(stale)
    currents._known |= remembered
    assert currents.take(tmp_path).get("s1") == now(6)
    changed(tmp_path, "s2", 7)
    assert currents.read(tmp_path).steps["s2"] == now(7)
    assert currents.read(tmp_path).steps["s1"] == now(6)


@pytest.mark.parametrize("keep", [1, 30, -1])
def test_a_line_that_a_crash_cut_is_left_alone_and_written_over(tmp_path, keep):
    large(tmp_path)
    changed(tmp_path, "s1", 5)
    whole = (tmp_path / JOURNAL).read_bytes()
    changed(tmp_path, "s2", 6)
    line = (tmp_path / JOURNAL).read_bytes()[len(whole) :]
    (tmp_path / JOURNAL).write_bytes(whole + line[:keep])
    forget()
    assert currents.read(tmp_path).steps["s2"] == now()
    changed(tmp_path, "s3", 7)
    forget()
    after = currents.read(tmp_path).steps
    assert (after["s1"], after["s2"], after["s3"]) == (now(5), now(), now(7))


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"steps":[],"dead":{}}', b"\0\0\0", b'{"steps":{}}', b"[" * 200_000])
def test_a_journal_that_is_none_is_named_and_a_rebuild_is_not_kept_by_it(tmp_path, line):
    large(tmp_path)
    changed(tmp_path, "s1", 5)
    with (tmp_path / JOURNAL).open("ab") as stream:
        stream.write(line + b"\n")
    for look in (currents.read, currents.take):
        with pytest.raises(atomic.CorruptFile, match=r"current\.jsonl: .*doctor --rebuild"):
            look(tmp_path)
    standing = currents.begin_anew(tmp_path)
    standing.put("s1", now(5))
    standing.save(whole=True)
    assert currents.read(tmp_path).steps == {"s1": now(5)}


def test_a_reader_beside_a_writer_never_sees_less_than_before(tmp_path):
    """A real process writes, with many folds; this one reads without any lock."""
    large(tmp_path, 60)
    pid = os.fork()
    if not pid:
        try:
            currents.WHOLE = 0
            for number in range(600):
                changed(tmp_path, f"t{number}", number)
        finally:
            os._exit(0)
    seen, looks = 0, 0
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        found = currents.read(tmp_path).steps
        count = sum(step_id[0] == "t" for step_id in found)
        assert count >= seen
        assert all(f"t{number}" in found for number in range(count))
        seen, looks = count, looks + 1
    assert looks > 3
    assert len(currents.read(tmp_path).steps) == 660


def test_a_change_writes_as_much_beside_a_hundred_as_beside_thousands(tmp_path):
    written = {}
    for count in (300, 6000):
        folder = tmp_path / str(count)
        folder.mkdir()
        large(folder, count)
        sizes = []
        for number in range(count // 2):
            before = (folder / CURRENT).stat(), (folder / JOURNAL).stat().st_size if number else 0
            changed(folder, f"s{number}", number + 2)
            file, journal = (folder / CURRENT).stat(), (folder / JOURNAL).stat().st_size
            if file.st_ino == before[0].st_ino and file.st_mtime_ns == before[0].st_mtime_ns:
                sizes.append(journal - before[1])
        assert len(sizes) >= count // 2 - 2  # it is written whole once in a while, and less often the longer it is
        written[count] = sorted(sizes)[len(sizes) // 2]
    assert written[6000] < written[300] * 1.2
