"""Who asks, and what they may: tokens as ``Authorization: Bearer``, or the cookie that a login gave.

The cookie is signed with a key that lives as long as the server and names the token that logged in, so a restart asks
for a new login, a revoked token ends its sessions, and nothing of it is on disk. What is changed by it needs the
session's CSRF token besides, as header ``X-CSRF-Token`` or as field ``csrf_token`` of a form.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Literal, NamedTuple

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from parallelhassnes.control import tokens
from parallelhassnes.control.tokens import Role, Token
from parallelhassnes.store.layout import Layout

SESSION_SEC = 12 * 3600
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf_token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_FAILURES = 10
FAILURES_SEC = 60.0
_MOST_CLIENTS = 10_000
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Who(NamedTuple):
    """Who asks."""

    name: str
    """The token's name; empty where none is needed."""
    role: Role
    via: Literal["none", "bearer", "cookie"]
    csrf: str = ""
    """What a change that comes by the cookie must carry."""

    @property
    def speaker(self) -> str | None:
        """What the ledger calls them; None for whoever runs the server."""
        return f"token:{self.name}" if self.name else None


ANYBODY = Who("", "operate", "none")


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
        """Seconds until the client may try again; 0 where it may now."""
        times = self._seen.get(client)
        if times is None or len(times) < MOST_FAILURES:
            return 0
        left = FAILURES_SEC - (time.monotonic() - times[0])
        return int(left) + 1 if left > 0 else 0


class Gatekeeper:
    """Tells who asks, for one server."""

    def __init__(self, layout: Layout, *, open_to_all: bool, port: int) -> None:
        self._layout, self._open = layout, open_to_all
        self._signer = URLSafeTimedSerializer(secrets.token_bytes(32), salt="session")
        self.cookie = f"parallelhassnes_{port}"
        """The cookie's name; browsers do not keep servers on different ports of one host apart."""
        self._failures = Failures()

    def who(self, headers: Headers, client: str) -> Who | None:
        """Who asks; None for somebody unknown.

        Raises:
            HTTPException: 401 for a token that is none, 429 where that has happened too often. A right token is let in
                all the same: one bad client must not lock out those who share its address.
        """
        if self._open:
            return ANYBODY
        said = headers.get("authorization")
        if said is not None:
            kind, _, text = said.partition(" ")
            token = tokens.holder(self._layout, text.strip()) if kind.lower() == "bearer" else None
            if token is None:
                raise self.failed(client)
            return Who(token.name, token.role, "bearer")
        return self._by_cookie(headers.get("cookie", ""))

    def failed(self, client: str) -> HTTPException:
        """Note a failed login; how it is answered."""
        wait = self._failures.wait_sec(client)
        if wait:
            return too_many(wait)
        self._failures.add(client)
        return unauthorised("this token is none")

    def log_in(self, text: str, client: str) -> tuple[Who, str]:
        """Who it is that gave this token, and the value of their cookie.

        Raises:
            HTTPException: 401, 429.
        """
        wait = self._failures.wait_sec(client)
        if wait:
            raise too_many(wait)
        token = tokens.holder(self._layout, text)
        if token is None:
            raise self.failed(client)
        csrf = secrets.token_urlsafe(16)
        value = self._signer.dumps([token.name, _mark(token), csrf])
        return Who(token.name, token.role, "cookie", csrf), str(value)

    def _by_cookie(self, header: str) -> Who | None:
        try:
            morsel = SimpleCookie(header).get(self.cookie)
            if morsel is None:
                return None
            name, mark, csrf = self._signer.loads(morsel.value, max_age=SESSION_SEC)
        except (CookieError, BadSignature):
            return None
        for token in tokens.every(self._layout):
            if token.name == name and hmac.compare_digest(_mark(token), mark):
                return Who(token.name, token.role, "cookie", csrf)
        return None


def _mark(token: Token) -> str:
    """What ties a session to this very token, were another made under its name."""
    return hashlib.sha256(f"session {token.sha256}".encode()).hexdigest()[:24]


def unauthorised(detail: str) -> HTTPException:
    fix = "send `Authorization: Bearer TOKEN`, or log in at /login"
    return HTTPException(401, f"{detail}; {fix}", {"WWW-Authenticate": "Bearer"})


def too_many(wait_sec: int) -> HTTPException:
    detail = f"too many failed logins; try again in {wait_sec} s"
    return HTTPException(429, detail, {"Retry-After": str(wait_sec)})


# --- what routes ask for ------------------------------------------------------------------------------

_bearer = HTTPBearer(
    auto_error=False, description="A token made by `parallelhassnes token create NAME --role ROLE`."
)


def who_asks(request: Request) -> Who:
    """The identity that the guard has found."""
    found = request.scope["state"]["who"]
    assert isinstance(found, Who)  # noqa: S101 - the guard lets nobody through without
    return found


def needs(role: Role) -> Callable[..., Who]:
    """A dependency: who asks, if they have that role.

    Raises:
        HTTPException: 403.
    """

    def check(
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer, scopes=[role])] = None,
    ) -> Who:
        who = who_asks(request)
        if not tokens.may(who.role, role):
            raise HTTPException(403, f"this needs the role {role}; token {who.name} may {who.role}")
        return who

    return check


async def csrf_checked(request: Request) -> None:
    """For every route: a change that a cookie allows must come from our own page.

    Raises:
        HTTPException: 403.
    """
    who = request.scope.get("state", {}).get("who")
    if who is None or who.via != "cookie" or request.method in SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.headers.get("content-type", "").startswith(_FORMS):
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else None
    if given is None or not hmac.compare_digest(given.encode(), who.csrf.encode()):
        raise HTTPException(403, "the page is out of date; load it again and repeat")
