"""What a command in a sandbox prints: collected without ever holding more than a bounded part of it."""

import asyncio
import codecs
from collections import deque
from collections.abc import Awaitable, Callable
from typing import BinaryIO, cast

KEPT = 16 * 2**20
"""Bytes kept of each end of a stream; what is between them is counted and dropped."""

type Listener = Callable[[str], Awaitable[None]]


class PipeReader(asyncio.Protocol):
    """One pipe: keeps the first and the last ``KEPT`` bytes, and hands text on to a listener as it comes."""

    def __init__(self, *, listened: bool = False, sink: BinaryIO | None = None) -> None:
        """``listened``: text is handed on; ``sink``: bytes go to this file, and nothing is kept."""
        self.sink = sink
        self.head = bytearray()
        self.tail: deque[bytes] = deque()
        self.tail_size = 0
        self.dropped = 0
        self.moved = 0
        """Bytes seen so far."""
        self.ended = asyncio.get_running_loop().create_future()
        self.heard: asyncio.Queue[bytes | None] | None = asyncio.Queue() if listened else None
        self.transport: asyncio.ReadTransport | None = None
        self.forgotten = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        self.moved += len(data)
        if self.forgotten:
            return
        if self.sink is not None:
            self.sink.write(data)
            return
        if self.heard is not None:
            self.heard.put_nowait(data)
            if self.heard.qsize() > 64 and self.transport is not None:
                self.transport.pause_reading()
        room = KEPT - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        if data:
            self._keep_tail(data)

    def _keep_tail(self, data: bytes) -> None:
        self.tail.append(data)
        self.tail_size += len(data)
        while self.tail_size - len(self.tail[0]) >= KEPT:
            gone = self.tail.popleft()
            self.tail_size -= len(gone)
            self.dropped += len(gone)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.heard is not None:
            self.heard.put_nowait(None)
        if not self.ended.done():
            self.ended.set_result(None)

    def forget(self) -> None:
        """Keep the pipe open, so that a process left in the background can write on, but keep nothing of it."""
        self.forgotten = True
        if self.heard is not None:
            self.heard.put_nowait(None)
        if self.transport is not None:
            self.transport.resume_reading()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def content(self) -> bytes:
        gap = f"\n[… {self.dropped} bytes left out …]\n".encode() if self.dropped else b""
        return bytes(self.head) + gap + b"".join(self.tail)

    def text(self) -> str | None:
        """Tell what was printed; None for nothing, as Harbor's own environments have it."""
        return self.content().decode(errors="replace") or None

    async def listen(self, listener: Listener) -> None:
        """Hand text to ``listener`` line by line until the stream ends or is forgotten."""
        if self.heard is None:
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while (data := await self.heard.get()) is not None:
            if self.transport is not None and self.heard.qsize() <= 16:
                self.transport.resume_reading()
            *lines, rest = (rest + decoder.decode(data)).splitlines(keepends=True) or [""]
            if rest.endswith("\n"):
                lines, rest = [*lines, rest], ""
            for line in lines:
                await listener(line)
        if rest := rest + decoder.decode(b"", final=True):
            await listener(rest)
