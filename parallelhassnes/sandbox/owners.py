"""Whom the files of a sandbox belong to on the host, and which user a command in it runs as.

Changing the owner of a file, also to the one that it has, makes the kernel take set-user-id, set-group-id and file
capabilities from it, whatever else names the same file.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import walk
from parallelhassnes.sandbox.programs import program


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
    """Yield each entry below a folder once, folders before what is in them; those that are closed to us are opened.

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


class Account(NamedTuple):
    """A user of the sandbox; the names are the host's."""

    name: str
    uid: int
    gid: int
    home: str

    @property
    def become(self) -> tuple[str, ...]:
        """The command line in front of another that makes it run as this user."""
        if self.uid == 0:
            return ()
        groups = "--init-groups" if self.name else "--clear-groups"
        return (program("setpriv"), f"--reuid={self.uid}", f"--regid={self.gid}", groups, "--")


ROOT = Account("root", 0, 0, "/root")


def find(user: str | int | None) -> Account | None:
    """Return the account for ``1000``, ``name``, ``name:group`` or ``1000:1000``; None where there is no such name."""
    name, _, group = str("root" if user is None else user).partition(":")
    try:
        account = _user(name)
        if group:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
            account = account._replace(gid=gid)
    except KeyError:
        return None
    return account


def _user(name: str) -> Account:
    if name in {"", "root", "0"}:
        return ROOT
    if not name.isdigit():
        known = pwd.getpwnam(name)
        return Account(known.pw_name, known.pw_uid, known.pw_gid, known.pw_dir)
    try:
        known = pwd.getpwuid(int(name))
    except KeyError:
        return Account("", int(name), int(name), "/")
    return Account(known.pw_name, known.pw_uid, known.pw_gid, known.pw_dir)
