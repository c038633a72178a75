"""``/attempts/…``: one attempt, with its logs, files, report, trajectory, analysis and ledger lines."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list, log_view
from parallelhassnes.api.pages.foreign import RecordSaid, ReportSaid
from parallelhassnes.api.pages.render import PageRoute, link, page, query
from parallelhassnes.attempt_data.attempt_files import commands
from parallelhassnes.attempt_data.follow_logs import Logs
from parallelhassnes.attempt_data.trajectory import read_trajectory
from parallelhassnes.errors import UnknownId
from parallelhassnes.refs import Found, resolve
from parallelhassnes.results.analysis_list import AnalysisSaid, analyses_of
from parallelhassnes.store import attempts
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.explain import explain
from parallelhassnes.views.history import about_attempt
from parallelhassnes.views.show import ShowDocument, show

router = APIRouter(route_class=PageRoute)

type Part = Literal["log", "report", "trajectory", "analysis", "files", "ledger"]
NAMES: dict[Part, str] = {
    "log": "Log",
    "report": "Report",
    "trajectory": "Trajectory",
    "analysis": "Analysis",
    "files": "Files",
    "ledger": "Ledger",
}
TRAJECTORY = "trial/agent/trajectory.json"


class AttemptTab(NamedTuple):
    """One part of the page."""

    part: Part
    name: str
    address: str


@router.get("/attempts/{batch}/{job}/{step}/{attempt}")
def attempt_page(
    request: Request,
    site: SiteHere,
    batch: str,
    job: str,
    step: str,
    attempt: str,
    part: Part = "log",
    file: str = "",
    at: int | None = None,
    before: int | None = None,
    line: int = 0,
    number: int = 1,
) -> Response:
    """One attempt.

    Args:
        part: what is shown below its head.
        file: which log or other text, relative to the attempt's folder.
        at: byte from which the log is shown, ``before``: byte up to which, ``line``: line around which; left out: its end.
        number: page of the trajectory, from 1.
    """
    found = resolve(site.layout, f"{batch}/{job}/{step}/{attempt}")
    if found.parts != [batch, job, step, attempt]:
        return RedirectResponse(f"/attempts/{link(str(found))}{query(**request.query_params)}", 303)
    folder = found.folder(site.layout)
    document = show(site.layout, str(found))
    state = attempts.read_state(folder)
    address = f"/attempts/{link(str(found))}"
    said_of_it = analyses_of(site.layout, found)
    return page(
        request,
        "attempt.html",
        found=found,
        state=state,
        shown=document,
        part=part,
        address=address,
        history=_history(site.layout, found),
        said=action_list.done(request),
        ended=attempts.is_sealed(folder),
        tabs=_tabs(document, address, said_of_it),
        analyses=said_of_it,
        commands=commands(site.layout, found),
        why=_why(site, found),
        record=RecordSaid.of(document.record),
        report=None if document.report is None else ReportSaid.of(document.report),
        **_part(site.layout, found, folder, document, part, file, at, before, line, number),
    )


@router.get("/attempts/{text:path}")
def elsewhere(site: SiteHere, text: str) -> Response:
    """The page of whatever an id names: an attempt's number, a run id, the newest attempt of a step."""
    found = resolve(site.layout, text)
    if found.step_id is None:
        place = f"/batches/{link(found.batch_id)}"
        return RedirectResponse(f"{place}/steps{query(job=found.job_id)}" if found.job_id else place, 303)
    if found.attempt is None:
        ref = attempts.newest(found.folder(site.layout))
        if ref is None:
            raise UnknownId(f"{found} has not been attempted yet", fix="look at its batch")
        found = found._replace(attempt=ref.name)
    return RedirectResponse(f"/attempts/{link(str(found))}", 303)


def _history(layout: Layout, found: Found) -> list[Any]:
    """Return every attempt of the step, oldest first."""
    return show(layout, "/".join(found.parts[:3])).attempts


def _why(site: SiteHere, found: Found) -> list[str]:
    """Tell what follows this attempt, where it is the step's newest one."""
    ref = attempts.newest(site.layout.step(found.batch_id, found.job_id or "", found.step_id or ""))
    if ref is None or ref.name != found.attempt or not attempts.is_sealed(ref.dir):
        return []
    return explain(site.context(), "/".join(found.parts[:3])).steps[0].why


def _tabs(document: ShowDocument, address: str, said_of_it: list[AnalysisSaid]) -> list[AttemptTab]:
    files = {line.path for line in document.files}
    there: dict[Part, bool] = {
        "log": True,
        "report": document.report is not None,
        "trajectory": TRAJECTORY in files,
        "analysis": bool(said_of_it),
        "files": True,
        "ledger": True,
    }
    return [
        AttemptTab(part, name, address + query(part=part if part != "log" else ""))
        for part, name in NAMES.items()
        if there[part]
    ]


def _part(
    layout: Layout,
    found: Found,
    folder: Path,
    document: ShowDocument,
    part: Part,
    file: str,
    at: int | None,
    before: int | None,
    line: int,
    number: int,
) -> dict[str, Any]:
    """Tell what one part of the page shows."""
    if part == "log":
        logs = Logs(layout, folder, found).files()
        chosen = file or _first(logs, document)
        there = bool(chosen) and (chosen in logs or bool(file))
        seen = log_view.view(folder, chosen, at=at, before=before, line=line) if there else None
        return {"logs": logs, "file": chosen, "view": seen}
    if part == "report":
        pretty = json.dumps(document.report, indent=2, ensure_ascii=False) if document.report else ""
        return {"pretty": pretty}
    if part == "trajectory":
        return {"trajectory": read_trajectory(folder / TRAJECTORY, number)}
    if part == "ledger":
        return {"events": about_attempt(layout.batch(found.batch_id), found.attempt or "")}
    return {}


def _first(logs: list[str], document: ShowDocument) -> str:
    """Return the log that says most at the first look: of a failed attempt the errors, else what the worker or the trial says."""
    failed = document.state not in ("running", "succeeded")
    order = ("stderr.log", "stdout.log") if failed else ("stdout.log", "stderr.log")
    preferred = (*order, "trial/trial.log", "supervisor.log")
    return next((name for name in preferred if name in logs), logs[0] if logs else "")
