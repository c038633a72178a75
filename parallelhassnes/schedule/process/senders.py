"""Programs that send what passes have noted, beside them: one of a kind at a time.

A pass starts one wherever something is to be sent and nobody holds its lock. Loading a program takes as long as many passes, so its lock is taken before
that: else each of them would start one more, of which all but one end at once.
"""

import os
from pathlib import Path

from parallelhassnes.execute import processes
from parallelhassnes.schedule import ephemeral_secrets
from parallelhassnes.store import locks


def become(lock: Path, module: str, *arguments: str) -> None:
    """In a fork: go on as a module in a fresh heap, which holds the lock from the beginning and gets its descriptor as the last argument.

    Returns where somebody else holds it: who sends looks again before it ends.
    """
    ephemeral_secrets.keep_only(())
    handle = locks.claim(lock)
    if handle is not None:
        os.set_inheritable(handle, True)
        command = [*processes.OURSELVES, module, *arguments, str(handle)]
        os.execv(command[0], command)  # noqa: S606 - for libraries with threads


def begin(arguments: list[str]) -> Path:
    """Return the root from the arguments of such a program, ``ROOT [LOCK]``, and have it hold its lock: without one where it was no fork."""
    for handle in arguments[1:]:
        locks.inherit(int(handle))
    return Path(arguments[0])
