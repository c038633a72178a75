"""Keeping other users of the host out of the store.

``runs/`` is closed to them, and so is everything below it, whatever its own mode is. The files that we make are
0600 besides, and sealing takes what is left of others' permissions from the rest. A worker has the mask that the
harness was started with: what a container or an agent makes must not depend on how the store is kept.
"""

import contextlib
import os
from pathlib import Path

_OTHERS = 0o077


class _Mask:
    users: int | None = None


def set_mask(private: bool) -> None:
    """Make new files of this process ours alone, or as the user's own mask says."""
    before = os.umask(_OTHERS)
    if _Mask.users is None:
        _Mask.users = before
    if not private:
        os.umask(_Mask.users)


def restore_mask() -> None:
    """In a worker: the mask that the harness was started with."""
    if _Mask.users is not None:
        os.umask(_Mask.users)


def close(folder: Path) -> None:
    """Take the permissions of others from a folder that is there, where it is ours."""
    with contextlib.suppress(OSError):
        mode = folder.stat().st_mode
        if mode & _OTHERS:
            folder.chmod(mode & 0o7700)
