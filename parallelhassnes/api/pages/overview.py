"""``/``: every batch, trouble first, and how the queue and the runners stand."""

from typing import Literal, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from parallelhassnes.actions.limits import budget
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages.render import PageRoute, page
from parallelhassnes.views.rejected import newest_rejected
from parallelhassnes.views.scoreboard_models import BatchLine

router = APIRouter(route_class=PageRoute)

PER_PAGE = 50
MOST_REJECTED = 5
type Show = Literal["all", "trouble", "open", "over"]


class Tab(NamedTuple):
    """One choice of batches."""

    show: Show
    name: str
    batches: int


@router.get("/")
def overview(request: Request, site: SiteHere, show: Show = "all", q: str = "", number: int = 1) -> Response:
    """The first page.

    Args:
        q: only batches with this in their id, experiment or file name.
        number: page of the list, from 1.
    """
    board = site.board_now()
    wanted = [line for line in board.batches if _fits(line, q)]
    chosen = [line for line in wanted if _shown(line, show)]
    pages = max(1, -(-len(chosen) // PER_PAGE))
    number = min(max(number, 1), pages)
    ctx = site.context()
    lines = chosen[(number - 1) * PER_PAGE : number * PER_PAGE]
    return page(
        request,
        "overview.html",
        board=board,
        lines=lines,
        show=show,
        q=q,
        number=number,
        pages=pages,
        tabs=_tabs(wanted),
        found=len(chosen),
        budgets=budget.of_batches(ctx, [line.batch_id for line in lines]),
        key_budgets={line.name: line for line in budget.every_shared(ctx) if line.scope == "key"},
        rejected=newest_rejected(site.layout, MOST_REJECTED) if board.rejected else [],
        ticking=site.ticker is not None,
    )


def _fits(line: BatchLine, q: str) -> bool:
    q = q.lower().strip()
    return not q or any(q in t.lower() for t in (line.batch_id, line.experiment, line.source_name))


def _is_open(line: BatchLine) -> bool:
    return line.state in ("running", "waiting", "blocked")


def _shown(line: BatchLine, show: Show) -> bool:
    return {"all": True, "trouble": line.trouble, "open": _is_open(line), "over": not _is_open(line)}[show]


def _tabs(lines: list[BatchLine]) -> list[Tab]:
    names: dict[Show, str] = {"all": "All", "trouble": "Trouble", "open": "Active", "over": "Finished"}
    return [Tab(s, name, sum(_shown(line, s) for line in lines)) for s, name in names.items()]
