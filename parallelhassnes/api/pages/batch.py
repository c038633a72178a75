"""``/batches/…``: one batch."""

from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes import file_stamp
from parallelhassnes.actions.limits import budget as budgets
from parallelhassnes.actions.limits.budget import SharedLine
from parallelhassnes.actions.registry import LEDGER_WORDS
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list, matrix
from parallelhassnes.api.pages.matrix import Labels, MatrixQuery, MatrixRows, Reward, Sort
from parallelhassnes.api.pages.render import PageRoute, link, page
from parallelhassnes.attempt_data.log_window import last_line
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.gc_paused import bulk
from parallelhassnes.refs import resolve
from parallelhassnes.results.aggregate import GroupLine
from parallelhassnes.results.aggregate import results as results_of
from parallelhassnes.results.collect import choose
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import batches, members
from parallelhassnes.store.attempts import LOGS
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import pace, projection
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.history import operators_words
from parallelhassnes.views.outcome import trials_text
from parallelhassnes.views.projection import Fold
from parallelhassnes.views.running import HeartbeatWatch
from parallelhassnes.views.scoreboard_models import BatchScoreboard, FailedStep

router = APIRouter(route_class=PageRoute)

MOST_RUNNING = 50
MOST_GATES = 20
MOST_RESULTS = 3_000
"""Steps of a batch whose results are worked out unasked."""
MOST_FAILURES = 8
"""Lines of a class that are shown."""
MOST_SAME = 5
"""Steps that are named of those that say the same."""
_watch = HeartbeatWatch()


class SameFailure(NamedTuple):
    """Failures of one class that say the same."""

    line: str
    steps: int
    first: list[FailedStep]


class FailureGroup(NamedTuple):
    """The failures of one class."""

    failure_class: str
    steps: int
    told: int
    """Of these the steps that ``lines`` stand for."""
    lines: list[SameFailure]


@router.get("/batches/{text}")
def batch_page(
    request: Request,
    site: SiteHere,
    text: str,
    number: int = 1,
    q: str = "",
    show: Literal["all", "trouble"] = "all",
    agent: str = "",
    reward: Reward = "",
    failure: str = "",
    tag: str = "",
    sort: Sort = "",
    results: bool = False,
) -> Response:
    """One batch.

    Args:
        text: a batch id, the beginning of one, or ``latest``.
        number: page of the matrix, from 1.
        q: and the others up to ``sort``: see ``MatrixQuery``.
        results: work them out, however many steps there are.
    """
    found = resolve(site.layout, text)
    if found.batch_id != text:
        return RedirectResponse(f"/batches/{link(found.batch_id)}", 303)
    batch_dir = site.layout.batch(text)
    asked = MatrixQuery(q, show, agent, reward, failure, tag, sort)
    as_of = file_stamp.seen(batch_dir / ledger.LEDGER)
    tagged = _labels(site.layout, text, as_of).jobs.get(tag, frozenset()) if tag else None
    chosen = MatrixRows(asked, number, tagged)
    fold, board = _look(site.layout, text, chosen)
    ctx, control = site.context(), batches.read_control(batch_dir)
    running, few = board.running[:MOST_RUNNING], board.steps_total <= MOST_RESULTS
    return page(
        request,
        "batch.html",
        board=board,
        pace=pace.pace(fold, board.counts),
        costs=pace.cost_over_time(fold),
        trials=trials_text(board.trials) if board.trials.total else [],
        found=chosen.found,
        number=chosen.number,
        pages=chosen.pages,
        asked=asked,
        columns=matrix.columns_of(board, agent),
        tags=_labels(site.layout, text, as_of).tags if few else [],
        running=running,
        lines={step.attempt: _last_line(site.layout, step.attempt) for step in running},
        failures=_groups(board),
        control=control,
        gates=board.gates[:MOST_GATES],
        priority=batches.read_about(batch_dir).get("priority", 0) if control.priority is None else control.priority,
        budget=budgets.of_batches(ctx, [text]).get(text),
        shared=_of_experiment(ctx, board.experiment),
        words=operators_words(batch_dir, LEDGER_WORDS),
        said=action_list.done(request),
        too_many=not few,
        has_parquet=_has_parquet(),
        results=_results(site.layout, text, as_of) if few or results else [],
    )


@lru_cache(maxsize=16)
def _labels(layout: Layout, batch_id: str, ledger_as_of: FileStamp | None) -> Labels:  # noqa: ARG001 - steps are added by a line of the ledger
    return matrix.labels_of(layout, batch_id)


@cache
def _has_parquet() -> bool:
    return find_spec("pyarrow") is not None


@lru_cache(maxsize=16)
def _results(layout: Layout, batch_id: str, ledger_as_of: FileStamp | None) -> list[GroupLine]:  # noqa: ARG001 - what it says nothing new of has not changed
    """By agent and model, best first; empty where nothing was scored."""
    found: list[GroupLine] = []
    with members.apart(layout.batch(batch_id)):  # of the earlier project: looked at, not counted
        found = results_of(layout, choose(layout, batch_id)).groups
    return found if any(group.scored for group in found) else []


def _of_experiment(ctx: Context, experiment: str) -> SharedLine | None:
    shared = budgets.every_shared(ctx) if experiment else []
    return next((line for line in shared if (line.scope, line.name) == ("experiment", experiment)), None)


@bulk
def _look(layout: Layout, batch_id: str, chosen: MatrixRows) -> tuple[Fold, BatchScoreboard]:
    fold = projection.load(layout.batch(batch_id))
    return fold, batch_scoreboard(layout, batch_id, _watch, fold, chosen)


def _groups(board: BatchScoreboard) -> list[FailureGroup]:
    groups: dict[str, dict[str, list[FailedStep]]] = {name: {} for name in board.failure_classes}
    for failed in board.failures:
        groups[failed.failure_class].setdefault(failed.line, []).append(failed)
    found = []
    for name, by_line in groups.items():
        most = sorted(by_line.items(), key=lambda line: -len(line[1]))[:MOST_FAILURES]
        lines = [SameFailure(line, len(own), own[:MOST_SAME]) for line, own in most]
        steps = sum(map(len, by_line.values()))
        found.append(FailureGroup(name, steps, sum(each.steps for each in lines), lines))
    return found


def _last_line(layout: Layout, attempt: str) -> str:
    """Tell what a live attempt said last, in any of its logs."""
    folder, found = layout.root / attempt, []
    for name in (*LOGS, "trial/trial.log"):
        try:
            info = (folder / name).lstat()
        except FileNotFoundError:
            continue
        if info.st_size:
            found.append((info.st_mtime, name))
    return last_line(folder, max(found)[1]) if found else ""
