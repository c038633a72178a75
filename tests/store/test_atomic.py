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
