"""``token``: who may use the HTTP interface, and for what.

    runs/_system/tokens/<name>.json    A    name, role, scopes, SHA-256 of the token, until when, when it was made and by whom

A token is 256 random bits, shown once, when it is made; only its hash is kept. Making one and revoking one are a
file that appears and one that goes, each with a line in ``_system/ledger.jsonl``, under ``tick.lock``. Servers read
the folder at every request, so a token that was revoked or has expired is refused from then on by all of them.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from parallelhassnes import names
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, decider, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text, parse_time

type Role = Literal["read", "submit", "operate"]
ROLES: tuple[Role, ...] = get_args(Role.__value__)
"""Each role has the rights of the roles before it."""

SCOPES = (
    "batches",
    "jobs",
    "attempts",
    "streams",
    "queue",
    "results",
    "tasks",
    "system",
    "metrics",
    "pages",
    "earlier",
    "harbor",
    "oddish",
    "terminal-bench",
)
"""Parts of the interface that a token may be limited to, each the first word of a tag of ``/openapi.json``."""

PREFIX = "phs_"
_UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
_SET_BACK_SEC = 300.0
"""A clock may be set back by so much without ending a token."""
_MOST_SEC = 100 * 366 * 86_400


class Token(BaseModel):
    """One token, without the token itself."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    role: Role
    scopes: tuple[str, ...] = ()
    """Parts of the interface that it is limited to; empty for all."""
    sha256: str
    """Of the whole token, hexadecimal."""
    created_at: str
    expires_at: str | None = None
    """None for never."""
    by: str

    @property
    def expired(self) -> bool:
        """Whether its time is over, or lies in that of a clock that was ahead when it was made."""
        if self.expires_at is None:
            return False
        left, lasts = (
            parse_time(self.expires_at) - time.time(),
            parse_time(self.expires_at) - parse_time(self.created_at),
        )
        return not 0 < left <= lasts + _SET_BACK_SEC


class Made(BaseModel):
    """A new token."""

    ok: bool = True
    name: str
    role: Role
    scopes: tuple[str, ...] = ()
    expires_at: str | None = None
    token: str
    """To be kept by its holder; nothing can show it again."""


def may(role: Role, wanted: Role) -> bool:
    """Tell whether who has one role may do what needs another."""
    return ROLES.index(role) >= ROLES.index(wanted)


def create(ctx: Context, name: str, role: str, *, scopes: Sequence[str] = (), expires: str | None = None) -> Made:
    """Make a token.

    Args:
        scopes: the parts of the interface that it is limited to; none for all.
        expires: after how long it is refused, as ``12h``, ``30d`` or ``8w``; None for never.

    Raises:
        UserError: the name cannot be one or is taken, there is no such role or scope, or no such time.
    """
    names.check_id(name, "name for a token")
    _check("role", role, ROLES)
    for scope in scopes:
        _check("scope", scope, SCOPES)
    until = None if expires is None else now_text(_until(expires))
    token = PREFIX + secrets.token_urlsafe(32)
    path = ctx.layout.tokens / f"{name}.json"
    with decider.deciding(ctx.layout):
        files = atomic.json_files(ctx.layout.tokens)
        known = names.Ids(file.rpartition("/")[2].removesuffix(".json") for file in files)
        if (other := known.like(name)) is not None:
            raise UserError(f"there is a token {other} already", fix="choose another name, or revoke it")
        path.parent.mkdir(exist_ok=True)
        by = ledger.person()
        made = Token.model_validate(
            {
                "name": name,
                "role": role,
                "scopes": tuple(dict.fromkeys(scopes)),
                "sha256": _hash(token),
                "created_at": now_text(),
                "expires_at": until,
                "by": by,
            }
        )
        ledger.replace_json(ctx.layout.system, f"tokens/{name}.json", made.model_dump(mode="json"))
        ledger.append(
            ctx.layout.system,
            "token_created",
            by=by,
            token=name,
            role=role,
            scopes=list(made.scopes) or None,
            expires_at=until,
        )
    return Made(name=name, role=made.role, scopes=made.scopes, expires_at=until, token=token)


def _check(what: str, text: str, known: Sequence[str]) -> None:
    if text not in known:
        fix = names.suggestion(text, known, "use")
        raise UserError(f"there is no {what} {text}", fix=fix)


def _until(text: str) -> datetime:
    match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _MOST_SEC:
        raise UserError(f"--expires {text}: is not a time span", fix="write 12h, 30d or 8w")
    return datetime.fromtimestamp(time.time() + seconds, UTC)


def revoke(ctx: Context, name: str) -> None:
    """Have a token refused from now on.

    Raises:
        UnknownId: there is none of that name.
    """
    known = [token.name for token in every(ctx.layout)]
    if name not in known:
        fix = names.suggestion(name, known, "there are")
        raise UnknownId(f"there is no token {name}", fix=fix)
    with decider.deciding(ctx.layout):
        ledger.replace(ctx.layout.system, f"tokens/{name}.json", None)
        ledger.append(ctx.layout.system, "token_revoked", by=ledger.person(), token=name)


def every(layout: Layout) -> list[Token]:
    """Return every token, by name; a file that is none, or of another user, gives nobody any right."""
    found = []
    for name in members.names(layout.tokens):
        if name.endswith(".json"):
            with members.apart(layout.tokens / name):
                found.append(atomic.read_record(Token, layout.tokens / name))
    return found


def holder(layout: Layout, text: str) -> Token | None:
    """Return the token that ``text`` is, which may have expired; None where there is no such token. Takes as long for a wrong one as for a
    right one.
    """
    digest = _hash(text)
    right: Token | None = None
    for token in every(layout):
        if hmac.compare_digest(token.sha256, digest):
            right = token
    return right


def named(layout: Layout, name: str, sha256: str) -> Token | None:
    """Return the token of that name, if it is still the one with that hash and has not expired."""
    same = (t for t in every(layout) if t.name == name and t.sha256 == sha256 and not t.expired)
    return next(same, None)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
