"""The matrix of jobs and agents on a batch's page: which rows, in which order, and what stands in which cell.

Everything is asked for by the address, so it works without scripts and can be sent to others. No cell holds two numbers: below each
agent stand as many columns as its cells on this page need.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from parallelhassnes import formatting
from parallelhassnes.results import trial_plans
from parallelhassnes.states import Scored
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status
from parallelhassnes.views.results_matrix import CellTally, JobRow
from parallelhassnes.views.scoreboard_models import BatchScoreboard, Cell

JOBS_PER_PAGE = 100
MOST_REWARDS = 8
"""Columns of rewards with other names, below one agent."""
MOST_TAGS = 200

type Sort = Literal["", "job", "reward", "-reward", "passes", "-passes"]
type Reward = Literal["", Scored]


class MatrixQuery(NamedTuple):
    """What the address asks of the matrix."""

    q: str = ""
    """Only jobs with this in their id."""
    show: Literal["all", "trouble"] = "all"
    agent: str = ""
    """Only this column, and jobs that have it."""
    reward: Reward = ""
    """Only jobs with a trial that passed, that was scored and did not pass, or that has no score."""
    failure: str = ""
    """Only jobs with a failure of this class."""
    tag: str = ""
    """Only jobs with this label, as ``NAME=VALUE``."""
    sort: Sort = ""
    """Left out: trouble first."""

    @property
    def fields(self) -> dict[str, str]:
        """What an address needs to ask the same."""
        found = self._asdict()
        return found | {"show": "" if self.show == "all" else self.show}

    @property
    def is_narrowed(self) -> bool:
        return any(self._replace(sort="", show="all").fields.values())


class MatrixRows:
    """The rows of one page, once the batch's board has asked for them."""

    def __init__(self, asked: MatrixQuery, number: int, tagged: frozenset[str] | None) -> None:
        self.number = number
        """Page of the matrix, from 1."""
        self.pages = self.found = 0
        self._asked, self._tagged = asked, tagged

    def __call__(self, rows: list[JobRow]) -> list[JobRow]:
        if self._asked.show != "all" or self._asked.is_narrowed:
            rows = [row for row in rows if self._fits(row)]
        self.found, self.pages = len(rows), max(1, -(-len(rows) // JOBS_PER_PAGE))
        self.number = min(max(self.number, 1), self.pages)
        rows = sorted(rows, key=_ORDER[self._asked.sort.removeprefix("-")](self._asked.agent))
        if self._asked.sort.startswith("-"):
            rows.reverse()
        return rows[(self.number - 1) * JOBS_PER_PAGE : self.number * JOBS_PER_PAGE]

    def _fits(self, row: JobRow) -> bool:
        asked = self._asked
        cells = _cells(row, asked.agent)
        return (
            asked.q.lower() in row.job_id.lower()
            and (row.is_trouble or asked.show == "all")
            and (bool(cells) or not asked.agent)
            and (not asked.reward or any(_FITS[asked.reward](cell) for cell in cells))
            and (not asked.failure or asked.failure in row.classes)
            and (self._tagged is None or row.job_id in self._tagged)
        )


def _cells(row: JobRow, agent: str) -> list[CellTally]:
    return [cell for name, cell in row.cells.items() if agent in ("", name)]


_FITS: Mapping[str, Callable[[CellTally], bool]] = {
    "passed": lambda cell: cell.passes > 0,
    "scored": lambda cell: cell.scored > cell.passes,
    "no_score": lambda cell: sum(cell.states.values()) > cell.scored,
}


def _mean(row: JobRow, agent: str) -> float:
    return discrimination.mean([value for cell in _cells(row, agent) for value in cell.rewards]) or 0.0


def _share(row: JobRow, agent: str) -> float:
    cells = _cells(row, agent)
    return sum(cell.passes for cell in cells) / (sum(cell.scored for cell in cells) or 1)


_ORDER: Mapping[str, Callable[[str], Callable[[JobRow], Any]]] = {
    "": lambda _: lambda row: not row.is_trouble,
    "job": lambda _: lambda row: row.job_id,
    "reward": lambda agent: lambda row: _mean(row, agent),
    "passes": lambda agent: lambda row: _share(row, agent),
}


class Labels(NamedTuple):
    """The labels of a batch's jobs."""

    tags: list[str]
    """Each as ``NAME=VALUE``; the first ``MOST_TAGS``."""
    jobs: Mapping[str, frozenset[str]]
    """Tag → the jobs that have it."""


def labels_of(layout: Layout, batch_id: str) -> Labels:
    """Return the labels that not every job has."""
    jobs: dict[str, set[str]] = {}
    plans = trial_plans.read(layout, batch_status.read(layout, batch_id))
    for job_id, plan in plans.items():
        for name, value in plan.labels.items():
            jobs.setdefault(f"{name}={value}", set()).add(job_id)
    telling = sorted(tag for tag, own in jobs.items() if len(own) < len(plans))
    return Labels(telling[:MOST_TAGS], {tag: frozenset(own) for tag, own in jobs.items()})


class SubColumn(NamedTuple):
    """One number below an agent."""

    name: str
    text: Callable[[Cell], str]


class AgentColumns(NamedTuple):
    """An agent, and the numbers below it."""

    agent: str
    parts: list[SubColumn]


def _passes(cell: Cell) -> str:
    decided = cell.scored - cell.undecided
    return f"{cell.passes}/{decided}" if decided else "–" if cell.n else ""


def _named(name: str) -> Callable[[Cell], str]:
    return lambda cell: formatting.reward(cell.rewards[name], plain=True) if name in cell.rewards else ""


def _count(field: str) -> Callable[[Cell], str]:
    return lambda cell: str(getattr(cell, field) or "")


_COUNTS = ("undecided", "running", "waiting", "failed", "unscored", "canceled", "again")


def columns_of(board: BatchScoreboard, agent: str) -> list[AgentColumns]:
    """Return the columns that this page of the matrix needs."""
    found = []
    for name in board.columns:
        if agent not in ("", name):
            continue
        cells = [board.totals[name], *(job.cells[name] for job in board.jobs if name in job.cells)]
        parts = [SubColumn("passed", _passes)]
        if any(cell.mean_reward not in (None, 0, 1) for cell in cells):
            parts.append(SubColumn("mean reward", lambda cell: _reward(cell.mean_reward)))
        named = dict.fromkeys(reward for cell in cells for reward in cell.rewards if reward != "reward")
        parts += [SubColumn(reward, _named(reward)) for reward in list(named)[:MOST_REWARDS]]
        parts += [SubColumn(field, _count(field)) for field in _COUNTS if any(getattr(cell, field) for cell in cells)]
        found.append(AgentColumns(name, parts))
    return found


def _reward(value: float | None) -> str:
    return "" if value is None else formatting.reward(value)
