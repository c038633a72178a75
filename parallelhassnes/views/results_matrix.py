"""The matrix of a batch: a row per job, in it a cell per agent, and their sums, tallied in one pass over the steps.

A tally is plain numbers. Models of 10,000 rows cost more than all the rest of a look, so a row becomes one when it
is shown.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from parallelhassnes.states import TROUBLE
from parallelhassnes.steps.trial_data.ended_line import QUALITY_OF_1
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.views.batch_status import StepStatus
from parallelhassnes.views.scoreboard_models import Cell, Counts, JobLine, Verdict

RESULT_KINDS = frozenset({"trial", "agent"})
"""Kinds of steps that have a cell in the matrix."""
OPEN = frozenset({"ready", "blocked", "running"})
MOST_REWARDS = 20
"""Names of rewards in a cell; ``results --by reward`` has all."""


@dataclass(slots=True)
class CellTally:
    """The trials of one job by one agent, or of all jobs by it."""

    states: dict[str, int] = field(default_factory=dict)
    scored: int = 0
    undecided: int = 0
    passes: int = 0
    rewards: list[float] = field(default_factory=list)
    """The main ones."""
    named: dict[str, list[float]] = field(default_factory=dict)
    """All rewards by name, where trials have others than ``reward``."""
    unscored: int = 0
    again: int = 0

    def add(self, state: str, said: dict[str, Any] | None, *, unscored: bool) -> None:
        """Count a trial.

        Args:
            said: what is said of it in the ledger, where it is scored.
        """
        # A score stands, whatever another attempt comes to.
        shown = "succeeded" if said is not None else state
        self.again += said is not None and state in OPEN
        self.states[shown] = self.states.get(shown, 0) + 1
        self.unscored += unscored
        if said is None:
            return
        passed, reward = said.get("passed"), said.get("reward")
        self.scored += 1
        self.undecided += passed is None
        self.passes += passed is True
        if reward is not None:
            self.rewards.append(reward)
        for name, value in (said.get("rewards") or {}).items():
            if name in self.named or len(self.named) < MOST_REWARDS:
                self.named.setdefault(name, []).append(value)

    def cell(self) -> Cell:
        states = Counter(self.states)
        return Cell(
            n=states.total(),
            scored=self.scored,
            undecided=self.undecided,
            passes=self.passes,
            mean_reward=discrimination.mean(self.rewards),
            rewards={name: discrimination.mean(own) or 0.0 for name, own in self.named.items()},
            running=states["running"],
            waiting=states["ready"] + states["blocked"],
            unscored=self.unscored,
            failed=sum(states[name] for name in TROUBLE),
            canceled=states["canceled"],
            again=self.again,
        )


@dataclass(slots=True)
class JobRow:
    """One job."""

    job_id: str
    states: dict[str, int] = field(default_factory=dict)
    """State → steps."""
    cells: dict[str, CellTally] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    """Why its steps that did not succeed have failed."""
    verdict: Verdict | None = None
    is_trouble: bool = False
    """A step of it did not succeed."""


class Matrix:
    """Args:
    steps: of the batch, in the table's order.
    """

    def __init__(self, steps: Iterable[StepStatus]) -> None:
        self.totals: dict[str, CellTally] = {}
        """Column → all its trials, over the jobs; columns in the table's order."""
        rows: dict[str, JobRow] = {}
        for step in steps:
            row = rows.get(step.job_id)
            if row is None:
                row = rows[step.job_id] = JobRow(step.job_id)
            row.states[step.state] = row.states.get(step.state, 0) + 1
            row.is_trouble |= step.state in TROUBLE
            if step.row is not None and step.row.status in TROUBLE:
                row.classes.add(step.row.failure_class or step.row.status)
            if step.step.kind in RESULT_KINDS:
                name, said = column(step), _scored(step)
                unscored = is_unscored(step)
                for cells in (row.cells, self.totals):
                    if name not in cells:
                        cells[name] = CellTally()
                    cells[name].add(step.state, said, unscored=unscored)
            elif step.step.kind == "verdict" and row.verdict is None:
                row.verdict = _verdict(step)
        self.rows = list(rows.values())

    @property
    def columns(self) -> list[str]:
        return list(self.totals)

    def line(self, row: JobRow) -> JobLine:
        """Return the row as it is shown."""
        cells = {name: row.cells[name].cell() for name in self.totals if name in row.cells}
        counts = Counts(**row.states)
        return JobLine(job_id=row.job_id, counts=counts, cells=cells, verdict=row.verdict)


def column(step: StepStatus) -> str:
    """Return the column of a step."""
    return step.step.label or step.step.step_id


def is_unscored(step: StepStatus) -> bool:
    """Tell whether it is a trial that succeeded and has no reward."""
    return step.step.kind == "trial" and step.state == "succeeded" and _scored(step) is None


def _scored(step: StepStatus) -> dict[str, Any] | None:
    """Tell what is said of a trial that is scored, by whichever of its attempts counts."""
    return step.row.said if step.row is not None and step.row.scored else None


def _verdict(step: StepStatus) -> Verdict | None:
    if step.row is None or not step.row.said:
        return None
    said = dict(step.row.said)
    quality = said.get("task_quality") or QUALITY_OF_1[said.get("task_broken")]
    return Verdict(**{**said, "task_quality": quality})
