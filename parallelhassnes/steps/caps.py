"""What an attempt's agent may use: the caps in force, and whether what it has used reaches one.

    the step's plan (job.json)                        caps of the table, the sweep or the step
    runs/<batch_id>/control.json  ``caps``            an operator's, in the place of these, of a batch, a job or a step

Who watches an agent reads both again at every look, so a change counts within a look. The nearest word on the step counts, value by
value; an operator's 0 takes a cap away. A worker that cannot read ``control.json`` goes by what stood there at its last look.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from parallelhassnes import places
from parallelhassnes.plan import CapName, Caps
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import atomic, batches

LOOK_SEC, IDLE_SEC = 0.25, 1.0
"""Between two looks at what an agent has used; where it has no caps, at whether it has got some."""
KINDS = frozenset({"trial", "agent"})
"""Kinds of steps that have an agent under caps."""


class UsedSoFar(NamedTuple):
    """What an agent has used so far; None where nobody can tell."""

    cost_usd: float | None = None
    tokens: int | None = None
    """Input and output."""
    turns: int | None = None
    """Begun."""

    def plus(self, other: "UsedSoFar") -> "UsedSoFar":
        """Return both together."""
        return UsedSoFar(*(_with(mine, theirs, sum) for mine, theirs in zip(self, other, strict=True)))

    def most(self, other: "UsedSoFar") -> "UsedSoFar":
        """Return the larger of each: two looks at the same."""
        return UsedSoFar(*(_with(mine, theirs, max) for mine, theirs in zip(self, other, strict=True)))


def _with(mine: Any, theirs: Any, how: Callable[[list[Any]], Any]) -> Any:
    known = [each for each in (mine, theirs) if each is not None]
    return how(known) if known else None


NOTHING = UsedSoFar()


def merged(planned: Caps | None, said: Mapping[str, Mapping[CapName, float]], place: str) -> Caps | None:
    """Return the caps in force of a step; None where it has none.

    Args:
        said: what operators have said: ``""`` (the batch), ``job_id`` or ``job_id/step_id`` → name of a cap → its value, 0 for none.
        place: ``job_id/step_id``.
    """
    found: dict[CapName, float] = {}
    if planned is not None:
        found.update(planned.model_dump(exclude_none=True))  # type: ignore[arg-type]
    for where in ("", places.step_key(place).job_id, place):
        found.update(said.get(where, {}))
    kept = {name: value for name, value in found.items() if value}
    return Caps.model_validate(kept) if kept else None


class CapWatch:
    """The caps of one attempt, and the time since its agent began."""

    def __init__(self, attempt: StepAttempt) -> None:
        self._planned = attempt.step.caps
        self._batch_dir, self._place = attempt.job_dir.parent, f"{attempt.job_id}/{attempt.step.step_id}"
        self.caps = self._planned
        """In force at the last look; None for none."""
        self._before = 0.0
        self._began: float | None = None
        self.look()

    def begin(self) -> None:
        """Have the agent's time run."""
        self._began = time.monotonic()

    def pause(self) -> None:
        """Have the agent's time stand still, until ``begin``."""
        self._before, self._began = self.wall_sec, None

    @property
    def runs(self) -> bool:
        """Whether the agent's time runs."""
        return self._began is not None

    @property
    def wall_sec(self) -> float:
        """How long the agent has worked."""
        return self._before + (0.0 if self._began is None else time.monotonic() - self._began)

    def reached(self, used: UsedSoFar) -> str | None:
        """Tell which cap is reached, in a line; None where there is none."""
        caps = self.look()
        if caps is None:
            return None
        for name, most, now in (
            ("max_cost_usd", caps.max_cost_usd, used.cost_usd),
            ("max_tokens", caps.max_tokens, used.tokens),
            ("max_turns", caps.max_turns, used.turns),
            ("max_wall_sec", caps.max_wall_sec, self.wall_sec),
        ):
            # So many turns it may have whole; what ends it is the next one.
            over = now is not None and most is not None and (now > most if name == "max_turns" else now >= most)
            if over:
                return f"{name} {most:.6g} is reached: {now:.6g} so far"
        return None

    def left_sec(self, used: UsedSoFar) -> float:
        """Tell after how long a cap is reached if the agent goes on as it has until now."""
        caps, now = self.caps, self.wall_sec
        if caps is None:
            return math.inf
        pairs = ((caps.max_cost_usd, used.cost_usd), (caps.max_tokens, used.tokens), (caps.max_turns, used.turns))
        return min((now * (most - got) / got for most, got in pairs if most and got), default=math.inf)

    def look(self) -> Caps | None:
        """Return the caps that are in force now."""
        with contextlib.suppress(OSError, atomic.CorruptFile):
            said = batches.read_control(self._batch_dir).caps
            self.caps = merged(self._planned, said, self._place)
        return self.caps
