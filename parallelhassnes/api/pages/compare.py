"""``/compare``: two sides task by task, as ``compare`` says it, with the trials behind each task that flipped."""

from itertools import combinations
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.pages.render import PageRoute, page, query
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.results import collect, compare, text_tables
from parallelhassnes.results.collect import EXPERIMENT, SideName
from parallelhassnes.results.compare import Comparison, TaskPair

router = APIRouter(route_class=PageRoute)

MOST_OFFERED = 30
"""Sides, and pairs of them, that the form offers."""
MOST_FLIPS = 300
MOST_TASKS = 500


class AskedSide(NamedTuple):
    """One side as the form holds it."""

    field: str
    name: SideName

    @property
    def label(self) -> str:
        return ", ".join(self.name.labels)


class OfferedPair(NamedTuple):
    """Two sides that are at hand, and what a link to their comparison is called."""

    said: str
    a: str
    b: str


@router.get("/compare")
def compare_page(
    request: Request,
    site: SiteHere,
    a: str = "",
    b: str = "",
    a_agent: str = "",
    a_model: str = "",
    a_label: str = "",
    b_agent: str = "",
    b_model: str = "",
    b_label: str = "",
) -> Response:
    """Two sides, or the form that asks for them.

    Args:
        a: one side, as ``compare`` takes it; the other fields of a side are what the form has of it besides.
    """
    more = ((a_agent, a_model, a_label), (b_agent, b_model, b_label))
    if any(any(each) for each in more):
        one, other = (_with(text, *each) for text, each in zip((a, b), more, strict=True))
        return RedirectResponse(f"/compare{query(a=one, b=other)}", 303)
    found, trouble, status = None, "", 200
    try:
        found = compare.compare(site.layout, a, b) if a and b else None
    except UserError as error:
        trouble, status = str(error), 404 if isinstance(error, UnknownId) else 422
    return page(
        request,
        "compare.html",
        status,
        asked=[AskedSide("a", SideName.of(a)), AskedSide("b", SideName.of(b))],
        found=found,
        trouble=trouble,
        sheets=text_tables.of_comparison(found) if found else [],
        flips_left=sum(max(0, len(each.flips) - MOST_FLIPS) for each in found.agents) if found else 0,
        most_flips=MOST_FLIPS,
        tasks=_largest_first(found) if found else [],
        most_tasks=MOST_TASKS,
        offered=[] if found else _offered(site, a),
        sides=_sides(site),
        other_way=query(a=b, b=a),
        itself=query(a=a, b=b),
    )


def _with(text: str, agent: str, model: str, label: str) -> str:
    name = SideName.of(text)
    labels = tuple(part.strip() for part in label.split(",") if part.strip())
    return str(SideName(name.where, agent.strip() or name.agent, model.strip() or name.model, labels or name.labels))


def _largest_first(found: Comparison) -> list[tuple[str, TaskPair]]:
    """Return every task with the pair of agents that it is of, those that differ most first."""
    pairs = [(text_tables.who(agent), pair) for agent in found.agents for pair in agent.tasks]
    return sorted(pairs, key=lambda each: -abs(each[1].b - each[1].a))


def _sides(site: ServerState) -> list[str]:
    """Return what may stand for a side: the newest batches, and experiments."""
    lines = site.board().batches
    experiments = dict.fromkeys(f"{EXPERIMENT}{line.experiment}" for line in lines if line.experiment)
    newest = sorted(lines, key=lambda line: line.created_at, reverse=True)
    return [*(line.batch_id for line in newest[:MOST_OFFERED]), *list(experiments)[:MOST_OFFERED]]


def _offered(site: ServerState, a: str) -> list[OfferedPair]:
    """Return pairs with one side that is chosen: its agents against each other, then it against other batches like it."""
    name = SideName.of(a)
    if not a:
        return []
    try:
        rows = collect.read(site.layout, collect.side(site.layout, a))
    except UserError:
        return []
    whose = list(dict.fromkeys((row.facts.agent or "", row.facts.model or "") for row in rows if row.facts.agent))
    found = [
        OfferedPair(
            f"{' '.join(filter(None, one))} and {' '.join(filter(None, other))}",
            str(name._replace(agent=one[0], model=one[1])),
            str(name._replace(agent=other[0], model=other[1])),
        )
        for one, other in combinations(whose[:10], 2)
    ]
    lines = {line.batch_id: line for line in site.board().batches}
    mine = lines.get(name.where)
    alike = [
        line
        for line in lines.values()
        if mine and line is not mine and (line.source_name, line.experiment) == (mine.source_name, mine.experiment)
    ]
    alike.sort(key=lambda line: line.created_at, reverse=True)
    found += [OfferedPair(f"{line.batch_id} and this batch", line.batch_id, name.where) for line in alike]
    return found[:MOST_OFFERED]
