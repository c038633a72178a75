"""The output of an attempt, as it is or as it grows: its logs, its agent's, its verifier's; and the last of it, told line by line.

Whoever follows logs does it by ``Logs.follow``: commands, streams over HTTP, the calls of earlier programs. Following polls: the
files may be written by another host, whose changes no notification tells of. How to wait is the caller's: commands sleep, the
server has one look for all listeners of an attempt (``api/live/file_watcher.py``).
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import names, walk
from parallelhassnes.attempt_data.safe_open import open_below
from parallelhassnes.errors import UnknownId
from parallelhassnes.plan import AgentPlan
from parallelhassnes.refs import Found, newest_attempt
from parallelhassnes.steps.agent.adapters.agent_cli import EventReader
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.evidence import removals
from parallelhassnes.store.layout import Layout

FIXED = ("supervisor.log", "stdout.log", "stderr.log", "trial/trial.log")
FOLDERS = ("trial/agent", "trial/verifier", "trial/steps")
AGENT = (".events.jsonl", ".log")
ENDINGS = (".log", ".txt", ".out", ".err", ".jsonl")
EVENTS = ".events.jsonl"
POLL_SEC = 0.2
CHUNK = 1 << 16


class LogText(NamedTuple):
    """A piece of one log, of whole lines unless the log itself ends within one."""

    file: str
    """Relative to the attempt's folder."""
    text: str


class Logs:
    """The logs of one attempt.

    One that is listed and then not there has been moved away: Harbor puts the logs of each step of a task aside.
    """

    def __init__(self, layout: Layout, attempt_dir: Path, found: Found) -> None:
        self.layout, self.dir, self.found = layout, attempt_dir, found
        self._read: dict[str, int] = {}

    def files(self) -> list[str]:
        """Return the logs that are there and not empty, in the order in which they are shown."""
        found = [name for name in FIXED if self._size(name)]
        agents = [name for name, size in walk.files(self.dir, "agent") if size and name.count("/") == 1]
        found += [name for ending in AGENT for name in agents if name.endswith(ending)]
        for folder in FOLDERS:
            below = walk.files(self.dir, folder)
            found += [name for name, size in below if size and name.endswith(ENDINGS)]
        return found

    def new(self, only: str | None = None) -> Generator[LogText]:
        """Tell what the logs have got since the last call: at first, all.

        Args:
            only: one log, by its path in the attempt's folder or the end of that.

        Raises:
            UnknownId: ``only`` names none, once the attempt has ended.
        """
        chosen = self.files() if only is None else self._chosen(only)
        done = self.ended
        if only is None:  # what comes back under a name is another log, read from its beginning
            self._read = {name: n for name, n in self._read.items() if name in chosen}
        for name in chosen:
            with contextlib.suppress(UnknownId):
                yield from self._rest(name, done=done)

    def follow(self, only: str | None = None, pause_sec: float = POLL_SEC) -> Generator[LogText | None]:
        """As ``new``, until the attempt is sealed or its folder is gone; None at each look that found nothing.

        Args:
            only: as in ``new``.
            pause_sec: the time between such a look and the next; 0 where the caller waits by itself.

        Raises:
            UnknownId: as in ``new``.
        """
        while True:
            over = self.ended or walk.kind(self.dir) != "folder"
            some = False
            for piece in self.new(only):
                some = True
                yield piece
            if over:
                return
            if not some:
                yield None
                time.sleep(pause_sec)

    def look(self) -> tuple[object, ...]:
        """Tell what is the same as long as there is nothing new to read: whether the attempt has ended, each log's size in bytes."""
        return self.ended, walk.kind(self.dir) == "folder", *((name, self._size(name)) for name in self.files())

    @property
    def places(self) -> dict[str, int]:
        """Log → bytes of it that ``new`` has given."""
        return dict(self._read)

    def go_to(self, places: dict[str, int]) -> None:
        """Have ``new`` go on after what was given before, elsewhere."""
        self._read = dict(places)

    def go_to_end(self) -> None:
        """Have ``new`` leave out what is there already, but for a line that has only begun."""
        for name in self.files():
            with contextlib.suppress(UnknownId):
                self.last_lines(name, 0, CHUNK)

    def last_lines(self, name: str, count: int, most: int) -> str:
        """Return the last whole lines of one log; ``new`` goes on behind them.

        Args:
            name: its path in the attempt's folder.
            count: of lines.
            most: bytes from the end that are looked at; what is left of a line at their beginning counts as one.

        Raises:
            UnknownId: there is no such log.
        """
        with self.open(name) as stream:
            start = max(0, os.fstat(stream.fileno()).st_size - most)
            stream.seek(start)
            data = stream.read(most)
        end = data.rfind(b"\n") + 1
        self._read[name] = start + (end or (len(data) if start else 0))
        lines = data[:end].splitlines(keepends=True)
        return b"".join(lines[len(lines) - min(count, len(lines)) :]).decode("utf-8", "replace")

    def last_said(self, count: int, most: int = 8192) -> tuple[str, list[str]]:
        """Return the log that was written last, and its last lines that are not empty; nothing where none is there.

        Args:
            count: of lines.
            most: bytes from its end that are looked at.
        """
        newest: tuple[float, str] = (0.0, "")
        for name in self.files():
            with contextlib.suppress(UnknownId), self.open(name) as stream:
                if not name.endswith(EVENTS):
                    newest = max(newest, (os.fstat(stream.fileno()).st_mtime, name))
        with contextlib.suppress(UnknownId):
            texts, _ = self.tails(newest[1], most) if newest[1] else ({}, [])
            lines = [line for text in texts.values() for line in text.splitlines() if line.strip()]
            return newest[1], lines[-count:]
        return "", []

    def status(self) -> str:
        """Tell how the attempt stands."""
        return attempts.read_state(self.dir).status

    def tails(self, only: str | None, most: int) -> tuple[dict[str, str], list[str]]:
        """Return the end of each log, and the names of those of which something is left out.

        Args:
            only: as in ``new``.
            most: bytes of each at most; what is left of a line at the beginning is left out, too.

        Raises:
            UnknownId: as in ``new``.
        """
        texts: dict[str, str] = {}
        cut = []
        for name in self.files() if only is None else self._chosen(only):
            with contextlib.suppress(UnknownId), self.open(name) as stream:
                left = max(0, os.fstat(stream.fileno()).st_size - most)
                stream.seek(left)
                data = stream.read(most)
                if left:
                    cut.append(name)
                    data = data[data.find(b"\n") + 1 :]
                texts[name] = data.decode("utf-8", "replace")
        return texts, cut

    @property
    def removed(self) -> str:
        """When and by which rule of ``[retention]`` the attempt's files were removed; empty if all are there."""
        gone = removals.of_attempt(self.dir)
        return gone.line if gone else ""

    @property
    def ended(self) -> bool:
        return attempts.is_sealed(self.dir)

    def _size(self, name: str) -> int:
        try:
            with self.open(name) as stream:
                return os.fstat(stream.fileno()).st_size
        except UnknownId:
            return 0

    def _is_there(self, name: str) -> bool:
        try:
            self.open(name).close()
        except UnknownId:
            return False
        return True

    def open(self, name: str) -> FileIO:
        """Return a log by its path in the attempt's folder; never what a link leads to: an agent may have made it.

        Raises:
            UnknownId: there is no such file.
        """
        return FileIO(open_below(self.dir, name))

    def _chosen(self, only: str) -> list[str]:
        known = self.files()
        wanted = only.removeprefix("./")
        fitting = [n for n in known if n == wanted] or [n for n in known if n.endswith(f"/{wanted}")]
        if not fitting and self._is_there(wanted):
            fitting = [wanted]
        if not fitting and self.ended:
            gone = removals.of_attempt(self.dir)
            fix = gone.line if gone else names.suggestion(only, known, "there are")
            raise UnknownId(f"{self.found} has no log {only}", fix=fix)
        return fitting

    def _rest(self, name: str, *, done: bool) -> Iterator[LogText]:
        """Tell what was not read yet, in whole lines; at the end of the attempt also what lacks its newline."""
        with self.open(name) as stream:
            stream.seek(self._read.get(name, 0))
            kept = b""
            while chunk := stream.read(CHUNK):
                data = kept + chunk
                cut = data.rfind(b"\n") + 1
                if not cut and len(data) >= CHUNK:
                    cut = len(data)
                kept = data[cut:]
                if cut:
                    yield self._piece(name, data[:cut])
            if kept and done:
                yield self._piece(name, kept)

    def _piece(self, name: str, data: bytes) -> LogText:
        self._read[name] = self._read.get(name, 0) + len(data)
        return LogText(name, data.decode("utf-8", "replace"))


def open_logs(layout: Layout, text: str) -> Logs:
    """Return the logs of what ``text`` names: an attempt, or the newest one of a step, a job or a batch.

    Raises:
        UnknownId: it names nothing, more than one thing, or something that was never attempted.
    """
    found = newest_attempt(layout, text)
    return Logs(layout, found.folder(layout), found)


def tail(layout: Layout, text: str, count: int, *, follow: bool) -> Iterator[str | None]:
    """Yield the last lines of the (newest) attempt that an id names, then, with ``follow``, those that come until it ends.

    None stands for a look that found nothing new.

    Raises:
        UnknownId: the id names nothing, or something that was never attempted.
    """
    logs = open_logs(layout, text)
    teller = _Teller(layout, logs)
    yield from deque((line for piece in logs.new() for line in teller.lines(piece.file, piece.text)), count)
    if not follow:
        return
    yield None
    for piece in logs.follow():
        if piece is None:
            yield None
        else:
            yield from teller.lines(piece.file, piece.text)


class _Teller:
    """Turns what the logs have got into lines to read."""

    def __init__(self, layout: Layout, logs: Logs) -> None:
        self._reader = _reader(layout, logs)
        self._item: str | None = None
        self._message: str | None = None

    def lines(self, file: str, text: str) -> Iterator[str]:
        if self._reader is None or not file.endswith(EVENTS):
            yield from text.splitlines()
            return
        for line in text.splitlines(keepends=True):
            self._reader.feed(line.encode("utf-8", "surrogateescape"))
            said = self._reader.transcript
            if said.current_item not in (None, self._item):
                yield f"· {said.current_item}"
            if said.message not in (None, self._message):
                yield from (said.message or "").splitlines()
            if said.failure is not None:
                yield f"! {said.failure.line}"
            self._item, self._message = said.current_item, said.message


def _reader(layout: Layout, logs: Logs) -> EventReader | None:
    """Return the reader of an agent's events; None where the attempt is of another kind."""
    found = logs.found
    job = batches.read_job(layout.job(found.batch_id, found.job_id or ""))
    step = job.step(found.step_id or "")
    if step.kind != "agent":
        return None
    plan = AgentPlan.model_validate(step.spec)
    return agent(plan.agent, plan.command, plan.program).reader()
