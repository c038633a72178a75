"""The decision on retries: examples of every rule, and what holds for any history."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelhassnes.config import ClassRetry
from parallelhassnes.plan import Retry, TopUp
from parallelhassnes.schedule.rules.policy import JITTER, TABLE, Past, decide, policy_of
from parallelhassnes.steps.failure_evidence import retry_after_sec
from parallelhassnes.steps.failures import CLASSES

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


def past(number, failure_class, at=0.0, status="failed", **more):
    return Past(f"run{number}", status, failure_class, at, **more)


def delays(classes, retry=None, gap=0.0):
    """The delay after each of a row of failures, which end when the last retry was due; None ends it."""
    found, history, now = [], [], 1000.0
    for number, name in enumerate(classes):
        history.append(past(number, name, now))
        decision = decide(history, retry or Retry())
        if decision.retry_at is None:
            return [*found, None]
        found.append(decision.retry_at - now)
        now = decision.retry_at + gap
    return found


def near(found, *expected):
    assert len(found) == len(expected), found
    for one, wanted in zip(found, expected, strict=True):
        if wanted is None:
            assert one is None
        else:
            assert wanted <= one <= wanted * (1 + JITTER) + 1e-6, found


def test_the_table_has_every_class_and_the_page_shows_it():
    assert tuple(TABLE) == CLASSES
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    shown = {name: (retry == "yes", uses == "yes") for name, retry, _, _, uses in rows}
    assert shown == {name: (row.retry, row.uses_attempt) for name, row in TABLE.items()}
    for name, _, backoff, most, _ in rows:
        row = TABLE[name]
        if row.backoff and not row.pauses_key:
            assert backoff == ", ".join(f"{sec:g}" for sec in row.backoff), name
        assert (str(row.max_attempts) in most) if row.max_attempts else not re.search(r"\d+ attempts", most), name


def test_infrastructure_backs_off_exponentially_within_the_steps_attempts():
    near(delays(["infrastructure"] * 4, Retry(max_attempts=4, backoff_sec=10)), 10, 20, 40, None)


def test_lost_comes_back_at_once_and_then_backs_off():
    near(delays(["lost"] * 4, Retry(max_attempts=4, backoff_sec=10)), 0, 10, 20, None)


def test_rate_limits_wait_for_windows_use_no_attempt_and_end_after_the_total_time():
    found = delays(["rate_limit"] * 40)
    near(found[:6], 60, 120, 300, 600, 1200, 1800)
    assert found[-1] is None
    assert 4 * 3600 < sum(found[:-1]) <= 6 * 3600
    near(
        delays(["rate_limit", "rate_limit", "infrastructure", "infrastructure", "infrastructure"]),
        60,
        120,
        10,
        20,
        None,
    )


def test_a_quiet_time_between_rate_limits_starts_the_windows_anew():
    mixed = [past(0, "rate_limit", 0.0), past(1, "infrastructure", 30_000.0), past(2, "rate_limit", 30_100.0)]
    near([decide(mixed, Retry()).retry_at - 30_100.0], 60)


@pytest.mark.parametrize(
    "name", ["context_length", "refusal", "agent_timeout", "agent_error", "task_definition", "internal"]
)
def test_results_of_the_agent_and_our_faults_are_not_retried(name):
    near(delays([name]), None)


def test_a_verifier_gets_one_more_and_a_provider_two():
    near(delays(["verifier"] * 3), 10, None)
    near(delays(["transient_provider"] * 3), 5, 20, None)


def test_what_pauses_a_key_is_due_when_that_opens_and_uses_no_attempt():
    near(delays(["auth"] * 5, Retry(max_attempts=2)), 0, 0, 0, 0, 0)
    assert delays(["quota"] * 30)[-1] is None


def test_the_provider_is_taken_at_its_word_the_first_time():
    first = [past(0, "rate_limit", 0.0, retry_after=2.0)]
    near([decide(first, Retry()).retry_at], 2)
    again = [*first, past(1, "rate_limit", 2.0, retry_after=2.0)]
    near([decide(again, Retry()).retry_at - 2.0], 120)
    late = [past(0, "rate_limit", 0.0, retry_after=90_000.0)]
    assert decide(late, Retry()).retry_at is None


def test_one_attempt_means_no_retries_but_those_asked_for():
    one = Retry(max_attempts=1)
    for name in CLASSES:
        near(delays([name], one), None)
    asked = Retry(max_attempts=1, classes={"agent_timeout": ClassRetry(retry=True, max_attempts=2)})
    near(delays(["agent_timeout"] * 2, asked), 10, None)


def test_a_table_overrides_value_by_value():
    said = ClassRetry(backoff_sec=1, max_backoff_sec=3, within_sec=1000)
    near(delays(["rate_limit"] * 4, Retry(classes={"rate_limit": said})), 1, 2, 3, 3)
    assert policy_of("rate_limit", Retry(classes={"rate_limit": said})).uses_attempt is False


def test_a_shut_down_host_uses_no_attempt_and_is_not_raced():
    told = [past(n, "lost", 0.0, status="lost", shut_down=True) for n in range(5)]
    near([decide(told, Retry(max_attempts=2)).retry_at], 30)


def test_a_target_of_scored_trials_adds_attempts_for_what_says_nothing_of_the_agent():
    wanted = Retry(max_attempts=1, top_up=TopUp(extra=2))
    history = [past(0, "verifier", scored=False)]
    assert decide(history, wanted).extra == 1
    history += [past(1, None, status="succeeded", scored=False)]  # no token was used
    assert decide(history, wanted).extra == 2
    history += [past(2, "infrastructure", scored=False)]
    assert decide(history, wanted).retry_at is None
    assert "used up" in decide(history, wanted).why
    for name in ("refusal", "agent_error", "agent_timeout", "context_length"):
        assert decide([past(0, name, scored=False)], wanted).retry_at is None
    assert decide([past(0, None, status="succeeded")], wanted).retry_at is None


HISTORIES = st.lists(
    st.builds(
        Past,
        run_id=st.text("abc123", min_size=4, max_size=8),
        status=st.sampled_from(["failed", "lost", "succeeded", "canceled", "needs_attention"]),
        failure_class=st.sampled_from([*CLASSES, None]),
        ended_at=st.floats(0, 1e9),
        retry_after=st.none() | st.floats(0, 1e6),
        shut_down=st.booleans(),
        scored=st.booleans(),
    ),
    min_size=1,
    max_size=30,
)
RETRIES = st.builds(
    Retry,
    max_attempts=st.integers(1, 10),
    backoff_sec=st.floats(0, 1000),
    classes=st.dictionaries(
        st.sampled_from(CLASSES),
        st.builds(
            ClassRetry,
            retry=st.none() | st.booleans(),
            max_attempts=st.none() | st.integers(1, 10),
            backoff_sec=st.none() | st.floats(0, 1000),
            within_sec=st.none() | st.floats(0, 1e5),
        ),
        max_size=3,
    ),
    top_up=st.none() | st.builds(TopUp, extra=st.integers(0, 4)),
)


@given(HISTORIES, RETRIES)
def test_any_history_gives_the_same_answer_twice_and_never_one_in_the_past(history, retry):
    history.sort(key=lambda one: one.ended_at)
    first = decide(history, retry)
    assert first == decide(list(history), retry)
    assert first.retry_at is None or first.retry_at >= history[-1].ended_at
    last = history[-1]
    if last.status in ("canceled", "needs_attention") and "canceled" not in retry.classes:
        assert first.retry_at is None
    if last.status == "succeeded" and (last.scored or retry.top_up is None):
        assert first.retry_at is None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=12), st.integers(1, 6))
def test_every_row_of_failures_ends(classes, most):
    """However a step fails, for ever, it is given up; and never with fewer attempts than it was allowed."""
    found = delays((classes * 300)[:2000], Retry(max_attempts=most))
    assert found[-1] is None
    assert len(found) < 400


@given(st.integers(0, 6), st.integers(0, 20))
def test_extra_attempts_never_exceed_their_number(extra, count):
    retry = Retry(max_attempts=2, top_up=TopUp(extra=extra))
    history = [past(n, "infrastructure", n * 1e4, scored=False) for n in range(count + 1)]
    assert decide(history, retry).extra <= extra


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("429; Retry-After: 30", 30),
        ("headers={'retry-after': '12', 'x': 'y'}", 12),
        ("retry-after-ms: 1500", 1.5),
        ("Rate limit reached. Please try again in 6m0s. Visit", 360),
        ("Please try again in 250ms.", 0.25),
        ("Please retry in 34.07s.", 34.07),
        ('"retryDelay": "34s"', 34),
        ("Retry after 20 seconds", 20),
        ("try again in 1h30m", 5400),
        ("quota resets in 2 days", 172_800),
        ("no such thing", None),
        ("retry after the meeting", None),
        ("retried 3 times", None),
    ],
)
def test_how_long_a_provider_asked_to_wait(message, seconds):
    assert retry_after_sec(message) == pytest.approx(seconds)


@given(st.text(max_size=300))
def test_any_message_gives_a_bounded_wait_or_none(message):
    found = retry_after_sec(message)
    assert found is None or 0 <= found <= 7 * 86_400


def test_types_that_a_table_names_count_more_than_classes():
    def after(rule, name, exception):
        return decide([past(0, name, 0.0, exception=exception)], rule).retry_at is not None

    only = Retry(max_attempts=2, only=("AgentTimeoutError",))
    assert after(only, "agent_timeout", "AgentTimeoutError")
    assert not after(only, "infrastructure", "HealthcheckError")
    assert after(only, "lost", "")  # nobody raised anything
    never = Retry(max_attempts=2, only=("A", "B"), never=("A",))
    assert not after(never, "infrastructure", "A")
    assert after(never, "infrastructure", "B")
    assert not decide([past(n, "agent_timeout", n, exception="AgentTimeoutError") for n in range(2)], only).retry_at
