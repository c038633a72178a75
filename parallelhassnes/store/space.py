"""Disk (bytes and inodes) and memory: whether there is enough to start anything, and what an error says that came of too little."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from parallelhassnes.formatting import counted

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOTHING_LEFT = 256 * 1024


class Floors(Protocol):
    """Below which nothing may start; 0 for none. The configuration has them."""

    min_free_disk_mb: int
    min_free_files: int
    min_free_memory_mb: int


def shortage(runs: Path, floors: Floors) -> str | None:
    """Tell why nothing may start now, in one line with what to do; None where there is enough of all."""
    for place in (runs, *_of_docker(runs)):
        disk = _disk(place)
        free, floor = disk.f_bavail * disk.f_frsize // 1_000_000, floors.min_free_disk_mb
        if free < floor:
            return f"disk: {free} MB free for {place}, the floor is {floor} MB; free some, or lower min_free_disk_mb"
        free, floor = disk.f_favail, floors.min_free_files
        if free < floor and disk.f_files:  # one that has no inodes counts none
            return f"disk: room for {counted(free, 'file')} for {place}, the floor is {floor}; delete some, or lower min_free_files"
    memory, floor = free_memory(), floors.min_free_memory_mb
    if memory is not None and memory // 1_000_000 < floor:
        return (
            f"memory: {memory // 1_000_000} MB available, the floor is {floor} MB; "
            "free some, or lower min_free_memory_mb"
        )
    return None


def docker_root(runs: Path) -> Path:
    """Return the file that names the folder in which Docker keeps images and containers, once a trial has run there."""
    return runs / "_system" / "docker_root"


def _of_docker(runs: Path) -> Iterator[Path]:
    """Yield Docker's own folder, where it is one of this host."""
    try:
        with open(docker_root(runs), "rb") as stream:  # noqa: PTH123 - hot path
            named = os.fsdecode(stream.read(4096)).strip()
    except OSError:
        return
    if os.path.isabs(named) and os.path.isdir(named):  # noqa: PTH117, PTH112 - hot path
        yield Path(named)


def free_disk(folder: Path) -> int:
    """Return the bytes that we may still write there, or where it would be made."""
    found = _disk(folder)
    return found.f_bavail * found.f_frsize


def _disk(folder: Path) -> os.statvfs_result:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.statvfs(folder)


def free_memory() -> int | None:
    """Return the bytes of memory that processes could still get without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", "rb") as stream:  # noqa: PTH123 - hot path
            for line in stream:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def is_full(error: OSError) -> bool:
    """Tell whether it came of a full disk, a quota or a limit on file sizes."""
    return error.errno in _FULL


def is_exhausted(folder: Path) -> bool:
    """Tell whether next to nothing can be written there now."""
    return free_disk(folder) < _NOTHING_LEFT


@contextmanager
def waiting_for_space(what: str) -> Iterator[None]:
    """Leave the block at a full disk with a line on stderr: what it does is done again by the next tick."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        line = f"{what}: {error.strerror} ({error.filename or 'the store'}); free some, the next tick goes on\n"
        try:
            os.write(2, line.encode("utf-8", "surrogateescape"))
        except OSError:  # stderr is a log on the same disk
            return
