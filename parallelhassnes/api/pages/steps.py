"""``/batches/…/steps``: the steps behind a cell of the matrix, and the verdict of a job.

What the list was asked for goes along to the pages of its attempts, which lead to the next and the previous of them.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.responses import Response

from parallelhassnes import file_stamp, places
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list
from parallelhassnes.api.pages.foreign import VerdictSaid
from parallelhassnes.api.pages.render import PageRoute, page, query
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.refs import Found, resolve
from parallelhassnes.store import index, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status, projection
from parallelhassnes.views.batch_status import StepStatus
from parallelhassnes.views.results_matrix import column
from parallelhassnes.views.running import attempt_path
from parallelhassnes.views.scoreboard_models import GatedStep
from parallelhassnes.views.show import ShowDocument, StepLine, show

router = APIRouter(route_class=PageRoute)

STEPS_PER_PAGE = 200


class StepQuery(NamedTuple):
    """What an address asks of the list."""

    job: str = ""
    agent: str = ""
    """Only this column of the matrix."""
    state: str = ""
    failure: str = ""
    """Only failures of this class."""
    gated: bool = False

    @classmethod
    def of(cls, among: str) -> Self:
        """Return what the part of an address behind its ``?`` asks; what it has beyond that is left out."""
        said = dict(parse_qsl(among[:2000], errors="surrogateescape"))
        texts = {name: said.get(name, "") for name in cls._fields if name != "gated"}
        return cls(**texts, gated=bool(said.get("gated")))

    @property
    def among(self) -> str:
        """What an address needs to ask the same, as one text; empty where everything is asked for."""
        return query(**{**self._asdict(), "gated": int(self.gated)}).removeprefix("?")

    @property
    def words(self) -> str:
        """Name what the list is narrowed to."""
        return ", ".join(filter(None, (self.job, self.agent, self.state.replace("_", " "), self.failure)))


class AttemptedStep(NamedTuple):
    """A step that was attempted, as far as lists ask for it."""

    key: str
    kind: str
    agent: str
    state: str
    failure: str
    attempt: str
    """The newest attempt's folder, relative to the root."""


class Neighbours(NamedTuple):
    """An attempt's place among those of a list: the newest attempt of each step, in the table's order."""

    place: int
    """From 1."""
    total: int
    before: str
    """Folder of the attempt before it, relative to the root; empty where it is the first."""
    after: str
    words: str
    """What the list is narrowed to; empty where it is every attempted step of the kind."""
    among: str
    """What leads to the list; empty where it is every attempted step of the kind."""


def neighbours(layout: Layout, found: Found, kind: str, among: str) -> Neighbours | None:
    """Return what stands beside a step in the list from which its attempt was opened; None where it stands alone.

    Args:
        kind: of the step; without a list its neighbours are steps of that kind.
        among: see ``StepQuery.among``.
    """
    asked = StepQuery.of(among)
    own = "/".join(found.parts[1:3])
    every = _attempted(layout, found.batch_id, file_stamp.seen(layout.batch(found.batch_id) / ledger.LEDGER))
    kept = [step for step in every if step.key == own or _fits(step, asked, "" if among else kind)]
    place = next((place for place, step in enumerate(kept) if step.key == own), None)
    if place is None or len(kept) < 2:
        return None
    before = kept[place - 1].attempt if place else ""
    after = kept[place + 1].attempt if place + 1 < len(kept) else ""
    return Neighbours(place + 1, len(kept), before, after, asked.words, asked.among)


def _fits(step: AttemptedStep, asked: StepQuery, kind: str) -> bool:
    return (
        kind in ("", step.kind)
        and asked.job in ("", places.step_key(step.key).job_id)
        and asked.agent in ("", step.agent)
        and asked.state in ("", step.state)
        and asked.failure in ("", step.failure)
        and not asked.gated
    )


@lru_cache(maxsize=8)
def _attempted(layout: Layout, batch_id: str, ledger_as_of: FileStamp | None) -> list[AttemptedStep]:  # noqa: ARG001 - what it says nothing new of has not changed
    batch_dir = layout.batch(batch_id)
    found: list[AttemptedStep] = []
    with members.apart(batch_dir):  # of the earlier project: nothing stands beside its attempts
        rows = projection.load(batch_dir).steps
        index_as_of = file_stamp.at(batch_dir / index.INDEX)
        for key, kind, agent in _steps(batch_dir, index_as_of) if rows else ():
            row = rows.get(key)
            if row is not None:
                state = row.status if row.retry_at is None else "ready"
                folder = attempt_path(batch_id, key, row.attempt)
                found.append(AttemptedStep(key, kind, agent, state, row.failure_class or "", folder))
    return found


@lru_cache(maxsize=8)
def _steps(batch_dir: Path, index_as_of: FileStamp | None) -> list[tuple[str, str, str]]:  # noqa: ARG001 - the index as it is now
    """Return key, kind and column of each step, in the table's order."""
    return [
        (f"{job_id}/{step.step_id}", step.kind, column(StepStatus(job_id, step, "")))
        for job_id, steps in batch_status.read_index(batch_dir).items()
        for step in steps
    ]


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
        if (not agent or (step.label or places.step_key(step.step).step_id) == agent)
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
        among=StepQuery(found.job_id or "", agent, state, failure, gated).among,
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
