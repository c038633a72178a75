"""The files of an attempt that are ours, in a folder in which a worker may do as it likes.

A worker runs as the same user and knows its folder: it can remove or replace our records, put something of the same name there
that is no file, take every permission away, leave files for ``publish/`` that would go into its job's folder, or remove the folder
altogether. None of that may keep an attempt from being ended and sealed, or become something that we say.
"""

import contextlib
import errno
import os
import stat
import time
from pathlib import Path

from parallelhassnes import walk
from parallelhassnes.execute import logs
from parallelhassnes.steps import safe_read
from parallelhassnes.store import atomic, attempts, batches, space

_BATCH = 4
"""Which of an attempt's parents is its batch."""
_OPENING_SEC = 10.0
_REMOVING_SEC = 2.0
_OPENED = 1_000_000
"""Entries of a folder beyond which it is not opened whole."""
_RECORDS = (attempts.META, attempts.STATE, attempts.FINAL, attempts.FINAL_TEXT)


def is_gone(attempt_dir: Path) -> bool:
    """Tell whether the attempt's folder is not there any more; a link in its place is not it."""
    try:
        return not stat.S_ISDIR(attempt_dir.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # the worker has closed a folder above it, or the file server does not answer: not seen is not gone
        return False


def put_back(attempt_dir: Path, job_dir: Path, meta: bytes | None) -> bool:
    """Make the folder of an attempt again that is gone, to write its end into; False where its job is gone, too."""
    if meta is None or not (job_dir / batches.JOB).is_file():
        return False
    attempt_dir.unlink(missing_ok=True)
    attempt_dir.mkdir(parents=True, exist_ok=True)
    attempts.put_back_meta(attempt_dir, meta)
    return True


def take_back(attempt_dir: Path) -> None:
    """Have us read and write everything again, and nothing but files where our records go."""
    _open_up(attempt_dir)
    for name in _RECORDS:
        _clear(attempt_dir, name, files_too=False)


def take_over_from_worker(attempt_dir: Path, meta: bytes | None) -> None:
    """As ``take_back``, once the worker has ended: what it left of a seal or of documents to publish goes, ``meta.json`` is as it was.

    Args:
        meta: the content of ``meta.json`` before the worker began; None where nobody knows it any more.
    """
    take_back(attempt_dir)
    for name in (attempts.SEAL, attempts.PUBLISH):
        _clear(attempt_dir, name, files_too=True)
    path = attempt_dir / attempts.META
    if meta is not None and safe_read.read_bytes(path, len(meta) + 1) != meta:
        logs.say(f"{path.name} was not as it had been written; it is put back")
        attempts.put_back_meta(attempt_dir, meta)


def reopen(file: Path, top: Path) -> None:
    """Give ourselves back the permissions that a worker has taken from a file and from the folders from ``top`` down to it."""
    allow(None, str(top))
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.fspath(file).removeprefix(f"{top}/").split("/"):
            allow(handle, name)
            try:
                below = os.open(name, walk.FOLDER, dir_fd=handle)
            except OSError:  # the file itself, or what is no folder of ours
                return
            os.close(handle)
            handle = below
    finally:
        os.close(handle)


def open_log(path: Path) -> int:
    """Return a descriptor that appends to a log of ours; what a worker has put in its place, or closed to us, goes or opens.

    Raises:
        OSError: there is no space, or it cannot be had at all.
    """
    try:
        return _append(path)
    except OSError as error:
        if space.is_full(error):
            raise
    allow(None, str(path.parent))
    allow(None, str(path), stat.S_IRUSR | stat.S_IWUSR)
    _remove(path.parent, path.name, files_too=False)  # unsaid: our standard output is still the tick's
    return _append(path)


def _append(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileExistsError(errno.EEXIST, "no file of ours", str(path))
    os.set_blocking(handle, True)
    return handle


def _open_up(attempt_dir: Path) -> None:
    """Give ourselves back the permissions that the worker has taken from its files and folders, and those that they are in.

    For some seconds at most: what it has closed besides is opened when it is looked at for the seal.
    """
    with contextlib.suppress(OSError):
        reopen(attempt_dir, attempt_dir.parents[_BATCH])
        end = time.monotonic() + _OPENING_SEC
        top = walk.open_folder(attempt_dir)
        try:
            for entry in walk.walk(top, lambda: _OPENED):
                if time.monotonic() > end:
                    break
                if not entry.leaving:
                    allow(entry.folder, entry.name, info=entry.info)
        finally:
            os.close(top)


def allow(folder: int | None, name: str, of_file: int = stat.S_IRUSR, info: os.stat_result | None = None) -> None:
    """Give ourselves a folder whole, and these permissions of a file; never what a link leads to.

    Args:
        folder: descriptor of the folder that it is in.
    """

    def more(mode: int) -> int:
        return mode | (stat.S_IRWXU if is_folder else of_file)

    with contextlib.suppress(OSError):  # another user's: the seal names it as unreadable
        info = info or os.stat(name, dir_fd=folder, follow_symlinks=False)
        is_folder = stat.S_ISDIR(info.st_mode)
        if not stat.S_ISLNK(info.st_mode) and more(info.st_mode) != info.st_mode:
            walk.set_mode(folder, name, more)


def _clear(folder: Path, name: str, *, files_too: bool) -> None:
    """As ``_remove``, and say so."""
    if _remove(folder, name, files_too=files_too):
        logs.say(f"removed {name}, which the worker had left there")


def _remove(folder: Path, name: str, *, files_too: bool) -> bool:
    """Remove what is in the place of one of our files; whether there was anything."""
    try:
        mode = os.lstat(f"{folder}/{name}").st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode) and not files_too:
        return False
    handle = walk.open_folder(folder)
    try:
        walk.put_away(handle, name, atomic.to_be_swept(), _REMOVING_SEC)
    finally:
        os.close(handle)
    return True
