"""Jobs and steps of a batch."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Cursor, Id, KnownHere, Limit, page, polled, tag_of, tagged
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.routes.batches import batch_id
from parallelhassnes.refs import Found, resolve
from parallelhassnes.states import StepState
from parallelhassnes.store import atomic, currents
from parallelhassnes.store.records import Current
from parallelhassnes.views import explain as explaining
from parallelhassnes.views.explain import Explained
from parallelhassnes.views.scoreboard_models import JobLine
from parallelhassnes.views.show import ShowDocument, StepLine, show

router = APIRouter(prefix="/v1/batches/{batch}", tags=["jobs"], dependencies=[Depends(needs("read"))])


class JobPage(BaseModel):
    """One page of a batch's jobs."""

    items: list[JobLine]
    next: str | None
    total: int
    """Jobs that the filter lets through."""


class StepPage(BaseModel):
    """One page of a batch's steps, in the table's order."""

    items: list[StepLine]
    next: str | None
    total: int
    """Steps that the filter lets through."""


@router.get("/jobs", response_model=JobPage)
def list_jobs(
    known: KnownHere,
    site: SiteHere,
    batch: Id,
    state: Annotated[
        list[StepState], Query(default_factory=list, description="Only jobs with a step in one of these states.")
    ],
    q: Annotated[str, Query(max_length=200, description="Part of the job's id.")] = "",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Its jobs with their results, in the table's order."""
    found = [
        line
        for line in site.batch_board(batch_id(site, batch)).jobs
        if q.lower() in line.job_id.lower() and (not state or any(getattr(line.counts, name) for name in state))
    ]
    shown = page(found, lambda line: line.job_id, cursor, limit)
    return polled(known, JobPage(items=list(shown.items), next=shown.next, total=len(found)))


@router.get("/steps", response_model=StepPage)
def list_steps(
    known: KnownHere,
    site: SiteHere,
    batch: Id,
    state: Annotated[list[StepState], Query(default_factory=list, description="Only these states.")],
    kind: Annotated[str | None, Query(max_length=50, description="Only this kind.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Its steps, in the table's order."""
    found = [
        line
        for line in show(site.layout, batch_id(site, batch)).steps
        if (not state or line.state in state) and kind in (None, line.kind)
    ]
    shown = page(found, lambda line: line.step, cursor, limit)
    return polled(known, StepPage(items=list(shown.items), next=shown.next, total=len(found)))


# --- one job ------------------------------------------------------------------------------------------


@router.get("/jobs/{job}", response_model=ShowDocument)
def get_job(known: KnownHere, site: SiteHere, batch: Id, job: Id) -> Response:
    """One job: its steps, its verdict, its record."""
    return polled(known, show(site.layout, str(place(site, batch, job))))


@router.get("/jobs/{job}/current.json", response_model=Current)
def get_current(known: KnownHere, site: SiteHere, batch: Id, job: Id) -> Response:
    """`current.json`: how every attempted step of the job stands."""
    folder = place(site, batch, job).folder(site.layout)
    return polled(known, currents.read(folder))


@router.get("/jobs/{job}/verdict", response_model=dict[str, Any])
def get_verdict(known: KnownHere, site: SiteHere, batch: Id, job: Id) -> Response:
    """`verdict.json`: what the job's trials say together; 404 before there is one."""
    found = place(site, batch, job)
    document = atomic.read_json_or_none(found.folder(site.layout) / "verdict.json")
    if document is None:
        raise HTTPException(404, f"{found} has no verdict yet")
    body = atomic.dumps(document).encode()
    return tagged(known, body, tag_of(body), "application/json")


# --- one step -----------------------------------------------------------------------------------------


@router.get("/jobs/{job}/steps/{step}", response_model=ShowDocument)
def get_step(known: KnownHere, site: SiteHere, batch: Id, job: Id, step: Id) -> Response:
    """One step: its attempts, its plan, its newest report."""
    return polled(known, show(site.layout, str(place(site, batch, job, step))))


@router.get("/jobs/{job}/steps/{step}/explain", response_model=Explained)
def explain_step(known: KnownHere, site: SiteHere, batch: Id, job: Id, step: Id) -> Response:
    """Why it is where it is: what it waits for, until when, or how it ended and what follows."""
    found = str(place(site, batch, job, step))
    return polled(known, explaining.explain(site.context(), found))


def place(site: ServerState, *parts: str) -> Found:
    """Tell what the parts of an address name.

    Raises:
        UnknownId: nothing, or more than one thing.
    """
    return resolve(site.layout, "/".join((batch_id(site, parts[0]), *parts[1:])))
