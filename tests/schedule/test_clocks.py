"""Clocks that are set: what was noted under one that was ahead makes nobody wait, and a set clock or a suspend is taken in."""

import json
import os
import platform
import re
import signal
import time
from pathlib import Path

import pytest
from probes import faketime_library
from stores import attempt_dirs, command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.admin import tokens
from parallelhassnes.plan import Retry
from parallelhassnes.schedule import health
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits.start_rate import TokenBucket
from parallelhassnes.schedule.rules import policy
from parallelhassnes.store import clocks, locks, process_identity
from parallelhassnes.store.queue import delayed, queue_keys
from parallelhassnes.store.queue.queue_keys import Adaptive, Breaker, KeyState
from parallelhassnes.store.records import dump, now_text, parse_time

pytestmark = pytest.mark.timeout(240)
FAST = "durable = false\n"
AHEAD = 400 * 86_400.0


def again_after(seconds: float) -> dict:
    return {"classes": {"agent_error": {"retry": True, "max_attempts": 2, "backoff_sec": seconds}}}


def faked(clock: str | Path) -> dict[str, str]:
    """The environment of a process whose clock is another; one in a file may be set, which leaves the monotonic one alone."""
    named = {"FAKETIME": str(clock)}
    if isinstance(clock, Path):
        named = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return {"LD_PRELOAD": str(faketime_library()), "FAKETIME_NO_CACHE": "1", **named}


def end_waker(ctx: Context) -> None:
    """As where the host dies: nobody but a tick goes on."""
    pid = wait_for(lambda: locks.holder(ctx.layout.waker_lock), "a process that wakes")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not locks.is_held(ctx.layout.waker_lock), "its end")


@pytest.mark.libfaketime
@pytest.mark.parametrize("earlier", [False, True], ids=["", "named by an earlier version"])
def test_a_backoff_noted_under_a_clock_that_was_400_days_ahead_is_as_long_as_it_says(root, earlier):
    ctx = context(root, FAST)
    batch = put(ctx, table(job("j", command("s", "false", retry=again_after(8)))))
    program(root, "tick", env=faked("+400d"))
    (waiting,) = wait_for(lambda: delayed.every(ctx.layout), "the retry to be noted")
    end_waker(ctx)
    assert waiting.noted - time.time() > AHEAD - 3600
    assert waiting.at - time.time() < 12
    if earlier:
        due, _, name = waiting.path.name.partition(".")
        waiting.path.rename(waiting.path.with_name(f"{due.partition('-')[0]}.{name}"))
    said = program(root, "explain", f"{batch}/j/s").stdout
    left = re.search(r"its backoff ends at \S+, in (\d+) s", said)
    assert left, said
    assert int(left[1]) < 60
    program(root, "tick")
    wait_for(lambda: states(ctx, batch)["j/s"] == ["failed", "failed"], "the retry", 60)


@pytest.mark.libfaketime
@pytest.mark.parametrize(
    ("backoff", "jump"), [(3600, "+2h"), (6, "-2h")], ids=["forwards, as after a suspend", "backwards"]
)
def test_a_clock_that_is_set_while_a_retry_is_waited_for_is_taken_in(root, backoff, jump):
    ctx = context(root, FAST)
    clock = root / "clock"
    clock.write_text("+0s")
    batch = put(ctx, table(job("j", command("s", "false", retry=again_after(backoff)))))
    program(root, "tick", env=faked(clock))
    wait_for(lambda: delayed.every(ctx.layout), "the retry to be noted")
    wait_for(lambda: locks.is_held(ctx.layout.waker_lock), "who wakes it")
    clock.write_text(jump)
    wait_for(lambda: states(ctx, batch)["j/s"] == ["failed", "failed"], "the retry", 60)


@pytest.mark.libfaketime
@pytest.mark.parametrize(
    ("zone", "at"),
    [
        ("America/New_York", "@2026-11-01 01:59:59"),
        ("America/New_York", "@2027-03-14 01:59:59"),
        ("UTC", "@2016-12-31 23:59:59"),
    ],
    ids=["summer time ends", "summer time begins", "a leap second"],
)
def test_a_batch_ends_whatever_the_wall_clock_shows(root, zone, at):
    ctx = context(root, FAST)
    steps = [command("s", "false", retry=again_after(2)), shell("t", "sleep 1"), command("u", "true", depends_on=["t"])]
    batch = put(ctx, table(job("j", *steps)))
    env = faked(at) | {"TZ": zone}
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never", env=env)
    assert states(ctx, batch) == {"j/s": ["failed", "failed"], "j/t": ["succeeded"], "j/u": ["succeeded"]}
    first, second = (path for path in attempt_dirs(ctx, batch) if "/steps/s/" in str(path))
    ended = parse_time(read(first / "state.json")["ended_at"])
    waited = parse_time(read(second / "meta.json")["created_at"]) - ended
    assert 2.0 <= waited < 60


def test_a_lane_that_was_served_in_the_future_does_not_starve(root):
    ctx = context(root, FAST + "concurrency = 1\n")
    ours = put(ctx, table(job("j", *(command(f"s{n}", "true") for n in range(4)))))
    other = put(ctx, table(job("k", *(command(f"s{n}", "true") for n in range(4)))))
    (served,) = ctx.layout.ready.glob(f"*/{ours}/_served")
    then = time.time() + AHEAD
    os.utime(served, (then, then))
    program(root, "tick")
    wait_for(lambda: idle(ctx), "both")
    began = sorted(
        (read(path / "meta.json")["created_at"], batch) for batch in (ours, other) for path in attempt_dirs(ctx, batch)
    )
    assert ours in [batch for _, batch in began[:3]]


def test_the_probe_and_the_quiet_period_of_a_queue_key_are_no_further_than_their_rules(root):
    ctx = context(root, FAST)
    then = time.time() + AHEAD
    broken = Breaker(failure_class="auth", line="no", attempt="a", at=then, interval_sec=2, probe_at=then + 2)
    lowered = Adaptive(limit=1, changed_at=then, decreased_at=then)
    ctx.layout.limits.mkdir(exist_ok=True)
    queue_keys.write(ctx.layout, KeyState(queue_key="k", breaker=broken, adaptive=lowered))
    batch = put(ctx, table(job("j", command("s", "true", queue_key="k"))))
    said = program(root, "explain", f"{batch}/j/s").stdout
    assert now_text()[:4] in said, said
    program(root, "tick")
    wait_for(lambda: states(ctx, batch) == {"j/s": ["succeeded"]}, "the probe", 60)
    kept = queue_keys.read(ctx.layout, "k").adaptive
    assert kept is None or kept.changed_at <= time.time()


def test_what_passes_and_ticks_do_now_and_then_they_do_again_after_a_clock_was_set_back(root):
    ctx = context(root, FAST)
    program(root, "tick")
    then = time.time() + AHEAD
    kept = ctx.layout.runners / "local" / "health.json"
    left = ctx.layout.temp / "another-host.1.2"
    half = ctx.layout.incoming / "half.json"
    left.write_text("half")
    half.write_text('{"jobs": [')
    for path in (kept, ctx.layout.system / "harness_config.json", left, half):
        os.utime(path, (then, then))
    program(root, "tick", check=False)
    assert kept.stat().st_mtime <= time.time()
    assert not left.exists()
    assert not half.exists()
    assert list((ctx.layout.system / "checkpoints").glob("*.json"))


def test_a_wish_for_a_pass_from_the_future_is_told_like_any_other(root):
    ctx = context(root, FAST)
    health.wish(ctx.layout)
    then = time.time() + AHEAD
    os.utime(ctx.layout.pass_wanted, (then, then))
    assert "a pass has been wanted" in "\n".join(health.troubles(ctx.layout))


def test_a_token_of_a_clock_that_was_ahead_does_not_last_longer_than_it_was_made_for(root):
    ctx = context(root, FAST)
    tokens.create(ctx, "mine", "read", expires="1h")
    path = ctx.layout.tokens / "mine.json"
    document = read(path)
    for name in ("created_at", "expires_at"):
        moment = parse_time(document[name]) + AHEAD
        document[name] = now_text_of(moment)
    path.write_text(json.dumps(document))
    (token,) = tokens.every(ctx.layout)
    assert token.expired


def now_text_of(seconds: float) -> str:
    from datetime import UTC, datetime

    return now_text(datetime.fromtimestamp(seconds, UTC))


def test_a_bucket_of_starts_is_no_further_than_a_token_takes():
    now = time.time()
    bucket = TokenBucket(environment="docker", tokens=0.5, at=now + AHEAD, waits=True, rate=4.0)
    assert bucket.next_at(now) == pytest.approx(now + 0.125)
    assert bucket.filled(now, 4.0).at == now
    assert bucket.model_copy(update={"down": "no engine"}).next_at(now) <= now + 5
    assert dump(bucket)["at"] > now


def test_a_row_of_failures_is_bounded_after_a_clock_was_set_back():
    """Its provider's window is over after ``within_sec`` of the clock that goes on, not of the one that was ahead."""
    ends = [2e9 + AHEAD, *(2e9 + n * 1200 for n in range(40))]
    history = [
        policy.Past(run_id=f"r{n}", status="failed", failure_class="rate_limit", ended_at=at)
        for n, at in enumerate(ends)
    ]
    answers = [policy.decide(history[:n], Retry()) for n in range(1, len(history) + 1)]
    assert answers[5].retry_at is not None
    assert answers[-1].retry_at is None
    assert "for too long" in answers[-1].why


@pytest.mark.parametrize(
    ("at", "most", "due"), [(50.0, 10.0, 50.0), (105.0, 10.0, 105.0), (900.0, 10.0, 110.0), (900.0, -1.0, 100.0)]
)
def test_an_instant_is_never_further_than_its_rule_allows(at, most, due):
    assert clocks.latest(at, 100.0, most) == due


def test_an_age_is_a_distance():
    assert clocks.age(90.0, 100.0) == 10.0
    assert clocks.age(110.0, 100.0) == 10.0


@pytest.mark.libfaketime
def test_a_host_whose_clock_is_ahead_leaves_what_others_are_writing(root):
    ctx = context(root, FAST)
    program(root, "tick")
    written = ctx.layout.temp / f"another-host.{'0' * 8}.4026531836.{os.getpid()}.0"
    same_name = ctx.layout.temp / f"{platform.node()}.{'0' * 8}.{process_identity.namespace()}.999999.0"
    for path in (written, same_name):
        path.write_text("half")
    program(root, "tick", env=faked("+3h") | {"NO_FAKE_STAT": "1"})
    assert written.exists(), "its time is the file system's, which this clock says nothing of"
    assert same_name.exists(), "a host of the same name is another one, whose processes cannot be seen from here"
