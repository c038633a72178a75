"""``/health`` and ``POST /v1/tick``."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from parallelhassnes import __version__
from parallelhassnes.api.auth import needs
from parallelhassnes.api.site import Site, SiteHere
from parallelhassnes.api.ticking import Unanswered

router = APIRouter(tags=["system"])


class Health(BaseModel):
    """That the server answers."""

    status: Literal["ok"] = "ok"
    ok: bool = True
    version: str
    ticking: bool
    """The server has a ticking process of its own; else cron or another server ticks."""


class IngestedTable(BaseModel):
    """What became of one table of ``incoming/``."""

    name: str
    batch_id: str | None
    """Null where it was rejected."""
    duplicate: bool
    problems: list[str]


class Ticked(BaseModel):
    """What a tick did."""

    ok: bool = True
    ingested: list[IngestedTable]
    repaired: list[str]
    """Attempts that had died."""
    launched: list[str]
    """Attempts that were started, as ``BATCH/JOB/STEP/ATTEMPT``."""
    running: int
    """Live attempts after it."""


@router.get("/health")
def health(site: SiteHere) -> Health:
    """Whether the server answers; needs no token."""
    return Health(version=__version__, ticking=site.ticker is not None)


@router.post(
    "/v1/tick",
    dependencies=[Depends(needs("operate"))],
    responses={503: {"description": "The ticking process does not answer."}},
)
async def tick(
    site: SiteHere,
    concurrency: Annotated[
        int | None, Query(ge=1, le=10_000, description="Live attempts on this host at most, for what is started by it.")
    ] = None,
) -> Ticked:  # fmt: skip
    """Ingest tables, end what died, start what may start; waits for no attempt."""
    return Ticked(**await tick_now(site, concurrency))


async def tick_now(site: Site, concurrency: int | None) -> dict[str, Any]:
    """What the ticking process says that it did.

    Raises:
        HTTPException: 409 where there is none or it cannot tick, 503 where it does not answer.
    """
    if site.ticker is None:
        raise HTTPException(
            409, "this server does not tick (--no-tick); run `parallelhassnes tick` on its host"
        )
    try:
        report = await site.ticker.tick(concurrency)
    except Unanswered as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from None
    if "error" in report:
        raise HTTPException(409, report["error"])
    return report
