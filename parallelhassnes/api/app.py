"""The application: routes over the functions of ``actions`` and ``views``, and nothing that has to be kept.

LastResort ─▶ Outside (prefix, HEAD) ─▶ Guard (Host, Origin, who, size) ─▶ routes ─▶ actions, views
                                                    └▶ after a change: the ticking process is poked
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parallelhassnes.api import pages
from parallelhassnes.api.http.auth import SAFE_METHODS, Authenticator, checked
from parallelhassnes.api.http.openapi import describe
from parallelhassnes.api.http.outside import Outside
from parallelhassnes.api.http.problems import ErrorMiddleware, handle
from parallelhassnes.api.http.security import SecurityMiddleware
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.api.pages import render
from parallelhassnes.api.routes import (
    attempts,
    batches,
    budgets,
    jobs,
    metrics,
    operators,
    queue,
    results,
    streams,
    system,
    tasks,
)
from parallelhassnes.errors import UserError
from parallelhassnes.store.atomic import CorruptFile

log = logging.getLogger("parallelhassnes.api")
ROUTERS = "parallelhassnes.routers"
"""Entry points of installed packages, ours among them: routers of calls that other programs make (``compat``)."""


class NotifyScheduler:
    """After every change that succeeded: have a tick follow, so that what it has made ready starts."""

    def __init__(self, app: ASGIApp, site: ServerState) -> None:
        self.app, self.site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.site.poke()
            await send(message)

        await self.app(scope, receive, sending)


def create_app(site: ServerState) -> FastAPI:
    """Return the application that serves one root."""
    gatekeeper = Authenticator(site.layout, auth=site.auth)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        site.loop = asyncio.get_running_loop()
        if site.ticker is not None:
            await site.ticker.start()
        threading.Thread(target=_warm, args=(app, site), name="warming", daemon=True).start()
        try:
            yield
        finally:
            if site.ticker is not None:
                await site.ticker.close()
            site.leave()

    app = FastAPI(
        title="ParallelHassnes",
        docs_url=None,  # its assets would come from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(checked)],
        middleware=[
            Middleware(ErrorMiddleware),
            Middleware(Outside, prefix=site.settings.root_path),
            Middleware(SecurityMiddleware, settings=site.settings, gatekeeper=gatekeeper, watching=site.watching),
            Middleware(NotifyScheduler, site=site),
        ],
    )
    app.state.site, app.state.gatekeeper = site, gatekeeper
    handle(app)
    describe(app)
    for entry_point in entry_points(group=ROUTERS):
        app.include_router(entry_point.load())
    for module in (system, batches, jobs, attempts, queue, operators, budgets, tasks, results, metrics, streams, pages):
        app.include_router(module.router)
    return app


def _warm(app: FastAPI, site: ServerState) -> None:
    """Do what the first look would have to wait for; nothing is kept that a look would not keep."""
    for route in app.router.routes:  # each makes its part of the interface when it is first asked
        route.matches({"type": "http", "method": "GET", "path": "/", "headers": []})
    render.compile_all()
    try:
        site.board_now()  # leaves its snapshot, and the folds of large batches
    except (UserError, CorruptFile, OSError) as error:
        log.info("the first look will say it: %s", error)
