"""Reading what a worker left: bounded, of any shape, never blocking, never raising.

A trial's directories are mounted into its environment, so an agent may have put anything there:
a pipe, a link to another file of the host, a gigabyte, JSON of the wrong shape.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parallelhassnes import packed, walk
from parallelhassnes.store import attempts

MAX_JSON_BYTES = 64 * 1024 * 1024
"""Harbor's ``result.json`` can hold the token ids of every rollout; past this it is not read."""


def read_bytes(path: Path, limit: int, *, end: bool = False) -> bytes | None:
    """Return the first (or, with ``end``, the last) ``limit`` bytes of a regular file; None where there is none.

    No link is followed below an attempt's folder, elsewhere none as the last component; a pipe is not waited for.
    """
    return _bytes(lambda: open_file(path), limit, end=end)


def bytes_below(folder: Path, relative: str, limit: int) -> bytes | None:
    """Return the same of a file by its path below a folder; no link is followed on the way to it."""
    return _bytes(lambda: walk.open_below(folder, relative), limit)


def _bytes(opened: Callable[[], int], limit: int, *, end: bool = False) -> bytes | None:
    try:
        descriptor = opened()
    except (OSError, ValueError):
        return None
    try:
        facts = os.fstat(descriptor)
        if end and facts.st_size > limit:
            os.lseek(descriptor, facts.st_size - limit, os.SEEK_SET)
        parts: list[bytes] = []
        left = limit
        while left > 0 and (part := os.read(descriptor, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def open_file(path: Path) -> int:
    """Return a descriptor of a regular file; see ``read_bytes``.

    Raises:
        OSError: there is none, or a link is on the way to it.
    """
    parts = os.fspath(path).split("/")
    for at in range(len(parts) - 3, 0, -1):
        if parts[at] == "attempts" and attempts.is_name(parts[at + 1]):
            return walk.open_below("/".join(parts[: at + 2]), "/".join(parts[at + 2 :]))
    return walk.open_file(str(path))


def read_object(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None: absent, larger than ``limit`` bytes, no JSON, no object.

    ``NaN`` and infinities are read as None, because what we write must be JSON.
    """
    return object_of(read_bytes(path, limit + 1), limit)


def object_of(data: bytes | None, limit: int = MAX_JSON_BYTES) -> dict[str, Any] | None:
    """Return the JSON object that some bytes are; see ``read_object``."""
    if data is None or len(data) > limit:
        return None
    try:
        value = json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def size(path: Path) -> int | None:
    """Return the size of a file in bytes, or None."""
    try:
        return path.lstat().st_size
    except (OSError, ValueError):
        found = packed.member(path)
        return found.size if found else None


def mapping(value: object) -> Mapping[str, Any]:
    """Return ``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """Return ``value`` if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: object, limit: int = 1000) -> str | None:
    """Return ``value`` if it is a string, at most ``limit`` characters of it and always encodable; else None."""
    if not isinstance(value, str):
        return None
    shown = value if len(value) <= limit else value[: limit - 1] + "…"
    return shown.encode("utf-8", "replace").decode("utf-8")


def number(value: object) -> float | int | None:
    """Return ``value`` if it is a finite number (and no truth value) of ordinary size, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer may be beyond every float, which ``isfinite`` refuses to look at.
    return value if abs(value) < 1e300 and math.isfinite(value) else None


def whole(value: object) -> int | None:
    """Return ``value`` if it is an integer that is not negative, else None."""
    found = number(value)
    return found if isinstance(found, int) and found >= 0 else None


def first_line(value: str, limit: int = 300) -> str:
    """Return the first line of ``value`` with something in it, for a scoreboard."""
    for line in value.splitlines():
        if line.strip():
            return text(line.strip(), limit) or ""
    return ""
