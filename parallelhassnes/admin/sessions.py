"""Sessions of browsers that logged in with a token.

    runs/_system/sessions/<sha256>.json    W    of the session's id: which token it was begun with, and until when

The id is 256 random bits, in the browser's cookie and nowhere else. Every server of the root reads the folder at each
request: a session that was ended (its file is gone), or whose token was revoked or has expired, is refused by all of
them from then on. What has expired is cleared away when another session begins.
"""

import hashlib
import hmac
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from parallelhassnes.admin import tokens
from parallelhassnes.admin.tokens import Token
from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text, parse_time

LASTS_SEC = 12 * 3600


class Session(BaseModel):
    """One session, without its id."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    token: str
    """Name of the token that began it."""
    token_sha256: str
    """That very one's, were another made under its name."""
    expires_at: str


def begin(layout: Layout, token: Token) -> str:
    """Make a session; its id, for the cookie."""
    layout.sessions.mkdir(exist_ok=True)
    for path in _files(layout):
        if _read(path) is None:
            path.unlink(missing_ok=True)
    text = secrets.token_urlsafe(32)
    until = datetime.fromtimestamp(time.time() + LASTS_SEC, UTC)
    made = Session(token=token.name, token_sha256=token.sha256, expires_at=now_text(until))
    atomic.write_json(_path(layout, text), made.model_dump(mode="json"))
    return text


def holder(layout: Layout, text: str) -> Token | None:
    """Return the token that began the session of that id; None where there is no such session (any more)."""
    found = _read(_path(layout, text))
    return tokens.named(layout, found.token, found.token_sha256) if found is not None else None


def end(layout: Layout, text: str) -> None:
    """Have the session refused from now on, by every server."""
    path = _path(layout, text)
    path.unlink(missing_ok=True)
    if layout.sessions.is_dir():
        atomic.sync_dir(layout.sessions)


def names(layout: Layout) -> list[str]:
    """Tell what sessions there are, to tell when one has been ended."""
    return [path.name for path in _files(layout) if _read(path) is not None]


def csrf(text: str) -> str:
    """Tell what a change within that session must carry besides the cookie."""
    return hmac.digest(text.encode(), b"csrf", "sha256").hex()[:32]


def _path(layout: Layout, text: str) -> Path:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return layout.sessions / f"{digest}.json"


def _files(layout: Layout) -> list[Path]:
    try:
        listed = sorted(os.listdir(layout.sessions))
    except FileNotFoundError:
        return []
    return [layout.sessions / name for name in listed if name.endswith(".json") and name[0] != "."]


def _read(path: Path) -> Session | None:
    """Return the session; None where there is none, or it has expired, or never was one."""
    try:
        found = Session.model_validate(atomic.read_json(path))
        left = parse_time(found.expires_at) - time.time()
    except (OSError, atomic.CorruptFile, ValueError):
        return None
    return found if 0 < left <= LASTS_SEC else None
