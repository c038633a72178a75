"""``token``: who may use the HTTP interface, and for what.

    runs/_system/tokens/<name>.json    A    name, role, SHA-256 of the token, when it was made and by whom

A token is 256 random bits, shown once, when it is made; only its hash is kept. Making one and revoking one are a
file that appears and one that goes, each with a line in ``_system/ledger.jsonl``, under ``tick.lock``. Servers read
the folder at every request, so a revoked token is refused from then on by all of them.
"""

import hashlib
import hmac
import os
import secrets
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from parallelhassnes import names
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, ledger, locks
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text

type Role = Literal["read", "submit", "operate"]
ROLES: tuple[Role, ...] = get_args(Role.__value__)
"""Each may do what those before it may."""

PREFIX = "phs_"


class Token(BaseModel):
    """One token, without the token itself."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    role: Role
    sha256: str
    """Of the whole token, hexadecimal."""
    created_at: str
    by: str


class Made(BaseModel):
    """A new token."""

    ok: bool = True
    name: str
    role: Role
    token: str
    """To be kept by its holder; nothing can show it again."""


def may(role: Role, wanted: Role) -> bool:
    """Whether who has one role may do what needs another."""
    return ROLES.index(role) >= ROLES.index(wanted)


def create(ctx: Context, name: str, role: str) -> Made:
    """Make a token.

    Raises:
        UserError: the name cannot be one or is taken, or there is no such role.
    """
    names.check_id(name, "name for a token")
    if role not in ROLES:
        near = names.nearest(role, ROLES)
        fix = f"did you mean {near}?" if near else f"use {', '.join(ROLES)}"
        raise UserError(f"there is no role {role}", fix=fix)
    token = PREFIX + secrets.token_urlsafe(32)
    path = ctx.layout.tokens / f"{name}.json"
    with locks.held(ctx.layout.tick_lock):
        files = atomic.json_files(ctx.layout.tokens)
        known = names.Ids(file.rpartition("/")[2].removesuffix(".json") for file in files)
        if (other := known.like(name)) is not None:
            raise UserError(
                f"there is a token {other} already", fix="choose another name, or revoke it"
            )
        path.parent.mkdir(exist_ok=True)
        by = ledger.person()
        made = Token(name=name, role=role, sha256=_hash(token), created_at=now_text(), by=by)
        ledger.replace_json(ctx.layout.system, f"tokens/{name}.json", made.model_dump(mode="json"))
        ledger.append(ctx.layout.system, "token_created", by=by, token=name, role=role)
    return Made(name=name, role=made.role, token=token)


def revoke(ctx: Context, name: str) -> None:
    """Have a token refused from now on.

    Raises:
        UnknownId: there is none of that name.
    """
    known = [token.name for token in every(ctx.layout)]
    if name not in known:
        near = names.nearest(name, known)
        fix = f"did you mean {near}?" if near else f"there are {', '.join(known) or 'none'}"
        raise UnknownId(f"there is no token {name}", fix=fix)
    with locks.held(ctx.layout.tick_lock):
        ledger.replace(ctx.layout.system, f"tokens/{name}.json", None)
        ledger.append(ctx.layout.system, "token_revoked", by=ledger.person(), token=name)


def every(layout: Layout) -> list[Token]:
    """Every token, by name; a file that is none, or of another user, gives nobody any right."""
    try:
        listed = sorted(os.listdir(layout.tokens))
    except FileNotFoundError:
        return []
    found = []
    for name in listed:
        if name.endswith(".json") and name[0] != ".":
            try:
                found.append(Token.model_validate(atomic.read_json(layout.tokens / name)))
            except (OSError, atomic.CorruptFile, ValidationError):
                continue
    return found


def holder(layout: Layout, text: str) -> Token | None:
    """The token that ``text`` is; None where it is none. Takes as long for a wrong one as for a right one."""
    digest = _hash(text)
    right: Token | None = None
    for token in every(layout):
        if hmac.compare_digest(token.sha256, digest):
            right = token
    return right


def named(layout: Layout, name: str, sha256: str) -> Token | None:
    """The token of that name, if it is still the one with that hash."""
    return next((t for t in every(layout) if t.name == name and t.sha256 == sha256), None)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
