"""``seal.json``: the SHA-256 and size of every file of an attempt, and the Merkle root over them; written last.

It is the audit's anchor: after it nothing in the attempt's folder changes, and its own hash is in the
ledger's line of the attempt's end. Before it is written, every file that it names is on disk (fsync), so a
seal never speaks of data that a power cut took; after it, the files lose their write permission. The attempt's own
folder is synced once, behind the seal: file systems keep the order of renames, so a seal is not there without the names before it.
A log in which nothing was ever written has nothing to sync.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from parallelhassnes import packed, walk
from parallelhassnes.store import atomic
from parallelhassnes.store.attempts import SEAL
from parallelhassnes.store.evidence import merkle
from parallelhassnes.store.records import now_text

if TYPE_CHECKING:
    import tarfile

_CHUNK = 1 << 20
_LARGE_HOLES = 64 << 20
"""Bytes of holes from which a file is hashed without them."""


def seal(
    attempt_dir: Path,
    redacted: Mapping[str, Mapping[str, int]],
    left_out: Sequence[Mapping[str, Any]] = (),
    not_looked_for: Mapping[str, str] = MappingProxyType({}),
    check: Callable[[], None] = lambda: None,
    imported: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write the seal of an attempt whose processes have all ended; return its document.

    Args:
        redacted: relative path → what was taken out of that file → how often.
        left_out: ``path`` and ``why`` of what the attempt left and is not kept, or could not be looked at.
        not_looked_for: name → why its value was not taken out.
        check: is called now and then, and raises ``walk.OutOfTime``; files that were not read by then are named
            with ``{"unread"}``.
        imported: of an attempt of another program: where from, and the hashes of its files there.
    """
    document: dict[str, Any] = {
        "schema_version": 1,
        "sealed_at": now_text(),
        "files": survey(attempt_dir, check=check, protect=True),
    }
    document["merkle_root"] = merkle.root(document["files"])
    if imported:
        document["imported"] = dict(imported)
    if redacted:
        document["redacted"] = redacted
    if left_out:
        document["left_out"] = left_out
    if not_looked_for:
        document["not_looked_for"] = not_looked_for
    atomic.write_json(f"{attempt_dir}/{SEAL}", document)
    walk.set_mode(None, f"{attempt_dir}/{SEAL}", _protected)
    return document


def _protected(mode: int) -> int:
    """Without the permission to write, and without those of other users."""
    return mode & (0o500 if is_private() else 0o555)


class _Privacy:
    on = True


def set_private(on: bool) -> None:
    """Tell whether other users are kept out, for this process and those it forks."""
    _Privacy.on = on


def is_private() -> bool:
    return _Privacy.on


def recorded(attempt_dir: Path) -> dict[str, str]:
    """Tell what the ledger's line of an attempt's end says of its seal: the hash of ``seal.json``, and the Merkle root.

    A seal of an earlier version has no root in it; it follows from its files.
    """
    data = atomic.read_bytes(f"{attempt_dir}/{SEAL}")
    found = {"seal_sha256": hashlib.sha256(data).hexdigest()}
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        document = json.loads(data)
        files: Any = document.get("files") or {}
        found["merkle_root"] = document.get("merkle_root") or merkle.root(files)
    return found


def job_line(job_id: str, content: bytes) -> bytes:
    """Tell what ``jobs_sha256`` of a batch's ledger is made over, for one ``job.json``, in the table's order."""
    return f"{job_id} {hashlib.sha256(content).hexdigest()}\n".encode()


def survey(
    attempt_dir: Path,
    *,
    sync: bool = True,
    like: Mapping[str, Any] = MappingProxyType({}),
    check: Callable[[], None] = lambda: None,
    protect: bool = False,
) -> dict[str, dict[str, Any]]:
    """Relative path → ``{"sha256", "size"}`` of a file, ``{"link"}`` of a symbolic link, ``{"type"}`` of anything else.

    A file with large holes has ``{"sparse_sha256", "size"}`` (see ``_sparse_digest``). The seal itself is left out; a file
    or folder that cannot be read is named with ``{"unreadable"}``, one for which there was no time with ``{"unread"}``.

    Args:
        sync: have everything on disk first, where writes are durable, but for the names in the folder itself.
        like: what an earlier survey said: what it did not read is not read, holes are seen as it saw them.
        protect: take the permission to write from files that nobody else has by another name.
    """
    sync = sync and atomic.is_durable()
    files: dict[str, dict[str, Any]] = {}
    shared: dict[tuple[int, int], list[str]] = {}
    late: list[str] = []
    try:
        top = walk.open_folder(attempt_dir)
    except FileNotFoundError:
        found = packed.find(attempt_dir)
        if found is None:
            raise
        return survey_packed(*found, like=like)
    try:
        for entry in walk.walk(top):
            if not entry.is_folder:
                path = entry.path
                if path == SEAL:
                    continue
                files[path] = _describe(entry, like.get(path, {}), sync, check, late)
                if protect and entry.is_file and entry.info.st_nlink == 1:
                    with contextlib.suppress(OSError):  # another user's: the hash must do
                        walk.set_mode(entry.folder, entry.name, _protected)
                elif protect and entry.is_file:
                    shared.setdefault((entry.info.st_dev, entry.info.st_ino), []).append(path)
                    _protect_shared(entry, shared)
            elif entry.leaving:
                if entry.error is not None:
                    files[entry.path] = {"type": "d", "unreadable": entry.error.strerror}
                elif sync:
                    _sync_folder(entry)
    finally:
        os.close(top)
    return dict(sorted(files.items()))


def survey_packed(pack: packed.Pack, place: str, *, like: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """As ``survey``, of an attempt in an archive; in one go, and never more than a piece of a file in memory.

    Raises:
        OSError: the archive cannot be read.
    """
    return survey_members(pack.read(place), place, like=like)


def survey_members(
    members: "Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]]", place: str, *, like: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """As ``survey``, of members of a tar below ``place``, read once in their order."""
    files: dict[str, dict[str, Any]] = {}
    for info, content in members:
        path = info.name[len(place) + 1 :]
        if info.isdir() or path == SEAL:
            continue
        then = like.get(path, {})
        if info.issym():
            files[path] = {"link": info.linkname}
        elif content is None:
            files[path] = {"type": "p"}
        elif "unread" in then:
            files[path] = {"unread": then["unread"], "size": info.size}
        elif "sparse_sha256" in then:
            files[path] = {"sparse_sha256": _sparse_digest_of(content), "size": info.size}
        else:
            files[path] = {"sha256": hashlib.file_digest(content, "sha256").hexdigest(), "size": info.size}  # type: ignore[arg-type]
    return dict(sorted(files.items()))


def _sparse_digest_of(content: IO[bytes]) -> str:
    """Return the same digest of a file that is read from its beginning."""
    digest, number = hashlib.sha256(), 0
    while block := content.read(_CHUNK):
        if block.strip(b"\0"):
            digest.update(number.to_bytes(8, "big") + block)
        number += 1
    return digest.hexdigest()


def _protect_shared(entry: walk.Entry, shared: Mapping[tuple[int, int], list[str]]) -> None:
    """Protect a file with several names once all of them have been met: it is not linked from elsewhere."""
    if len(shared[entry.info.st_dev, entry.info.st_ino]) == entry.info.st_nlink:
        with contextlib.suppress(OSError):
            walk.set_mode(entry.folder, entry.name, _protected)


def _sync_folder(entry: walk.Entry) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(entry.name, walk.FOLDER, dir_fd=entry.folder)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _describe(
    entry: walk.Entry, then: Mapping[str, Any], sync: bool, check: Callable[[], None], late: list[str]
) -> dict[str, Any]:
    """Tell what the seal says of one file; see ``survey``. ``late`` gets why there is no time any more."""
    try:
        if entry.is_link:
            return {"link": os.readlink(entry.name, dir_fd=entry.folder)}
        if not entry.is_file:
            return {"type": stat.filemode(entry.info.st_mode)[0]}
        if late or "unread" in then:
            return {"unread": late[0] if late else then["unread"], "size": entry.info.st_size}
        handle = entry.open()
    except OSError as error:
        return {"unreadable": error.strerror or type(error).__name__}
    try:
        info = os.fstat(handle)
        sparse = "sparse_sha256" in then if then else _has_large_holes(handle, info.st_size)
        how = _sparse_digest if sparse else _digest
        digest, size = how(handle, check)
        if sync and not _is_as_made(info):
            os.fsync(handle)
    except OSError as error:
        return {"unreadable": error.strerror or type(error).__name__}
    except walk.OutOfTime as error:
        late.append(str(error))
        return {"unread": str(error), "size": entry.info.st_size}
    finally:
        os.close(handle)
    return {"sparse_sha256" if sparse else "sha256": digest, "size": size}


def _is_as_made(info: os.stat_result) -> bool:
    """Tell whether a file is empty because nobody has written to it or cut it: its times are still those of its making.

    It decides what is waited for, and nothing of what the seal says. A file that was cut and then touched looks alike: a file system that
    keeps the order of its changes, as ext4 and XFS do, has the cut on disk with the next file that is waited for.
    """
    return info.st_size == 0 and info.st_mtime_ns == info.st_atime_ns


def _digest(handle: int, check: Callable[[], None]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(handle, _CHUNK):
        digest.update(chunk)
        size += len(chunk)
        check()
    return digest.hexdigest(), size


def _has_large_holes(handle: int, size: int) -> bool:
    if size - os.fstat(handle).st_blocks * 512 < _LARGE_HOLES:
        return False
    return size - sum(end - start for start, end in walk.data_of(handle)) >= _LARGE_HOLES


def _sparse_digest(handle: int, check: Callable[[], None]) -> tuple[str, int]:
    """Return SHA-256 over each MiB of the file that is not all zeros, its number (8 bytes, big endian) before it.

    It is the same wherever the file system keeps the holes, and costs only what is in the file.
    """
    digest, seen = hashlib.sha256(), -1
    for start, end in walk.data_of(handle):
        for number in range(max(seen + 1, start // _CHUNK), -(-end // _CHUNK)):
            block = os.pread(handle, _CHUNK, number * _CHUNK)
            if block.strip(b"\0"):
                digest.update(number.to_bytes(8, "big") + block)
            seen = number
            check()
    return digest.hexdigest(), os.fstat(handle).st_size
