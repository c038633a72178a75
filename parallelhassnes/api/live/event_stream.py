"""What happens in the store, for any number of listeners: one reader of the ledgers, one short memory of events.

An event is a line of a ledger. Its id is ``<time>@<batch>@<offset behind it>``, so one that was missed is read from the
ledger itself: of its own batch exactly from there, of the others from shortly before that time on, and of a batch that was
made since then from its beginning, as lines are not seen in the order of their times. So none is missed, and some may be told
again; batch and ``seq`` say which. The memory is a ring that every listener goes through at its own pace; one that is
overtaken is told ``missed`` and goes on with the newest.
"""

import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from parallelhassnes.api.live.file_watcher import Watching
from parallelhassnes.names import is_safe_id
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text

log = logging.getLogger("parallelhassnes.api")

MEMORY = 5000
"""Events that a listener may lag behind."""
_LATE_SEC = 2.0
"""A line may be seen so long after one of another batch that is younger."""
_SYSTEM = "_system"
OPENING = ServerSentEvent(comment="listening", sep="\n").encode()
MISSED = ServerSentEvent("{}", event="missed", sep="\n").encode()


class StreamEvent(NamedTuple):
    """One event, as it goes out."""

    batch_id: str
    """``_system`` for what is said of queue keys, runners and tokens."""
    at: str
    data: bytes


class ListenerPlace(NamedTuple):
    """Where a listener was."""

    at: str
    batch_id: str
    offset: int


class Memory(NamedTuple):
    """What a reader of the ledgers has seen."""

    total: int
    """Events ever seen."""
    ring: tuple[StreamEvent, ...]
    """The last of them."""
    offsets: dict[str, int]
    """Batch → bytes of its ledger that were read."""


class EventStream:
    """Args:
    layout: the store.
    watching: looks at the ledgers while anybody listens.
    """

    def __init__(self, layout: Layout, watching: Watching) -> None:
        self._layout, self._watching = layout, watching

    async def listen(self, only: str | None, after: ListenerPlace | None, *, whole: bool) -> AsyncGenerator[bytes]:
        """Yield the events, from now on; before them a comment, once none can be missed.

        Args:
            only: of this batch.
            after: first what came after that.
            whole: first everything of the batch.
        """
        reader = LedgerReader(self._layout)
        async with self._watching.on(LedgerReader, reader.look) as watch:
            while watch.seen is None:
                await watch.changed(None)
            position, known = watch.seen.total, watch.seen.offsets
            yield OPENING
            if after is not None:
                for change in await run_in_threadpool(reader.after, after, only, known):
                    yield change.data
            elif whole and only is not None:
                for change in await run_in_threadpool(reader.part, only, 0, known.get(only, 0)):
                    yield change.data
            while True:
                while position < watch.seen.total:
                    behind = watch.seen.total - position
                    if behind > len(watch.seen.ring):
                        yield MISSED
                        position = watch.seen.total
                        break
                    change = watch.seen.ring[-behind]
                    position += 1
                    if only in (None, change.batch_id):
                        yield change.data
                await watch.changed(watch.seen)


class LedgerReader:
    """Reads what the ledgers of a store have got since the last look.

    Args:
        layout: the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._memory: Memory | None = None

    def look(self) -> Memory | None:
        """Return all that was seen since the first look; as it was before where the ledgers cannot be read now."""
        before = self._memory
        try:
            if before is None:
                self._memory = Memory(0, (), self._sizes({}))
            elif found := self._new(before.offsets):
                events, offsets = found
                self._memory = Memory(before.total + len(events), (*before.ring, *events)[-MEMORY:], offsets)
        except OSError:  # of one look; what it has missed is there at the next
            log.exception("the ledgers could not be read")
        return self._memory

    def _new(self, known: dict[str, int]) -> tuple[list[StreamEvent], dict[str, int]] | None:
        """Tell what has come since, and what is known then."""
        found: list[StreamEvent] = []
        sizes = self._sizes(known)
        if sizes == known:
            return None
        for batch_id, size in sizes.items():
            before = known.get(batch_id, 0)
            if size > before:
                sizes[batch_id] = before
                for change, behind in self._lines(batch_id, before):
                    found.append(change)
                    sizes[batch_id] = behind
        found.sort(key=lambda change: change.at)
        return found, sizes

    def _sizes(self, known: dict[str, int]) -> dict[str, int]:
        """Return batch → bytes of its ledger, of those that can be looked at."""
        sizes = {_SYSTEM: ledger.size(self._layout.system)}
        for entry in _entries(self._layout.runs):
            if entry[0] in "_.":
                continue
            size = ledger.size(self._layout.runs / entry)
            if size and (entry in known or self._is_whole(entry)):
                sizes[entry] = size
        return sizes

    def _is_whole(self, batch_id: str) -> bool:
        return (self._layout.batch(batch_id) / batches.META).exists()

    def _lines(self, batch_id: str, offset: int) -> Iterator[tuple[StreamEvent, int]]:
        for behind, line in ledger.read(self._folder(batch_id), offset):
            yield _change(batch_id, behind, line), behind

    def part(self, batch_id: str, start: int, end: int) -> list[StreamEvent]:
        """Tell what a batch's ledger has between two offsets."""
        found = self._lines(batch_id, start)
        return [change for change, behind in found if behind <= end]

    def after(self, place: ListenerPlace, only: str | None, known: dict[str, int]) -> list[StreamEvent]:
        """Tell what came after a place, up to what is known."""
        since = datetime.fromisoformat(place.at).timestamp() - _LATE_SEC
        since_text = now_text(datetime.fromtimestamp(since, UTC))
        found: list[StreamEvent] = []
        for batch_id in [only] if only is not None else list(known):
            folder, end = self._folder(batch_id), known.get(batch_id, 0)
            if batch_id == place.batch_id:
                found += self.part(batch_id, place.offset, end)
            elif _changed_at(folder / batches.META) >= since:
                found += self.part(batch_id, 0, end)
            elif _changed_at(folder / ledger.LEDGER) >= since:
                part = self.part(batch_id, 0, end)
                found += [change for change in part if change.at >= since_text]
        return sorted(found, key=lambda change: change.at)

    def _folder(self, batch_id: str) -> Path:
        return self._layout.runs / batch_id


def _change(batch_id: str, offset: int, line: dict[str, Any]) -> StreamEvent:
    at = str(line.get("at", ""))
    data = json.dumps({"batch_id": "" if batch_id == _SYSTEM else batch_id, **line})
    event = ServerSentEvent(data, id=f"{at}@{batch_id}@{offset}", sep="\n")
    return StreamEvent(batch_id, at, event.encode())


def place_of(event_id: str) -> ListenerPlace:
    """Tell where an event was.

    Raises:
        HTTPException: 400, it is the id of none.
    """
    at, _, rest = event_id.partition("@")
    batch_id, _, offset = rest.partition("@")
    with contextlib.suppress(ValueError):
        datetime.fromisoformat(at)
        if is_safe_id(batch_id) and offset.isdecimal() and len(offset) < 16:
            return ListenerPlace(at, batch_id, int(offset))
    raise HTTPException(400, "Last-Event-ID is not that of an event of this stream")


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
