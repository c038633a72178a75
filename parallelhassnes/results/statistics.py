"""Statistics across jobs, where trials of one task are not independent of each other.

What a single job needs is in ``steps.verdict.discrimination``. The bootstrap of a comparison alone needs numpy, an extra.
"""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from parallelhassnes.errors import extra
from parallelhassnes.steps.verdict.discrimination import Z_95, Interval, wilson

RESAMPLES = 10_000
_CHUNK = 500
"""Resamples drawn at once, which bounds the memory."""
_ALIKE = 20
"""Values of which each comes so often, in the mean, are drawn by their counts."""


def clustered_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval | None:
    """Return the 95 % interval of the mean of values from 0 to 1, of which those of one cluster (task) may be alike.

    Wilson's interval with the effective number of trials, after Korn and Graubard, Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data (1998): the number of
    independent trials whose mean varies as much as the clusters say (the clustered standard error of Miller, Adding
    error bars to evals, 2024), made smaller where few clusters say it. It is never more than the trials, and never less
    than if all trials of a cluster came out alike (Kish); that bound counts where the mean is 0 or 1 and nothing varies.
    One trial per cluster, or one cluster only, gives Wilson's interval itself.

    Returns:
        None of nothing, and where a value is not from 0 to 1.
    """
    if not values or min(values) < 0 or max(values) > 1:
        return None
    sizes, sums = Counter(clusters), defaultdict[Hashable, float](float)
    n, groups = len(values), len(sizes)
    mean = math.fsum(values) / n
    if groups in (1, n):
        return wilson(mean, n)
    fewest = n**2 / sum(size**2 for size in sizes.values())
    if mean * (1 - mean) <= 0:
        return wilson(mean, fewest)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    variance = math.fsum(each**2 for each in sums.values()) / n**2
    effective = mean * (1 - mean) / variance if variance > 0 else float(n)
    few = (t_975(n - 1) / t_975(groups - 1)) ** 2
    return wilson(mean, min(max(effective * few, fewest), float(n)))


@functools.cache
def t_975(df: int) -> float:
    """Return the 0.975 quantile of Student's t with so many degrees of freedom, to nine digits.

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964): the distribution as a finite sum of an angle, 26.7.3 and
    26.7.4, halved in; beyond 200 degrees the expansion 26.7.5.
    """
    if df > 200:
        z = Z_95
        parts = (
            z,
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        )
        return sum(part / float(df) ** power for power, part in enumerate(parts))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, df) < 0.95 else (low, angle)
    return math.sqrt(df) * math.tan(low)


def _within(angle: float, df: int) -> float:
    """Return the chance that Student's t is at most ``sqrt(df) * tan(angle)`` away from 0."""
    is_odd = df % 2
    cosine = math.cos(angle)
    term = cosine if is_odd else 1.0
    total = term if df > 1 else 0.0
    for number in range(2 + is_odd, df, 2):
        term *= (number - 1) / number * cosine**2
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if is_odd else total


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a mean; None of fewer than two values.

    One value per cluster (the difference of a task), so that what is drawn with replacement are whole tasks (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The same values give the same interval.

    Raises:
        UserError: numpy is not installed.
    """
    if len(values) < 2:
        return None
    with extra("stats", "the intervals of a comparison need"):
        import numpy as np

    numbers = np.asarray(values, dtype=float)
    random = np.random.default_rng(seed)
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) * _ALIKE <= len(numbers):  # how often each value is drawn says as much as which tasks are
        means = random.multinomial(len(numbers), counts / len(numbers), RESAMPLES) @ distinct / len(numbers)
    else:
        means = np.concatenate(
            [
                numbers[random.integers(0, len(numbers), (_CHUNK, len(numbers)))].mean(axis=1)
                for _ in range(RESAMPLES // _CHUNK)
            ]
        )
    # A mean of equal values may differ from them in the last digit.
    low, high = np.quantile(means.clip(numbers.min(), numbers.max()), [0.025, 0.975])
    return float(low), float(high)


def mcnemar(lost: int, won: int) -> float:
    """Return the exact two-sided p-value of McNemar's test, from the tasks that flipped; 1 where no task flipped.

    Whether a flip is a loss or a win is a fair coin if the sides are equal (McNemar 1947, exact by the binomial
    distribution).
    """
    flips, ways, total = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        total += ways  # the number of ways in which k of the flips are of one kind
        ways = ways * (flips - k) // (k + 1)
    return min(1.0, total * 2 / (1 << flips))
