"""The layer in front of every route: Host and Origin, who asks, how much they may send, headers of every answer.

It works before a body is read, so that nobody unknown makes the server take in anything.
"""

import asyncio
import ipaddress
import platform
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parallelhassnes.admin.tokens import may
from parallelhassnes.api.http.auth import SAFE_METHODS, Authenticator, Who
from parallelhassnes.api.http.problems import problem
from parallelhassnes.api.live.file_watcher import Watching
from parallelhassnes.config import ApiConfig
from parallelhassnes.store.evidence import ledger

PUBLIC = ("/health", "/login", "/static/")
"""Paths that need no login; those with a slash at the end with all that is below them."""

UPLOADS = ("/v1/tasks", "/submit/upload", "/tasks/upload", "/api/upload")
"""Paths that take archives."""

_LONG_SEC = 1.0
"""An answer that takes longer is ended where who asked for it is shut out meanwhile."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
}


class Proxies:
    """What proxies in front of the server say of a client's address and of TLS.

    Args:
        trusted: addresses or networks, as ``10.0.0.0/8``.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted]

    def correct(self, scope: Scope, headers: Headers) -> None:
        """Put into the scope what a trusted proxy says: who asks is the last address of which no such proxy speaks."""
        client = scope.get("client")
        if client and not self._are_trusted(client[0]):  # without an address: a socket in the file system
            return
        for text in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
            if not text.strip():
                break
            scope["client"] = (text.strip(), 0)
            if not self._are_trusted(text.strip()):
                break
        if headers.get("x-forwarded-proto", "").strip().lower() == "https":
            scope["scheme"] = "https"

    def _are_trusted(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


class SecurityMiddleware:
    """Args:
    app: what it stands in front of.
    settings: names of the host, sizes.
    gatekeeper: tells who asks.
    watching: looks at tokens and sessions for the answers that take long.
    """

    def __init__(self, app: ASGIApp, settings: ApiConfig, gatekeeper: Authenticator, watching: Watching) -> None:
        self.app, self.settings, self.gatekeeper, self.watching = (app, settings, gatekeeper, watching)
        own = {"localhost", platform.node().lower(), settings.host.lower()}
        self._proxies = Proxies(settings.proxies)
        self._hosts = own | {name.lower() for name in settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._proxies.correct(scope, headers)
        try:
            who = await self._admit(scope, headers)
            limited = self._limited(scope, headers, receive)
        except HTTPException as error:
            answer = self._refusal(scope, headers, error)
            await answer(scope, receive, _with_headers(send))
            return
        scope.setdefault("state", {})["who"] = who
        with ledger.speaking_for(who.speaker if who else None):
            if who is None or who.token is None or scope["method"] not in SAFE_METHODS:
                await self.app(scope, limited, _with_headers(send))
            else:
                await self._while_let_in(who, scope, limited, _with_headers(send))

    async def _while_let_in(self, who: Who, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, but no longer than the token and the session hold: a stream ends with them, whole."""
        can_end = False

        async def sending(message: Message) -> None:
            nonlocal can_end
            if message["type"] == "http.response.start":
                can_end = "content-length" not in Headers(raw=message["headers"])
            else:
                can_end = can_end and message.get("more_body", False)
            await send(message)

        answering = asyncio.ensure_future(self.app(scope, receive, sending))
        watching = asyncio.ensure_future(self._shut_out(who))
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not answering.done():
                answering.cancel()
                await asyncio.wait((answering,))
        if not answering.cancelled():
            await answering
        elif can_end:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _shut_out(self, who: Who) -> None:
        """Wait until they would not be let in any more."""
        await asyncio.sleep(_LONG_SEC)
        async with self.watching.on("standing", self.gatekeeper.standing) as watch:
            seen = watch.seen
            while await run_in_threadpool(self.gatekeeper.is_still, who):
                seen = await watch.changed(seen)

    # --- who ------------------------------------------------------------------------------------------

    async def _admit(self, scope: Scope, headers: Headers) -> Who | None:
        self._check_host(headers)
        client = (scope.get("client") or ("",))[0]
        changes = scope["method"] not in SAFE_METHODS
        if changes and "authorization" not in headers:
            self._check_origin(headers)
        if _is_public(scope["path"]):
            return None
        who = await self.gatekeeper.who(headers, client, scope.get("state", {}).get("peer"))
        if changes and not may(who.role, "submit"):
            raise HTTPException(403, f"token {who.name} may only read")
        return who

    def _refusal(self, scope: Scope, headers: Headers, error: HTTPException) -> Response:
        wants_page = "text/html" in headers.get("accept", "")
        if error.status_code == 401 and scope["method"] == "GET" and wants_page:
            query = scope["query_string"].decode("latin-1")
            place = scope["path"] + (f"?{query}" if query else "")
            return RedirectResponse(f"/login?next={quote(place)}", 303)
        return problem(error.status_code, str(error.detail), headers=error.headers)

    def _check_host(self, headers: Headers) -> None:
        """A name that is not ours may be a foreign page's, pointed at this address (DNS rebinding)."""
        host = _host_of(headers.get("host", ""))
        if host is None or not (host in self._hosts or _is_address(host)):
            fix = "name it under hosts in [api] of parallelhassnes.toml"
            raise HTTPException(421, f"this server is not known as {headers.get('host', '')[:100]!r}; {fix}")

    def _check_origin(self, headers: Headers) -> None:
        """A browser says from which page a change comes; ours only."""
        origin = headers.get("origin")
        if origin is not None:
            place = urlsplit(origin).netloc.lower()
            if place != headers.get("host", "").lower() and _host_of(place) not in {
                name.lower() for name in self.settings.hosts
            }:
                raise HTTPException(403, "this comes from another site's page")
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise HTTPException(403, "this comes from another site's page")

    # --- how much -------------------------------------------------------------------------------------

    def _limited(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        uploads = scope["path"].startswith(UPLOADS)
        most = (self.settings.max_upload_mb if uploads else self.settings.max_body_mb) << 20
        refusal = HTTPException(413, f"the body is larger than {most >> 20} MiB")
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise refusal
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise refusal
            return message

        return limited


def _is_public(path: str) -> bool:
    return any(path == p or (p.endswith("/") and path.startswith(p)) for p in PUBLIC)


def _host_of(text: str) -> str | None:
    """Return the host of ``host:port``, lowercase, without the brackets of an IPv6 address; None where it is not one."""
    try:
        return urlsplit(f"//{text}").hostname if text else None
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return sending
