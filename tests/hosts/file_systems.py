"""What a root may lie on, as several hosts see it.

| name | locks | caches |
|---|---|---|
| ``same`` | cross hosts | none |
| ``own_locks`` | each host's own, as NFS with ``nolock`` or Lustre with ``localflock`` | none |
| ``forwarded`` | cross hosts | none |
| ``stale`` | cross hosts | what a host knows of a file may be ten seconds old: another in its place, or none |
| ``stale_briefly`` | cross hosts | the same, of one second |
"""

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

CACHE_SEC = 10
BRIEFLY_SEC = 1
_EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")


class FileSystem(NamedTuple):
    """How a folder is mounted on a host."""

    command: Callable[[Path, Path], list[str]]
    """Source and target → the command, to be run in the host's mounts."""
    stays: bool
    """Whether the command serves the mount as long as it runs."""


def _stale(cache_sec: int, source: Path, target: Path) -> list[str]:
    options = f"source={source},timeout={cache_sec},flock,cache=auto,allow_other"  # a sandbox runs as another user
    return [str(passthrough()), "-f", "-o", options, str(target)]


SAME = FileSystem(lambda source, target: ["mount", "--bind", str(source), str(target)], stays=False)
OWN_LOCKS = FileSystem(lambda source, target: ["bindfs", "-f", str(source), str(target)], stays=True)
FORWARDED = FileSystem(
    lambda source, target: ["bindfs", "-f", "--multithreaded", "--enable-lock-forwarding", str(source), str(target)],
    stays=True,
)
STALE = FileSystem(partial(_stale, CACHE_SEC), stays=True)
STALE_BRIEFLY = FileSystem(partial(_stale, BRIEFLY_SEC), stays=True)
BY_NAME = {"same": SAME, "own_locks": OWN_LOCKS, "forwarded": FORWARDED, "stale": STALE, "stale_briefly": STALE_BRIEFLY}


def passthrough() -> Path:
    """libfuse's own example of a file system that passes all on and caches, compiled once.

    Raises:
        RuntimeError: the example, the library or a compiler is not installed.
    """
    program = Path(__file__).resolve().parents[2] / "build" / "passthrough_ll"
    if program.exists():
        return program
    source = _EXAMPLES / "passthrough_ll.c"
    if not source.exists() or not shutil.which("gcc") or not shutil.which("pkg-config"):
        raise RuntimeError("no passthrough_ll.c of libfuse3-dev, gcc or pkg-config")
    program.parent.mkdir(exist_ok=True)
    flags = subprocess.run(
        ["pkg-config", "fuse3", "--cflags", "--libs"], check=True, capture_output=True, text=True
    ).stdout.split()
    half = program.with_name(f"{program.name}.{id(flags)}")
    subprocess.run(["gcc", "-O1", "-w", str(source), "-o", str(half), *flags], check=True)
    half.replace(program)
    return program
