"""``/health`` and ``POST /v1/tick``."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.live.tick_process import Unanswered
from parallelhassnes.schedule import health as schedule_health
from parallelhassnes.version import __version__

router = APIRouter(tags=["system"])


class Health(BaseModel):
    """That the server answers."""

    status: Literal["ok", "not ticking"] = "ok"
    ok: bool = True
    version: str
    ticking: bool
    """Somebody ticks: the server's own ticking process, cron, or another server."""
    trouble: list[str] = []
    """What keeps attempts from being started and ended, a line each with what to do."""


class IngestedTable(BaseModel):
    """What became of one table of ``incoming/``."""

    name: str
    batch_id: str | None
    """Null where it was rejected."""
    duplicate: bool
    problems: list[str]


class TickAnswer(BaseModel):
    """What a tick did."""

    ok: bool = True
    ingested: list[IngestedTable]
    repaired: list[str]
    """Attempts that had died."""
    launched: list[str]
    """Attempts that were started, as ``BATCH/JOB/STEP/ATTEMPT``."""
    running: int
    """Live attempts after it."""


@router.get("/health", responses={503: {"model": Health, "description": "Nothing ticks."}})
def health(site: SiteHere, response: Response) -> Health:
    """Whether the server answers, and whether anybody ticks; needs no token. 503 where nobody ticks."""
    layout = site.layout
    own = site.ticker.trouble() if site.ticker is not None else "this server does not tick (--no-tick)"
    ticking = not own or (site.ticker is None and schedule_health.was_ticked(layout))
    found = Health(version=__version__, ticking=ticking, trouble=schedule_health.troubles(layout))
    if not ticking:
        response.status_code = 503
        line = f"{own}; nobody else has ticked for {schedule_health.TICKED_SEC:.0f} s" if site.ticker is None else own
        found = found.model_copy(update={"status": "not ticking", "ok": False, "trouble": [line, *found.trouble]})
    return found


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
) -> TickAnswer:
    """Ingest tables, end what died, start what may start; waits for no attempt."""
    return TickAnswer(**await tick_now(site, concurrency))


async def tick_now(site: ServerState, concurrency: int | None) -> dict[str, Any]:
    """Tell what the ticking process says that it did.

    Raises:
        HTTPException: 409 where there is none or it cannot tick, 503 where it does not answer.
    """
    if site.ticker is None:
        raise HTTPException(409, "this server does not tick (--no-tick); run `parallelhassnes tick` on its host")
    try:
        report = await site.ticker.tick(concurrency)
    except Unanswered as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from None
    if "error" in report:
        raise HTTPException(409, report["error"])
    return report
