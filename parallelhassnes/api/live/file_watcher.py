"""Looking at files once for all who wait for them to change.

A listener keeps its own place and reads at its own pace, so a slow one holds nothing up and nothing is queued for it; all
that is shared is the look that tells them when to read again. It stops with the last listener.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any

from starlette.concurrency import run_in_threadpool

LOOK_SEC = 0.25
_SHARE = 20
"""A look takes at most one part in so many of the time: a costly one is made less often."""


class Watch[T]:
    """Args:
    look: what the files are like now; runs in a thread. Something that compares equal means no change.
    """

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._woken = asyncio.Event()
        self.seen: T | None = None
        """None before the first look, and while the files cannot be looked at: those who read them will see why."""
        self.listeners = 0

    async def run(self) -> None:
        """Look until canceled."""
        while True:
            began = time.monotonic()
            found = None
            with contextlib.suppress(OSError):
                found = await run_in_threadpool(self._look)
            if found != self.seen:
                self.seen = found
                woken, self._woken = self._woken, asyncio.Event()
                woken.set()
            await asyncio.sleep(max(LOOK_SEC, _SHARE * (time.monotonic() - began)))

    async def changed(self, since: T | None) -> T | None:
        """Wait until it is no longer as it was; what it is like then."""
        while self.seen == since:
            await self._woken.wait()
        return self.seen


class Watching:
    """The watches of a server, each for as long as somebody listens."""

    def __init__(self) -> None:
        self._watches: dict[Hashable, tuple[Watch[Any], asyncio.Task[None]]] = {}

    def listeners(self, kind: type[Hashable]) -> list[int]:
        """Tell how many listen to each key of that type."""
        return [watch.listeners for key, (watch, _) in self._watches.items() if isinstance(key, kind)]

    @contextlib.asynccontextmanager
    async def on[T](self, key: Hashable, look: Callable[[], T]) -> AsyncIterator[Watch[T]]:
        """Give the watch of that key, shared with all who are in such a block now."""
        if key not in self._watches:
            made = Watch(look)
            self._watches[key] = made, asyncio.create_task(made.run())
        watch, task = self._watches[key]
        watch.listeners += 1
        try:
            yield watch
        finally:
            watch.listeners -= 1
            if not watch.listeners:
                del self._watches[key]
                task.cancel()
