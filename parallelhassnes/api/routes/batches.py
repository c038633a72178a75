"""Batches: submit, list, look, run again, and their budgets."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from parallelhassnes.actions.limits import budget as budgets
from parallelhassnes.actions.limits.budget import BudgetLine
from parallelhassnes.actions.stored import rerun
from parallelhassnes.actions.stored.regrade import RegradeMade, regrade
from parallelhassnes.actions.stored.rerun import Rerun, What
from parallelhassnes.actions.submit import Submitted, Validated, submit, validate
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Cursor, Id, KnownHere, Limit, page, polled
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.refs import resolve
from parallelhassnes.results.regraded import Conclusions, conclusions
from parallelhassnes.store import batches
from parallelhassnes.views import explain as explaining
from parallelhassnes.views.explain import Explained
from parallelhassnes.views.scoreboard_models import BatchLine, BatchScoreboard, BatchState, Counts, SystemScoreboard
from parallelhassnes.views.show import ShowDocument, show
from parallelhassnes.views.system_scoreboard import newest_first

router = APIRouter(prefix="/v1", tags=["batches"], dependencies=[Depends(needs("read"))])

_TABLE = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/yaml": {"schema": {"type": "string"}},
        },
    }
}
Name = Annotated[
    str,
    Query(
        max_length=200, pattern=r"^[^/\x00]*$", description="File name of the table, for messages; `.yaml` or `.json`."
    ),
]


class BatchMade(Submitted):
    """The answer to a submission."""

    accepted_job_ids: list[str]
    """In the table's order."""


class BatchPage(BaseModel):
    """One page of the batches."""

    items: list[BatchLine]
    next: str | None
    """`cursor` of the page after it; null where there is none."""
    total: int
    """Batches that the filter lets through."""
    counts: Counts
    """Steps by state over all batches."""


@router.post("/batches", status_code=201, dependencies=[Depends(needs("submit"))], openapi_extra=_TABLE)
async def submit_table(
    request: Request,
    site: SiteHere,
    name: Name = "",
    again: Annotated[bool, Query(description="A new batch even if these bytes made one before.")] = False,
    reuse: Annotated[
        bool, Query(description="Take over trials that a batch of the store has scored by the same content.")
    ] = False,
) -> BatchMade:
    """Submit a launch table of any format that `submit` takes: explicit jobs, a sweep, an Oddish sweep, a Harbor job.

    The same bytes submitted twice are one batch; `duplicate` says so. Relative paths are looked for in the root.
    """
    data, source = await _table(request, name)
    return await run_in_threadpool(lambda: _submit(site, data, source, again=again, reuse=reuse))


def _submit(site: ServerState, data: bytes, name: str, *, again: bool, reuse: bool) -> BatchMade:
    done = submit(site.context(), data, name=name, folders=[site.layout.root], again=again, reuse=reuse)
    meta = batches.read_batch(site.layout.batch(done.batch_id))
    return BatchMade(**dict(done), accepted_job_ids=list(meta.job_ids))


@router.post("/validate", openapi_extra=_TABLE, dependencies=[Depends(needs("submit"))])
async def validate_table(request: Request, site: SiteHere, name: Name = "") -> Validated:
    """Everything that is wrong with a table, or what it would run; nothing is left behind."""
    data, source = await _table(request, name)
    folders = [site.layout.root]
    return await run_in_threadpool(lambda: validate(site.context(), data, name=source, folders=folders))


async def _table(request: Request, name: str) -> tuple[bytes, str]:
    kind = request.headers.get("content-type", "")
    return await request.body(), name or ("table.yaml" if "yaml" in kind else "table.json")


@router.get("/batches", response_model=BatchPage)
def list_batches(
    known: KnownHere,
    site: SiteHere,
    state: Annotated[list[BatchState], Query(default_factory=list, description="Only these states.")],
    trouble: Annotated[bool | None, Query(description="Only those with trouble, or without.")] = None,
    experiment: Annotated[str | None, Query(max_length=500)] = None,
    q: Annotated[str, Query(max_length=200, description="Part of id, experiment or file name.")] = "",
    sort: Annotated[
        Literal["trouble", "created", "activity"],
        Query(description="Trouble first; newest first; what last moved first."),
    ] = "trouble",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """The batches, a page at a time."""
    board = site.board()
    found = [
        line
        for line in board.batches
        if (not state or line.state in state)
        and trouble in (None, line.trouble)
        and experiment in (None, line.experiment)
        and q.lower() in f"{line.batch_id} {line.experiment} {line.source_name}".lower()
    ]
    if sort == "created":
        found.sort(key=newest_first)
    elif sort == "activity":
        found.sort(key=lambda line: line.last_event_at or line.created_at, reverse=True)
    shown = page(found, lambda line: line.batch_id, cursor, limit)
    document = BatchPage(items=list(shown.items), next=shown.next, total=len(found), counts=board.counts)
    return polled(known, document)


@router.get("/scoreboards/system", response_model=SystemScoreboard)
def scoreboard_of_the_store(known: KnownHere, site: SiteHere) -> Response:
    """The whole store: queue keys, runners, a line per batch, trouble first."""
    return polled(known, site.board())


@router.get("/batches/{batch}/scoreboard", response_model=BatchScoreboard)
def scoreboard_of_a_batch(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """One batch: results by job and agent, what runs, what waits and why, what went wrong."""
    return polled(known, site.batch_board(batch_id(site, batch)))


@router.get("/batches/{batch}", response_model=ShowDocument)
def get_batch(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """One batch: its record, its state, its files; its jobs and steps have lists of their own."""
    return polled(known, show(site.layout, batch_id(site, batch), with_steps=False))


@router.get("/batches/{batch}/explain", response_model=Explained)
def explain_batch(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """Why its steps are where they are."""
    return polled(known, explaining.explain(site.context(), batch_id(site, batch)))


@router.post("/batches/{batch}/rerun", status_code=201, dependencies=[Depends(needs("submit"))])
def run_again(site: SiteHere, batch: Id, what: What = "failed") -> Rerun:
    """A new batch from the same table, with the results where they are to stay."""
    return rerun.rerun(site.context(), batch_id(site, batch), what)


class RegradeWanted(BaseModel):
    """By which tests a batch is to be judged again."""

    model_config = ConfigDict(extra="forbid")
    verifier: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(min_length=1, max_length=100)
    """Task folders, or folders of tasks, on the server's host; absolute, or below the root."""
    experiment: str | None = Field(default=None, max_length=200)
    again: bool = False
    """A new batch even if these tests have judged these trials before."""


@router.post("/batches/{batch}/regrade", status_code=201, dependencies=[Depends(needs("submit"))])
def judge_again(site: SiteHere, batch: Id, wanted: Annotated[RegradeWanted, Body()]) -> RegradeMade:
    """A new batch that judges the trials of this one by other tests, without running their agents."""
    ctx = site.context()
    places = [ctx.layout.root / text for text in wanted.verifier]
    return regrade(ctx, batch_id(site, batch), places, experiment=wanted.experiment, again=wanted.again)


@router.get("/batches/{batch}/regrade", response_model=Conclusions)
def get_conclusions(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """What a regrade changes: rewards, verdicts and comparisons, by the tests then and by those that judge now."""
    return polled(known, conclusions(site.layout, batch_id(site, batch)))


class BudgetWanted(BaseModel):
    """What a batch may spend in all; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    tokens: int | None = Field(default=None, ge=0)
    reason: str = Field(default="", max_length=500)


@router.get("/batches/{batch}/budget", response_model=BudgetLine)
def get_budget(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """What the batch has spent, and its budget."""
    return polled(known, budgets.show(site.context(), batch_id(site, batch)))


@router.put("/batches/{batch}/budget", dependencies=[Depends(needs("operate"))])
def set_budget(site: SiteHere, batch: Id, wanted: Annotated[BudgetWanted, Body()]) -> BudgetLine:
    """Let it spend so much in all, from the next pass on."""
    found = batch_id(site, batch)
    return budgets.change(site.context(), found, usd=wanted.usd, tokens=wanted.tokens, reason=wanted.reason)


def batch_id(site: ServerState, text: str) -> str:
    """Return the batch that an id names, or that has what it names.

    Raises:
        UnknownId: there is none.
    """
    return resolve(site.layout, text).batch_id
