"""Tell one version of a file from the next by a look: what is kept of a file counts for as long as its stamp stays the same.

A file that took the place of another has an inode of its own, and one that was written in place has another time of change (ctime). Size and
time of writing do not tell alone: a copy, an editor or ``touch -r`` sets that time as it likes, and nobody sets the time of change.
"""

import os

type FileStamp = tuple[int, int, int, int]
"""Time of writing and time of change in nanoseconds, size in bytes, inode."""


def of(info: os.stat_result) -> FileStamp:
    """Return the stamp of a file that was looked at."""
    return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino


def at(path: str | os.PathLike[str]) -> FileStamp | None:
    """Return the stamp of the file at a path; None where there is none.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        return of(os.stat(path))  # noqa: PTH116 - hot path
    except (FileNotFoundError, NotADirectoryError):
        return None


def seen(path: str | os.PathLike[str]) -> FileStamp | None:
    """As ``at``; None also where it cannot be looked at, which whoever reads the file is told."""
    try:
        return at(path)
    except OSError:
        return None
