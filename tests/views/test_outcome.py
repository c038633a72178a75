"""What a trial has come to, in the same words wherever it is listed."""

import io
import json
import re

import pytest
import stores
from stores import context, program

from parallelhassnes.cli.output.live_progress import LiveProgress
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.outcome import count_trials, outcome, standing
from parallelhassnes.views.show import show
from parallelhassnes.views.system_scoreboard import system_scoreboard


def scored(reward: float | None, passed: bool | None) -> dict[str, object]:
    return {"result": "scored", "reward": reward, "passed": passed}


@pytest.mark.parametrize(
    ("state", "said", "failure", "words"),
    [
        ("succeeded", scored(1.0, True), None, "passed"),
        ("succeeded", scored(0.7, True), None, "passed, scored 0.7"),
        ("succeeded", scored(0.4, False), None, "scored 0.4"),
        ("succeeded", scored(0.0, False), None, "scored 0"),
        ("succeeded", scored(0.9999999, False), None, "scored 0.9999999"),
        ("succeeded", scored(None, None), None, "scored, several rewards and none decides"),
        ("failed", scored(0.0, False), "agent_timeout", "scored 0"),
        ("failed", {"result": "unscored"}, "rate_limit", "no score: rate_limit"),
        ("lost", None, None, "no score: lost"),
        ("needs_attention", None, "authentication", "no score: authentication"),
        ("succeeded", {"result": "unscored"}, None, "no score"),
        ("running", scored(1.0, True), None, "running"),
        ("blocked", None, None, "blocked"),
        ("canceled", None, None, "canceled"),
    ],
)
def test_a_trial_is_named_by_its_reward(state, said, failure, words):
    found = outcome("trial", state, said, failure)
    assert found.text == words
    assert found.standing == standing("trial", state, said)
    counts = count_trials([found.standing])
    assert (counts.total, counts.over + counts.running + counts.waiting) == (1, 1)


def test_other_steps_keep_their_states_and_a_verdict_says_what_it_says():
    assert outcome("command", "needs_attention").text == "needs attention"
    assert outcome("verdict", "succeeded", {"task_quality": "broken"}).text == "task broken"
    assert outcome("verdict", "succeeded", {"task_broken": False}).text == "task good"
    assert outcome("trial", "failed", {"result": "x"}, "unknown", guessed=True).text == "no score: unknown (guessed)"


@pytest.mark.namespaces
@pytest.mark.timeout(200)
def test_every_view_has_the_reward_beside_the_trial_and_counts_trials_apart(root):
    ctx = context(root)
    sweep = {
        "sweep": {
            "path": str(stores.CHECKOUT / "examples/tasks/config-repair"),
            "agents": [{"name": "oracle"}, {"name": "nop"}],
            "environment": "sandbox",
        }
    }
    batch_id = stores.put(ctx, json.dumps(sweep).encode())
    stream = io.StringIO()
    with LiveProgress(ctx, [batch_id], stream=stream) as progress:
        program(root, "tick")
        stores.wait_for(lambda: (progress.update(), progress.last.over == 3)[1], "three ended steps", 120)
    said = stream.getvalue()
    assert re.search(r" passed \S+/oracle\.1 \[\d/2 trials\]", said)
    assert re.search(r" scored 0\.125 \S+/nop\.1 \[\d/2 trials\]", said)
    assert re.search(r" task good \S+/verdict \[2/2 trials\]", said)
    last = said.splitlines()[-1]
    assert last.startswith("2/2 trials done: 1 passed, 1 scored without passing; 1 of 1 other step done; in ")
    document = show(ctx.layout, batch_id)
    assert [line.outcome for line in document.steps] == ["passed", "scored 0.125", "task good"]
    nop = document.steps[1].step
    own = show(ctx.layout, f"{batch_id}/{nop}")
    assert (own.outcome, own.attempts[0].outcome) == ("scored 0.125", "scored 0.125")
    board, line = batch_scoreboard(ctx.layout, batch_id), system_scoreboard(ctx.layout).batches[0]
    counts = count_trials(["passed", "scored"])
    assert board.trials == line.trials == document.trials == counts
    for view in ("scoreboard", "show"):
        text = program(root, view, "latest").stdout
        assert "2 trials: 1 passed, 1 scored without passing; 1 other step: 1 succeeded" in text, view
