"""Tasks that were uploaded, stored by their content.

    runs/_tasks/<sha256>/upload.json     W   what it is, when it came and from whom
    runs/_tasks/<sha256>/<name>/…            the task

``<sha256>`` is made over the task's name and the path, right to run and content of every file, so a task is stored once
however it was packed, and each of its versions apart. The folder appears by one rename (``actions.uploads``).
"""

import hashlib
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from parallelhassnes.errors import UnknownId
from parallelhassnes.formatting import counted
from parallelhassnes.names import did_you_mean
from parallelhassnes.store import atomic, members
from parallelhassnes.store.layout import Layout

RECORD = "upload.json"


_CHUNK = 1 << 20


class StoredTask(BaseModel):
    """A task that was uploaded."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    sha256: str
    name: str
    path: str
    """What a table names it by, relative to the root."""
    files: int
    bytes: int
    uploaded_at: str
    by: str


def every(layout: Layout) -> list[StoredTask]:
    """Return every stored task, by name, the newest version of one first."""
    listed = members.names(layout.tasks)
    found = [task for name in listed if (task := read(layout.tasks / name)) is not None]
    found.sort(key=lambda task: task.uploaded_at, reverse=True)
    return sorted(found, key=lambda task: task.name)


def find(layout: Layout, text: str) -> StoredTask:
    """Return the stored task with that SHA-256, or the beginning of it.

    Raises:
        UnknownId: there is none, or several.
    """
    known = {task.sha256: task for task in every(layout)}
    fitting = [digest for digest in known if digest.startswith(text)]
    if len(fitting) == 1:
        return known[fitting[0]]
    if fitting:
        raise UnknownId(f"{text} is {counted(len(fitting), 'task')}", fix="write more of the SHA-256")
    raise UnknownId(f"there is no task {text}", fix=did_you_mean(text, known, "upload it"))


def content_of(folder: Path) -> str:
    """Return the SHA-256 that a stored task has by what is in its folder now; empty where there is none in it."""
    inside = [entry for entry in folder.iterdir() if entry.is_dir()]
    return survey(inside[0], sync=False)[0] if len(inside) == 1 else ""


def read(folder: Path) -> StoredTask | None:
    """Return the record of a stored task; None where there is none that can be read."""
    with members.apart(folder):
        return atomic.read_record(StoredTask, folder / RECORD)
    return None


def survey(task: Path, *, sync: bool = True) -> tuple[str, int, int]:
    """Return the hash of the task, how many files it has and their bytes; with ``sync`` every file is on disk afterwards."""
    whole, count, size = hashlib.sha256(f"{task.name}\0".encode()), 0, 0
    for path in sorted(path for path in task.rglob("*") if path.is_file()):
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while data := stream.read(_CHUNK):
                digest.update(data)
                size += len(data)
            if sync and atomic.is_durable():
                os.fsync(stream.fileno())
        count += 1
        runs = bool(path.stat().st_mode & 0o100)
        name = path.relative_to(task).as_posix()
        whole.update(f"{name}\0{int(runs)}\0{digest.hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest(), count, size
