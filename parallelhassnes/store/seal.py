"""``seal.json``: the SHA-256 and size of every file of an attempt, written last.

It is the audit's anchor: after it nothing in the attempt's folder changes. Before it is written,
every file that it names is on disk (fsync), so a seal never speaks of data that a power cut took.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from parallelhassnes.store import atomic
from parallelhassnes.store.attempts import SEAL
from parallelhassnes.store.records import now_text

_CHUNK = 1 << 20


def seal(attempt_dir: Path) -> dict[str, Any]:
    """Write the seal of an attempt whose processes have all ended; return its document."""
    document = {"schema_version": 1, "sealed_at": now_text(), "files": survey(attempt_dir)}
    atomic.write_json(attempt_dir / SEAL, document)
    return document


def survey(attempt_dir: Path) -> dict[str, dict[str, Any]]:
    """Relative path → ``{"sha256", "size"}`` of a file, ``{"link"}`` of a symbolic link, ``{"type"}`` of anything else.

    The seal itself is left out; a file that cannot be read is named with ``{"unreadable"}``.
    """
    files: dict[str, dict[str, Any]] = {}
    for folder, subfolders, names in os.walk(attempt_dir):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
        for name in [*names, *links]:
            path = f"{folder}/{name}"
            relative = os.path.relpath(path, attempt_dir)
            if relative == SEAL:
                continue
            files[relative] = _describe(path)
        if atomic.is_durable():
            atomic.sync_dir(folder)
    return dict(sorted(files.items()))


def _describe(path: str) -> dict[str, Any]:
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
        if atomic.is_durable():
            os.fsync(handle)
    finally:
        os.close(handle)
    return {"sha256": digest.hexdigest(), "size": size}
