"""What goes wrong around a store besides kills.

Processes stand still, the configuration is edited, a disk refuses, clocks are set, the package is upgraded in place
(``surroundings``). Nothing here ends anything: what was done is undone by itself, or by ``over``, so that the round can end.
"""

import contextlib
import errno
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from tests.faults import drive
from tests.faults.surroundings import Surroundings

MEAN_GAP_SEC = 0.25
_LONGEST_SEC = 1.0
_OF_FILES = 0.1
_REFUSALS = (errno.ENOSPC, errno.EIO)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KINDS = ("stop", "edit", "broken edit", "refusing disk", "other clock", "clock jump", "upgrade", "files away")
_PATHS = {"os.rename": 2, "os.link": 2, "os.mkdir": 1, "os.remove": 1}


class Disturber:
    """Args:
    config: the configuration that the store is to end with.
    """

    def __init__(self, ctx: Context, chance: random.Random, done: Counter[str], config: str) -> None:
        self._ctx, self._chance, self._done, self._config = ctx, chance, done, config
        self._around = Surroundings()
        self._file = ctx.layout.root / "parallelhassnes.toml"
        self._stopped: dict[int, float] = {}
        self._next = time.monotonic()

    def look(self) -> int | None:
        """Do what is due; the pid of a tick that was started for it."""
        now = time.monotonic()
        for pid in [pid for pid, until in self._stopped.items() if until <= now]:
            self._go_on(pid)
        self._around.put_back(now)
        if now < self._next:
            return None
        self._next = now + self._chance.expovariate(1 / MEAN_GAP_SEC)
        what = self._chance.choice(KINDS)
        self._done[what] += 1
        match what:
            case "stop":
                self._stop()
            case "refusing disk":
                number, share = self._chance.choice(_REFUSALS), self._chance.uniform(0.02, 0.5)
                return drive.start(lambda: self._refused_tick(number, share))
            case "other clock":
                clock = self._around.another_clock(self._chance)
                return drive.start(lambda: (self._around.live_by(clock), tick(self._ctx)))
            case "clock jump":
                self._around.jump(self._chance)
            case "upgrade":
                self._around.upgrade()
                return drive.start(self._tick_of_files)
            case "files away":
                self._around.take_away(self._chance, now)
            case _:
                number = self._chance.randrange(1, 8)
                edited = self._config.replace("concurrency = 6", f"concurrency = {number}")
                self._file.write_text(edited if what == "edit" else edited + "concurrency = [\n")
        return None

    def tick(self) -> None:
        """A tick as cron starts it, of this process's package or of the one that is in the files."""
        if self._fork_chance().random() < _OF_FILES:
            self._tick_of_files()
        tick(self._ctx)

    def _tick_of_files(self) -> None:
        self._around.tick_of_files(self._ctx.layout.root, self._fork_chance())

    def _fork_chance(self) -> random.Random:
        """Of a fork: it would otherwise throw what its siblings do."""
        return random.Random(os.getpid())

    def over(self) -> None:
        """Undo all of it."""
        for pid in list(self._stopped):
            self._go_on(pid)
        self._around.over()
        self._file.write_text(self._config)

    def _stop(self) -> None:
        found = drive.descendants()
        if found:
            pid = self._chance.choice(found)
            if processes.send(pid, None, signal.SIGSTOP):
                self._stopped[pid] = time.monotonic() + self._chance.uniform(0.05, _LONGEST_SEC)

    def _go_on(self, pid: int) -> None:
        del self._stopped[pid]
        processes.send(pid, None, signal.SIGCONT)

    def _refused_tick(self, number: int, share: float) -> None:
        """A tick, and what it starts, for which a share of all changes below the root is refused for a while."""
        root, until = f"{self._ctx.layout.runs}/", time.monotonic() + self._chance.uniform(0.1, 1)
        chance = self._fork_chance()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open":
                is_change = isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
                paths = arguments[:1] if is_change else ()
            else:
                paths = arguments[: _PATHS.get(event, 0)]
            if not paths or time.monotonic() > until:
                return
            if any(isinstance(path, str) and path.startswith(root) for path in paths) and chance.random() < share:
                raise OSError(number, os.strerror(number), paths[0])

        sys.addaudithook(hook)
        with contextlib.suppress(OSError):  # refused a file that it cannot do without
            tick(self._ctx)
