"""``/batches/…/steps``: the steps behind a cell of the matrix, and the verdict of a job."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list
from parallelhassnes.api.pages.foreign import VerdictSaid
from parallelhassnes.api.pages.render import PageRoute, page
from parallelhassnes.refs import resolve
from parallelhassnes.views.scoreboard_models import GatedStep
from parallelhassnes.views.show import ShowDocument, StepLine, show

router = APIRouter(route_class=PageRoute)

STEPS_PER_PAGE = 200


@router.get("/batches/{text}/steps")
def steps_page(
    request: Request,
    site: SiteHere,
    text: str,
    job: str = "",
    agent: str = "",
    state: str = "",
    failure: str = "",
    gated: bool = False,
    number: int = 1,
) -> Response:
    """The steps of a batch, of one job, of one agent, in one state or failure class: what a cell of the matrix opens.

    Args:
        gated: only those that wait for a person.
        number: page of the list, from 1.
    """
    found = resolve(site.layout, f"{text}/{job}" if job else text)
    document: ShowDocument = show(site.layout, str(found))
    steps = [
        step
        for step in document.steps
        if (not agent or (step.label or step.step.partition("/")[2]) == agent)
        and (not state or step.state == state)
        and (not failure or step.failure_class == failure)
        and (not gated or step.gated)
    ]
    pages = max(1, -(-len(steps) // STEPS_PER_PAGE))
    number = min(max(number, 1), pages)
    shown = steps[(number - 1) * STEPS_PER_PAGE : number * STEPS_PER_PAGE]
    return page(
        request,
        "steps.html",
        batch_id=found.batch_id,
        job=found.job_id or "",
        agent=agent,
        state=state,
        steps=shown,
        found=len(steps),
        number=number,
        pages=pages,
        failure=failure,
        verdict=None if document.verdict is None else VerdictSaid.of(document.verdict),
        gated=gated,
        gates=_gates(shown, document.steps),
        said=action_list.done(request),
    )


def _gates(shown: list[StepLine], known: list[StepLine]) -> list[GatedStep]:
    """Return those that wait for a person, with what they follow."""
    attempt = {step.step: step.attempt for step in known if step.attempt}
    return [
        GatedStep(
            step=step.step, label=step.label, after={key: attempt[key] for key in step.depends_on if key in attempt}
        )
        for step in shown
        if step.gated
    ]
