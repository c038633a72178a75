"""What providers refuse with gets its class, whoever asked: litellm, and the real agents inside Harbor trials.

A dozen of the cases go through real agents here; ``make refusals`` sends all of them.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import refusals
from harness import finish, fork_worker, make_attempt, make_task, trial_spec, wait
from refusals import CASES, KEY, name_of

from parallelhassnes.schedule.rules.policy import TABLE
from parallelhassnes.steps import failure_evidence
from parallelhassnes.steps.step_types import WorkerEnd

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
SANDBOX = {"import_path": "parallelhassnes.sandbox.environment:SandboxEnvironment", "kwargs": {"network": "host"}}
CHOSEN = {
    "claude-code": ("credit too low", "tokens per minute", "overloaded", "more credits needed", "prompt too long"),
    "codex": ("quota used up", "no such model", "overloaded", "prompt too long"),
    "terminus-2": ("credit too low", "more credits needed", "content filter"),
}
AT_ONCE = 4
"""Trials that run beside each other."""


@pytest.mark.timeout(300)
def test_litellms_exceptions():
    """Every case through litellm, without an agent."""
    asked = subprocess.run([sys.executable, refusals.__file__, "litellm"], capture_output=True, text=True)
    told = (line for line in asked.stdout.splitlines() if line.startswith("{"))  # litellm prints, too
    raised = {line["case"]: line for line in map(json.loads, told)}
    expected = {name_of(c): c["class"] for c in CASES if c["through"] == "terminus-2"}
    found = {
        name: failure_evidence.verdict_of(e["type"], e["message"], "agent", e["traceback"]).failure_class
        for name, e in raised.items()
    }
    assert found == expected, asked.stderr[-2000:]


def agent_of(case, url):
    """The agent of a case and the variables that it needs."""
    place = f"{url}/{CASES.index(case)}"
    match case["through"]:
        case "claude-code":
            quick = {"CLAUDE_CODE_MAX_RETRIES": "0", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
            agent = {"name": "claude-code", "model_name": "anthropic/claude-none", "env": quick}
            return agent, {"ANTHROPIC_BASE_URL": place, "ANTHROPIC_API_KEY": KEY}
        case "codex":
            agent = {"name": "codex", "model_name": "openai/gpt-none"}
            return agent, {"OPENAI_BASE_URL": f"{place}/v1", "OPENAI_API_KEY": KEY}
        case _:
            limits = {"max_input_tokens": 10000, "max_output_tokens": 1000}
            info = {**limits, "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
            kwargs = {
                "api_base": refusals.base_of(case, url),
                "record_terminal_session": False,
                "enable_summarize": False,
                "max_turns": 1,
                "model_info": info,
            }
            keys = ("OPENAI", "ANTHROPIC", "GEMINI", "OPENROUTER", "AZURE", "MISTRAL", "HOSTED_VLLM")
            env = {f"{name}_API_KEY": KEY for name in keys} | {"AZURE_API_VERSION": "2024-06-01"}
            return {"name": "terminus-2", "model_name": case["model"], "kwargs": kwargs}, env


def chosen(through):
    if os.environ.get("REFUSALS") == "all":
        return [case for case in CASES if case["through"] == through]
    return [c for c in CASES if c["through"] == through and c["refusal"] in CHOSEN[through]]


def come_to(tmp_path, cases, url):
    """The reports of real trials of these cases."""
    waiting, reports = list(cases), {}
    task = make_task(tmp_path, toml="[environment]\nallow_internet = true\n")
    while waiting:
        running = []
        for case in waiting[:AT_ONCE]:
            agent, env = agent_of(case, url)
            spec = trial_spec(task, agent, SANDBOX)
            attempt = make_attempt(tmp_path, "trial", spec, step_id=f"s{CASES.index(case)}", env=env)
            running.append((case, attempt, fork_worker(attempt)))
        for case, attempt, pid in running:
            _, reports[name_of(case)] = finish(attempt, WorkerEnd(wait(pid), "exited"))
        waiting = waiting[AT_ONCE:]
    return reports


@pytest.mark.namespaces
@pytest.mark.timeout(1200 if os.environ.get("REFUSALS") == "all" else 300)
@pytest.mark.parametrize(
    "through",
    [
        pytest.param("claude-code", marks=pytest.mark.claude),
        pytest.param("codex", marks=pytest.mark.codex),
        pytest.param("terminus-2", marks=pytest.mark.programs("tmux")),
    ],
)
def test_real_agents_in_real_trials(tmp_path, through):
    cases = chosen(through)
    assert cases
    with refusals.serving() as url:
        reports = come_to(tmp_path, cases, url)
    found = {
        name: report.get("failure", report["trial"]["exception"] or {}).get("class") for name, report in reports.items()
    }
    assert found == {name_of(case): case["class"] for case in cases}, [
        (report["summary"], report["trial"]["exception"]) for report in reports.values()
    ]
    for case in cases:
        report = reports[name_of(case)]
        # What the agent itself is to blame for keeps its score; no refusal of the provider does.
        scored = case["class"] in ("context_length", "refusal") and report["trial"]["rewards"]
        assert (report["status"] == "succeeded") == bool(scored), report
        assert "guessed" not in report.get("failure", {})


def test_the_page_shows_each_refusal():
    section = PAGE.read_text().split("<!-- refusals -->")[1].split("<!-- end -->")[0]
    shown = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (\d+) \| ([\w-]+) \| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    assert sorted(row[:5] for row in shown) == sorted(
        (case["provider"], case["refusal"], str(case["status"]), case["through"], case["class"]) for case in CASES
    )
    for *_, name, follows in shown:
        row = TABLE[name]
        assert ("paused" in follows) == row.pauses_key, name
        assert ("result" in follows) == (not row.retry), name
