"""Who asks, and what they may: a process of the user who runs the server, a token as ``Authorization: Bearer``, or the
cookie that a login gave.

By the setting ``auth``: ``user`` lets in processes of this user that belong to no attempt, and holders of tokens;
``token`` the latter alone; ``none`` everybody.

The cookie holds the id of a session, see ``admin/sessions.py``. What is changed by it needs the session's CSRF token
besides, as header ``X-CSRF-Token`` or as field ``csrf_token`` of a form.
"""

import hmac
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Literal, NamedTuple

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from parallelhassnes.admin import sessions, tokens
from parallelhassnes.admin.tokens import Role, Token
from parallelhassnes.api.http.peers import Peer, is_relayed, live_supervisors
from parallelhassnes.config import Auth
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.identity import store_id
from parallelhassnes.store.layout import Layout

CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf_token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_FAILURES = 10
FAILURES_SEC = 60.0
_MOST_CLIENTS = 10_000
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Who(NamedTuple):
    """Who asks."""

    name: str
    """The token's name, or the user's where none is needed."""
    role: Role
    via: Literal["none", "user", "bearer", "cookie"]
    token: Token | None = None
    session: str = ""
    """Id of the session, of a cookie."""

    @property
    def csrf(self) -> str:
        """What a change that comes by the cookie must carry."""
        return sessions.csrf(self.session) if self.session else ""

    @property
    def speaker(self) -> str:
        """What the ledger calls them."""
        return f"token:{self.name}" if self.via in ("bearer", "cookie") else self.name


class Failures:
    """Failed logins of late, by client address."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, client: str) -> None:
        times = self._seen.setdefault(client, deque(maxlen=MOST_FAILURES))
        times.append(time.monotonic())
        self._seen.move_to_end(client)
        if len(self._seen) > _MOST_CLIENTS:
            self._seen.popitem(last=False)

    def wait_sec(self, client: str) -> int:
        """Return the seconds until the client may try again; 0 where it may now."""
        times = self._seen.get(client)
        if times is None or len(times) < MOST_FAILURES:
            return 0
        left = FAILURES_SEC - (time.monotonic() - times[0])
        return int(left) + 1 if left > 0 else 0


class Authenticator:
    """Tells who asks, for one server."""

    def __init__(self, layout: Layout, *, auth: Auth) -> None:
        self._layout, self._auth = layout, auth
        self.cookie = f"parallelhassnes_{store_id(layout.runs)}"
        """The cookie's name, of all servers of the root; browsers do not keep those of one host apart by their ports."""
        self._failures = Failures()

    async def who(self, headers: Headers, client: str, peer: Peer | None) -> Who:
        """Tell who asks.

        Raises:
            HTTPException: 401 for somebody unknown or a token that is none, 429 where that has happened too often. A
                right token is let in all the same: one bad client must not lock out those who share its address.
        """
        if self._auth == "none":
            return Who(_user_of(headers, client, peer), "operate", "none")
        said = headers.get("authorization")
        if said is not None:
            kind, _, text = said.partition(" ")
            token = tokens.holder(self._layout, text.strip()) if kind.lower() == "bearer" else None
            if token is None:
                raise self.failed(client)
            if token.expired:
                raise unauthorised(f"token {token.name} has expired at {token.expires_at}")
            return Who(token.name, token.role, "bearer", token)
        known = self._by_cookie(headers.get("cookie", ""))
        if known is not None:
            return known
        if self._auth == "token":
            raise unauthorised("this needs a token")
        why = await self._stranger(headers, peer)
        if why:
            raise unauthorised(f"this needs a token: {why}")
        return Who(ledger.person(), "operate", "user")

    async def _stranger(self, headers: Headers, peer: Peer | None) -> str:
        """Tell why who is at the other end needs a token; empty for this user."""
        if is_relayed(headers):
            return "it comes through a proxy"
        if peer is None:
            return "it is not known whose connection it is"
        if peer.found is not None:
            return peer.found
        return await run_in_threadpool(peer.stranger, lambda: live_supervisors(self._layout))

    def failed(self, client: str) -> HTTPException:
        """Note a failed login; how it is answered."""
        wait = self._failures.wait_sec(client)
        if wait:
            return too_many(wait)
        self._failures.add(client)
        return unauthorised("unknown token, or one that was revoked or has expired")

    def log_in(self, text: str, client: str) -> str:
        """Begin a session of the token's holder; its id, for the cookie.

        Raises:
            HTTPException: 401, or 429 where that has happened too often.
        """
        token = tokens.holder(self._layout, text)
        if token is None:
            raise self.failed(client)
        if token.expired:
            raise unauthorised(f"token {token.name} has expired at {token.expires_at}")
        return sessions.begin(self._layout, token)

    def log_out(self, cookies: str) -> None:
        """End the session of that cookie, for every server."""
        session = self._session(cookies)
        if session:
            sessions.end(self._layout, session)

    def is_still(self, who: Who) -> bool:
        """Tell whether who was let in would be let in again: no token revoked or expired, no session ended."""
        if who.session:
            return sessions.holder(self._layout, who.session) is not None
        mine = who.token
        return mine is None or tokens.named(self._layout, mine.name, mine.sha256) is not None

    def standing(self) -> Hashable:
        """Tell what tokens and sessions there are: as long as it is the same, nobody has been shut out."""
        known = [token.sha256 for token in tokens.every(self._layout) if not token.expired]
        return *known, *sessions.names(self._layout)

    def _session(self, header: str) -> str:
        try:
            morsel = SimpleCookie(header).get(self.cookie)
        except CookieError:
            return ""
        return morsel.value if morsel is not None else ""

    def _by_cookie(self, header: str) -> Who | None:
        session = self._session(header)
        token = sessions.holder(self._layout, session) if session else None
        return Who(token.name, token.role, "cookie", token, session) if token else None


def _user_of(headers: Headers, client: str, peer: Peer | None) -> str:
    """Tell whom the kernel names, where everybody is let in."""
    user = peer.user() if peer is not None and not is_relayed(headers) else None
    return f"anybody@{client}" if user is None else ledger.person(user)


def unauthorised(detail: str) -> HTTPException:
    fix = "send `Authorization: Bearer TOKEN`, or log in at /login"
    return HTTPException(401, f"{detail}; {fix}", {"WWW-Authenticate": "Bearer"})


def too_many(wait_sec: int) -> HTTPException:
    detail = f"too many failed logins; try again in {wait_sec} s"
    return HTTPException(429, detail, {"Retry-After": str(wait_sec)})


# --- what routes ask for ------------------------------------------------------------------------------

_bearer = HTTPBearer(auto_error=False, description="A token made by `parallelhassnes token create NAME --role ROLE`.")


def who_asks(request: Request) -> Who:
    """Return the identity that the guard has found."""
    found = request.scope["state"]["who"]
    assert isinstance(found, Who)  # noqa: S101 - the guard lets nobody through without
    return found


def needs(role: Role) -> Callable[..., Who]:
    """Return a dependency: who asks, if they have that role.

    Raises:
        HTTPException: 403.
    """

    def check(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer, scopes=[role])] = None
    ) -> Who:
        who = who_asks(request)
        if not tokens.may(who.role, role):
            raise HTTPException(403, f"this needs the role {role}; token {who.name} may {who.role}")
        return who

    return check


def scope_of(tags: Sequence[str | Enum]) -> str:
    """Return the part of the interface that a route with these tags belongs to, as tokens name it."""
    return str(tags[0]).split()[0].lower() if tags else "pages"


async def checked(request: Request) -> None:
    """For every route: a token with scopes is for those parts only; a change that a cookie allows must come from our own
    page.

    Raises:
        HTTPException: 403.
    """
    who: Who | None = request.scope.get("state", {}).get("who")
    if who is None:
        return
    part = scope_of(request.scope["route"].tags)
    if who.token is not None and who.token.scopes and part not in who.token.scopes:
        only = ", ".join(who.token.scopes)
        raise HTTPException(403, f"token {who.name} is for {only}, not for {part}")
    if who.via != "cookie" or request.method in SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.headers.get("content-type", "").startswith(_FORMS):
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else None
    if given is None or not hmac.compare_digest(given.encode(), who.csrf.encode()):
        raise HTTPException(403, "the page is out of date; load it again and repeat")
