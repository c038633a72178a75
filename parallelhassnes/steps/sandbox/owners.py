"""Whom the files of a sandbox belong to on the host.

Changing the owner of a file, also to the one that it has, makes the kernel take set-user-id, set-group-id and file
capabilities from it, whatever else names the same file.
"""

import contextlib
import os
import subprocess
from pathlib import Path


def give(folder: Path, user: int, group: int | None = None) -> None:
    """Have everything at and below a folder belong to a user; no link is followed, what cannot be given stays.

    Args:
        group: the number of the user where it is not given.
    """
    to = user if group is None else group
    try:
        _give(folder, user, to)
    except RecursionError:  # deeper than Python goes down
        argv = ["chown", "-R", "-h", "-P", f"{user}:{to}", "--", str(folder)]
        subprocess.run(argv, capture_output=True, check=False)


def _give(folder: Path, user: int, to: int) -> None:
    for _, folders, names, handle in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                os.chown(name, user, to, dir_fd=handle, follow_symlinks=False)
        with contextlib.suppress(OSError):
            os.chown(handle, user, to)
