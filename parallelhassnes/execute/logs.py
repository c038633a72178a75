"""The logs of an attempt: what the harness itself says in them, and their ceiling.

A worker writes into its logs without anybody in between, at the end (``O_APPEND``). Once a log is past its
ceiling, the supervisor keeps a quarter of that as the beginning, cuts the file there and puts the end
back behind a line that says so; a worker that goes on writes behind it. What it writes during these few
milliseconds may be cut with the rest. Between two beats a log can be past its ceiling; a sealed log is within it.
"""

import contextlib
import os
from pathlib import Path

from parallelhassnes import walk
from parallelhassnes.store.attempts import LOGS
from parallelhassnes.store.records import now_text

SUPERVISOR = "supervisor.log"
CEILING = 64 << 20
_LONGEST_END = 16 << 20
_NEXT_LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def say(text: str) -> None:
    """Add a line to our own log; one that cannot be written (a full disk) is left out."""
    with contextlib.suppress(OSError):
        os.write(1, f"{now_text()} {text}\n".encode("utf-8", "surrogateescape"))


def go_on_in(path: Path) -> None:
    """Write what this process says into another log, or nowhere: what is sealed takes nothing more."""
    with contextlib.suppress(OSError):
        try:
            handle = os.open(path, _NEXT_LOG, 0o666)
        except OSError:
            handle = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        for descriptor in (1, 2):
            os.dup2(handle, descriptor)
        os.close(handle)


def trim(attempt_dir: Path, ceiling: int = CEILING) -> list[str]:
    """Cut the middle out of every log that is larger than ``ceiling`` bytes; their names."""
    return [name for name in (*LOGS, SUPERVISOR) if _trim(f"{attempt_dir}/{name}", ceiling)]


def _trim(path: str, ceiling: int) -> bool:
    try:
        if os.lstat(path).st_size <= ceiling:
            return False
        handle = walk.open_file(path, flags=os.O_RDWR | os.O_APPEND)
    except OSError:
        return False
    try:
        info = os.fstat(handle)
        head = ceiling // 4
        end = os.pread(handle, min(ceiling // 4, _LONGEST_END), info.st_size - min(ceiling // 4, _LONGEST_END))
        cut = info.st_size - head - len(end)
        os.ftruncate(handle, head)
        note = f"\n[{cut} bytes are cut out here: the log was larger than {ceiling} bytes]\n".encode()
        for part in (note, end):
            view = memoryview(part)
            while view:
                view = view[os.write(handle, view) :]
    except OSError:  # the disk is full: what was cut has made room, and the next beat goes on
        return True
    finally:
        os.close(handle)
    return True
