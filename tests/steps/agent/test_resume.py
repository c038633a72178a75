"""Going on with another attempt's conversation, with the real CLIs."""

import contextlib
import json

import pytest
from harness import make_attempt, run
from models import ENDPOINT, answer, provider, serving

from parallelhassnes.store.evidence.seal import seal, survey

BOTH = [pytest.param("codex", marks=pytest.mark.codex), pytest.param("claude", marks=pytest.mark.claude)]
REPORT = {"status": "succeeded", "summary": "s", "files_read": [], "files_written": [], "artifacts": []}


@pytest.fixture
def steps(tmp_path):
    """Runs agent steps, one after the other, against one model server, and seals each."""
    with contextlib.ExitStack() as stack:
        rules = {word: [answer({**REPORT, "summary": word})] for word in ("ALPHA", "BRAVO", "CHARLIE", "DELTA")}
        server = stack.enter_context(serving(tmp_path / "model", answer(REPORT), when=rules))

        def go(name, step_id, prompt, **spec):
            plan = {
                "agent": name,
                "prompt": prompt,
                "model": "gpt-5.2" if name == "codex" else "sonnet",
                "execution_policy": {"config": ENDPOINT if name == "codex" else {}},
                **spec,
            }
            attempt = make_attempt(tmp_path / "root" / "runs", "agent", plan, step_id=step_id, env=provider(server.url))
            _, outcome, final = run(attempt)
            state = {"status": outcome.status, "run_id": attempt.run_id}
            (attempt.dir / "state.json").write_text(json.dumps(state))
            seal(attempt.dir, {})
            return attempt, outcome, final["agent"], server

        yield go


def _after(step_id, **more):
    return {"resume_from": {"step_id": step_id, **more}}


@pytest.mark.parametrize("name", BOTH)
def test_a_chain_and_two_branches_from_one_attempt(steps, name):
    source, _, first, server = steps(name, "s1", "Say ALPHA.")
    sealed = survey(source.dir)
    left, outcome, second, _ = steps(name, "s2", "Say BRAVO.", **_after("s1"))
    assert outcome.status == "succeeded"
    assert second["report"]["summary"] == "BRAVO"
    assert second["thread_id"] == first["thread_id"]
    assert second["resumed"]["run_id"] == source.run_id
    assert second["tokens"] == {"input": 10, "cache": 0, "output": 5}  # of its own turn only
    heard = json.dumps(server.requests()[-1]["body"])
    assert "Say ALPHA." in heard
    assert "Say BRAVO." in heard

    right, _, third, _ = steps(name, "s3", "Say CHARLIE.", **_after("s1"))
    heard = json.dumps(server.requests()[-1]["body"])
    assert ("Say ALPHA." in heard, "Say BRAVO." in heard) == (True, False)
    assert third["report"]["summary"] == "CHARLIE"

    _, _, fourth, _ = steps(name, "s4", "Say DELTA.", **_after("job/s2", selector="run_id", run_id=left.run_id))
    heard = json.dumps(server.requests()[-1]["body"])
    assert [word in heard for word in ("ALPHA", "BRAVO", "CHARLIE", "DELTA")] == [True, True, False, True]
    assert fourth["report"]["summary"] == "DELTA"
    assert survey(source.dir) == sealed == json.loads((source.dir / "seal.json").read_text())["files"]
    assert survey(left.dir) == json.loads((left.dir / "seal.json").read_text())["files"]
    assert right.dir != left.dir


@pytest.mark.codex
def test_which_attempt_is_meant(steps):
    good, _, _, _ = steps("codex", "s1", "Say ALPHA.")
    bad, outcome, _, _ = steps("codex", "s1", "Say BRAVO.", output_schema={"type": "string"})
    assert outcome.status == "needs_attention"
    newer, older = sorted((good, bad), key=lambda attempt: attempt.dir.name, reverse=True)
    found = {
        selector: steps("codex", f"t-{selector}", "Say CHARLIE.", **_after("s1", selector=selector))[2]["resumed"]
        for selector in ("latest_successful", "latest")
    }
    assert found["latest_successful"]["run_id"] == good.run_id
    assert found["latest"]["run_id"] == newer.run_id
    assert older.run_id != newer.run_id
    _, outcome, _, _ = steps("codex", "u", "x", **_after("s1", selector="run_id", run_id="nobody"))
    assert outcome.failure.line == "there is nothing to resume: job/s1 has no attempt nobody"


@pytest.mark.codex
@pytest.mark.claude
def test_another_agents_conversation_cannot_be_resumed(steps):
    source, _, _, _ = steps("codex", "s1", "Say ALPHA.")
    _, outcome, _, _ = steps("claude", "s2", "Say BRAVO.", **_after("s1"))
    assert outcome.failure.failure_class == "task_definition"
    assert outcome.failure.line.endswith(f"attempt {source.run_id} of job/s1 has no session of claude")


@pytest.mark.codex
def test_a_conversation_that_is_not_the_one_asked_for_is_a_failure(steps, tmp_path):
    steps("codex", "s1", "Say ALPHA.")
    liar = tmp_path / "codex"
    liar.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo codex 1.2; exit; fi\ncat >/dev/null\n'
        'echo \'{"type":"thread.started","thread_id":"another"}\'\necho \'{"type":"turn.completed","usage":{}}\'\n'
    )
    liar.chmod(0o755)
    _, outcome, agent, _ = steps("codex", "s2", "Say BRAVO.", program=str(liar), **_after("s1"))
    assert outcome.status == "failed"
    assert outcome.failure.line == f"asked to go on with {agent['resumed']['thread_id']}, codex answered in another"
