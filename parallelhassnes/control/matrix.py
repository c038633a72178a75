"""The matrix of a batch: a row per job, in it a cell per agent, and their sums, tallied in one pass over the steps.

A tally is plain numbers. Models of 10,000 rows cost more than all the rest of a look, so a row becomes one when it
is shown.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from parallelhassnes.control import numbers
from parallelhassnes.control.scoreboard_models import Cell, Counts, JobLine, Verdict
from parallelhassnes.control.status import TROUBLE, StepStatus
from parallelhassnes.steps.trial_data import rewards

RESULT_KINDS = frozenset({"trial", "agent"})
"""Kinds of steps that have a cell in the matrix."""


@dataclass(slots=True)
class CellTally:
    """The trials of one job by one agent, or of all jobs by it."""

    states: dict[str, int] = field(default_factory=dict)
    scored: int = 0
    passes: int = 0
    rewards: float = 0.0
    """Their sum."""
    unscored: int = 0

    def add(self, state: str, reward: float | None, *, unscored: bool) -> None:
        self.states[state] = self.states.get(state, 0) + 1
        if reward is not None:
            self.scored += 1
            self.passes += rewards.passes(reward)
            self.rewards += reward
        elif unscored:
            self.unscored += 1

    def cell(self) -> Cell:
        states = Counter(self.states)
        return Cell(
            n=states.total(), scored=self.scored, passes=self.passes,
            mean_reward=self.rewards / self.scored if self.scored else None,
            running=states["running"], waiting=states["ready"] + states["blocked"], unscored=self.unscored,
            failed=sum(states[name] for name in TROUBLE), canceled=states["canceled"],
        )  # fmt: skip


@dataclass(slots=True)
class Row:
    """One job."""

    job_id: str
    states: dict[str, int] = field(default_factory=dict)
    """State → steps."""
    cells: dict[str, CellTally] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def is_trouble(self) -> bool:
        """A step of it did not succeed."""
        return any(name in self.states for name in TROUBLE)


class Matrix:
    """Args:
    steps: of the batch, in the table's order.
    """

    def __init__(self, steps: Iterable[StepStatus]) -> None:
        self.totals: dict[str, CellTally] = {}
        """Column → all its trials, over the jobs; columns in the table's order."""
        rows: dict[str, Row] = {}
        for step in steps:
            row = rows.get(step.job_id)
            if row is None:
                row = rows[step.job_id] = Row(step.job_id)
            row.states[step.state] = row.states.get(step.state, 0) + 1
            if step.step.kind in RESULT_KINDS:
                name, reward = column(step), _reward(step)
                unscored = reward is None and is_unscored(step)
                for cells in (row.cells, self.totals):
                    if name not in cells:
                        cells[name] = CellTally()
                    cells[name].add(step.state, reward, unscored=unscored)
            elif step.step.kind == "verdict" and row.verdict is None:
                row.verdict = _verdict(step)
        self.rows = list(rows.values())

    @property
    def columns(self) -> list[str]:
        return list(self.totals)

    def line(self, row: Row) -> JobLine:
        """The row as it is shown."""
        cells = {name: row.cells[name].cell() for name in self.totals if name in row.cells}
        counts = Counts(**row.states)
        return JobLine(job_id=row.job_id, counts=counts, cells=cells, verdict=row.verdict)


def column(step: StepStatus) -> str:
    """The column of a step."""
    return step.step.label or step.step.step_id


def is_unscored(step: StepStatus) -> bool:
    """Whether it is a trial that succeeded and has no reward."""
    return step.step.kind == "trial" and step.state == "succeeded" and _reward(step) is None


def _reward(step: StepStatus) -> float | None:
    if step.state != "succeeded" or step.row is None:
        return None
    found = numbers.trial(step.row.numbers)
    return found.reward if found else None


def _verdict(step: StepStatus) -> Verdict | None:
    found = None if step.row is None else numbers.verdict(step.row.numbers)
    return None if found is None else Verdict(**found._asdict())
