"""From a sweep to its report without a network: trials by oracle, nop and terminus-2 on a scripted model that passes, fails,
is refused and talks nonsense; analyses by the rules, the real Codex CLI and the real Claude Code; verdicts; the report."""

import json

import pytest
from models import answer, provider, refuse, say, serving
from stores import CHECKOUT, program

from parallelhassnes.admin.audit import verify
from parallelhassnes.store.layout import Layout

TASKS, QUALITY = CHECKOUT / "examples" / "tasks", CHECKOUT / "examples" / "quality"


def do(*commands, done=False):
    """A turn of terminus-2's model: these commands."""
    typed = [{"keystrokes": f"{command}\n", "duration": 0.2} for command in commands]
    return say(json.dumps({"analysis": "a", "plan": "p", "commands": typed, "task_complete": done}), tokens=[200, 40])


DONE = do(done=True)


def judged(outcome, subtype, **more):
    quote = {"file": "trial/result.json", "line": 1, "quote": '"reward"'}
    return answer(
        {
            "outcome": outcome,
            "subtype": subtype,
            "evidence": [quote],
            "root_cause": "As scripted.",
            "recommendation": "None.",
            "confidence": 0.9,
        },
        **more,
    )


TURNS = {
    # The analysts' prompts hold the instructions too, so their words come first.
    "- verified reward 1,": [judged("good_success", "solved")],
    "- verified reward 0": [judged("good_failure", "implementation_bug")],
    "/app/hello.txt": [refuse(429, "Rate limit reached", times=1), do("echo 'Hello, world!' > /app/hello.txt"), DONE],
    "leap years": [do("printf '%s\\n' 1892 1896 1900 1904 1908 1912 > /app/leap_years.txt"), DONE],
    "/app/greet.sh": [say("I would rather talk about the weather.")],
    "seconds in a week": [do("echo 604800 > /app/seconds.txt"), DONE],
    "three prime numbers": [do("echo 5000 > /app/answer.txt"), DONE],
    "five prime numbers": [refuse(401, "Incorrect API key provided")],
}
PATHS = [
    TASKS / "hello",
    TASKS / "leap-years",
    TASKS / "greet-script",
    QUALITY / "unnamed-file",
    QUALITY / "hard-but-fine",
    TASKS / "broken-oracle",
]
"""The last one's model refuses the key, which pauses the queue key for what has not started by then."""


@pytest.mark.namespaces
@pytest.mark.codex
@pytest.mark.claude
@pytest.mark.timeout(400)
@pytest.mark.programs("tmux")
def test_a_sweep_its_analyses_its_verdicts_and_its_report(root):
    with serving(root / "model", say("nothing"), when=TURNS) as model:
        keys = provider(model.url)
        names = list(keys)
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
        table = {
            "spec_version": "2.0",
            "experiment": "end-to-end",
            "secrets": names,
            "retry": {"max_attempts": 1},
            "analysis": [
                "rules",
                {"engine": "codex", "model": "gpt-5.2", "only_unknown": True},
                {"engine": "claude", "model": "sonnet", "only_unknown": True},
            ],
            "sweep": {
                "path": [str(path) for path in PATHS],
                "agents": [{"name": "oracle"}, {"name": "nop"}, terminus],
                "environment": "sandbox",
                "timeout_minutes": 2,
            },
        }
        (root / "table.json").write_text(json.dumps(table))
        program(root, "init")
        line = ("run", "-c", str(root / "table.json"), "-q", "--fail-on", "never")
        program(root, *line, env=keys, timeout_sec=350)
        asked = model.requests()
    found = json.loads(program(root, "analyses", "latest", "--json").stdout)
    said = {
        trial["trial"].removeprefix("parallelhassnes-"): {
            o["engine"].split(" ")[0]: f"{o['outcome']}/{o['subtype']}" for o in trial["opinions"]
        }
        for trial in found["trials"]
    }
    assert len(said) == 18
    agent = "terminus-2.openai-scripted.1"
    solved, wrong = "good_success/solved", "good_failure/implementation_bug"
    unknown = "unknown/unknown"
    assert said[f"hello/{agent}"] == {"rules": unknown, "codex": solved, "claude": solved}
    assert said[f"leap-years/{agent}"] == {"rules": unknown, "codex": wrong, "claude": wrong}
    assert said[f"hard-but-fine/{agent}"] == {"rules": unknown, "codex": wrong, "claude": wrong}
    everybody = ("rules", "codex", "claude")
    for trial, proven in (
        (f"greet-script/{agent}", "good_failure/no_action"),
        (f"unnamed-file/{agent}", "bad_failure/underspecified"),
        (f"broken-oracle/{agent}", "harness_error/provider"),
        ("broken-oracle/oracle.1", "bad_failure/broken_reference"),
        ("hello/oracle.1", "good_success/reference"),
        ("hello/nop.1", "good_failure/no_action"),
    ):
        assert said[trial] == dict.fromkeys(everybody, proven), trial
    assert found["disagree"] == []
    paths = {request["path"] for request in asked}
    assert {"/v1/chat/completions", "/v1/responses", "/v1/messages"} <= paths
    layout = Layout(root)
    (batch,) = layout.batch_ids()
    quality = {
        path.parent.name.removeprefix("parallelhassnes-"): json.loads(path.read_text())["task_quality"]
        for path in layout.batch(batch).glob("*/verdict.json")
    }
    assert quality == {
        "hello": "good",
        "leap-years": "good",
        "greet-script": "good",
        "hard-but-fine": "good",
        "broken-oracle": "broken",
        "unnamed-file": "needs_review",
    }
    checked = verify.verify(layout)
    assert checked.ok, checked.problems
    program(root, "report", batch, "-o", str(root / "report.html"))
    page = (root / "report.html").read_text()
    assert "unnamed-file" in page
    assert "needs_review" in page or "needs review" in page
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        held = [
            p for p in layout.batch(batch).rglob("*") if p.is_file() and keys[name] in p.read_text(errors="replace")
        ]
        assert held == [], f"the value of {name} is in the files"
