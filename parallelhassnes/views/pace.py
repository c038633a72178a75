"""How fast a batch goes and what it has cost when, from its ledger's fold: nothing is remembered between looks."""

import time
from typing import NamedTuple

from parallelhassnes.states import TERMINAL
from parallelhassnes.steps.usage import UsageSum
from parallelhassnes.store.records import parse_time
from parallelhassnes.views.projection import Fold, StepRow
from parallelhassnes.views.scoreboard_models import Counts

WINDOW_SEC = 600.0
"""Steps that ended within it make the rate."""
_SHORTEST_SEC = 30.0


class Pace(NamedTuple):
    """How a batch goes on."""

    per_minute: float
    """Steps that ended, over the last ten minutes or since the first of them."""
    left_sec: float | None
    """Estimate of the time left; None where nothing ended lately, or nothing is left."""


class CostPoint(NamedTuple):
    """What a batch had cost at one moment."""

    at: str
    usd: float
    """Of all attempts that had ended by then."""


def pace(fold: Fold, counts: Counts, now: float | None = None) -> Pace:
    """Return the rate, and what is ready or running divided by it."""
    now = time.time() if now is None else now
    ended = [parse_time(row.at) for row in fold.steps.values() if row.status in TERMINAL]
    recent = [at for at in ended if at > now - WINDOW_SEC]
    if not recent:
        return Pace(0.0, None)
    since = now - WINDOW_SEC if len(recent) < len(ended) else min(recent)
    per_minute = len(recent) / max(now - since, _SHORTEST_SEC) * 60
    left = counts.ready + counts.running
    return Pace(per_minute, left / per_minute * 60 if left else None)


def _cost(row: StepRow, *, carried: bool) -> float | None:
    own = None if carried else (row.said or {}).get("cost_usd")
    others = UsageSum.restored(row.others).cost_usd if row.others else None
    return others if own is None else own + (others or 0.0)


def cost_over_time(fold: Fold, most: int = 200) -> list[CostPoint]:
    """Cost so far whenever a step's newest attempt started or ended; evenly thinned to ``most`` points.

    What a step's earlier attempts have cost counts with the newest, and nothing of an attempt that another batch has paid for.
    """
    known = sorted(
        (row.at, cost)
        for key, row in fold.steps.items()
        if (cost := _cost(row, carried=fold.carried.get(key) == row.counting)) is not None
    )
    points, total = [], 0.0
    for at, usd in known:
        total += usd
        points.append(CostPoint(at, total))
    step = max(1, -(-len(points) // most))
    return points[::-1][::step][::-1]
