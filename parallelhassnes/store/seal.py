"""``seal.json``: the SHA-256 and size of every file of an attempt, written last.

It is the audit's anchor: after it nothing in the attempt's folder changes, and its own hash is in the
ledger's line of the attempt's end. Before it is written, every file that it names is on disk (fsync), so a
seal never speaks of data that a power cut took; after it, the files lose their write permission.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelhassnes.store import atomic
from parallelhassnes.store.attempts import SEAL
from parallelhassnes.store.records import now_text

_CHUNK = 1 << 20
_TEMPORARY = ".tmp-"


def seal(attempt_dir: Path, redacted: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Write the seal of an attempt whose processes have all ended; return its document.

    Args:
        redacted: relative path → what was taken out of that file → how often.
    """
    for name in os.listdir(attempt_dir):
        if name.startswith(_TEMPORARY):  # of a supervisor that died while it wrote
            with contextlib.suppress(IsADirectoryError, PermissionError):
                os.unlink(f"{attempt_dir}/{name}")  # noqa: PTH108 - hot path
    document: dict[str, Any] = {
        "schema_version": 1,
        "sealed_at": now_text(),
        "files": survey(attempt_dir),
    }
    if redacted:
        document["redacted"] = redacted
    atomic.write_json(attempt_dir / SEAL, document)
    for name in (*document["files"], SEAL):
        _protect(f"{attempt_dir}/{name}")
    return document


def _protect(path: str) -> None:
    """Take the write permission, and that of other users; of nothing that is linked from elsewhere."""
    with contextlib.suppress(OSError):  # another user's file, made in a container: the hash must do
        info = os.lstat(path)
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            mode = stat.S_IMODE(info.st_mode) & (0o500 if is_private() else 0o555)
            os.chmod(path, mode)  # noqa: PTH101 - hot path


class _Privacy:
    on = True


def set_private(on: bool) -> None:
    """Whether other users are kept out, for this process and those it forks."""
    _Privacy.on = on


def is_private() -> bool:
    return _Privacy.on


def job_line(job_id: str, content: bytes) -> bytes:
    """What ``jobs_sha256`` of a batch's ledger is made over, for one ``job.json``, in the table's order."""
    return f"{job_id} {hashlib.sha256(content).hexdigest()}\n".encode()


def survey(attempt_dir: Path, *, sync: bool = True) -> dict[str, dict[str, Any]]:
    """Relative path → ``{"sha256", "size"}`` of a file, ``{"link"}`` of a symbolic link, ``{"type"}`` of anything else.

    The seal itself is left out; a file that cannot be read is named with ``{"unreadable"}``.

    Args:
        sync: have everything on disk first, where writes are durable.
    """
    sync = sync and atomic.is_durable()
    files: dict[str, dict[str, Any]] = {}
    above = len(f"{attempt_dir}/")
    for folder, subfolders, names in os.walk(f"{attempt_dir}"):
        links = [name for name in subfolders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
        for name in [*names, *links]:
            path = f"{folder}/{name}"
            relative = path[above:]
            if relative != SEAL:
                files[relative] = describe(path, sync=sync)
        if sync:
            atomic.sync_dir(folder)
    return dict(sorted(files.items()))


def describe(path: str, *, sync: bool = False) -> dict[str, Any]:
    """What the seal says of one file; see ``survey``."""
    try:
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return {"link": os.readlink(path)}  # noqa: PTH115 - hot path
        if not stat.S_ISREG(info.st_mode):
            return {"type": stat.filemode(info.st_mode)[0]}
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        return {"unreadable": error.strerror or type(error).__name__}
    digest, size = hashlib.sha256(), 0
    try:
        while chunk := os.read(handle, _CHUNK):
            digest.update(chunk)
            size += len(chunk)
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)
    return {"sha256": digest.hexdigest(), "size": size}
