"""Keeping other users of the host out of the store.

``runs/`` is closed to them, and so is everything below it, whatever its own mode. The files that we make are
0600 besides, and sealing takes what is left of others' permissions from the rest. A worker has the mask that the
harness was started with: what a container or an agent makes must not depend on how the store is kept.
"""

import contextlib
import os
from pathlib import Path

from parallelhassnes.errors import UserError

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


def check_owner(folder: Path) -> None:
    """See to it that what this process makes in a private folder can be read by whoever the folder belongs to.

    Raises:
        UserError: it is another user's, who could not go on with it; root may write anywhere.
    """
    try:
        owner = folder.stat().st_uid
    except FileNotFoundError:
        return
    if owner == os.geteuid():
        return
    import tempfile

    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as made:
        if os.fstat(made.fileno()).st_uid == owner:  # some file systems give all files to one user
            return
        name, other = _user(os.geteuid()), _user(owner)
        raise UserError(
            f"{folder}: is {other}'s and private; what {name} makes there would keep {other} out",
            fix=f"run it as {other} (sudo -u {other} …), or set private = false and share it by a group",
        )


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def close(folder: Path) -> None:
    """Take the permissions of others from a folder that is there, where it is ours."""
    with contextlib.suppress(OSError):
        mode = folder.stat().st_mode
        if mode & _OTHERS:
            folder.chmod(mode & 0o7700)
