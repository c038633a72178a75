"""Limits that follow a provider, and pauses of a key, as pure functions."""

from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.config import AdaptiveConfig, AdaptiveKey
from parallelhassnes.schedule.rules import adaptive_limits, circuit_breaker
from parallelhassnes.schedule.rules.adaptive_limits import LimitRange

CONFIG = AdaptiveConfig(window_sec=60, quiet_sec=120)


def test_it_halves_once_per_window_and_grows_by_one_after_quiet():
    within = LimitRange(1, 16)
    first = adaptive_limits.after_signal(None, 1000.0, 16, within, CONFIG)
    assert first.limit == 8
    assert adaptive_limits.after_signal(first, 1030.0, 8, within, CONFIG) is first
    second = adaptive_limits.after_signal(first, 1061.0, 8, within, CONFIG)
    assert second.limit == 4
    assert [
        adaptive_limits.limit_now(second, 1061.0 + quiet, within, CONFIG) for quiet in (0, 119, 120, 241, 10_000)
    ] == [4, 4, 5, 6, 16]
    assert adaptive_limits.after_quiet(second, 1061.0 + 10_000, within, CONFIG) is None


def test_a_limit_far_above_what_runs_is_lowered_from_what_runs():
    assert adaptive_limits.after_signal(None, 0.0, 6, LimitRange(1, 1000), CONFIG).limit == 3


def test_bounds_come_from_the_key_the_limit_and_the_host():
    config = AdaptiveConfig(floor=2, keys={"a": AdaptiveKey(floor=3, ceiling=5)})
    assert adaptive_limits.bounds(config, "a", None, 100) == LimitRange(3, 5)
    assert adaptive_limits.bounds(config, "b", 4, 100) == LimitRange(2, 4)
    assert adaptive_limits.bounds(config, "b", 1, 100) == LimitRange(1, 1)
    assert not adaptive_limits.is_on(AdaptiveConfig(keys={"a": AdaptiveKey(enabled=False)}), "a")


EVENTS = st.lists(st.tuples(st.sampled_from(["signal", "look"]), st.floats(0, 500), st.integers(0, 40)), max_size=60)


@given(EVENTS, st.integers(1, 5), st.integers(1, 40))
def test_it_stays_within_its_bounds_and_recovers(events, floor, ceiling):
    within = LimitRange(min(floor, ceiling), ceiling)
    known, now = None, 0.0
    for what, passed, live in events:
        now += passed
        before = adaptive_limits.limit_now(known, now, within, CONFIG)
        if what == "signal":
            known = adaptive_limits.after_signal(known, now, live, within, CONFIG)
            assert adaptive_limits.limit_now(known, now, within, CONFIG) <= before
        else:
            known = adaptive_limits.after_quiet(known, now, within, CONFIG)
            assert adaptive_limits.limit_now(known, now, within, CONFIG) == before
        assert within.floor <= adaptive_limits.limit_now(known, now, within, CONFIG) <= within.ceiling
    later = now + (ceiling + 1) * CONFIG.quiet_sec
    assert adaptive_limits.limit_now(known, later, within, CONFIG) == within.ceiling
    assert adaptive_limits.after_quiet(known, later, within, CONFIG) is None


@given(EVENTS)
def test_writing_the_growth_down_changes_nothing(events):
    """A pass that looks often and one that looks never see the same limit."""
    within = LimitRange(1, 30)
    seen = unseen = None
    now = 0.0
    for what, passed, live in events:
        now += passed
        if what == "signal":
            seen = adaptive_limits.after_signal(seen, now, live, within, CONFIG)
            unseen = adaptive_limits.after_signal(unseen, now, live, within, CONFIG)
        elif seen is not None and adaptive_limits.limit_now(seen, now, within, CONFIG) < within.ceiling:
            seen = adaptive_limits.after_quiet(seen, now, within, CONFIG)
        assert adaptive_limits.limit_now(seen, now, within, CONFIG) == adaptive_limits.limit_now(
            unseen, now, within, CONFIG
        )


def trip(known, now, run_id):
    return circuit_breaker.after_failure(
        known, failure_class="auth", line="no", evidence="401", attempt="b/j/s/a", run_id=run_id, now=now, probe_sec=600
    )


def test_a_paused_key_probes_once_and_waits_twice_as_long_after_each_failure():
    opened = trip(None, 0.0, "r0")
    assert trip(opened, 1.0, "r1") is opened, "others that were live change nothing"
    assert not circuit_breaker.may_probe(opened, 599.0)
    assert circuit_breaker.may_probe(opened, 600.0)
    probing = circuit_breaker.start_probe(opened, "r2")
    assert not circuit_breaker.may_probe(probing, 10_000.0)
    again = trip(probing, 700.0, "r2")
    assert (again.interval_sec, again.probe_at, again.state) == (1200.0, 1900.0, "open")
    lost = circuit_breaker.after_other_end(circuit_breaker.start_probe(again, "r3"), "r3", "lost", 2000.0)
    assert (lost.interval_sec, lost.probe_at, lost.probe) == (1200.0, 3200.0, None)
    assert circuit_breaker.after_other_end(circuit_breaker.start_probe(lost, "r4"), "r5", None, 0.0) is not None
    assert circuit_breaker.after_other_end(circuit_breaker.start_probe(lost, "r4"), "r4", None, 0.0) is None
    assert circuit_breaker.after_other_end(circuit_breaker.start_probe(lost, "r4"), "r4", "rate_limit", 0.0) is None


@given(st.integers(1, 40))
def test_probes_never_stop_and_never_come_too_often(count):
    known, now = trip(None, 0.0, "r"), 0.0
    for number in range(count):
        now = known.probe_at
        known = trip(circuit_breaker.start_probe(known, f"p{number}"), now, f"p{number}")
        assert 600 <= known.probe_at - now <= circuit_breaker.MOST_SEC
