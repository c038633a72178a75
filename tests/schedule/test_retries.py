"""Retries, paused keys, limits and start rates in real stores, with real Harbor trials whose agent fails by script."""

import json
import time
from datetime import datetime

import pytest
from harness import make_task
from stores import SUPPORT, attempt_dirs, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.schedule.limits.concurrency_keys import QueueKeys
from parallelhassnes.schedule.limits.start_rate import TokenBucket
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.rules import circuit_breaker
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.queue import delayed, queue_keys, tickets
from parallelhassnes.store.records import Credential

KEY = "fake/model"
"""Workers import the scripted agent and its environment from the tests."""
ENVIRONMENT = "temp_environment:TempEnvironment"


@pytest.fixture
def scripted(root, monkeypatch):
    """Submits trials of the scripted agent: ``scripted(ctx, "auth ok", trials=2)``; the batch id."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    task = make_task(root)

    def submit(ctx, words, trials=1, retry=None):
        script = root / "script"
        script.mkdir(exist_ok=True)
        (script / "words").write_text(words)
        trial = {
            "kind": "trial",
            "task": {"path": str(task)},
            "environment": ENVIRONMENT,
            "agent": {
                "import_path": "scripted_agent:ScriptedAgent",
                "model_name": KEY,
                "kwargs": {"script": str(script)},
            },
        }
        steps = [{"step_id": f"t{n}", **trial} for n in range(trials)]
        return put(ctx, table(job("j", *steps), **({"retry": retry} if retry else {})))

    return submit


def classes(ctx, batch):
    """Failure class of every attempt, oldest first."""
    found = [read(path / "state.json") for path in attempt_dirs(ctx, batch)]
    found.sort(key=lambda state: state["started_at"])
    return [state.get("failure", {}).get("failure_class") for state in found]


def assert_rebuilds_equal(ctx, batch):
    """Everything derived comes out of a rebuild as it is."""
    job_dir = ctx.layout.job(batch, "j")

    def derived():
        names = {
            path.relative_to(ctx.layout.queue)
            for part in (ctx.layout.ready, ctx.layout.delayed)
            for path in part.rglob(f"{batch}.*" if part == ctx.layout.ready else f"*.{batch}.*")
            if path.is_file()
        }
        return names, read(job_dir / "current.json")

    before = derived()
    rebuild(ctx)
    assert derived() == before


def test_a_rate_limit_waits_as_asked_uses_no_attempt_and_quotes_its_evidence(root, scripted):
    ctx = context(root)
    batch = scripted(
        ctx, "rate_limit:1 rate_limit:1 ok", retry={"max_attempts": 2, "classes": {"rate_limit": {"backoff_sec": 1.5}}}
    )
    tick(ctx)  # the only one: what is delayed is woken without cron
    wait_for(lambda: delayed.every(ctx.layout), "the first failure")
    wait_for(lambda: idle(ctx), "the third attempt")
    assert classes(ctx, batch) == ["rate_limit", "rate_limit", None]
    assert states(ctx, batch) == {"j/t0": ["failed", "failed", "succeeded"]}
    first, second, _ = (read(path / "state.json") for path in attempt_dirs(ctx, batch))
    assert "429 Too Many Requests" in first["failure"]["evidence"]
    assert first["failure"]["retry_after_sec"] == 1
    waited = datetime.fromisoformat(second["heartbeat"]["at"]) - datetime.fromisoformat(first["ended_at"])
    assert waited.total_seconds() >= 0.9
    state = queue_keys.read(ctx.layout, KEY)
    assert state.adaptive is not None
    assert "rate_limit" in state.history[0].what
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    assert board["batches"][0]["counts"]["succeeded"] == 1


def test_bad_credentials_pause_the_key_and_resume_opens_it(root, scripted):
    ctx = context(root, "concurrency = 1\n")
    batch = scripted(ctx, "auth ok", trials=4)
    tick(ctx)
    wait_for(lambda: queue_keys.read(ctx.layout, KEY).breakers, "the pause")
    wait_for(lambda: not tickets.ended(ctx.layout) and not tickets.running(ctx.layout), "its end")
    assert classes(ctx, batch) == ["auth"], "the others wait instead of failing one by one"
    line = f"{KEY} is paused for attempts that are given no key: authentication failed (AgentAuthenticationError: 401: invalid x-api-key); cure it, then `parallelhassnes resume {KEY}`"
    assert line in program(root, "tick").stdout
    assert line in " ".join(program(root, "scoreboard", env={"COLUMNS": "400"}).stdout.split())
    explained = json.loads(program(root, "explain", batch, "--json").stdout)
    assert any(line in why for why in explained["steps"][0]["why"])
    program(root, "tick", "--until-idle", "-q", "--fail-on", "never")  # does not wait for it
    assert classes(ctx, batch) == ["auth"]
    program(root, "resume", KEY, "--reason", "new key", env=SUPPORT)
    wait_for(lambda: idle(ctx), "all four")
    assert sorted(map(len, states(ctx, batch).values())) == [1, 1, 1, 2]
    assert {found[-1] for found in states(ctx, batch).values()} == {"succeeded"}


def test_a_probe_opens_the_key_without_anybody(root, scripted):
    ctx = context(root, "concurrency = 3\n[adaptive]\nprobe_sec = 1\n")
    batch = scripted(ctx, "quota quota ok", trials=1)
    tick(ctx)
    wait_for(lambda: idle(ctx), "the second probe")
    assert classes(ctx, batch) == ["quota", "quota", None]
    state = queue_keys.read(ctx.layout, KEY)
    assert not state.breakers
    said = [entry.what for entry in state.history]
    assert said[0] == "paused by its provider for attempts that are given no key: quota; a probe after 1 s"
    assert "paused by its provider for attempts that are given no key: quota; a probe after 2 s" in said
    assert said[-1] == "the probe reached its provider: open again"


def test_what_waits_is_rebuilt_equal(root, scripted):
    ctx = context(root)
    batch = scripted(
        ctx,
        "rate_limit crash rate_limit crash",
        trials=3,
        retry={"classes": {"agent_error": {"retry": True, "backoff_sec": 900}, "rate_limit": {"backoff_sec": 900}}},
    )
    tick(ctx)
    wait_for(lambda: len(delayed.every(ctx.layout)) == 3 and not tickets.ended(ctx.layout), "three delayed retries")
    assert_rebuilds_equal(ctx, batch)
    program(root, "cancel", batch)
    assert idle(ctx)


def test_a_score_beside_a_providers_failure_does_not_count(root, scripted):
    """Harbor runs the tests after an agent's program failed; their 0 is not the agent's."""
    ctx = context(root)
    batch = scripted(ctx, "overloaded", retry={"max_attempts": 1})
    tick(ctx)
    wait_for(lambda: idle(ctx), "the trial")
    report = read(next(attempt_dirs(ctx, batch)) / "final.json")
    assert (report["status"], report["failure"]["class"]) == ("failed", "overloaded")
    assert report["trial"]["reward"] == 0


def sweep(root, n_valid, words, **more):
    script = root / "script"
    script.mkdir()
    (script / "words").write_text(words)
    agent = {
        "import_path": "scripted_agent:ScriptedAgent",
        "model_name": KEY,
        "kwargs": {"script": str(script)},
        "n_valid": n_valid,
        **more,
    }
    return table(
        sweep={"path": str(make_task(root)), "agents": [agent], "environment": ENVIRONMENT},
        retry={"max_attempts": 1, "backoff_sec": 0.5},
    )


def test_unscored_trials_are_topped_up_and_counted_apart(root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, sweep(root, 3, "ok silent timeout zero ok"))
    tick(ctx)
    wait_for(lambda: idle(ctx), "three scores and the verdict")
    verdict = read(ctx.layout.job(batch, "hello") / "verdict.json")
    agent = verdict["agents"][0]
    assert (agent["n"], agent["scored"], agent["passes"], agent["superseded"]) == (3, 3, 2, 2)
    trials = [found for step, found in states(ctx, batch).items() if not step.endswith("verdict")]
    assert sorted(map(len, trials)) == [1, 2, 2]


def test_topping_up_ends_at_its_limit(root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    ctx = context(root)
    batch = put(ctx, sweep(root, 2, "silent", max_extra=3))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the end")
    trials = [found for step, found in states(ctx, batch).items() if not step.endswith("verdict")]
    assert sorted(map(len, trials)) == [2, 3]
    verdict = read(ctx.layout.job(batch, "hello") / "verdict.json")
    assert (verdict["counts"]["scored"], verdict["counts"]["unscored"]) == (0, 2)


def test_trials_start_no_faster_than_their_environments_rate(root, scripted):
    ctx = context(root, f'concurrency = 50\n[start_rate]\n"{ENVIRONMENT}" = 2\n')
    batch = scripted(ctx, "ok", trials=6)
    began = time.monotonic()
    assert len(tick(ctx).launched) == 2
    wait_for(lambda: idle(ctx), "all six, without cron")
    assert time.monotonic() - began >= 1.5
    made = sorted(datetime.fromisoformat(read(path / "meta.json")["created_at"]) for path in attempt_dirs(ctx, batch))
    for third, first in zip(made[2:], made, strict=False):
        assert (third - first).total_seconds() > 0.4, "no more than two in any half second"


def test_a_start_that_took_long_leaves_no_room_for_more_than_fit_in():
    taken = TokenBucket(environment="e", tokens=1.0, at=0.0, rate=2.0)  # of two
    first = taken.started(3.0, 2.0)
    second = first.model_copy(update={"tokens": first.tokens - 1.0}).started(3.0, 2.0)
    assert (first.tokens, second.tokens, second.next_at(3.0)) == (1.0, 0.0, 3.5)


def test_a_probe_that_has_ended_is_the_only_one_until_it_is_settled(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", shell("s", "true", queue_key="mine"))))
    opened = circuit_breaker.after_failure(
        None, failure_class="auth", line="", evidence="", attempt="b/j/s/a", run_id="r0", now=time.time(), probe_sec=600
    )
    probing = circuit_breaker.start_probe(opened, "r1")
    queue_keys.write(ctx.layout, queue_keys.KeyState(queue_key="mine", breakers={"": probing}))
    (ticket,) = ctx.layout.ready.glob(f"*/{batch}/*/{batch}.*")
    ended = ctx.layout.ended / ticket.name
    ended.write_bytes(ticket.read_bytes())
    assert QueueKeys(ctx).refuses("mine", Credential(), batch)
    ended.unlink()
    assert not QueueKeys(ctx).refuses("mine", Credential(), batch), "its batch was deleted"


def test_the_kinds_of_retry_pick_what_they_say(root):
    ctx = context(root)
    batch = put(
        ctx,
        table(
            job("j", shell("good", "true"), shell("bad", "exit 1"), shell("gone", "kill -9 $PPID; sleep 60")),
            retry={"max_attempts": 1},
        ),
    )

    def settled():
        tick(ctx)
        return idle(ctx)

    wait_for(settled, "all three")
    program(root, "retry", batch, "--lost", "--reason", "the host is back")
    wait_for(settled, "the lost one")
    assert {step: len(found) for step, found in states(ctx, batch).items()} == {"j/good": 1, "j/bad": 1, "j/gone": 2}
    program(root, "retry", batch, "--class", "agent_error")
    wait_for(settled, "the bad one")
    assert {step: len(found) for step, found in states(ctx, batch).items()} == {"j/good": 1, "j/bad": 2, "j/gone": 2}
    program(root, "retry", f"{batch}/j", "--unscored")
    assert idle(ctx), "none of them is a trial"
