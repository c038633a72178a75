"""``/batches/…``: one batch, and the steps behind a cell of its matrix."""

from typing import Literal, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.api.pages import said
from parallelhassnes.api.pages.render import PageRoute, link, page
from parallelhassnes.api.site import SiteHere
from parallelhassnes.control import fold as folds
from parallelhassnes.control import pace
from parallelhassnes.control.batch_scoreboard import batch_scoreboard
from parallelhassnes.control.find import resolve
from parallelhassnes.control.ledger_lines import operators_words
from parallelhassnes.control.log_window import last_line
from parallelhassnes.control.running import HeartbeatWatch
from parallelhassnes.control.scoreboard_models import BatchScoreboard, FailedStep, JobLine
from parallelhassnes.control.show import ShowDocument, show
from parallelhassnes.store import batches
from parallelhassnes.store.attempts import LOGS
from parallelhassnes.store.layout import Layout

router = APIRouter(route_class=PageRoute)

JOBS_PER_PAGE = 100
STEPS_PER_PAGE = 200
MOST_RUNNING = 50
MOST_FAILURES = 8
"""Failures of a class that are named."""
_watch = HeartbeatWatch()


class FailureGroup(NamedTuple):
    """The failures of one class."""

    failure_class: str
    steps: int
    first: list[FailedStep]


@router.get("/batches/{text}")
def batch_page(
    request: Request, site: SiteHere, text: str, number: int = 1, q: str = "", show: Literal["all", "trouble"] = "all"
) -> Response:  # fmt: skip
    """One batch.

    Args:
        text: a batch id, the beginning of one, or ``latest``.
        number: page of the matrix, from 1.
        q: only jobs with this in their id.
        show: ``trouble``: only jobs with a step that failed or cannot start.
    """
    found = resolve(site.layout, text)
    if found.batch_id != text:
        return RedirectResponse(f"/batches/{link(found.batch_id)}", 303)
    batch_dir = site.layout.batch(text)
    fold = folds.load(batch_dir)
    board = batch_scoreboard(site.layout, text, _watch, fold)
    jobs = [job for job in board.jobs if q.lower() in job.job_id.lower()]
    if show == "trouble":
        jobs = [job for job in jobs if _is_trouble(job)]
    pages = max(1, -(-len(jobs) // JOBS_PER_PAGE))
    number = min(max(number, 1), pages)
    control = batches.read_control(batch_dir)
    running = board.running[:MOST_RUNNING]
    return page(
        request, "batch.html", board=board, pace=pace.pace(fold, board.counts), costs=pace.cost_over_time(fold),
        jobs=sorted(jobs, key=_is_trouble, reverse=True)[(number - 1) * JOBS_PER_PAGE : number * JOBS_PER_PAGE],
        found=len(jobs), number=number, pages=pages, q=q, show=show, running=running,
        lines={step.attempt: _last_line(site.layout, step.attempt) for step in running},
        failures=_groups(board), control=control,
        priority=batches.read_batch(batch_dir).priority if control.priority is None else control.priority,
        words=operators_words(batch_dir), attempt_url=attempt_url, said=said.done(request),
    )  # fmt: skip


@router.get("/batches/{text}/steps")
def steps_page(
    request: Request, site: SiteHere, text: str, job: str = "", agent: str = "", state: str = "", number: int = 1
) -> Response:  # fmt: skip
    """The steps of a batch, of one job, of one agent, in one state: what a cell of the matrix opens."""
    found = resolve(site.layout, f"{text}/{job}" if job else text)
    document: ShowDocument = show(site.layout, str(found))
    steps = [
        step
        for step in document.steps
        if (not agent or (step.label or step.step.partition("/")[2]) == agent)
        and (not state or step.state == state)
    ]
    pages = max(1, -(-len(steps) // STEPS_PER_PAGE))
    number = min(max(number, 1), pages)
    return page(
        request, "steps.html", batch_id=found.batch_id, job=found.job_id or "", agent=agent, state=state,
        steps=steps[(number - 1) * STEPS_PER_PAGE : number * STEPS_PER_PAGE], found=len(steps), number=number,
        pages=pages, verdict=document.verdict, attempt_url=attempt_url,
    )  # fmt: skip


def attempt_url(attempt: str) -> str:
    """The page of an attempt, from its folder relative to the root."""
    parts = attempt.split("/")  # runs/BATCH/JOB/steps/STEP/attempts/NAME
    return link("/attempts/" + "/".join((parts[1], parts[2], parts[4], parts[6])))


def _is_trouble(job: JobLine) -> bool:
    return bool(job.counts.failed or job.counts.lost or job.counts.needs_attention)


def _groups(board: BatchScoreboard) -> list[FailureGroup]:
    groups: dict[str, list[FailedStep]] = {name: [] for name in board.failure_classes}
    for failed in board.failures:
        groups[failed.failure_class].append(failed)
    return [FailureGroup(name, len(own), own[:MOST_FAILURES]) for name, own in groups.items()]


def _last_line(layout: Layout, attempt: str) -> str:
    """What a live attempt said last, in any of its logs."""
    folder, found = layout.root / attempt, []
    for name in (*LOGS, "trial/trial.log"):
        try:
            info = (folder / name).lstat()
        except FileNotFoundError:
            continue
        if info.st_size:
            found.append((info.st_mtime, name))
    return last_line(folder, max(found)[1]) if found else ""
