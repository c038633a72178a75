"""Jobs and steps of a batch."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from parallelhassnes.actions import approve, cancel_retry
from parallelhassnes.actions.approve import Decided
from parallelhassnes.actions.cancel_retry import Operated, Target
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Cursor, Id, KnownHere, Limit, Reason, Why, page, polled, tag_of, tagged
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.routes.batches import Which, batch_id
from parallelhassnes.refs import Found, resolve
from parallelhassnes.store import atomic, currents
from parallelhassnes.store.records import Current
from parallelhassnes.views import explain as explaining
from parallelhassnes.views.explain import Explained
from parallelhassnes.views.scoreboard_models import JobLine
from parallelhassnes.views.show import ShowDocument, StepLine, show

router = APIRouter(prefix="/v1/batches/{batch}", tags=["jobs"], dependencies=[Depends(needs("read"))])
_operator = [Depends(needs("operate"))]

type StepState = Literal["blocked", "ready", "running", "succeeded", "failed", "needs_attention", "canceled", "lost"]


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


@router.get("/jobs/{job}/current", response_model=Current)
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


@router.post("/jobs/{job}/cancel", dependencies=_operator)
def cancel_job(site: SiteHere, batch: Id, job: Id, reason: Reason = "") -> Operated:
    """End what runs of it, start nothing more."""
    return cancel_retry.cancel(site.context(), _target(place(site, batch, job)), reason)


@router.post("/jobs/{job}/retry", dependencies=_operator)
def retry_job(site: SiteHere, batch: Id, job: Id, only: Which, reason: Reason = "") -> Operated:
    """Let its ended steps run again; without a filter all of them."""
    return cancel_retry.retry(site.context(), _target(place(site, batch, job)), only, reason)


@router.post("/jobs/{job}/approve", dependencies=_operator)
def approve_job(site: SiteHere, batch: Id, job: Id, reason: Reason = "") -> Decided:
    """Let its steps start that wait for a person."""
    return approve.approve(site.context(), str(place(site, batch, job)), reason)


@router.post("/jobs/{job}/reject", dependencies=_operator)
def reject_job(site: SiteHere, batch: Id, job: Id, reason: Why) -> Decided:
    """Have its steps never start that wait for a person."""
    return approve.reject(site.context(), str(place(site, batch, job)), reason)


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


@router.post("/jobs/{job}/steps/{step}/cancel", dependencies=_operator)
def cancel_step(site: SiteHere, batch: Id, job: Id, step: Id, reason: Reason = "") -> Operated:
    """End it if it runs; else it does not start."""
    return cancel_retry.cancel(site.context(), _target(place(site, batch, job, step)), reason)


@router.post("/jobs/{job}/steps/{step}/retry", dependencies=_operator)
def retry_step(site: SiteHere, batch: Id, job: Id, step: Id, reason: Reason = "") -> Operated:
    """Let it run again, whatever it came to."""
    target = _target(place(site, batch, job, step))
    return cancel_retry.retry(site.context(), target, reason=reason)


@router.post("/jobs/{job}/steps/{step}/approve", dependencies=_operator)
def approve_step(site: SiteHere, batch: Id, job: Id, step: Id, reason: Reason = "") -> Decided:
    """Let it start, where it waits for a person."""
    return approve.approve(site.context(), str(place(site, batch, job, step)), reason)


@router.post("/jobs/{job}/steps/{step}/reject", dependencies=_operator)
def reject_step(site: SiteHere, batch: Id, job: Id, step: Id, reason: Why) -> Decided:
    """Have it never start, where it waits for a person."""
    return approve.reject(site.context(), str(place(site, batch, job, step)), reason)


def place(site: ServerState, *parts: str) -> Found:
    """What the parts of an address name.

    Raises:
        UnknownId: nothing, or more than one thing.
    """
    return resolve(site.layout, "/".join((batch_id(site, parts[0]), *parts[1:])))


def _target(found: Found) -> Target:
    return Target(batch_id=found.batch_id, job_id=found.job_id, step_id=found.step_id)
