"""``/static/…``: style sheet, scripts and icon, from the package; ``static/VENDORED.md`` says what is not ours."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter()

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class Asset(NamedTuple):
    """One file that pages use."""

    content: bytes
    media_type: str
    tag: str


@cache
def every() -> dict[str, Asset]:
    """Name → asset."""
    found = {}
    for entry in files("parallelhassnes.api.pages").joinpath("static").iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
            found[entry.name] = Asset(content, media_type, tag)
    return found


@router.get("/static/{name}")
def asset(request: Request, name: str) -> Response:
    """One asset."""
    found = every().get(name)
    if found is None:
        raise HTTPException(404, f"there is no asset {name}")
    headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media_type)
