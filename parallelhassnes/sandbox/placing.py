"""A folder's content put into a sandbox's root folder from outside, while the sandbox runs.

It saves the two processes that a transfer by a process inside takes. An agent may have put links in the way, or swap
folders meanwhile: every step is taken relative to an open folder and follows no link, and what is already there is
unlinked, never opened. Where that does not lead to the target, ``Elsewhere`` says so, and nothing has been written.
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = {errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}


class Elsewhere(Exception):
    """The target is not reached by plain folders of the root folder."""


def place(source: Path, root: Path, target: str, owner: int | None = None) -> None:
    """Put the content of ``source`` into ``target``, as files of ``owner`` (None: our own). Raises Elsewhere, OSError."""
    here = os.open(root, _OPEN)
    try:
        for part in Path(target).parts[1:]:
            here = _enter(here, part, owner)
        _fill(source, here, owner)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise Elsewhere(target) from error
        raise
    finally:
        os.close(here)


def _enter(folder: int, name: str, owner: int | None) -> int:
    """Open the folder ``name``, made if it is not there, and close the one that it is in."""
    if name == "..":
        raise Elsewhere(name)
    inner = _inner(folder, name, owner)
    os.close(folder)
    return inner


def _inner(folder: int, name: str, owner: int | None) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=folder)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, _OPEN, dir_fd=folder)
        _give(inner, owner)
        return inner


def _give(handle: int, owner: int | None) -> None:
    if owner is not None:
        os.chown(handle, owner, owner)


def _fill(source: Path, folder: int, owner: int | None) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                inner = _inner(folder, entry.name, owner)
                try:
                    _fill(Path(entry.path), inner, owner)
                    os.fchmod(inner, stat.S_IMODE(mode))
                finally:
                    os.close(inner)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=folder)
            if stat.S_ISLNK(mode):
                os.symlink(Path(entry.path).readlink(), entry.name, dir_fd=folder)
                if owner is not None:
                    os.chown(entry.name, owner, owner, dir_fd=folder, follow_symlinks=False)
            elif stat.S_ISREG(mode):
                handle = os.open(entry.name, _NEW, 0o600, dir_fd=folder)
                _give(handle, owner)
                _copy(entry.path, handle, mode)


def _copy(source: str, handle: int, mode: int) -> None:
    with os.fdopen(handle, "wb") as new, open(source, "rb") as old:  # noqa: PTH123
        shutil.copyfileobj(old, new, 2**20)
        os.fchmod(handle, stat.S_IMODE(mode))
