"""Which user a command in a sandbox runs as."""

import grp
import pwd
from typing import NamedTuple


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
        return ("setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", groups, "--")


ROOT = Account("root", 0, 0, "/root")


def find(user: str | int | None) -> Account | None:
    """The account for ``1000``, ``name``, ``name:group`` or ``1000:1000``; None where there is no such name."""
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
