"""A key whose credit ends in the middle of a batch: no trial gets a zero for it, and all are scored once it is mended."""

import json

import pytest
from harness import make_task
from models import provider, refuse, say, serving
from stores import program

from parallelhassnes.store.layout import Layout

TRIALS, SCORED = 10, 3
KEY = "openai/scripted"
SAME = (
    "n",
    "scored",
    "unscored",
    "passes",
    "counted",
    "pass_rate",
    "mean_reward",
    "cost_usd",
    "input_tokens",
    "output_tokens",
    "failures",
)


def turns():
    first = {
        "analysis": "a",
        "plan": "p",
        "commands": [{"keystrokes": "touch /app/out\n", "duration": 0.1}],
        "task_complete": False,
    }
    return [say(json.dumps(first)), say(json.dumps({**first, "commands": [], "task_complete": True}))]


def submit(root, url, at_once):
    """The table of ten trials, so many at once on their key; the environment with its keys."""
    keys = provider(url)
    info = {
        "max_input_tokens": 30000,
        "max_output_tokens": 2000,
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 1e-6,
    }
    agent = {
        "name": "terminus-2",
        "model_name": KEY,
        "n_trials": TRIALS,
        "kwargs": {
            "api_base": f"{url}/v1",
            "record_terminal_session": False,
            "enable_summarize": False,
            "max_turns": 4,
            "model_info": info,
        },
    }
    sweep = {"path": [str(make_task(root))], "agents": [agent], "environment": "sandbox"}
    table = {"spec_version": "2.0", "secrets": list(keys), "limits": {KEY: at_once}, "sweep": sweep}
    (root / "table.json").write_text(json.dumps(table))
    return keys


def run(root, keys):
    program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=keys, timeout_sec=500)


def rewards(root):
    """The rewards of the trials that have one, from the attempts' own reports."""
    (batch,) = Layout(root).batch_ids()
    parts = [json.loads(p.read_text()) for p in Layout(root).batch(batch).glob("*/steps/*/attempts/*/final.json")]
    return [part["trial"]["reward"] for part in parts if part["status"] == "succeeded" and "trial" in part]


def results(root):
    """What ``results`` says of the one agent."""
    (group,) = json.loads(program(root, "results", "latest", "--json").stdout)["groups"]
    return {name: group[name] for name in SAME if name in group}


@pytest.mark.namespaces
@pytest.mark.timeout(900)
@pytest.mark.programs("tmux")
def test_credit_that_ends_after_the_third_of_ten_trials(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for root in (whole, cut):
        root.mkdir()
    with serving(whole / "model", *turns()) as model:
        run(whole, submit(whole, model.url, 3))
        each = len(model.requests()) // TRIALS
    assert rewards(whole) == [1.0] * TRIALS

    cured = tmp_path / "cured"
    dry = refuse(402, "Insufficient credits: add more to go on", after=SCORED * each, until_file=str(cured))
    with serving(cut / "model", dry, *turns()) as model:
        keys = submit(cut, model.url, 1)
        run(cut, keys)
        # Three scores; one trial met the refusal, and the others did not start: all seven wait.
        assert rewards(cut) == [1.0] * SCORED
        board = json.loads(program(cut, "scoreboard", "--json").stdout)
        # The verdict waits for them, and so is blocked, too.
        assert board["counts"]["blocked"] == TRIALS - SCORED + 1, board
        said = program(cut, "scoreboard").stdout
        assert " ".join(said.split()).count(f"{KEY} is paused for attempts with ") == 1, said
        assert f"parallelhassnes resume {KEY}" in " ".join(said.split())

        cured.touch()
        program(cut, "resume", KEY, "--reason", "paid", env=keys)
        program(cut, "tick", "--until-idle", "--fail-on", "never", env=keys, timeout_sec=500)
    assert rewards(cut) == [1.0] * TRIALS
    assert results(cut) == results(whole)
    assert len(results(cut)) == len(SAME)
