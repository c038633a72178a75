"""Keys of the live display: choose an attempt, read its log, cancel it, pause the batch, filter.

Keys are read where standard input is a terminal, between two looks and without waiting. The terminal gives them one by one meanwhile
(cbreak), and keeps Ctrl-C; it is put back as it was at the end.
"""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from parallelhassnes import places
from parallelhassnes.actions.registry import BY_NAME
from parallelhassnes.attempt_data.follow_logs import open_logs
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import batches, members
from parallelhassnes.views.scoreboard_models import RunningStep

HELP = "↑ ↓ choose · l log · c cancel · p pause, resume · f filter · q leave"
_ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}
_NAMED = {"k": "up", "j": "down", "\n": "l", "\r": "l", "/": "f"}
_DELETE = ("\x7f", "\b")
_ESCAPE = "\x1b"


class Keyboard:
    """Standard input as keys; where it is no terminal, nothing is ever pressed."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    @property
    def is_there(self) -> bool:
        return self._before is not None

    def start(self) -> None:
        """Have the terminal give keys one by one."""
        with contextlib.suppress(OSError, ValueError, termios.error):
            if sys.stdin.isatty() and _is_ours():
                self._before = termios.tcgetattr(sys.stdin.fileno())
                tty.setcbreak(sys.stdin.fileno(), termios.TCSANOW)

    def stop(self) -> None:
        """Put the terminal back as it was."""
        if self._before is not None and _is_ours():
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._before)
        self._before = None

    def pressed(self) -> Iterator[str]:
        """Yield the keys that were pressed since the last call; arrows as ``up`` and ``down``."""
        handle = sys.stdin.fileno()
        while self._before is not None and _is_ours() and select.select([handle], [], [], 0)[0]:
            data = os.read(handle, 64)
            if not data:  # the terminal is gone
                self._before = None
                return
            if data in _ARROWS:
                yield _ARROWS[data]
            elif not data.startswith(b"\x1b"):
                yield from data.decode("utf-8", "ignore")
            elif len(data) == 1:
                yield _ESCAPE


def _is_ours() -> bool:
    """Tell whether the terminal is this process's to read: a job in the background is stopped where it tries."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # no terminal that commands this process
        return True


class Choices:
    """What was chosen with keys, and what came of it."""

    def __init__(self, ctx: Context, batch_ids: list[str]) -> None:
        self.ctx, self.batch_ids = ctx, batch_ids
        self.filter = ""
        self.log: RunningStep | None = None
        """The attempt whose log is shown."""
        self.note = ""
        self._paused: set[str] = set()  # batches that ``p`` has paused here
        self._typing = False
        self._asking: RunningStep | None = None
        self._row = 0

    @property
    def keeps_open(self) -> bool:
        """Whether a batch that was paused here by a key is paused still: the display stays, so that a key lets it go on."""
        for batch_id in tuple(self._paused):
            with members.apart(batch_id, lambda _: None):
                if batches.read_control(self.ctx.layout.batch(batch_id)).paused is not None:
                    return True
            self._paused.discard(batch_id)
        return False

    def shown(self, running: list[RunningStep]) -> list[RunningStep]:
        """Return the live attempts that the filter leaves."""
        wanted = self.filter.lower()
        return [step for step in running if wanted in f"{step.step} {step.label} {step.phase}".lower()]

    def chosen(self, shown: list[RunningStep]) -> RunningStep | None:
        """Return the attempt that keys are about."""
        self._row = min(self._row, max(0, len(shown) - 1))
        return shown[self._row] if shown else None

    def press(self, key: str, running: list[RunningStep]) -> None:
        """Do what a key says.

        Raises:
            KeyboardInterrupt: it says to leave.
        """
        if self._typing:
            self._type(key)
            return
        shown = self.shown(running)
        chosen = self.chosen(shown)
        if self._asking is not None:
            asked, self._asking = self._asking, None
            self.note = self._do("cancel", places.named(asked.attempt)) if key == "y" else f"{asked.step} goes on"
            return
        self.note = ""
        match _NAMED.get(key, key):
            case "up" | "down" as way:
                self._row = max(0, min(len(shown) - 1, self._row + (1 if way == "down" else -1)))
            case "l":
                self.log = None if self.log is not None else chosen
            case "c" if chosen is not None:
                self._asking = chosen
                self.note = f"cancel {chosen.step}? y cancels it, any other key does not"
            case "p":
                self._pause(
                    self.batch_ids
                    or ([places.named(chosen.attempt).partition("/")[0]] if chosen is not None else [*self._paused])
                )
            case "f":
                self._typing, self.filter, self._row = True, "", 0
            case "q":
                raise KeyboardInterrupt
            case "\x1b":
                self.log, self.filter = None, ""

    def foot(self) -> Text:
        """Return the last line: what is asked or was done, what is typed, or the keys."""
        if self._typing:
            return Text(f"filter: {self.filter}█  Enter keeps it, Esc drops it", style="bold")
        kept = f"filter: {self.filter} · " if self.filter else ""
        if self.keeps_open and not self.note:
            return Text(f"{kept}paused · p lets it go on · q leaves it paused", style="bold")
        return Text(self.note, style="bold") if self.note else Text(f"{kept}{HELP}", style="dim")

    def log_lines(self, count: int) -> list[str]:
        """Return the end of the log that is shown, its name first."""
        if self.log is None:
            return []
        try:
            name, lines = open_logs(self.ctx.layout, places.named(self.log.attempt)).last_said(count)
        except UserError as error:
            return [str(error)]
        return [f"==> {self.log.step} {name} <==  l or Esc goes back", *(lines or ["nothing is written yet"])]

    def last_line(self, step: RunningStep) -> str:
        """Return what an attempt does or said last."""
        if step.item:
            return step.item
        with contextlib.suppress(UserError):
            _, lines = open_logs(self.ctx.layout, places.named(step.attempt)).last_said(1)
            return lines[-1].strip() if lines else ""
        return ""

    def _type(self, key: str) -> None:
        if key in ("\n", "\r", _ESCAPE):
            self._typing = False
            self.filter = "" if key == _ESCAPE else self.filter
        elif key in _DELETE:
            self.filter = self.filter[:-1]
        elif key.isprintable() and len(key) == 1:
            self.filter += key

    def _pause(self, batch_ids: list[str]) -> None:
        self.note = "" if batch_ids else "nothing runs whose batch could be paused"
        for batch_id in batch_ids:
            self.note = self._do("pause", batch_id)
            if "as before" in self.note:
                self.note = self._do("resume", batch_id)
                self._paused.discard(batch_id)
            else:
                self._paused.add(batch_id)

    def _do(self, action: str, target: str) -> str:
        try:
            return " ".join(BY_NAME[action].do(self.ctx, target).lines())
        except UserError as error:
            return str(error)
