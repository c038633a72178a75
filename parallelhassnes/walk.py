"""Walking what a worker left: by descriptors, without recursion, never through a link.

A worker runs as the same user and makes what it likes below its folder: a thousand nested folders, paths longer than the
system takes, links, pipes, names that are no text. So nothing here makes a path of what is found: every entry is looked at,
opened, renamed and removed relative to the descriptor of the folder that it is in. One descriptor is open at a time, however
deep the walk is: the way up is ``..``, believed only where it leads to the very folder that the walk came from; where somebody
has moved a folder meanwhile, the walk goes down again from the top by names.

Files of attempts whose batch was packed are read from its archive (``packed``) by the same functions: where nothing is at their path.
"""

import contextlib
import errno
import itertools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from parallelhassnes import packed

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TOO_MANY = errno.EFBIG
_HANDLE_ONLY = getattr(os, "O_PATH", 0)
_MOVED = OSError(errno.ESTALE, "was moved while it was looked at")


class OutOfTime(Exception):
    """The time for a walk is over; the message says why. Raised by what a caller has called now and then."""


class Entry:
    """Something below the folder that is walked; valid until the walk goes on."""

    __slots__ = ("above", "depth", "error", "folder", "info", "is_skipped", "leaving", "name")

    def __init__(self, folder: int, name: str, above: "Entry | None", depth: int, info: os.stat_result) -> None:
        self.folder = folder
        """Descriptor of the folder that it is in."""
        self.name = name
        """As Python spells the bytes of a name (``os.fsdecode``)."""
        self.above = above
        """The folder that it is in; None where that is the one that is walked."""
        self.depth = depth
        """1 for what is in that folder itself."""
        self.info = info
        """As ``lstat`` says."""
        self.leaving = False
        """A folder is met twice: before what is in it, and after that (``leaving``)."""
        self.is_skipped = False
        self.error: OSError | None = None
        """When leaving a folder: why not all that is in it was met."""

    @property
    def path(self) -> str:
        """Relative to the folder that is walked; made when it is asked for, since it can be long."""
        names, entry = [self.name], self.above
        while entry is not None:
            names.append(entry.name)
            entry = entry.above
        return "/".join(reversed(names))

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.info.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.info.st_mode)

    def skip(self) -> None:
        """Do not go into this folder, nor meet it when it is left."""
        self.is_skipped = True

    def open(self, flags: int = FILE) -> int:
        """Return a descriptor of the regular file.

        Raises:
            OSError: it cannot be opened, or is no regular file any more.
        """
        return open_file(self.name, self.folder, flags)


class _Level:
    """A folder that the walk is in."""

    __slots__ = ("entry", "left", "place")

    def __init__(self, entry: Entry | None, place: tuple[int, int]) -> None:
        self.entry, self.place = entry, place
        self.left: list[str] = []


def walk(top: int, room: Callable[[], int] | None = None) -> Iterator[Entry]:
    """Yield everything below the folder: of each folder its files first, then the folders in it, last name first.

    A folder that lies on another file system is met, and not gone into.

    Args:
        top: descriptor of the folder; it stays the caller's.
        room: says how many entries a folder may have to be gone into; one that has more is met as left, with ``TOO_MANY``.
    """
    here, device = os.dup(top), os.fstat(top).st_dev
    try:
        levels = [_Level(None, _place(here))]
        _list(here, levels[0], room)
        while True:
            level = levels[-1]
            if level.left:
                entry = _look(here, level, level.left.pop(), len(levels))
                if entry is None:
                    continue
                yield entry
                if entry.is_skipped or not entry.is_folder:
                    continue
                below = _enter(entry, device, room)
                if isinstance(below, OSError):
                    yield _left(entry, here, below)
                    continue
                os.close(here)
                here, level = below
                levels.append(level)
                continue
            levels.pop()
            if not levels:
                return
            here, lost = _climb(here, top, levels)
            left = lost or level
            if left.entry is not None:
                yield _left(left.entry, here, _MOVED if lost else None)
    finally:
        os.close(here)


def _place(handle: int) -> tuple[int, int]:
    info = os.fstat(handle)
    return info.st_dev, info.st_ino


def _look(here: int, level: _Level, name: str, depth: int) -> Entry | None:
    try:
        info = os.stat(name, dir_fd=here, follow_symlinks=False)
    except OSError:  # gone while we walked
        return None
    return Entry(here, name, level.entry, depth, info)


def _enter(entry: Entry, device: int, room: Callable[[], int] | None) -> tuple[int, _Level] | OSError:
    try:
        handle = os.open(entry.name, FOLDER, dir_fd=entry.folder)
    except OSError as error:
        return error
    try:
        place = _place(handle)
        if place[0] != device:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        level = _Level(entry, place)
        _list(handle, level, room)
    except OSError as error:
        os.close(handle)
        return error
    return handle, level


def _list(handle: int, level: _Level, room: Callable[[], int] | None) -> None:
    most = None if room is None else max(0, room())
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(handle) as entries:
        for entry in itertools.islice(entries, None if most is None else most + 1):
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    if most is not None and len(files) + len(folders) > most:
        raise OSError(TOO_MANY, "it has too many entries")
    level.left = sorted(folders) + sorted(files)  # taken from the end


def _left(entry: Entry, folder: int, error: OSError | None) -> Entry:
    entry.folder, entry.leaving, entry.error = folder, True, error
    return entry


def _climb(here: int, top: int, levels: list[_Level]) -> tuple[int, _Level | None]:
    """Go up to the last of the levels, or to the nearest that is still where it was; the one below that is lost."""
    with contextlib.suppress(OSError):  # closed to us, or gone
        above = os.open("..", FOLDER, dir_fd=here)
        if _place(above) == levels[-1].place:
            os.close(here)
            return above, None
        os.close(above)
    os.close(here)
    found = os.dup(top)
    for depth, level in enumerate(levels[1:], 1):
        below = -1
        with contextlib.suppress(OSError):
            below = os.open(level.entry.name if level.entry else ".", FOLDER, dir_fd=found)
        if below < 0 or _place(below) != level.place:
            if below >= 0:
                os.close(below)
            del levels[depth:]
            return found, level
        os.close(found)
        found = below
    return found, None


# --- single entries ---------------------------------------------------------------------------------------------


def open_folder(path: Path | str) -> int:
    """Return a descriptor of a folder, never of a link; raises OSError."""
    return os.open(path, FOLDER)


def open_file(name: str, folder: int | None = None, flags: int = FILE) -> int:
    """Return a descriptor of a regular file: a link is not followed, a pipe not waited for, a device not touched.

    Raises:
        OSError: there is none.
    """
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        if folder is not None:
            raise
        return packed.open_file(name)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file", name)
    handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no regular file", name)
    return handle


def open_below(top: Path | str, relative: str) -> int:
    """Return a descriptor of a regular file below a folder; no part of the way down may be a link or ``..``.

    Raises:
        OSError: there is no such file, or it is something else.
    """
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OSError(errno.EINVAL, "is not the path of a file", relative)
    try:
        handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return packed.open_file(f"{top}/{relative}")
    try:
        for part in parts[:-1]:
            below = os.open(part, FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
        return open_file(parts[-1], handle)
    finally:
        os.close(handle)


MOST_LISTED = 100_000


def files(top: Path, below: str = "", most: int = MOST_LISTED) -> list[tuple[str, int]]:
    """Return regular files below a folder, by path relative to ``top``, each with its size; none behind links.

    Args:
        below: the part of ``top`` that is wanted; no part of the way to it may be a link.
        most: how many entries are looked at.
    """
    found: list[tuple[str, int]] = []
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        try:
            handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return packed.files(top, below)[:most]
        opened.callback(os.close, handle)
        for part in below.split("/") if below else ():
            handle = os.open(part, FOLDER, dir_fd=handle)
            opened.callback(os.close, handle)
        for entry in itertools.islice(walk(handle, lambda: most), 2 * most):
            if entry.is_file:
                path = f"{below}/{entry.path}" if below else entry.path
                found.append((path, entry.info.st_size))
    return sorted(found)


def kind(path: Path | str) -> str:
    """Tell what is at a path of the store, packed or not: ``file``, ``folder``, ``link`` or ``other``; empty for nothing."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        found = packed.member(path)
        if found is None:
            return ""
        return "file" if found.isreg() else "folder" if found.isdir() else "link" if found.issym() else "other"
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other"


def set_mode(folder: int | None, name: str, change: Callable[[int], int]) -> None:
    """Give a file or folder other permissions, whatever is put in its place meanwhile; a link has none.

    Args:
        change: from the permissions that it has to those that it is to have.

    Raises:
        OSError: it is somebody else's, or gone.
    """
    if not _HANDLE_ONLY or sys.platform != "linux":
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            mode = change(stat.S_IMODE(info.st_mode))
            os.chmod(name, mode, dir_fd=folder, follow_symlinks=False)
        return
    handle = os.open(name, _HANDLE_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISLNK(mode) and (wanted := change(stat.S_IMODE(mode))) != stat.S_IMODE(mode):
            os.chmod(f"/proc/self/fd/{handle}", wanted)  # noqa: PTH101 - fchmod refuses such a descriptor
    finally:
        os.close(handle)


def data_of(handle: int) -> Iterator[tuple[int, int]]:
    """From where to where an open file has data; what is between is a hole, and reads as zeros."""
    info = os.fstat(handle)
    if info.st_blocks * 512 >= info.st_size or sys.platform != "linux":
        yield 0, info.st_size
        return
    at = 0
    while at < info.st_size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
            end = os.lseek(handle, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a file system that does not tell
                yield at, info.st_size
            return
        yield start, end
        at = end


def remove(folder: int, name: str, check: Callable[[], None] = lambda: None) -> None:
    """Remove a file, or a folder with everything in it, opening to ourselves what is closed on the way.

    Args:
        check: is called for every entry, and ends the removal by what it raises.

    Raises:
        OSError: something of it cannot be removed.
    """
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    with contextlib.suppress(OSError):
        set_mode(folder, name, lambda mode: mode | stat.S_IRWXU)
    top = os.open(name, FOLDER, dir_fd=folder)
    failed: OSError | None = None
    try:
        for entry in walk(top):
            check()
            try:
                if not entry.is_folder:
                    os.unlink(entry.name, dir_fd=entry.folder)
                elif entry.leaving:
                    os.rmdir(entry.name, dir_fd=entry.folder)
                elif stat.S_IMODE(entry.info.st_mode) & stat.S_IRWXU != stat.S_IRWXU:
                    set_mode(entry.folder, entry.name, lambda mode: mode | stat.S_IRWXU)
            except OSError as error:
                failed = failed or entry.error or error
    finally:
        os.close(top)
    if failed is not None:
        raise failed
    os.rmdir(name, dir_fd=folder)


def put_away(folder: int, name: str, place: Path | None, patience_sec: float = 0.0) -> None:
    """Remove something; what takes longer than that is moved, in one act, to where ticks remove it.

    Args:
        place: a name that nothing has yet; None removes it here, however long that takes.

    Raises:
        OSError: it can neither be moved nor removed.
    """
    end = time.monotonic() + patience_sec

    def check() -> None:
        if place is not None and time.monotonic() > end:
            raise OutOfTime

    with contextlib.suppress(OutOfTime):
        if patience_sec or place is None:
            remove(folder, name, check)
            return
    with contextlib.suppress(OSError):
        set_mode(folder, name, lambda mode: mode | stat.S_IRWXU)
    try:
        os.rename(name, place or name, src_dir_fd=folder)
    except OSError:
        remove(folder, name)


def remove_tree(path: Path | str, check: Callable[[], None] = lambda: None) -> None:
    """As ``remove``; nothing where there is nothing.

    Raises:
        OSError: something of it cannot be removed.
    """
    above, name = os.path.split(os.fspath(path))
    try:
        folder = os.open(above or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        remove(folder, name, check)
    except FileNotFoundError:
        return
    finally:
        os.close(folder)
