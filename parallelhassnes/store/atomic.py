"""Writing to the store: whole files, by rename.

Protocol: the content goes to ``.tmp-<pid>-<n>`` in the same directory, is fsynced, renamed over its
name, and the directory is fsynced. A crash before the rename leaves a ``.tmp-`` file that nobody
reads; after it, the new content. JSON is compact, so that ``grep '"status":"failed"'`` finds it.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

_counter = itertools.count()


class _Durability:
    on = True


def set_durable(on: bool) -> None:
    """Whether writes wait for the disk, for this process and those it forks."""
    _Durability.on = on


def is_durable() -> bool:
    return _Durability.on


class CorruptFile(Exception):
    """A file of the store that does not hold what it must; the message names it."""


def dumps(document: Any) -> str:
    """Compact JSON on one line, with a newline; refuses NaN."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def write_bytes(path: Path | str, data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` with ``data`` in one act."""
    path = os.fspath(path)
    folder = os.path.dirname(path)  # noqa: PTH120 - hot path
    temp = f"{folder}/.tmp-{os.getpid()}-{next(_counter)}"
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            if durable and _Durability.on:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temp, path)  # noqa: PTH104 - hot path
    except OSError:
        Path(temp).unlink(missing_ok=True)
        raise
    if durable:
        sync_dir(folder)


def write_new(path: Path | str, document: Any) -> None:
    """Write JSON to a file that is not there yet, in a folder that nobody looks into yet; waits for the disk.

    For a folder that gets its name only when it is whole. Its entries are durable after ``sync_dir``.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(dumps(document).encode("utf-8", "surrogateescape"))
        while view:
            view = view[os.write(handle, view) :]
        if _Durability.on:
            os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path | str, document: Any, *, durable: bool = True) -> None:
    write_bytes(path, dumps(document).encode("utf-8", "surrogateescape"), durable=durable)


def write_text(path: Path | str, text: str, *, durable: bool = True) -> None:
    write_bytes(path, text.encode("utf-8", "surrogateescape"), durable=durable)


def sync_dir(folder: Path | str) -> None:
    """Make the folder's entries durable."""
    if not _Durability.on:
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path | str) -> Any:
    """The document in ``path``.

    Raises:
        FileNotFoundError: there is none.
        CorruptFile: it is not JSON.
    """
    with open(path, "rb") as stream:  # noqa: PTH123 - hot path
        data = stream.read()
    try:
        return json.loads(data)
    except ValueError as error:
        raise CorruptFile(f"{path}: is not JSON ({error})") from None


def read_json_or_none(path: Path | str) -> Any:
    """As ``read_json``, None where there is no such file."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
