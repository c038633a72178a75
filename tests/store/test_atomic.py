"""JSON in the store can always be read again."""

import os
from pathlib import Path

from parallelhassnes.store import atomic


def test_a_name_that_is_not_utf8_is_read_as_it_was_written(tmp_path: Path) -> None:
    document = {os.fsdecode(b"t\xe9sk"): ["größer", os.fsdecode(b"\xff/\\")]}
    atomic.write_json(tmp_path / "a.json", document)
    atomic.write_new(tmp_path / "b.json", document)
    for path in tmp_path.iterdir():
        path.read_text(encoding="utf-8")
        assert atomic.read_json(path) == document


def test_a_store_that_is_gone_keeps_nobody_from_writing_elsewhere(tmp_path, monkeypatch):
    """The process works for another store by now; the one that is gone is not made again."""
    gone = tmp_path / "gone" / "tmp"
    monkeypatch.setattr(atomic._Settings, "temp", str(gone))
    atomic.write_json(tmp_path / "a.json", {})
    assert atomic.read_json(tmp_path / "a.json") == {}
    assert atomic.to_be_swept() is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_is_named_without_a_folder_is_made_where_it_is_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atomic._Settings, "temp", None)  # as in a program that only looks at a store
    made, real = [], os.open

    def open_(path, flags, *more):
        if flags & os.O_CREAT:
            made.append(Path(path).absolute().parent)
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", open_)
    atomic.write_bytes("table.csv", b"a,b\n")
    assert made == [
        tmp_path
    ]  # in the root's folder an ordinary user makes no file, and a rename from there may cross disks
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]
