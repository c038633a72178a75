"""The kind ``agent`` with the real CLIs and a scripted model: what an attempt comes to, and what it leaves."""

import contextlib
import json
import os
import signal

import pytest
from harness import finish, fork_worker, make_attempt, run, until, wait
from models import CUT, ENDLESS, ENDPOINT, HANG, answer, provider, refuse, say, serving
from models import run as shell

from parallelhassnes.steps import registry
from parallelhassnes.steps.step_types import WorkerEnd

BOTH = [pytest.param("codex", marks=pytest.mark.codex), pytest.param("claude", marks=pytest.mark.claude)]
REPORT = {"status": "succeeded", "summary": "All done.", "files_read": ["a"], "files_written": [], "artifacts": []}
COLOUR = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
    "additionalProperties": False,
}


@pytest.fixture
def model(tmp_path):
    """Starts a model server of these turns; its URL."""
    with contextlib.ExitStack() as stack:
        yield lambda *turns, **rules: stack.enter_context(serving(tmp_path / "model", *turns, **rules))


@pytest.fixture
def attempt_of(tmp_path):
    """Makes an attempt of an agent step in a store below the test's folder."""

    def made(name, url, prompt="Do it.", *, step_id="s1", **spec):
        policy = {"config": ENDPOINT if name == "codex" else {}, **spec.pop("execution_policy", {})}
        plan = {"agent": name, "prompt": prompt, "model": "gpt-5.2" if name == "codex" else "sonnet", **spec}
        return make_attempt(
            tmp_path / "root" / "runs", "agent", plan | {"execution_policy": policy}, step_id=step_id, env=provider(url)
        )

    return made


@pytest.mark.parametrize("name", BOTH)
def test_a_report_becomes_the_attempts(attempt_of, model, name):
    attempt = attempt_of(name, model(answer(REPORT, tokens=[100, 7])).url, append_prompt="And then stop.")
    code, outcome, final = run(attempt)
    assert (code, outcome.status, outcome.failure) == (0, "succeeded", None)
    assert (final["summary"], final["files_read"]) == ("All done.", ["a"])
    agent = final["agent"]
    assert (agent["report"], agent["problems"], agent["turns"]) == (REPORT, [], 1)
    assert agent["tokens"] == {"input": 100, "cache": 0, "output": 7}
    assert agent["version"].count(".") == 2
    assert agent["thread_id"]
    assert (agent["cost_usd"] is None) == (name == "codex")
    assert (attempt.dir / "agent" / "prompt.txt").read_text() == "Do it.\n\nAnd then stop.\n"
    events = (attempt.dir / "agent" / f"{name}.events.jsonl").read_text().splitlines()
    assert all(json.loads(line)["type"] for line in events)
    assert (attempt.dir / "work").is_dir()


@pytest.mark.parametrize("name", BOTH)
def test_the_agents_own_word_on_its_failure_counts(attempt_of, model, name):
    said = {**REPORT, "status": "failed", "summary": "The build is broken.\nReally."}
    _, outcome, final = run(attempt_of(name, model(answer(said)).url))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "agent_error")
    assert outcome.failure.line == "the agent reports that it failed: The build is broken."
    assert final["agent"]["report"] == said


@pytest.mark.parametrize("name", BOTH)
def test_prose_needs_attention_and_is_kept(attempt_of, model, name):
    attempt = attempt_of(name, model(say("I painted it red.")).url)
    code, outcome, final = run(attempt)
    assert (code, outcome.status) == (0, "needs_attention")
    assert outcome.failure.line == "the report is not valid: /: the last message is prose, not JSON"
    assert "I painted it red." in final["summary"]
    assert (attempt.dir / "agent" / "last_message.txt").read_text() == "I painted it red."


@pytest.mark.parametrize("name", BOTH)
def test_it_is_asked_once_more_in_the_same_conversation(attempt_of, model, name):
    server = model(say("It is red."), when={"not the report that was asked for": [answer({"colour": "red"})]})
    attempt = attempt_of(name, server.url, output_schema=COLOUR, repair=1)
    _, outcome, final = run(attempt)
    assert outcome.status == "succeeded"
    agent = final["agent"]
    assert (agent["report"], agent["turns"]) == ({"colour": "red"}, 2)
    asked = json.dumps(server.requests()[-1]["body"])
    assert "Do it." in asked
    assert "It is red." in asked
    assert "the last message is prose" in asked
    reader = registry.kind("agent").live(attempt)
    assert reader.thread_id == agent["thread_id"]
    model_calls = len(server.requests())
    assert agent["tokens"] == {"input": 10 * model_calls, "cache": 0, "output": 5 * model_calls}


@pytest.mark.codex
def test_a_repair_that_does_not_help_keeps_every_violation(attempt_of, model):
    attempt = attempt_of("codex", model(answer({"color": 1})).url, output_schema=COLOUR, repair=1)
    _, outcome, final = run(attempt)
    assert (outcome.status, final["agent"]["turns"]) == ("needs_attention", 2)
    assert final["agent"]["report"] == {"color": 1}
    assert len(final["agent"]["problems"]) == 2


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("turn", "failure_class"),
    [
        (refuse(401, "Incorrect API key"), "auth"),
        (refuse(429, "Slow down, retry in 9s"), "rate_limit"),
        (refuse(500, "boom"), "transient_provider"),
        (CUT, "transient_provider"),
    ],
    ids=["401", "429", "500", "cut"],
)
def test_a_providers_failure_is_the_attempts(attempt_of, model, name, turn, failure_class):
    server = model(turn)
    code, outcome, final = run(attempt_of(name, server.url))
    assert len(server.requests()) <= 6, "it is not tried for ever"
    assert (code, outcome.status, outcome.failure.failure_class) == (0, "failed", failure_class)
    assert final["failure"]["class"] == failure_class
    assert final["agent"]["thread_id"]
    if failure_class == "rate_limit" and name == "claude":
        assert "retry in 9s" in outcome.failure.evidence


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("reason", "status", "failure_class"),
    [("timeout", "failed", "agent_timeout"), ("canceled", "canceled", "canceled"), ("lost", "lost", "lost")],
)
def test_one_that_is_stopped_ends_cleanly_and_tells_what_it_had(attempt_of, model, name, reason, status, failure_class):
    server = model(ENDLESS if reason == "timeout" else HANG)
    attempt = attempt_of(name, server.url)
    pid = fork_worker(attempt)
    until(server.requests)
    os.kill(pid, signal.SIGTERM)
    code = wait(pid)
    outcome, final = finish(attempt, WorkerEnd(code, reason))
    assert (code, outcome.status, outcome.failure.failure_class) == (143, status, failure_class)
    assert (attempt.dir / "agent" / "outcome.json").exists()
    if name == "codex":
        assert final["agent"]["thread_id"]


@pytest.mark.codex
def test_a_killed_worker_leaves_its_events(attempt_of, model):
    server = model(shell("sleep 60"))
    attempt = attempt_of("codex", server.url)
    pid = fork_worker(attempt)
    kind = registry.kind("agent")
    live = until(lambda: (seen := kind.live(attempt)) and "sleep 60" in (seen.item or "") and seen)
    assert kind.phase(attempt) == "agent"
    os.killpg(pid, signal.SIGKILL)
    wait(pid)
    for left in attempt_processes(attempt.dir):
        with contextlib.suppress(ProcessLookupError):  # it ends by itself, as its parent is gone
            os.kill(left, signal.SIGKILL)
    outcome, final = finish(attempt, WorkerEnd(None, "lost"))
    assert (outcome.status, outcome.failure.failure_class) == ("lost", "lost")
    assert final["agent"]["thread_id"] == live.thread_id


def attempt_processes(directory):
    """Processes that have the attempt's TMPDIR."""
    wanted = f"TMPDIR={directory / 'tmp'}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as stream:
                    if wanted in stream.read().split(b"\0"):
                        yield int(name)
            except OSError:
                continue


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"prompt": "", "prompt_ref": "/none/p.md"}, "prompt_ref /none/p.md cannot be read: No such file or directory"),
        (
            {"program": "/none/codex"},
            "/none/codex is not installed (not on PATH); install it (npm install -g @openai/codex) or name another agent",
        ),
        ({"working_directory": "/none"}, "folder /none does not exist; correct working_directory"),
        (
            {"agent": "mine", "command": ["no-such-program"]},
            "'no-such-program' is no program; correct the agent's command",
        ),
        (
            {"artifacts_expected": [{"name": "a", "glob": "../*"}], "command": ["echo", json.dumps(REPORT)]},
            "artifacts_expected: ../* leads out of the workspace; name files below it",
        ),
        ({"sandbox": 1}, "the step's plan is not valid: sandbox: Extra inputs are not permitted"),
        ({"resume_from": {"step_id": "s0"}}, "there is nothing to resume: job/s0 has no successful attempt"),
        (
            {"agent": "x", "command": ["true"], "workspace_policy": {"mode": "isolated"}, "working_directory": "/"},
            "/ is in no git repository (fatal: not a git repository (or any of the parent directories): .git); an isolated workspace needs one; or use the mode shared",
        ),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path, spec, line):
    plan = {"agent": "x", "command": ["true"], "prompt": "x"} if "program" not in spec else {"prompt": "x"}
    _, outcome, _ = run(make_attempt(tmp_path / "root" / "runs", "agent", plan | spec))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "task_definition")
    assert outcome.failure.line == line


def test_any_program_is_an_agent_too(tmp_path):
    document = json.dumps(REPORT)
    command = ["sh", "-c", f"grep -q Paint {{prompt_file}} && echo '{document}' > {{output_file}}"]
    plan = {"agent": "mine", "command": command, "prompt": "Paint."}
    _, outcome, final = run(make_attempt(tmp_path / "root" / "runs", "agent", plan))
    assert (outcome.status, final["summary"]) == ("succeeded", "All done.")
    assert final["agent"]["tokens"] == {"input": None, "cache": None, "output": None}


def test_expected_artifacts_decide(tmp_path):
    expected = [{"name": "notes", "glob": "out/*.md"}, {"name": "data", "glob": "**/data.json", "json_schema": COLOUR}]

    def outcome_of(script, number):
        write = f"{script}; cat > {{output_file}} <<'E'\n{json.dumps(REPORT)}\nE"
        plan = {"agent": "mine", "command": ["sh", "-c", write], "prompt": "x", "artifacts_expected": expected}
        attempt = make_attempt(tmp_path / f"root{number}" / "runs", "agent", plan)
        _, outcome, final = run(attempt)
        return attempt, outcome, {each["name"]: each for each in final["agent"]["artifacts"]}

    good = 'mkdir -p out deep; echo hi > out/a.md; echo \'{"colour":"red"}\' > deep/data.json'
    attempt, outcome, found = outcome_of(good, 1)
    assert outcome.status == "succeeded"
    assert found["notes"]["paths"] == ["agent/artifacts/notes/out/a.md"]
    assert (attempt.dir / found["notes"]["paths"][0]).read_text() == "hi\n"
    for number, (script, line) in enumerate(
        [
            ("true", "expected artifact notes: no file fits out/*.md"),
            ("mkdir out; touch out/a.md", "expected artifact notes: out/a.md: is empty"),
            ("mkdir out; ln -s /etc/hostname out/a.md", "expected artifact notes: no file fits out/*.md"),
            (
                "mkdir out; echo x > out/a.md; echo '{}' > data.json",
                "expected artifact data: data.json: /: 'colour' is a required property",
            ),
            ("mkdir out; echo x > out/a.md; echo x > data.json", "expected artifact data: data.json: is not JSON"),
        ],
        2,
    ):
        _, outcome, found = outcome_of(script, number)
        assert (outcome.status, outcome.failure.line) == ("failed", line)
