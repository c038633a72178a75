"""What the first look at a server would have to wait for, done beside its start: routes, templates, the store's scoreboard.

Nothing is kept that a look would not keep. A look that comes meanwhile waits for what it needs of it.
"""

import logging
import threading

from fastapi import FastAPI

from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.api.pages import render
from parallelhassnes.errors import UserError
from parallelhassnes.store.atomic import CorruptFile

log = logging.getLogger("parallelhassnes.api")


def begin(app: FastAPI, site: ServerState) -> None:
    """Start it, in a thread that ends by itself and keeps nobody from ending the server."""
    threading.Thread(target=_warm, args=(app, site), name="warming", daemon=True).start()


def _warm(app: FastAPI, site: ServerState) -> None:
    for route in app.router.routes:  # each makes its part of the interface when it is first asked
        route.matches({"type": "http", "method": "GET", "path": "/", "headers": []})
    render.compile_all()
    try:
        site.board_now()  # leaves its snapshot, and the folds of large batches
    except (UserError, CorruptFile, OSError) as error:
        log.info("the first look will say it: %s", error)
