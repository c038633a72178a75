"""Bringing the files of an archive back."""

import contextlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Self

from parallelhassnes import packed, places, walk
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.archives.packing import chunks
from parallelhassnes.store.evidence import removals

_DEEPEST = 200
"""Folders within each other that are packed: so many are open at once when they come back."""


def adopt(source: Path, step_dir: Path) -> Path:
    """As ``attempts.adopt``, of an attempt that may be packed: then its files are copies."""
    found = None if source.is_dir() else packed.find(source)
    target = step_dir / places.ATTEMPTS / source.name
    if found is None or target.exists():
        buried = removals.of_attempt(source) is not None
        gone = (
            (lambda folder, names: [n for n in names if Path(folder) == source and not removals.stays(n)])
            if buried
            else None
        )
        return attempts.adopt(source, step_dir, without=gone)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = atomic.temp_path(target.parent)
    fresh.mkdir()
    try:
        extract(found[0], fresh, [found[1]])
        (fresh / found[1]).rename(target)
    finally:
        walk.remove_tree(fresh)
    atomic.sync_dir(target.parent)
    return target


def extract(pack: packed.Pack, target: Path, keys: Iterable[str] = ()) -> None:
    """Bring files back below an empty folder: contents, permissions, times, links; owners, too, as root.

    Args:
        keys: sections that are wanted; none: all.

    Raises:
        OSError: the archive, or a file of it, cannot be read or made.
    """
    late: list[tuple[str, tarfile.TarInfo]] = []
    for key in tuple(keys) or (*pack.rest, *pack.attempts):
        above = key.rpartition("/")[0]
        (target / above).mkdir(parents=True, exist_ok=True)
        with _Folders(target / above, above) as folders:
            for info, content in pack.read(key):
                folders.make(info, content)
                if info.isdir() and key in pack.rest:
                    late.append((info.name, info))
    for name, info in reversed(late):  # attempts have come into these since
        handle = walk.open_folder(target / name)
        try:
            _finish(handle, info)
        finally:
            os.close(handle)


def extract_members(members: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]], target: Path) -> None:
    """Bring members of an archive from elsewhere back below an empty folder, as files of this user that no other's right to run comes with.

    Raises:
        OSError: one of them cannot be made, or is not where an archive of ours has it.
    """
    with _Folders(target, "", ours=True) as folders:
        for info, content in members:
            folders.make(info, content)


class _Folders:
    """Makes members below a folder, each by the descriptor of the folder that it is in: no link is ever followed."""

    def __init__(self, top: Path, place: str, *, ours: bool = False) -> None:
        """Begin in a folder.

        Args:
            ours: whatever is made is this user's, and runs as nobody else.
        """
        self._open: list[tuple[str, int, tarfile.TarInfo | None]] = [(place, walk.open_folder(top), None)]
        self._ours = ours

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._leave()

    def _leave(self) -> None:
        _, handle, info = self._open.pop()
        try:
            if info is not None:
                _finish(handle, info)
        finally:
            os.close(handle)

    def _taken(self, info: tarfile.TarInfo) -> tarfile.TarInfo:
        if self._ours:
            info.uid, info.gid, info.mode = os.geteuid(), os.getegid(), info.mode & 0o777
        return info

    def make(self, info: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        info = self._taken(info)
        above, name = os.path.split(info.name)
        while self._open[-1][0] != above and len(self._open) > 1:
            self._leave()
        if self._open[-1][0] != above or name in ("", ".", ".."):
            raise OSError(f"{info.name}: is not where an archive of ours has it")
        here = self._open[-1][1]
        if info.isdir():
            os.mkdir(name, 0o700, dir_fd=here)
            self._open.append((info.name, os.open(name, walk.FOLDER, dir_fd=here), info))
        elif content is not None:
            handle = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=here
            )
            try:
                _fill(handle, content, info.size)
                _finish(handle, info)
                if atomic.is_durable():
                    os.fsync(handle)
            finally:
                os.close(handle)
        else:
            if info.issym():
                os.symlink(info.linkname, name, dir_fd=here)
            else:
                os.mkfifo(name, 0o600, dir_fd=here)
                os.chmod(name, info.mode & 0o7777, dir_fd=here)  # whatever the umask takes away
            if os.geteuid() == 0:
                os.chown(name, info.uid, info.gid, dir_fd=here, follow_symlinks=False)
            os.utime(name, ns=(packed.mtime_ns(info),) * 2, dir_fd=here, follow_symlinks=False)


def _fill(handle: int, content: IO[bytes], size: int) -> None:
    """Write a file; blocks of zeros stay holes."""
    for data in chunks(content):
        if not data.strip(b"\0"):
            os.lseek(handle, len(data), os.SEEK_CUR)
            continue
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    os.ftruncate(handle, size)


def _finish(handle: int, info: tarfile.TarInfo) -> None:
    if os.geteuid() == 0:
        os.fchown(handle, info.uid, info.gid)
    os.fchmod(handle, info.mode & 0o7777)
    os.utime(handle, ns=(packed.mtime_ns(info),) * 2)
    if info.isdir() and atomic.is_durable():
        with contextlib.suppress(OSError):
            os.fsync(handle)
