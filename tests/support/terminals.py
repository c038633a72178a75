"""The program on a pseudo-terminal, as a person has it."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import stores

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(root: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """The program with stdout and stderr on a terminal of 100 columns; it and our end of that."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "parallelhassnes", *arguments, "--root", str(root)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=stores.CHECKOUT,
        start_new_session=True,
        env=stores.environment({"COLUMNS": "100", "LINES": "30", "TERM": "xterm-256color"}),
    )
    os.close(theirs)
    return process, ours


def read_until(handle: int, wanted: str | None, deadline_sec: float = 60.0) -> str:
    """What comes from the terminal until ``wanted`` was in it, or it is closed."""
    data, end = b"", time.monotonic() + deadline_sec
    while wanted is None or wanted not in ANSI.sub("", data.decode("utf-8", "replace")):
        left = end - time.monotonic()
        assert left > 0, f"{wanted!r} did not come: {data[-500:]!r}"
        if select.select([handle], [], [], left)[0]:
            try:
                chunk = os.read(handle, 65536)
            except OSError:  # the other end is closed
                chunk = b""
            if not chunk:
                break
            data += chunk
    return data.decode("utf-8", "replace")
