"""The few statistics of a verdict."""

import math
from collections.abc import Sequence


def pass_at(n: int, passes: int, k: int) -> float:
    """The unbiased estimate of the chance that at least one of ``k`` trials passes.

    1 - C(n - passes, k) / C(n, k), after Chen et al., Evaluating Large Language Models Trained on Code
    (2021), as a product, so that large numbers stay exact enough. Needs 1 <= k <= n and 0 <= passes <= n.
    """
    if n - passes < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - passes + 1, n + 1))


def pass_at_all(n: int, passes: int) -> dict[str, float]:
    """``pass_at`` for each k from 1 to n; the keys are strings, because they become JSON."""
    return {str(k): pass_at(n, passes, k) for k in range(1, n + 1)}


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` (0 to 1) of ``values`` lie, interpolated between neighbours."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    found = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return min(max(found, ordered[0]), ordered[-1])


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """``{mean, p50, p90, max}`` of ``values``; None of nothing."""
    average, half, most = mean(values), percentile(values, 0.5), percentile(values, 0.9)
    if average is None or half is None or most is None:
        return None
    return {"mean": average, "p50": half, "p90": most, "max": max(values)}


def total(values: Sequence[float | int | None]) -> float | int | None:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
