"""The few statistics of a verdict, in plain arithmetic: a verdict must not wait for an import of numpy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""

type Interval = tuple[float, float]
"""Lower and upper end, 95 %."""


class Bracket(NamedTuple):
    """Between what a count of passes lies, whatever the trials without a decided score would have come to."""

    worst: int
    """Passes if all of them had failed."""
    best: int
    """Passes if all of them had passed."""
    of: int
    """All trials that were due: planned, and not skipped."""


def bracket(passes: int, decided: int, due: int) -> Bracket:
    """Return the worst and the best case over what is unscored.

    Args:
        decided: trials of which it is known whether they passed.
        due: those and all others that were not skipped.
    """
    return Bracket(passes, passes + due - decided, due)


def wilson(mean: float, n: float) -> Interval:
    """Return the 95 % score interval of a rate, or of any mean of values from 0 to 1, of ``n`` trials (more than 0).

    Wilson, Probable inference, the law of succession, and statistical inference (1927). For values between 0 and 1 it
    errs on the wide side: no such distribution varies more than the one of passes and fails with the same mean
    (Bhatia and Davis, A better bound on the variance, 2000).
    """
    shrunk = (mean + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(mean * (1 - mean) / n + Z_95**2 / (4 * n**2))
    # At 0 and 1 the interval ends there; rounding would leave a trace.
    low = 0.0 if mean <= 0 else max(0.0, shrunk - half)
    return low, 1.0 if mean >= 1 else min(1.0, shrunk + half)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return ``wilson`` of the mean of independent values; None of nothing, and where one is not from 0 to 1."""
    average = mean(values)
    if average is None or min(values) < 0 or max(values) > 1:
        return None
    return wilson(average, len(values))


def pass_at(n: int, passes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that at least one of ``k`` trials passes.

    1 - C(n - passes, k) / C(n, k), after Chen et al., Evaluating Large Language Models Trained on Code
    (2021), as a product, so that large numbers stay exact enough. Needs 1 <= k <= n and 0 <= passes <= n.
    """
    if n - passes < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - passes + 1, n + 1))


def pass_at_all(n: int, passes: int) -> dict[str, float]:
    """Return ``pass_at`` for each k from 1 to n; the keys are strings, because they become JSON."""
    return {str(k): pass_at(n, passes, k) for k in range(1, n + 1)}


def pass_hat(n: int, passes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that all of ``k`` trials pass, pass^k.

    C(passes, k) / C(n, k), after Yao et al., tau-bench (2024), as a product. Needs 1 <= k <= n and 0 <= passes <= n.
    """
    return math.prod((passes - i) / (n - i) for i in range(k)) if passes >= k else 0.0


def pass_hat_all(n: int, passes: int) -> dict[str, float]:
    """Return ``pass_hat`` for each k from 1 to n; the keys are strings, because they become JSON."""
    return {str(k): pass_hat(n, passes, k) for k in range(1, n + 1)}


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean, None of nothing."""
    if not values:
        return None
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # the sum of two rewards of 1e308 is beyond a float, their mean is not
        return math.fsum(value / len(values) for value in values)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which ``share`` (0 to 1) of ``values`` lie, interpolated between neighbours."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    found = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return min(max(found, ordered[0]), ordered[-1])


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Return ``{mean, p50, p90, max}`` of ``values``; None of nothing."""
    average, half, most = mean(values), percentile(values, 0.5), percentile(values, 0.9)
    if average is None or half is None or most is None:
        return None
    return {"mean": average, "p50": half, "p90": most, "max": max(values)}


def total(values: Sequence[float | int | None]) -> float | int | None:
    """Return the sum of the known values; None where all are unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
