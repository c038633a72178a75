"""One connection, as uvicorn keeps it; with an end to patience, and requests that are told who is at the other end."""

import asyncio
import contextlib

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from parallelhassnes.api.http.peers import Peer
from parallelhassnes.config import ApiConfig

_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """Gives each request the state ``peer``, and closes connections on which a request begins and does not go on."""

    head_sec = ApiConfig().head_sec
    body_sec = ApiConfig().body_sec
    _patience: asyncio.TimerHandle | None = None
    _waits_for: object = None
    """State of the other end in which the patience began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: find out who it is while they are there."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": Peer(transport.get_extra_info("socket"))}
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on; what is whole has been handed to the application."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Begin to wait for the rest of a head (whose time goes on while it trickles in) or for more of a body."""
        state = self.conn.their_state
        if state is h11.IDLE:
            if self._waits_for is not h11.IDLE:
                self._start(self.head_sec, h11.IDLE)
        elif state is h11.SEND_BODY:
            self._start(self.body_sec, state)
        else:
            self._stop()

    def _start(self, seconds: float, state: object) -> None:
        self._stop()
        self._waits_for = state
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _stop(self) -> None:
        self._waits_for = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self._waits_for is h11.SEND_BODY and self.flow.read_paused:  # it is us who take nothing
            self._start(self.body_sec, h11.SEND_BODY)
            return
        begun = self.cycle is not None and self.cycle.response_started
        if self._waits_for is h11.IDLE:
            begun = not self.conn.trailing_data[0]  # nothing was asked: there is nothing to answer
        if not begun:
            self.transport.write(_LATE)
        with contextlib.suppress(h11.LocalProtocolError):
            self.conn.send(h11.ConnectionClosed())
        self.transport.close()


def patient_by(settings: ApiConfig) -> type[Connection]:
    """Connections that wait as long as the settings say."""
    return type("Connection", (Connection,), {"head_sec": settings.head_sec, "body_sec": settings.body_sec})
