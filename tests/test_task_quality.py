"""The faulty example tasks and the hard one get the class that they deserve, from real trials; docs/verdicts.md says the same."""

import json

import pytest
from models import answer, provider, say, serving
from stores import CHECKOUT, program

from parallelhassnes.store.layout import Layout

TASKS, QUALITY = CHECKOUT / "examples" / "tasks", CHECKOUT / "examples" / "quality"
FLAKES = 16
"""Trials of the oracle on the flaky task, which come out alike in one of 32,768 cases."""


def turns(*commands: str) -> list[dict]:
    """What the model of terminus-2 answers: these commands, then that it is done."""
    typed = [{"keystrokes": f"{command}\n", "duration": 0.2} for command in commands]
    first = {"analysis": "a", "plan": "p", "commands": typed, "task_complete": False}
    done = {**first, "commands": [], "task_complete": True}
    return [say(json.dumps(first)), say(json.dumps(done))]


def judged(outcome: str, subtype: str) -> list[dict]:
    """What the model that analyses says where the rules prove nothing."""
    quote = {"file": "trial/result.json", "line": 1, "quote": '"reward"'}
    return [
        answer(
            {
                "outcome": outcome,
                "subtype": subtype,
                "evidence": [quote],
                "root_cause": "As scripted.",
                "recommendation": "Look at it.",
                "confidence": 0.9,
            }
        )
    ]


MODEL = {
    # The analyst's prompts hold the instructions too, so their words come first.
    "- verified reward 1,": judged("bad_success", "too_permissive"),
    "- verified reward 0": judged("good_failure", "implementation_bug"),
    "three prime numbers": turns("echo 5000 > /app/answer.txt"),
    "combination of three": turns("cat /solution/*", "echo 12 18 35 > /app/combination.txt", "sh /solution/solve.sh"),
    "Fibonacci": turns("touch /app/fib.sh"),
    "20 smallest prime": turns("echo 1 > /logs/verifier/reward.txt"),
    "seconds in a week": turns("echo 604800 > /app/seconds.txt"),
}


def told() -> dict[str, tuple[str, str, str]]:
    """Task → class, issue and first rule, as the page has it."""
    page = (CHECKOUT / "docs" / "verdicts.md").read_text()
    rows = page.split("<!-- examples -->")[1].split("<!-- end -->")[0].strip().splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    return {name: (quality, issue, rule) for name, _, quality, issue, rule in cells}


def found(root, batch) -> dict[str, tuple[str, str, str]]:
    made = {}
    for path in Layout(root).batch(batch).glob("*/verdict.json"):
        verdict = json.loads(path.read_text())
        name = verdict["task"]["name"].rpartition("/")[2]
        rule = verdict["findings"][0]["rule"]
        made[name] = (verdict["task_quality"], verdict["primary_issue"] or "", rule)
    return made


@pytest.mark.namespaces
@pytest.mark.timeout(400)
@pytest.mark.programs("tmux")
def test_each_example_gets_its_class(root):
    with serving(root / "model", say("nothing"), when=MODEL) as model:
        keys = provider(model.url)
        terminus = {
            "name": "terminus-2",
            "model_name": "openai/scripted",
            "kwargs": {
                "api_base": f"{model.url}/v1",
                "record_terminal_session": False,
                "enable_summarize": False,
                "max_turns": 4,
                "model_info": {
                    "max_input_tokens": 30000,
                    "max_output_tokens": 2000,
                    "input_cost_per_token": 1e-6,
                    "output_cost_per_token": 1e-6,
                },
            },
        }
        analyst = {"engine": "api", "model": "openai/scripted", "base_url": f"{model.url}/v1", "only_unknown": True}
        table = {
            "spec_version": "2.0",
            "secrets": list(keys),
            "retry": {"max_attempts": 1},
            "analysis": ["rules", analyst],
            "sweep": {
                "path": [*map(str, sorted(QUALITY.iterdir())), str(TASKS / "hello"), str(TASKS / "broken-oracle")],
                "agents": [{"name": "oracle", "n_trials": 2}, {"name": "nop"}, terminus],
                "environment": "sandbox",
            },
        }
        (root / "table.json").write_text(json.dumps(table))
        program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=keys, timeout_sec=350)
    flaky = ("run", str(TASKS / "flaky-tests"), "-a", "oracle", "-k", str(FLAKES), "-e", "sandbox", "-q")
    program(root, *flaky)
    made = {k: v for batch in Layout(root).batch_ids() for k, v in found(root, batch).items()}
    assert made == told()
