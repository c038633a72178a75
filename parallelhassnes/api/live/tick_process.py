"""The server's ticking process: started with the server, ended with it, started again where it dies.

The server itself runs threads and an event loop, so it forks nothing and starts no attempt.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

from parallelhassnes.execute.processes import OURSELVES

log = logging.getLogger("parallelhassnes.api")

ANSWER_SEC = 60.0
"""Time within which a tick is expected to be over; ticks wait for no attempt."""
_CLOSE_SEC = 5.0
_RESTART_SEC = 1.0
_FIRST_SEC = 60.0
"""Time within which the first tick is expected to be over."""


class Unanswered(Exception):
    """The ticking process ended, or took too long; the message says which."""


class Ticker:
    """Args:
    root: what is ticked.
    every_sec: time between two ticks when nobody asks for one.
    """

    def __init__(self, root: Path, every_sec: float) -> None:
        self._command = [*OURSELVES, "parallelhassnes.admin.tick_loop", str(root), str(every_sec)]
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._unsent: list[bytes] = []
        """What was wished for while there was no process."""
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._every, self._began = every_sec, time.monotonic()
        self._last: tuple[float, str] | None = None
        """When the process last ended a tick, and what went wrong in it; None where it has died since."""
        self._died = False

    def trouble(self) -> str:
        """Tell why it does not tick, in one line; empty while it ticks."""
        if self._last is None:
            if self._died:
                return "the ticking process dies; see the server's log"
            young = time.monotonic() - self._began < _FIRST_SEC
            return "" if young else f"the ticking process has not ticked within {_FIRST_SEC:g} s"
        at, error = self._last
        late = time.monotonic() - at - self._every
        return error or (f"the last tick ended {late + self._every:.0f} s ago" if late > ANSWER_SEC else "")

    async def start(self) -> None:
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Have it end after the tick that it is at."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _CLOSE_SEC)

    def poke(self) -> None:
        """Have a tick follow soon; many wishes at once are served by one."""
        self._say({"id": 0})

    def lend(self, name: str, value: str) -> None:
        """Hand it a secret for one batch; the secret is nowhere else, so it goes with the process."""
        self._say({"lend": {name: value}})

    async def tick(self, concurrency: int | None = None) -> dict[str, Any]:
        """Run one tick, and tell what it did.

        Raises:
            Unanswered: nothing came back.
        """
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._say({"id": number, "concurrency": concurrency})
            return await asyncio.wait_for(answer, ANSWER_SEC)
        except TimeoutError:
            raise Unanswered(f"the tick is not over after {ANSWER_SEC:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def _say(self, request: dict[str, Any]) -> None:
        line = json.dumps(request).encode() + b"\n"
        if self._process is None or self._process.stdin is None:
            self._unsent.append(line)
        else:
            self._process.stdin.write(line)

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=1 << 26,
        )
        if self._process.stdin is not None:
            self._process.stdin.writelines(self._unsent)
        self._unsent.clear()

    async def _keep(self) -> None:
        """Take its answers; where it ends, start another."""
        while True:
            process = self._process
            if process is not None and process.stdout is not None:
                async for line in process.stdout:
                    self._take(json.loads(line))
                self._process, self._last, self._died = None, None, True
                code = await process.wait()
                log.error("the ticking process ended (exit code %s); starting another", code)
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Unanswered("the ticking process ended"))
            await asyncio.sleep(_RESTART_SEC)
            await self._spawn()

    def _take(self, document: dict[str, Any]) -> None:
        if "ticked" in document:
            self._last, self._died = (time.monotonic(), document["ticked"]), False
            return
        answer = self._waiting.get(document.pop("id"))
        if answer is not None and not answer.done():
            answer.set_result(document)
