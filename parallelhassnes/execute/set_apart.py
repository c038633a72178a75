"""Setting apart an attempt that processes on a silent host may still write into: what counts from now on is a copy.

    attempts/<name>             being copied to _system/tmp/…
    fenced/<name>               by rename: whoever has a file of it open writes here, and whoever goes by its path finds nothing
    attempts/<one second later> the copy, by rename: the same run_id, another name

A crash between the two renames leaves the step without that attempt; doing it again copies from ``fenced/``. A copy whose end another
host had begun to write, and that is silent by now, is set apart in the same way. The copy is by
descriptors and never through a link. Nothing but files, folders and links is copied, and no deeper than ``DEEPEST``.
"""

import contextlib
import errno
import os
from datetime import UTC, datetime
from pathlib import Path

from parallelhassnes import walk
from parallelhassnes.names import attempt_name, begun, run_id_of
from parallelhassnes.store import atomic
from parallelhassnes.store.attempts import SEAL

DEEPEST = 128
_CHUNK = 1 << 20
_NOT_HERE = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def set_apart(attempt_dir: Path) -> str:
    """Put a copy in the place of an attempt; the copy's name, or its own where it is sealed."""
    step_dir, name = attempt_dir.parents[1], attempt_dir.name
    made = name_of_copy(name)
    target, aside = attempt_dir.with_name(made), step_dir / "fenced" / name
    if target.exists():  # done before
        return made
    source = attempt_dir if attempt_dir.exists() else aside
    fresh = atomic.temp_path(attempt_dir.parent)
    _copy(source, fresh)
    if source is attempt_dir:
        if (attempt_dir / SEAL).exists():  # its own host has ended it meanwhile: what is sealed stays
            walk.remove_tree(fresh)
            return name
        aside.parent.mkdir(exist_ok=True)
        attempt_dir.rename(aside)
        atomic.sync_dir(aside.parent)
    fresh.rename(target)
    atomic.sync_dir(target.parent)
    return made


def name_of_copy(attempt: str) -> str:
    """Tell what an attempt is called once it is set apart."""
    return attempt_name(run_id_of(attempt), datetime.fromtimestamp(begun(attempt).timestamp() + 1, UTC))


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    top, folders = walk.open_folder(source), [os.open(target, walk.FOLDER)]
    try:
        for entry in walk.walk(top):
            if entry.leaving:
                os.close(folders.pop())
            elif entry.is_folder:
                if entry.depth > DEEPEST:
                    entry.skip()
                    continue
                os.mkdir(entry.name, 0o700, dir_fd=folders[-1])
                folders.append(os.open(entry.name, walk.FOLDER, dir_fd=folders[-1]))
            elif entry.is_link:
                os.symlink(os.readlink(entry.name, dir_fd=entry.folder), entry.name, dir_fd=folders[-1])
            elif entry.is_file:
                with contextlib.suppress(OSError):  # closed to us, or gone: the seal lists what there is
                    _copy_file(entry, folders[-1])
    finally:
        for handle in (top, *folders):
            os.close(handle)


def _copy_file(entry: walk.Entry, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    old = entry.open()
    try:
        new = os.open(entry.name, flags, 0o600, dir_fd=folder)
        try:
            for start, end in walk.data_of(old):
                _copy_range(old, new, start, end)
            os.ftruncate(new, entry.info.st_size)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_range(old: int, new: int, at: int, end: int) -> None:
    """Copy these bytes, shared by both files where the file system can."""
    while at < end:
        try:
            copied = os.copy_file_range(old, new, min(_CHUNK, end - at), at, at)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            copied = os.pwrite(new, os.pread(old, min(_CHUNK, end - at), at), at)
        if not copied:
            return
        at += copied
