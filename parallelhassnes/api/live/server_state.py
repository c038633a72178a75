"""What every route is given: one root, how it is served, and the ticking process.

Nothing here is state: all of it can be thrown away with the server, and what is shown is at most half a second older
than the files under ``runs/``.
"""

import asyncio
import dataclasses
import threading
import time
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from parallelhassnes.admin.init import ensure
from parallelhassnes.api.live.event_stream import EventStream
from parallelhassnes.api.live.file_watcher import Watching
from parallelhassnes.api.live.tick_process import Ticker
from parallelhassnes.config import ApiConfig, Auth
from parallelhassnes.errors import UnknownId
from parallelhassnes.refs import Found, resolve
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.running import HeartbeatWatch
from parallelhassnes.views.scoreboard_models import BatchScoreboard, SystemScoreboard
from parallelhassnes.views.system_scoreboard import system_scoreboard

_KEPT_ATTEMPTS = 10_000

_FRESH_SEC = 0.5


class ServerState:
    """Args:
    root: the folder with ``runs/``.
    settings: the ``[api]`` section, with what the command line said over it.
    auth: who may use it.
    ticking: keep a ticking process.

    Raises:
        UserError: the configuration cannot be read, or the store's folders cannot be made.
    """

    def __init__(self, root: Path, settings: ApiConfig, auth: Auth, *, ticking: bool) -> None:
        opened = open_context(root)
        ensure(opened, look=not ticking)
        self._opened = dataclasses.replace(opened, starts_attempts=False)
        self.layout = opened.layout
        self.settings, self.auth = settings, auth
        self._attempts: dict[str, Found] = {}
        """Where the attempts are that were asked for of late: finding one reads every ledger."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Of the server, once it runs."""
        self.watching = Watching()
        self.changes = EventStream(opened.layout, self.watching)
        self._looking, self._one_look = threading.Lock(), threading.Lock()
        self._heartbeats = HeartbeatWatch()
        self._board: tuple[float, SystemScoreboard] | None = None
        self._batch_board: tuple[float, BatchScoreboard] | None = None
        self.ticker = Ticker(self.layout.root, settings.tick_sec) if ticking else None

    def context(self) -> Context:
        """Return the context with the configuration as it is now; passes are left to the ticking process.

        Raises:
            UserError: the configuration cannot be read.
        """
        now = dataclasses.replace(self._opened, config=configuration.in_force(self.layout).config)
        return check_host.as_one_of_several(now)  # others may have joined since

    def attempt(self, text: str) -> Found:
        """Return the attempt of a run id, a prefix of one, or an attempt's name.

        Raises:
            UnknownId: it names none, or several.
        """
        known = self._attempts.get(text)
        if known is not None and known.folder(self.layout).is_dir():
            return known
        found = resolve(self.layout, text)
        if found.attempt is None:
            raise UnknownId(f"{text} is a {found.what}, not an attempt", fix="name a run id")
        if found.attempt.endswith(text):  # whole, so that it never comes to name another
            self._attempts[text] = found
            if len(self._attempts) > _KEPT_ATTEMPTS:
                self._attempts.pop(next(iter(self._attempts)))
        return found

    def board_now(self) -> SystemScoreboard:
        """Return the system scoreboard as of this moment. Looks wait for each other: each finds what the one before has left.

        Raises:
            UserError: the configuration cannot be read.
        """
        with self._one_look:
            return system_scoreboard(self.layout)

    def board(self) -> SystemScoreboard:
        """Return the system scoreboard, at most ``_FRESH_SEC`` old: many may ask at once."""
        with self._looking:
            if self._board is None or time.monotonic() - self._board[0] > _FRESH_SEC:
                self._board = time.monotonic(), self.board_now()
            return self._board[1]

    def batch_board(self, batch_id: str) -> BatchScoreboard:
        """Return one batch's scoreboard, at most ``_FRESH_SEC`` old.

        Raises:
            FileNotFoundError: there is no such batch.
        """
        with self._looking:
            known = self._batch_board
            if known is None or known[1].batch_id != batch_id or time.monotonic() - known[0] > _FRESH_SEC:
                known = self._batch_board = None  # a large one is let go before the next is made
                made = batch_scoreboard(self.layout, batch_id, self._heartbeats)
                known = self._batch_board = time.monotonic(), made
            return known[1]

    def lend(self, name: str, value: str) -> None:
        """Hand a secret to the ticking process, from any thread; a server without one has no place for it."""
        if self.ticker is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(self.ticker.lend, name, value)

    def leave(self) -> None:
        """Take away the socket in the file system, where there is one: nobody answers there any more."""
        if self.settings.unix_socket is not None:
            Path(self.settings.unix_socket).unlink(missing_ok=True)

    def poke(self) -> None:
        """Something was changed: show it, and have a tick follow."""
        self._board = self._batch_board = None
        if self.ticker is not None:
            self.ticker.poke()


def site_of(request: Request) -> ServerState:
    found = request.app.state.site
    assert isinstance(found, ServerState)  # noqa: S101 - create_app puts it there
    return found


SiteHere = Annotated[ServerState, Depends(site_of)]
