"""The queue: keys with their limits and breakers, runners, and setting their limits."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from parallelhassnes.actions import pause_resume
from parallelhassnes.actions.pause_resume import Held
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import KnownHere, polled
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.key_names import MAX_KEY
from parallelhassnes.views.runners import with_what_they_run
from parallelhassnes.views.scoreboard_models import QueueLine, RunnerLine, SlurmNow

router = APIRouter(prefix="/v1", tags=["queue"], dependencies=[Depends(needs("read"))])


class Queue(BaseModel):
    """Every queue key with something live, to start, or held back."""

    concurrency: int
    """Live attempts on this host at most."""
    live: int
    shortage: str
    """Why nothing starts on this host; empty where there is enough disk and memory."""
    incoming: int
    """Tables that wait to be ingested."""
    rejected: int
    keys: list[QueueLine]


class Runners(BaseModel):
    """The places where attempts run."""

    items: list[RunnerLine]
    slurm: SlurmNow | None = None
    """Jobs of Slurm that are runners, or one attempt each; null where there are none."""


class Limits(BaseModel):
    """What the concurrency limits are said to be; the smallest counts."""

    concurrency: int
    """Of this host, by the configuration."""
    configured: dict[str, int]
    """Queue key → limit by the configuration."""
    in_force: dict[str, int]
    """Queue key → limit that counts now, of the keys in the queue."""
    why: dict[str, str] = {}
    """Queue key → who set that limit, or what has lowered it."""


class LimitWanted(BaseModel):
    """A limit that takes the place of the configured one."""

    model_config = ConfigDict(extra="forbid")
    key: str = Field(min_length=1, max_length=MAX_KEY)
    limit: int | None = Field(ge=1, le=999_999)
    """Live attempts at most; null takes an operator's limit away again."""
    reason: str = Field(default="", max_length=500)


@router.get("/queue", response_model=Queue)
def get_queue(known: KnownHere, site: SiteHere) -> Response:
    """Per key: limit, live, ready, delayed, breaker, pause and the last changes."""
    board = site.board()
    document = Queue(
        concurrency=board.concurrency,
        live=board.live,
        shortage=board.shortage,
        incoming=board.incoming,
        rejected=board.rejected,
        keys=board.queue,
    )
    return polled(known, document)


@router.get("/limits", response_model=Limits)
def get_limits(known: KnownHere, site: SiteHere) -> Response:
    """The limits as configured, and as they count now."""
    board = site.board()
    in_force = {line.queue_key: line.limit for line in board.queue if line.limit is not None}
    config = site.context().config
    document = Limits(
        concurrency=config.concurrency,
        configured=config.limits,
        in_force=in_force,
        why={line.queue_key: line.limit_why for line in board.queue if line.limit is not None},
    )
    return polled(known, document)


@router.put("/limits", dependencies=[Depends(needs("operate"))])
def set_limit(site: SiteHere, wanted: Annotated[LimitWanted, Body()]) -> Held:
    """Set the live attempts of a queue key while things run, in the place of the configured limit."""
    return pause_resume.limit(site.context(), wanted.key, wanted.limit, wanted.reason)


@router.get("/runners", response_model=Runners)
def list_runners(known: KnownHere, site: SiteHere) -> Response:
    """Each runner's load, capacity and health as it last reported, what it runs, and the jobs of Slurm with why they wait."""
    board = site.board()
    return polled(known, Runners(items=with_what_they_run(site.context(), board.runners), slurm=board.slurm))
