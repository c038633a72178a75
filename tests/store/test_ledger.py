"""The ledger is a chain, whatever ends a writer."""

import hashlib
import json
import os
import resource

import pytest
from stores import python

from parallelhassnes.admin.audit.audit_ledger import read_lines
from parallelhassnes.store.evidence import ledger


def lines(folder):
    return (folder / ledger.LEDGER).read_bytes().split(b"\n")[:-1]


def fill(folder, count=5, **facts):
    ledger.append(folder, "submitted", by="me@here")
    for number in range(1, count):
        ledger.append(folder, "launched", run_id=f"r{number}", attempt=f"a{number}", **facts)


def faults(folder):
    return [(fault.line, fault.what) for fault in read_lines(folder).faults]


@pytest.mark.parametrize("size", [0, 4000, 5000, 20_000])
def test_every_line_carries_its_number_and_the_hash_of_the_one_before(tmp_path, size):
    fill(tmp_path, steps="x" * size)
    prev = ""
    for number, raw in enumerate(lines(tmp_path)):
        document = json.loads(raw)
        assert (document["seq"], document["prev"]) == (number, prev)
        prev = hashlib.sha256(raw).hexdigest()
    assert faults(tmp_path) == []
    assert read_lines(tmp_path).head == prev


@pytest.mark.parametrize("keep", [1, 40, -2, -1])
def test_a_line_that_a_crash_cut_is_ended_and_marked(tmp_path, keep):
    fill(tmp_path)
    path = tmp_path / ledger.LEDGER
    last = lines(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[: -len(last) - 1] + (last + b"\n")[:keep])
    assert faults(tmp_path) == [(5, "torn")]
    ledger.append(tmp_path, "retry", steps=[])
    ledger.append(tmp_path, "retry", steps=[])
    assert faults(tmp_path) == [(5, "torn")]
    marked = json.loads(lines(tmp_path)[5])
    assert marked["torn"] == len(lines(tmp_path)[4])
    assert marked["seq"] == (5 if keep == -1 else 4)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_changed_a_missing_and_a_moved_line_break_the_chain(tmp_path, number):
    fill(tmp_path)
    path, before = tmp_path / ledger.LEDGER, lines(tmp_path)

    def found(raws):
        path.write_bytes(b"\n".join(raws) + b"\n")
        return faults(tmp_path)

    changed = before[number].replace(b'"at":"2', b'"at":"3')
    assert found([*before[:number], changed, *before[number + 1 :]]) == [(number + 2, "ledger")]
    assert found([*before[:number], *before[number + 1 :]])
    swapped = [*before[:number], before[number + 1], before[number], *before[number + 2 :]]
    assert found(swapped)
    assert found([*before[: number + 1], b"garbage", *before[number + 1 :]])
    assert found(before) == []


def test_a_line_for_which_there_is_no_space_leaves_the_ledger_as_it_was(tmp_path):
    fill(tmp_path)
    before = (tmp_path / ledger.LEDGER).read_bytes()
    code = (
        "import sys; from pathlib import Path; from parallelhassnes.store.evidence import ledger\n"
        "try: ledger.append(Path(sys.argv[1]), 'retry', steps=['x' * 5000])\n"
        "except OSError as error: print(error.errno)"
    )
    limit = len(before) + 100
    done = python(code, str(tmp_path), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.stdout.strip() == "27"  # EFBIG
    assert (tmp_path / ledger.LEDGER).read_bytes() == before


def test_an_append_reads_the_end_only(tmp_path):
    """A hundred thousand lines cost an append what ten do: it reads one block."""
    fill(tmp_path, 3)
    path = tmp_path / ledger.LEDGER
    with path.open("r+b") as stream:  # a hole of a terabyte before the last line
        last = lines(tmp_path)[-1]
        stream.seek(1 << 40)
        stream.write(b"\n" + last + b"\n")
    ledger.append(tmp_path, "retry", steps=[])
    with path.open("rb") as stream:
        stream.seek((1 << 40) + len(last) + 2)
        assert json.loads(stream.read())["seq"] == 3


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_lines_that_are_parsed_together_say_what_each_says_alone(tmp_path, monkeypatch, chunk):
    fill(tmp_path)
    odd = [
        b"",
        b"{",
        b'{"a":1},{"b":2}',
        b"\0" * 30,
        b"[" * 9000,
        b"5",
        b'"caf\xff"',
        b'{"event":"writes","files":{}}',
        b'{"a"',
        b":1}",
    ]
    with (tmp_path / ledger.LEDGER).open("ab") as stream:
        for line in odd:
            stream.write(line + b"\n" + b'{"event":"odd","of":%d}\n' % len(line))
    fill(tmp_path, steps="x" * 5000)
    with (tmp_path / ledger.LEDGER).open("ab") as stream:
        stream.write(b'{"event":"ended","job_')
    place, alone = 0, []
    for raw in lines(tmp_path):
        place += len(raw) + 1
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and document.get("event") != "writes":
            alone.append((place, document))
    monkeypatch.setattr(ledger, "_CHUNK", chunk)
    assert list(ledger.read(tmp_path)) == alone
    assert list(ledger.read(tmp_path, alone[3][0])) == alone[4:]


@pytest.mark.parametrize(("near", "chunk"), [(1, 1), (1, 64), (7, 300), (1 << 16, 1 << 20)])
def test_an_end_is_found_however_far_back_it_is_and_a_line_that_was_cut_is_none(tmp_path, monkeypatch, near, chunk):
    monkeypatch.setattr(ledger, "_NEAR", near)
    monkeypatch.setattr(ledger, "_CHUNK", chunk)
    assert not ledger.has_ended(tmp_path, "r1")
    fill(tmp_path, steps="x" * 50)
    for number in (1, 3):
        assert not ledger.has_ended(tmp_path, f"r{number}")
        ledger.append(tmp_path, "ended", run_id=f"r{number}", said='"run_id":"r4"')
        ledger.append(tmp_path, "again", run_id=f"r{number}", said="ended", of={"run_id": "r2"})
    with (tmp_path / ledger.LEDGER).open("ab") as stream:
        stream.write(b'{"event":"ended","run_id":"r2"}')
    found = [run_id for run_id in ("r1", "r2", "r3", "r4", "r5", "submitted") if ledger.has_ended(tmp_path, run_id)]
    assert found == ["r1", "r3"]


def test_whether_an_attempt_has_ended_is_looked_for_no_further_than_its_start(tmp_path):
    with (tmp_path / ledger.LEDGER).open("wb") as stream:
        stream.truncate(1 << 40)
        stream.seek(0, os.SEEK_END)
        stream.write(b'\n{"event":"launched","run_id":"r1"}\n{"event":"ended","run_id":"r2"}\n')
    assert ledger.has_ended(tmp_path, "r2")
    assert not ledger.has_ended(tmp_path, "r1")
