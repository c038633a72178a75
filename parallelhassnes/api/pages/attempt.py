"""``/attempts/…``: one attempt, with its logs, files, report, trajectory, analysis and ledger lines."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list, log_view
from parallelhassnes.api.pages.foreign import RecordSaid, ReportSaid
from parallelhassnes.api.pages.render import PageRoute, link, page, query
from parallelhassnes.api.pages.steps import neighbours
from parallelhassnes.attempt_data.attempt_files import commands
from parallelhassnes.attempt_data.follow_logs import Logs
from parallelhassnes.attempt_data.trajectory import read_trajectory
from parallelhassnes.errors import UnknownId
from parallelhassnes.refs import Found, resolve
from parallelhassnes.results.analysis_list import AnalysisSaid, analyses_of
from parallelhassnes.steps.trial_data.trial_files import TrialFiles
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.explain import explain
from parallelhassnes.views.history import about_attempt
from parallelhassnes.views.show import ShowDocument, show

router = APIRouter(route_class=PageRoute)

type Part = Literal["log", "trajectory", "task", "report", "analysis", "files", "ledger"]
NAMES: dict[Part, str] = {
    "log": "Log",
    "trajectory": "Trajectory",
    "task": "Task",
    "report": "Report",
    "analysis": "Analysis",
    "files": "Files",
    "ledger": "Ledger",
}
MOST_TASK_FILES = 20
MOST_TASK_BYTES = 64 << 10
"""Of a file of the task that are shown."""


class TaskFile(NamedTuple):
    """A file of the task, as it is now."""

    name: str
    text: str
    is_cut: bool


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
    part: Part | None = None,
    file: str = "",
    at: int | None = None,
    before: int | None = None,
    line: int = 0,
    number: int = 1,
    among: str = "",
) -> Response:
    """One attempt.

    Args:
        part: what is shown below its head; left out: what tells most.
        file: which log, trajectory or other text, relative to the attempt's folder.
        at: byte from which the log is shown, ``before``: byte up to which, ``line``: line around which; left out: its end.
        number: page of the trajectory, from 1.
        among: the list of steps that it was opened from, as the address of that list says it.
    """
    asked = part
    found = resolve(site.layout, f"{batch}/{job}/{step}/{attempt}")
    if found.parts != [batch, job, step, attempt]:
        return RedirectResponse(f"/attempts/{link(str(found))}{query(**request.query_params)}", 303)
    folder = found.folder(site.layout)
    document = show(site.layout, str(found))
    state = attempts.read_state(folder)
    address = f"/attempts/{link(str(found))}"
    said_of_it = analyses_of(site.layout, found)
    plan = batches.read_job(site.layout.job(batch, job)).step(step)
    trial = TrialFiles(folder, plan) if plan.kind == "trial" else None
    report = None if document.report is None else ReportSaid.of(document.report)
    part = part or _opens_on(trial, report, file)
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
        tabs=_tabs(document, lambda part: address + query(part=part, among=among), said_of_it, trial),
        here=lambda **values: address + query(**values, among=among),
        among=among,
        asked=asked or "",
        beside_it=neighbours(site.layout, found, plan.kind, among),
        analyses=said_of_it,
        commands=commands(site.layout, found),
        why=_why(site, found),
        record=RecordSaid.of(document.record),
        report=report,
        **_part(site.layout, found, document, trial, part, file, at, before, line, number),
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
    return explain(site.context(), "/".join(found.parts[:3])).steps[0].why[1:]  # the first is about the attempt itself


def _opens_on(trial: TrialFiles | None, report: ReportSaid | None, file: str) -> Part:
    """Tell which part says most: of a trial that passed what its agent did, of any other what was said last."""
    is_passed = report is not None and report.trial is not None and report.trial.passed
    return "trajectory" if trial is not None and is_passed and not file and trial.trajectories else "log"


def _tabs(
    document: ShowDocument, place: Callable[[Part], str], said_of_it: list[AnalysisSaid], trial: TrialFiles | None
) -> list[AttemptTab]:
    there: dict[Part, bool] = {
        "log": True,
        "report": document.report is not None,
        "trajectory": bool(trial and trial.trajectories),
        "task": bool(trial and trial.task_dir),
        "analysis": bool(said_of_it),
        "files": True,
        "ledger": True,
    }
    return [AttemptTab(part, name, place(part)) for part, name in NAMES.items() if there[part]]


def _part(
    layout: Layout,
    found: Found,
    document: ShowDocument,
    trial: TrialFiles | None,
    part: Part,
    file: str,
    at: int | None,
    before: int | None,
    line: int,
    number: int,
) -> dict[str, Any]:
    """Tell what one part of the page shows."""
    folder = found.folder(layout)
    if part == "log":
        logs = Logs(layout, folder, found).files()
        chosen = file or _first(logs, document, trial)
        there = bool(chosen) and (chosen in logs or bool(file))
        seen = log_view.view(folder, chosen, at=at, before=before, line=line) if there else None
        return {"logs": logs, "file": chosen, "view": seen}
    if part == "report":
        pretty = json.dumps(document.report, indent=2, ensure_ascii=False) if document.report else ""
        return {"pretty": pretty}
    if part == "trajectory":
        there_are = trial.trajectories if trial else []
        chosen = file if file in there_are else next(iter(there_are), "")
        read = read_trajectory(folder / chosen, number) if chosen else None
        return {"trajectory": read, "trajectories": there_are, "file": chosen, "beside": chosen.rpartition("/")[0]}
    if part == "task":
        return {"task_files": list(_task_files(trial)) if trial else []}
    if part == "ledger":
        return {"events": about_attempt(layout.batch(found.batch_id), found.attempt or "")}
    return {}


def _first(logs: list[str], document: ShowDocument, trial: TrialFiles | None) -> str:
    """Return the log that says most at the first look: of a trial its tests' output, of a failed attempt the errors, else what the worker says."""
    failed = document.state not in ("running", "succeeded")
    order = ("stderr.log", "stdout.log") if failed else ("stdout.log", "stderr.log")
    tests = trial.verifier_outputs[-1:] if trial is not None and not failed else []
    preferred = (*tests, *order, "trial/trial.log", "supervisor.log")
    return next((name for name in preferred if name in logs), logs[0] if logs else "")


def _task_files(trial: TrialFiles) -> Iterator[TaskFile]:
    """Yield what the agent was asked, then the tests that judged it."""
    for name in [*trial.instructions, *trial.tests][:MOST_TASK_FILES]:
        text = trial.text(name, MOST_TASK_BYTES)
        if text is not None:
            yield TaskFile(name.partition("/")[2], text, is_cut=len(text.encode()) >= MOST_TASK_BYTES)
