"""``/submit``: a form that becomes a launch table, a table that is pasted, and what either would run.

Nothing is kept between the steps: the table itself goes back and forth in the form.
"""

import json
import re
import shlex
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from starlette.responses import RedirectResponse, Response

from parallelhassnes.actions import submit as action
from parallelhassnes.actions import uploads
from parallelhassnes.actions.error_annotations import Marked, mark
from parallelhassnes.actions.submit import plan_table
from parallelhassnes.actions.uploads import Archive, Uploaded
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages.render import PageRoute, link, page
from parallelhassnes.errors import InvalidInput, Problem, UserError
from parallelhassnes.plan import Plan
from parallelhassnes.results.eta import Forecast, forecast
from parallelhassnes.schedule.context import Context
from parallelhassnes.tables.formats.request import RunRequest, limits_of, pairs_of, table_for, value_of

router = APIRouter(route_class=PageRoute)

MOST_TABLE = 8 << 20
"""Characters of a table that the page takes; larger ones go through the command line or ``/v1/batches``."""
ROWS = 3
"""Agents that the form has room for, and how many more it gets room for when asked."""
MOST_AGENTS = 100
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AskedAgent(NamedTuple):
    """One agent of the form."""

    name: str = ""
    model: str = ""
    kwargs: str = ""
    """``NAME=VALUE``, several apart by spaces; what has spaces stands in quotes."""


class Asked(NamedTuple):
    """What the form holds."""

    path: str = ""
    """One a line."""
    dataset: str = ""
    agents: tuple[AskedAgent, ...] = ()
    trials: str = "1"
    environment: str = ""
    task_names: str = ""
    experiment: str = ""
    concurrency: str = ""
    limits: str = ""
    priority: str = ""
    secrets: str = ""
    """Names of variables."""
    analysis: str = ""
    """``rules``, or ``ENGINE:MODEL``; several apart by spaces."""
    budget_usd: str = ""
    budget_tokens: str = ""
    room: int = 0
    """Rows for agents that were asked for besides."""

    @property
    def rows(self) -> list[AskedAgent]:
        """The agents, and room for more."""
        return [*self.agents, *[AskedAgent()] * max(1, ROWS - len(self.agents), self.room)]


class Preview(NamedTuple):
    """What a table would run."""

    plan: Plan
    keys: dict[str, int]
    steps: int
    forecast: list[Forecast]

    @property
    def usd(self) -> float | None:
        """What all of it may cost, as far as it is known."""
        known = [each.usd for each in self.forecast if each.usd is not None]
        return sum(known) if known else None


@router.get("/submit")
def submit_page(request: Request, site: SiteHere) -> Response:
    """The empty form."""
    return _page(request, Asked(environment=site.context().config.environment))


@router.post("/submit/upload", dependencies=[Depends(needs("submit"))])
def from_upload(request: Request, site: SiteHere, file: Annotated[list[UploadFile], File(max_length=100)]) -> Response:
    """Store the tasks of some archives, and go on with the form."""
    archives = [Archive(part.filename or "task.zip", part.file) for part in file]
    asked = Asked(environment=site.context().config.environment)
    try:
        done = uploads.upload(site.context(), archives)
    except UserError as error:
        return _page(request, asked, trouble=error.lines(), status=422)
    paths = "\n".join(task.path for task in done.tasks)
    return _page(request, asked._replace(path=paths), uploaded=done)


@router.post("/submit/form", dependencies=[Depends(needs("submit"))])
def from_form(
    request: Request,
    site: SiteHere,
    path: Annotated[str, Form(max_length=4000)] = "",
    dataset: Annotated[str, Form(max_length=300)] = "",
    agent: Annotated[list[str] | None, Form(max_length=300)] = None,
    model: Annotated[list[str] | None, Form(max_length=300)] = None,
    kwargs: Annotated[list[str] | None, Form(max_length=4000)] = None,
    trials: Annotated[str, Form(max_length=10)] = "1",
    environment: Annotated[str, Form(max_length=300)] = "",
    task_names: Annotated[str, Form(max_length=4000)] = "",
    experiment: Annotated[str, Form(max_length=200)] = "",
    concurrency: Annotated[str, Form(max_length=10)] = "",
    limits: Annotated[str, Form(max_length=2000)] = "",
    priority: Annotated[str, Form(max_length=10)] = "",
    secrets: Annotated[str, Form(max_length=4000)] = "",
    analysis: Annotated[str, Form(max_length=1000)] = "",
    budget_usd: Annotated[str, Form(max_length=30)] = "",
    budget_tokens: Annotated[str, Form(max_length=30)] = "",
    more: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """The table that the form makes, and what it would run; with ``more`` the form with room for more agents."""
    each = zip_longest(agent or [], model or [], kwargs or [], fillvalue="")
    rows = tuple(AskedAgent(*(text.strip() for text in row)) for row in each)
    asked = Asked(
        path,
        dataset,
        tuple(row for row in rows if any(row))[:MOST_AGENTS],
        trials,
        environment,
        task_names,
        experiment,
        concurrency,
        limits,
        priority,
        secrets,
        analysis,
        budget_usd,
        budget_tokens,
        len(rows) - sum(map(any, rows)) + ROWS if more else 0,
    )
    if more:
        return _page(request, asked)
    if not all(_VARIABLE.fullmatch(name) for name in secrets.split()):
        line = "Secrets: name the variables whose values the trials are given; a value must not be typed here"
        return _page(request, asked._replace(secrets=""), trouble=[line], status=422)
    try:
        text = json.dumps(_table(asked), indent=2, ensure_ascii=False)
    except UserError as error:
        return _page(request, asked, trouble=error.lines(), status=422)
    return _checked(request, site, text, asked)


@router.post("/submit/table", dependencies=[Depends(needs("submit"))])
def from_table(
    request: Request,
    site: SiteHere,
    table: Annotated[str, Form(max_length=MOST_TABLE)],
    go: Annotated[str, Form(max_length=10)] = "",
    again: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """What a pasted table would run; with ``go`` it is submitted."""
    text = table.replace("\r\n", "\n")
    if not go:
        return _checked(request, site, text, Asked())
    try:
        done = action.submit(
            site.context(), text.encode(), name=_name(text), folders=[site.layout.root], again=bool(again)
        )
    except InvalidInput as error:
        return _page(request, Asked(), text=text, marked=mark(text, error.problems), status=422)
    return RedirectResponse(f"/batches/{link(done.batch_id)}", 303)


def _checked(request: Request, site: SiteHere, text: str, asked: Asked) -> Response:
    ctx = site.context()
    try:
        plan = plan_table(ctx, text.encode(), name=_name(text), folders=[site.layout.root])
    except InvalidInput as error:
        return _page(request, asked, text=text, marked=mark(text, error.problems), status=422)
    known = action.known(ctx, text.encode())
    return _page(request, asked, text=text, preview=_preview(ctx, plan), known=known)


def _preview(ctx: Context, plan: Plan) -> Preview:
    keys: dict[str, int] = {}
    for job in plan.jobs:
        for step in job.steps:
            keys[step.queue_key] = keys.get(step.queue_key, 0) + 1
    return Preview(plan, dict(sorted(keys.items())), sum(keys.values()), forecast(ctx.layout, plan))


def _page(
    request: Request,
    asked: Asked,
    *,
    text: str = "",
    marked: Marked | None = None,
    preview: Preview | None = None,
    known: str | None = None,
    trouble: Sequence[str] = (),
    uploaded: Uploaded | None = None,
    status: int = 200,
) -> Response:
    problems: list[Problem] = marked.elsewhere if marked else []
    return page(
        request,
        "submit.html",
        status,
        asked=asked,
        text=text,
        marked=marked,
        preview=preview,
        known=known,
        trouble=trouble,
        uploaded=uploaded,
        elsewhere=problems,
    )


def _name(text: str) -> str:
    """Return a file name whose ending says how to read it."""
    return "page.json" if text.lstrip().startswith("{") else "page.yaml"


def _table(asked: Asked) -> dict[str, Any]:
    """Return the launch table of the form.

    Raises:
        UserError: something in it is impossible.
    """
    request = RunRequest(
        paths=tuple(line.strip() for line in asked.path.splitlines() if line.strip()),
        dataset=asked.dataset or None,
        n_trials=_count(asked.trials, "trials"),
        environment=asked.environment or None,
        task_names=tuple(asked.task_names.split()),
        experiment=asked.experiment or None,
        concurrency=_count(asked.concurrency, "at once"),
        limits=limits_of(asked.limits.split(), "limit", "openai/gpt-5.2=3"),
        priority=_number(asked.priority),
        secrets=tuple(asked.secrets.split()),
        analyses=tuple(asked.analysis.split()),
    )
    document = table_for(request)
    if asked.agents:
        document["sweep"]["agents"] = [_agent(row, request.n_trials) for row in asked.agents]
    budget = {"usd": _usd(asked.budget_usd), "tokens": _number(asked.budget_tokens)}
    known = {name: value for name, value in budget.items() if value is not None}
    if known:
        document["budget"] = known
    return document


def _agent(row: AskedAgent, trials: int | None) -> dict[str, Any]:
    if not row.name:
        raise UserError(f"{row.model or row.kwargs} has no agent", fix="name one beside it")
    made: dict[str, Any] = {"import_path" if ":" in row.name else "name": row.name}
    if row.model:
        made["model_name"] = row.model
    if trials is not None:
        made["n_trials"] = trials
    if row.kwargs:
        made["kwargs"] = _kwargs(row.kwargs)
    return made


def _kwargs(text: str) -> dict[str, object]:
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise UserError(f"arguments {text}: {str(error).lower()}", fix="close the quotes") from None
    return {name: value_of(value) for name, value in pairs_of(parts, "argument", "max_turns=20").items()}


def _usd(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"budget {text.strip()}: is no sum of money", fix="give US dollars, as 25 or 2.50")
    return value


def _number(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 15:
        raise UserError(f"{text} is not a number", fix="give a whole number")
    return int(text)


def _count(text: str, what: str) -> int | None:
    number = _number(text)
    if number is not None and number < 1:
        raise UserError(f"{what}: {number} is too small", fix="give 1 or more")
    return number
