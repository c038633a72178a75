"""Whom the files of a sandbox belong to on the host.

Changing the owner of a file, also to the one that it has, makes the kernel take set-user-id, set-group-id and file
capabilities from it, whatever else names the same file.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from parallelhassnes import walk


def give(folder: Path, user: int, group: int | None = None) -> None:
    """Have everything at and below a folder belong to a user; no link is followed, what cannot be given stays.

    Args:
        group: the number of the user where it is not given.
    """
    to = user if group is None else group
    for entry in everything(folder, lambda handle: os.chown(handle, user, to)):
        with contextlib.suppress(OSError):
            os.chown(entry.name, user, to, dir_fd=entry.folder, follow_symlinks=False)


def everything(folder: Path, first: Callable[[int], None] = lambda _: None) -> Iterator[walk.Entry]:
    """Each entry below a folder once, folders before what is in them; those that are closed to us are opened.

    Args:
        first: is called with the folder's own descriptor.
    """
    try:
        top = walk.open_folder(folder)
    except OSError:  # there is none
        return
    try:
        with contextlib.suppress(OSError):
            first(top)
        for entry in walk.walk(top):
            if entry.leaving:
                continue
            yield entry
            if entry.is_folder and entry.info.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                with contextlib.suppress(OSError):
                    walk.set_mode(entry.folder, entry.name, lambda mode: mode | stat.S_IRWXU)
    finally:
        os.close(top)
