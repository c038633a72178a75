"""Intervals and tests against values worked out elsewhere, by enumeration, and as properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, t

from parallelhassnes.results import statistics
from parallelhassnes.steps.verdict import discrimination as plain

NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
"""Table I, method 3, of Newcombe, Two-sided confidence intervals for the single proportion (1998)."""


@pytest.mark.parametrize(("passes", "n", "low", "high"), NEWCOMBE)
def test_wilson_gives_the_published_intervals(passes, n, low, high):
    assert plain.wilson(passes / n, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_against_scipy(case):
    passes, n = case
    found = binomtest(passes, n).proportion_ci(method="wilson")
    assert plain.wilson(passes / n, n) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 30, 99, 200, 201, 202, 1000, 10**6])
def test_the_quantile_of_t_against_scipy(df):
    assert statistics.t_975(df) == pytest.approx(t.ppf(0.975, df), rel=1e-9)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 1), (3, 3), (2, 9), (40, 61), (900, 1100)])
def test_mcnemar_against_scipy(lost, won):
    expected = 1.0 if lost + won == 0 else min(1.0, 2 * binom.cdf(min(lost, won), lost + won, 0.5))
    assert statistics.mcnemar(lost, won) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_of_rewards_holds_their_mean(values):
    low, high = plain.mean_interval(values)
    assert 0 <= low <= plain.mean(values) + 1e-12
    assert high <= 1
    assert plain.mean(values) <= high + 1e-12


def test_rewards_outside_of_0_to_1_have_no_interval():
    assert plain.mean_interval([0.5, 1.5]) is None
    assert plain.mean_interval([]) is None
    assert statistics.clustered_interval([0.5, -0.1], ["a", "b"]) is None


VALUES = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 5)), min_size=1, max_size=40)


@settings(deadline=None)
@given(VALUES)
def test_clusters_never_narrow_an_interval_and_never_lose_the_mean(pairs):
    values, clusters = [value for value, _ in pairs], [cluster for _, cluster in pairs]
    low, high = statistics.clustered_interval(values, clusters)
    alone = plain.wilson(sum(values) / len(values), len(values))
    assert low <= alone[0] + 1e-9
    assert alone[1] <= high + 1e-9
    assert 0 <= low <= high <= 1


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40))
def test_one_trial_per_task_is_wilsons_interval(values):
    alone = plain.wilson(sum(values) / len(values), len(values))
    assert statistics.clustered_interval(values, range(len(values))) == pytest.approx(alone)
    assert statistics.clustered_interval(values, ["t"] * len(values)) == pytest.approx(alone)


def test_repeats_that_all_come_out_alike_count_once():
    values = [0.0] * 5 + [1.0] * 15
    clusters = [place // 5 for place in range(20)]
    low, high = statistics.clustered_interval(values, clusters)
    assert (low, high) == pytest.approx(plain.wilson(0.75, 4))
    assert statistics.clustered_interval([1.0] * 20, clusters) == pytest.approx(plain.wilson(1, 4))


def test_the_clustered_variance_is_that_of_the_formula():
    """Miller (2024), equation 4: the variance plus the covariances within each cluster, each pair written out."""
    random = np.random.default_rng(5)
    values = [float(v) for v in random.random(60) < np.repeat(random.beta(1, 1, 20), 3)]
    clusters = [place // 3 for place in range(60)]
    mean, n = sum(values) / 60, 60
    total = sum(
        (values[i] - mean) * (values[j] - mean)
        for i, j in itertools.product(range(n), range(n))
        if clusters[i] == clusters[j]
    )
    effective = mean * (1 - mean) / (total / n**2) * (2.0009953780882688 / 2.093024054408263) ** 2
    expected = plain.wilson(mean, effective)
    assert 20 < effective < 60
    assert statistics.clustered_interval(values, clusters) == pytest.approx(expected)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Tasks of very different difficulty, three trials each; the interval without clusters would hold it in 4 of 5."""
    random, held, rounds = np.random.default_rng(1), 0, 400
    clusters = [place // 3 for place in range(30)]
    for _ in range(rounds):
        values = (random.random(30) < np.repeat(random.beta(1, 1, 10), 3)).astype(float)
        low, high = statistics.clustered_interval(values.tolist(), clusters)
        held += low <= 0.5 <= high
    assert held / rounds > 0.92


def test_mcnemar_gives_the_published_value():
    """Fay, Exact McNemar's test and matching confidence intervals (2011): 9 and 2 of 44 pairs flip, p = 0.06543."""
    assert statistics.mcnemar(2, 9) == pytest.approx(0.06543, abs=5e-6)
    assert statistics.mcnemar(0, 0) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 80), st.integers(0, 80))
def test_mcnemar_against_the_binomial_test(lost, won):
    found = statistics.mcnemar(lost, won)
    assert found == statistics.mcnemar(won, lost)
    if lost + won:
        assert found == pytest.approx(binomtest(lost, lost + won).pvalue)


def test_the_bootstrap_against_every_resample_of_five():
    """All 5^5 resamples are the ideal bootstrap, which the drawn one comes close to."""
    values = [0.0, 0.1, 0.4, 0.7, 2.0]
    means = [sum(draw) / 5 for draw in itertools.product(values, repeat=5)]
    exact = np.quantile(means, [0.025, 0.975])
    assert statistics.bootstrap_mean(values) == pytest.approx(exact, abs=0.03)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(-1, 1))
@example([3.3572819532835745e-273] * 3, 0.0)
def test_the_bootstrap_is_the_same_twice_and_moves_with_its_values(values, shift):
    low, high = statistics.bootstrap_mean(values)
    assert (low, high) == statistics.bootstrap_mean(values)
    assert min(values) <= low <= high <= max(values)
    moved = statistics.bootstrap_mean([value + shift for value in values])
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-9)


def test_nothing_has_no_bootstrap():
    assert statistics.bootstrap_mean([]) is None
    assert statistics.bootstrap_mean([1.0]) is None


@settings(deadline=None)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_hat_k_against_drawing_every_set_of_k_trials(case):
    n, passes, k = case
    draws = [all(d) for d in itertools.combinations([True] * passes + [False] * (n - passes), k)]
    assert plain.pass_hat(n, passes, k) == pytest.approx(sum(draws) / len(draws), abs=1e-12)
    assert plain.pass_hat(n, passes, k) <= plain.pass_at(n, passes, k) + 1e-12
    assert plain.pass_hat(n, passes, 1) == pytest.approx(passes / n)
    assert math.isclose(plain.pass_at(n, passes, 1), passes / n, abs_tol=1e-12)
