"""Where the programs are that a sandbox is made with, and that we start in it."""

import functools
import os
import shutil

READ_ONLY_BIN = "/usr/bin:/bin:/usr/sbin:/sbin"
"""Folders of programs that are the host's inside, too, and that nobody writes to there."""


@functools.cache
def program(name: str) -> str:
    """Return where a program of the host is found inside, too: no folder that an agent may write to is searched for what we start.

    Where it is in none of the usual places (NixOS), it is taken from where it really lies.
    """
    usual = shutil.which(name, path=READ_ONLY_BIN)
    return usual or os.path.realpath(shutil.which(name, path=search_path()) or f"/usr/bin/{name}")


def search_path() -> str:
    """Tell where the engines' programs are looked for: ``PATH``, and the folders that a bare one leaves out."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
