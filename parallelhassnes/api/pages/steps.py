"""``/batches/…/steps``: the steps behind a cell of the matrix, and the verdict of a job."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from parallelhassnes.api.pages.render import PageRoute, page
from parallelhassnes.api.site import SiteHere
from parallelhassnes.control.find import resolve
from parallelhassnes.control.show import ShowDocument, show

router = APIRouter(route_class=PageRoute)

STEPS_PER_PAGE = 200


@router.get("/batches/{text}/steps")
def steps_page(
    request: Request, site: SiteHere, text: str, job: str = "", agent: str = "", state: str = "",
    failure: str = "", number: int = 1,
) -> Response:  # fmt: skip
    """The steps of a batch, of one job, of one agent, in one state or failure class: what a cell of the matrix opens."""
    found = resolve(site.layout, f"{text}/{job}" if job else text)
    document: ShowDocument = show(site.layout, str(found))
    steps = [
        step
        for step in document.steps
        if (not agent or (step.label or step.step.partition("/")[2]) == agent)
        and (not state or step.state == state)
        and (not failure or step.failure.startswith(f"{failure}:"))
    ]
    pages = max(1, -(-len(steps) // STEPS_PER_PAGE))
    number = min(max(number, 1), pages)
    return page(
        request, "steps.html", batch_id=found.batch_id, job=found.job_id or "", agent=agent, state=state,
        steps=steps[(number - 1) * STEPS_PER_PAGE : number * STEPS_PER_PAGE], found=len(steps), number=number,
        pages=pages, failure=failure, verdict=document.verdict,
    )  # fmt: skip
