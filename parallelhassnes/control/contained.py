"""Opening a file below a folder that others may write to, for somebody else to read.

No part of the path may be a symbolic link, ``..`` or anything but a folder on the way to a regular file; each is opened
relative to the one before, so that nothing can be swapped in between.
"""

import os
import stat
from pathlib import Path

from parallelhassnes.errors import UnknownId

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def open_below(folder: Path, relative: str) -> int:
    """A descriptor of the regular file.

    Raises:
        UnknownId: there is no such file, or it is not one that is shown.
    """
    parts = relative.split("/")
    if not relative or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UnknownId(f"{relative[:200]!r} is not the path of a file in it")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
        found = os.open(parts[-1], _FILE, dir_fd=handle)
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else "it is not shown"
        raise UnknownId(
            f"{relative[:200]}: {why}", fix="the list of files has what there is"
        ) from None
    finally:
        os.close(handle)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise UnknownId(f"{relative[:200]}: is not a file")
    return found
