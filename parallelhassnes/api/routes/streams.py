"""Server-sent events: the logs of an attempt as they grow, and what happens in a batch or the store.

Both are resumed by ``Last-Event-ID``, as browsers do by themselves. A stream that ends says so by an event ``end``:
a browser would ask again for one that just stops.
"""

import base64
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Id
from parallelhassnes.api.live.event_stream import place_of
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.routes.batches import batch_id
from parallelhassnes.attempt_data.follow_logs import Logs, LogText
from parallelhassnes.errors import UnknownId

router = APIRouter(prefix="/v1", tags=["streams"], dependencies=[Depends(needs("read"))])
log = logging.getLogger("parallelhassnes.api")

_PING_SEC = 15
_SLOW_SEC = 60.0
"""A reader that has taken nothing for so long is let go; it can resume."""
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events."}
}
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=4000, description="Go on after this one.")]


class Stream(EventSourceResponse):
    """A stream that lets go of a reader which takes nothing, and ends whole when the server stops."""

    def __init__(self, content: AsyncIterator[ServerSentEvent | bytes]) -> None:
        super().__init__(content, ping=_PING_SEC, send_timeout=_SLOW_SEC, sep="\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_whole = True

        async def watched(message: Message) -> None:
            nonlocal is_whole
            is_whole = not message.get("more_body", message["type"] == "http.response.start")
            await send(message)

        try:
            await super().__call__(scope, receive, watched)
        except SendTimeoutError:
            log.info("let go of a reader of %s that took nothing", scope["path"])
            return
        if not is_whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


# --- logs ---------------------------------------------------------------------------------------------


@router.get("/attempts/{attempt}/logs/stream", status_code=200, response_class=Stream, responses=STREAM)
async def stream_logs(
    site: SiteHere,
    attempt: Id,
    start: Annotated[
        Literal["start", "end"], Query(alias="from", description="From their beginning, or only what is new.")
    ] = "start",
    file: Annotated[
        str | None, Query(max_length=500, pattern=r"^[^\x00]*$", description="Only this log, such as `stdout.log`.")
    ] = None,
    last_event_id: LastEventId = None,
) -> Stream:
    """Its logs as they grow, until it is sealed: events `log` with `file` and `text`, at last `end` with `status`."""
    found = await run_in_threadpool(site.attempt, attempt)
    logs = Logs(site.layout, found.folder(site.layout), found)
    if last_event_id is not None:
        logs.go_to(_places(last_event_id))
    elif start == "end":
        await run_in_threadpool(logs.go_to_end)
    return Stream(_log_events(site, logs, file))


def _places(event_id: str) -> dict[str, int]:
    """Tell what has been read of which log, from the id of an event.

    Raises:
        HTTPException: 400, it is the id of none.
    """
    try:
        places = json.loads(base64.urlsafe_b64decode(event_id.encode()))
        if isinstance(places, dict) and all(type(n) is int and n >= 0 for n in places.values()):
            return places
    except ValueError:
        pass
    raise HTTPException(400, "Last-Event-ID is not that of an event of this stream")


async def _log_events(site: ServerState, logs: Logs, file: str | None) -> AsyncIterator[ServerSentEvent]:
    try:
        async for piece in follow_logs(site, logs, file):
            yield _event("log", {"file": piece.file, "text": piece.text}, logs)
        status = {"status": await run_in_threadpool(logs.status)}
    except (UnknownId, FileNotFoundError) as error:
        status = {"status": "gone", "why": str(error)}
    yield _event("end", status, logs)


async def follow_logs(site: ServerState, logs: Logs, file: str | None) -> AsyncIterator[LogText]:
    """Tell what the logs have got and get, until the attempt is sealed or gone.

    Raises:
        UnknownId: there is no such log.
    """
    async with site.watching.on(logs.dir, logs.look) as watch:
        seen = watch.seen
        with contextlib.closing(logs.follow(file, pause_sec=0)) as pieces:
            async for piece in iterate_in_threadpool(pieces):
                if piece is None:
                    seen = await watch.changed(seen)
                else:
                    yield piece


def _event(name: str, data: dict[str, str], logs: Logs) -> ServerSentEvent:
    """Return an event whose id says what of which log has been sent."""
    place = base64.urlsafe_b64encode(json.dumps(logs.places).encode()).decode()
    return ServerSentEvent(json.dumps(data, ensure_ascii=False), event=name, id=place)


# --- what happens -------------------------------------------------------------------------------------


@router.get("/events", status_code=200, response_class=Stream, responses=STREAM)
async def stream_events(
    site: SiteHere,
    batch: Annotated[
        str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9._-]+$", description="Only of this batch, or `latest`.")
    ] = None,
    start: Annotated[
        Literal["start", "now"], Query(alias="from", description="From the batch's beginning, or from now on.")
    ] = "now",
    last_event_id: LastEventId = None,
) -> Stream:
    """Every line of the ledgers as it is written: who or what did what to which step, with `batch_id`.

    An event `missed` says that the reader was too slow for all of them and should look anew.
    """
    only = None if batch is None else await run_in_threadpool(batch_id, site, batch)
    if start == "start" and only is None:
        raise HTTPException(422, "from=start is of one batch; add batch=ID")
    after = None if last_event_id is None else place_of(last_event_id)
    events = site.changes.listen(only, after, whole=start == "start")
    opening = await anext(events)  # its place is taken before the reader is told that it listens
    return Stream(_after(opening, events))


async def _after(opening: bytes, events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    yield opening
    async with contextlib.aclosing(events):
        async for event in events:
            yield event
