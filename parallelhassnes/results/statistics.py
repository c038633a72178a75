"""Statistics across jobs, where trials of one task are not independent of each other.

What a single job needs is in ``steps.verdict.discrimination``, in plain arithmetic; here are numpy and scipy.
"""

from collections.abc import Hashable, Sequence

from parallelhassnes.steps.verdict.discrimination import Interval, wilson

RESAMPLES = 10_000
_CHUNK = 500
"""Resamples drawn at once, which bounds the memory."""


def clustered_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval | None:
    """The 95 % interval of the mean of values from 0 to 1, of which those of one cluster (task) may be alike.

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
    import numpy as np

    numbers = np.asarray(values, dtype=float)
    _, place = np.unique(_ranks(clusters), return_inverse=True)
    sizes = np.bincount(place)
    n, groups = len(numbers), len(sizes)
    mean = float(numbers.mean())
    if groups in (1, n):
        return wilson(mean, n)
    fewest = n**2 / float((sizes**2).sum())
    sums = np.bincount(place, weights=numbers - mean)
    variance = float((sums**2).sum()) / n**2
    if mean * (1 - mean) <= 0:
        return wilson(mean, fewest)
    effective = mean * (1 - mean) / variance if variance > 0 else float(n)
    return wilson(mean, min(max(effective * _few_clusters(n, groups), fewest), float(n)))


def _ranks(clusters: Sequence[Hashable]) -> list[int]:
    """The clusters as numbers, by first appearance."""
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(cluster, len(seen)) for cluster in clusters]


def _few_clusters(n: int, groups: int) -> float:
    """What the effective number shrinks by because the variance comes from so few clusters."""
    from scipy.special import stdtrit

    return float((stdtrit(n - 1, 0.975) / stdtrit(groups - 1, 0.975)) ** 2)


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The 95 % percentile bootstrap interval of a mean; None of fewer than two values.

    One value per cluster (the difference of a task), so that what is drawn with replacement are whole tasks (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The same values give the same interval.
    """
    if len(values) < 2:
        return None
    import numpy as np

    numbers = np.asarray(values, dtype=float)
    random = np.random.default_rng(seed)
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
    """The exact two-sided p-value of McNemar's test, from the tasks that flipped; 1 where none did.

    Whether a flip is a loss or a win is a fair coin if the sides are equal (McNemar 1947, exact by the binomial
    distribution).
    """
    if lost + won == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5)))
