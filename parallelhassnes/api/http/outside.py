"""What the server is from outside: a path prefix that a proxy has it under, HEAD wherever GET is, conditions on changes.

Everything behind this layer sees its own addresses, and GET in the place of HEAD.
"""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parallelhassnes.api.http.auth import SAFE_METHODS
from parallelhassnes.api.http.problems import problem


class Outside:
    """Args:
    app: what it stands in front of.
    prefix: path below which browsers find the server, such as ``/runs``; proxies may take it off or leave it on.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        inside = {**scope, "path": self._own(scope["path"])}
        condition = Headers(scope=scope).get("if-match", "*").strip()
        if scope["method"] == "HEAD":
            await self._head(inside, receive, self._placed(send))
        elif condition != "*" and scope["method"] not in SAFE_METHODS:
            said = "nothing that can be changed here has a strong tag, so If-Match is not fulfilled"
            await problem(412, said, fix="leave If-Match out, or send *")(scope, receive, send)
        else:
            await self.app(inside, receive, self._placed(send))

    def _own(self, path: str) -> str:
        """Return the path without the prefix, where the proxy has left it on."""
        if self.prefix and (path == self.prefix or path.startswith(f"{self.prefix}/")):
            return path[len(self.prefix) :] or "/"
        return path

    def _placed(self, send: Send) -> Send:
        """Sends on, and leads from one page to another below the prefix."""
        if not self.prefix:
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                place = headers.get("location", "")
                if place.startswith("/") and not place.startswith("//"):
                    headers["location"] = self.prefix + place
            await send(message)

        return sending

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as to GET, up to where the body would begin: a stream has no end. A range is of a GET only."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        begun = asyncio.Event()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                begun.set()

        inside = {**scope, "method": "GET", "headers": headers}
        answering = asyncio.ensure_future(self.app(inside, receive, sending))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait((answering, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            if not answering.done():
                answering.cancel()
                await asyncio.wait((answering,))
        if not answering.cancelled() and not begun.is_set():
            await answering
