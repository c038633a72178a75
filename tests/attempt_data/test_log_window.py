"""Windows of files, however large, and what stands where in them."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.attempt_data import log_window
from parallelhassnes.attempt_data.log_window import MOST_LINES, WINDOW, last_line, open_log, search
from parallelhassnes.errors import UnknownId


def text_of(window) -> bytes:
    return b"\n".join(line.text.encode() for line in window.lines)


LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=60)


@given(LINES, st.booleans())
def test_windows_one_after_another_are_the_file_in_both_directions(lines, ended_with_newline):
    data = b"\n".join(lines) + (b"\n" if ended_with_newline and lines else b"")
    stream = io.BytesIO(data)
    numbers, at = [], 0
    while at < len(data):
        window = log_window.from_byte(stream, at, whole=True)
        assert window.start == at
        numbers += [line.number for line in window.lines]
        for line in window.lines:
            assert data[line.at : line.end].rstrip(b"\n").decode("utf-8", "replace") == line.text
        at = window.end
    assert numbers == list(range(1, len(numbers) + 1))
    back, end = [], len(data)
    while end > 0:
        window = log_window.before_byte(stream, end, whole=True)
        assert (window.end, window.start < end) == (end, True)
        back = [line.number for line in window.lines] + back
        end = window.start
    assert back == numbers


def test_a_hundred_megabytes_cost_a_window(tmp_path: Path):
    path = tmp_path / "stdout.log"
    line = b"line %09d of a log that does not end\n"
    with path.open("wb") as stream:
        for first in range(0, 2_500_000, 10_000):
            stream.write(b"".join(line % number for number in range(first + 1, first + 10_001)))
    with open_log(tmp_path, "stdout.log") as stream:
        assert stream.seek(0, 2) > 100_000_000
        last = log_window.at_end(stream, whole=True)
        assert (last.lines[-1].number, last.next_number) == (2_500_000, 2_500_001)
        assert len(last.lines) <= MOST_LINES
        middle = log_window.at_line(stream, 1_234_567, whole=True)
        assert "line 001234567 of a log" in [found.text[:23] for found in middle.lines]
        assert middle.lines[0].number == 1_234_567 - log_window.CONTEXT
        assert "line 001234567" in middle.lines[log_window.CONTEXT].text
        hits = search(stream, "LINE 002000000 of")
        assert [(hit.number, hits.more) for hit in hits.found] == [(2_000_000, False)]
        assert search(stream, "log that does", most=10).more


def test_a_line_without_end_comes_in_pieces():
    data = b"x" * (3 * WINDOW) + b"\nend\n"
    stream = io.BytesIO(data)
    window, pieces = log_window.from_byte(stream, 0, whole=True), []
    while window.lines:
        pieces += window.lines
        window = log_window.from_byte(stream, window.end, whole=True, number=window.next_number)
    assert [piece.number for piece in pieces] == [1, 1, 1, 1, 2][-len(pieces) :]
    assert "".join(piece.text for piece in pieces[:-1]) == "x" * (3 * WINDOW)
    assert search(stream, "end").found[0].number == 2


def test_a_growing_file_is_seen_in_whole_lines():
    stream = io.BytesIO(b"one\ntw")
    assert text_of(log_window.at_end(stream, whole=False)) == b"one"
    assert text_of(log_window.from_byte(stream, 4, whole=False)) == b""
    assert text_of(log_window.at_end(stream, whole=True)) == b"one\ntw"


def test_positions_that_are_none_are_taken_to_the_nearest_one():
    stream = io.BytesIO(b"one\ntwo\n")
    assert text_of(log_window.from_byte(stream, -5, whole=True)) == b"one\ntwo"
    assert text_of(log_window.from_byte(stream, 6, whole=True)) == b"two"
    assert log_window.from_byte(stream, 99, whole=True).lines == []
    assert log_window.at_line(stream, 99, whole=True).lines[0].number == 1
    assert log_window.at_end(io.BytesIO(b""), whole=True).lines == []


def test_only_files_of_the_attempt_are_opened(tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    inside = tmp_path / "attempt"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", "link", str(tmp_path / "secret"), "", "none", "a\0b"):
        with pytest.raises(UnknownId):
            open_log(inside, name)
    assert last_line(inside, "link") == ""
    (inside / "log").write_text("first\n  second \r\n\n")
    assert last_line(inside, "log") == "second"
