"""Pictures that a trajectory names: files of its attempt, bounded, and of kinds that a browser only draws.

ATIF has a picture's place as a path beside the trajectory, as a path inside the trial's environment or as an address. Only files below
the trajectory's own folder are shown: nothing is fetched, and no link is followed. What a file is, its first bytes say, not its name.
"""

import base64
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from parallelhassnes import formatting
from parallelhassnes.steps import safe_read

ENDINGS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
"""Ending of a name → what the file is, where a browser only draws it."""
MOST_BYTES = 5_000_000
"""Of one picture that is shown."""
_INSIDE = "/logs/agent/"
"""The trajectory's folder, as the agent saw it."""
_LONGEST_NAME = 200


class Picture(NamedTuple):
    """A picture that can be shown."""

    name: str
    """Relative to the trajectory's folder."""
    media_type: str
    size: int
    """Bytes."""


def find(folder: Path, place: object) -> Picture | str:
    """Return the picture at a place that a trajectory names; in words where there is none to show.

    Args:
        folder: the trajectory's.
    """
    name = _name(place)
    if name is None:
        return "image that is no file beside the trajectory"
    path = folder / name
    size = safe_read.size(path)
    start = safe_read.read_bytes(path, 16)
    if size is None or start is None:
        return f"image {name}: there is no such file"
    kind = _kind(start)
    if kind is None or ENDINGS.get(path.suffix.lower()) != kind:
        return f"image {name}: is no PNG, JPEG, GIF or WebP by its name and content"
    if size > MOST_BYTES:
        return f"image {name}: has {formatting.size(size)}, more than is shown here; it is among the files"
    return Picture(name, kind, size)


def data_uri(folder: Path, picture: Picture) -> str:
    """Return a picture as an address that holds it; empty where it is not what it was."""
    data = safe_read.read_bytes(folder / picture.name, MOST_BYTES + 1)
    if data is None or len(data) > MOST_BYTES or _kind(data) != picture.media_type:
        return ""
    return f"data:{picture.media_type};base64,{base64.b64encode(data).decode()}"


def _name(place: object) -> str | None:
    """Return a place as a path below the trajectory's folder; None where it is none."""
    if not isinstance(place, str) or len(place) > _LONGEST_NAME or not place.isprintable():
        return None
    path = PurePosixPath(place.removeprefix(_INSIDE))
    if path.is_absolute() or ".." in path.parts or not path.name or ":" in place:
        return None
    return str(path)


def _kind(start: bytes) -> str | None:
    """Tell what a file is by its first bytes."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return None
