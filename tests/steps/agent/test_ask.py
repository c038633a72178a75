"""The real Codex CLI and the real Claude Code, each asked once, with a scripted model behind them."""

import json
import os
import socket
import time

import pytest
from models import ENDLESS, ENDPOINT, answer, refuse, run, say, serving, surroundings

from parallelhassnes.plan import AgentPolicy
from parallelhassnes.steps.agent.adapters.agent_cli import NotInstalled
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import ask
from parallelhassnes.steps.agent.reports import SCHEMAS

SMALL = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
    "additionalProperties": False,
}
BOTH = [pytest.param("codex", marks=pytest.mark.codex), pytest.param("claude", marks=pytest.mark.claude)]


@pytest.fixture
def asked(tmp_path):
    """Asks an agent with these turns behind it; the answer, the requests that its provider got, the seconds."""

    def go(name, *turns, prompt="What colour?", schema=SMALL, url=None, timeout_sec=60, **policy):
        with serving(tmp_path / "model", *turns) as model:
            (tmp_path / "place").mkdir(exist_ok=True)
            began = time.monotonic()
            found = ask(
                agent(name),
                prompt,
                tmp_path / "place",
                tmp_path / "agent",
                environ=surroundings(url or model.url),
                schema=schema,
                model="gpt-5.2" if name == "codex" else "sonnet",
                policy=AgentPolicy(**{"sandbox": "read-only", "config": ENDPOINT if name == "codex" else {}, **policy}),
                timeout_sec=timeout_sec,
            )
            return found, model.requests(), time.monotonic() - began

    return go


@pytest.mark.parametrize("name", BOTH)
def test_an_answer_that_fits(asked, tmp_path, name):
    found, requests, _ = asked(name, answer({"colour": "red"}, tokens=[120, 30], cached=20))
    assert (found.document, found.problems, found.failure) == ({"colour": "red"}, [], None)
    assert found.valid
    assert found.thread_id
    cached = 140 if name == "claude" else 120  # Anthropic counts what came from the cache apart
    assert found.used.tokens == (cached, 20, 30)
    assert (found.used.cost_usd is not None) == (name == "claude")
    key = {"codex": ("authorization", "Bearer key-of-openai"), "claude": ("x-api-key", "key-of-anthropic")}
    header, value = key[name]
    assert {k.lower(): v for k, v in requests[0]["headers"].items()}[header] == value
    assert "What colour?" in json.dumps(requests[0]["body"])
    left = [path.name for path in (tmp_path / "agent" / "home").rglob("*") if path.is_file()]
    assert [each for each in left if not each.endswith(".jsonl")] == (["config.toml"] if name == "codex" else [])


@pytest.mark.parametrize("name", BOTH)
def test_the_schema_that_agents_get_by_default(asked, name):
    report = {"status": "succeeded", "summary": "s", "files_read": [], "files_written": [], "artifacts": []}
    found, _, _ = asked(name, answer(report), schema=SCHEMAS[2])
    assert (found.document, found.problems, found.failure) == (report, [], None)


@pytest.mark.parametrize("name", BOTH)
def test_prose_is_no_failure_of_the_run_and_is_kept(asked, name):
    found, _, _ = asked(name, say("It is red."))
    assert (found.text, found.document, found.failure) == ("It is red.", None, None)
    assert found.problems == ["/: the last message is prose, not JSON"]
    assert asked(name, say("It is red."), schema=None)[0].valid


@pytest.mark.codex
def test_every_violation_of_the_schema_is_named(asked):
    found, _, _ = asked("codex", answer({"color": 1}))
    assert found.document == {"color": 1}
    assert len(found.problems) == 2
    assert not found.valid


@pytest.mark.claude
def test_claude_gives_up_on_a_schema_after_its_own_tries(asked):
    found, requests, _ = asked("claude", answer({"color": 1}))
    assert (found.failure, len(requests)) == (None, 5)
    assert found.document == {"color": 1}
    assert len(found.problems) == 2


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("turn", "failure_class"),
    [
        (refuse(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
        (refuse(503, "try later"), "overloaded"),
        (refuse(404, "The model `gpt-9` does not exist", code="model_not_found"), "unknown_model"),
        (
            refuse(400, "Your input exceeds the context window of this model.", code="context_length_exceeded"),
            "context_length",
        ),
    ],
    ids=["quota", "503", "404", "context"],
)
def test_what_a_provider_refuses_is_classified_by_the_events(asked, name, turn, failure_class):
    found, requests, _ = asked(name, turn)
    assert found.failure is not None
    assert found.failure.failure_class == failure_class
    assert found.failure.line
    assert not found.valid
    assert len(requests) <= 2, "it is not tried again and again"


@pytest.mark.parametrize("name", BOTH)
def test_an_answer_without_an_end_is_ended(asked, name):
    found, _, seconds = asked(name, ENDLESS, timeout_sec=1)
    assert found.failure.failure_class == "agent_timeout"
    assert 1 <= seconds < 60


@pytest.mark.parametrize("name", BOTH)
def test_a_server_that_is_down(asked, name):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found, _, _ = asked(name, say("x"), url=url, timeout_sec=2)
    assert found.failure.failure_class in ("agent_timeout", "transient_provider")


@pytest.mark.parametrize("name", BOTH)
def test_a_tool_call_really_runs_within_the_policy(asked, tmp_path, name):
    turns = [run("echo made > made.txt"), answer({"colour": "red"})]
    found, _, _ = asked(name, *turns)
    assert found.document == {"colour": "red"}
    assert not (tmp_path / "place" / "made.txt").exists()
    found, _, _ = asked(name, *turns, sandbox="workspace-write")
    assert (found.tool_calls, found.document) == (1, {"colour": "red"})
    assert (tmp_path / "place" / "made.txt").read_text() == "made\n"


def test_any_program_by_a_template(tmp_path):
    program = 'test "$(cat)" = "$(cat "$1")" && pwd && echo "{\\"colour\\": \\"$4\\"}" > "$3" && test -s "$2"'
    command = ("sh", "-c", program, "x", "{prompt_file}", "{schema_file}", "{output_file}", "from {workdir}")
    (tmp_path / "place").mkdir()
    found = ask(
        agent("mine", command),
        "Hello.",
        tmp_path / "place",
        tmp_path / "agent",
        environ={"PATH": os.environ["PATH"]},
        schema=SMALL,
    )
    assert found.document == {"colour": f"from {tmp_path / 'place'}"}
    assert found.valid
    failed = ask(
        agent("mine", ("sh", "-c", "echo no paper >&2; exit 3")),
        "Hello.",
        tmp_path / "place",
        tmp_path / "again",
        environ={"PATH": os.environ["PATH"]},
    )
    assert failed.failure.failure_class == "agent_error"
    assert failed.failure.line == "mine ended with exit code 3: no paper"


@pytest.mark.parametrize("left", ["ln -s $0 $1", "ln -s $0.none $1", "mkdir -p $1/in", "mkfifo $1", "rm -f $1"])
@pytest.mark.parametrize("place", ["last_message.txt", "agent.stderr.log", "agent.output.log"])
def test_what_an_agent_leaves_where_we_write_leads_nowhere(tmp_path, left, place):
    theirs, work = tmp_path / "theirs", tmp_path / "agent"
    theirs.write_text("dear\n")
    (tmp_path / "place").mkdir()
    script = ("sh", "-c", f"rm -rf $1; {left}; exit 0", str(theirs), str(work / place))
    for _ in range(2):  # the second time, the first one's leavings are there already
        found = ask(
            agent("mine", script),
            "Hello.",
            tmp_path / "place",
            work,
            environ={"PATH": os.environ["PATH"]},
            schema=SMALL,
            timeout_sec=60,
        )
        assert found.failure is None
        assert not found.valid
    assert theirs.read_text() == "dear\n"
    assert not (tmp_path / "theirs.none").exists()
    assert (work / "last_message.txt").read_text() == ""


def test_a_program_that_says_much_is_read_at_the_pace_of_what_it_says():
    reader = agent("mine", ("true",)).reader()
    began = time.process_time()
    for number in range(100_000):
        reader.feed(f"{number:08d} größer als zuvor, und noch etwas mehr\n".encode())
    assert time.process_time() - began < 5
    message = reader.transcript.message
    assert len(message.encode()) <= (1 << 20) + 4
    assert message.endswith("00099999 größer als zuvor, und noch etwas mehr\n")


def test_an_agent_that_is_not_there_is_one_clear_line(tmp_path):
    for name in ("codex", "claude"):
        with pytest.raises(NotInstalled, match=rf"^{name} is not installed \(not on PATH\); install it") as caught:
            agent(name).version({"PATH": str(tmp_path)})
        assert len(caught.value.lines()) == 1
    broken = tmp_path / "codex"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(NotInstalled, match="--version ends with 1 and says 'broken'"):
        agent("codex").version({"PATH": str(tmp_path)})


@pytest.mark.codex
@pytest.mark.claude
def test_the_versions():
    for name in ("codex", "claude"):
        assert agent(name).version(dict(os.environ)).count(".") == 2


@pytest.mark.parametrize(("name", "login"), [("codex", "auth.json"), ("claude", ".credentials.json")])
def test_a_login_is_linked_and_not_at_all_beside_a_key(tmp_path, name, login):
    from parallelhassnes.steps.agent.ask import request_of

    own = tmp_path / f".{name}"
    own.mkdir()
    (own / login).write_text("{}")
    for key, linked in (({}, True), ({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, False)):
        request = request_of("x", tmp_path, tmp_path / "w", None, {"HOME": str(tmp_path), **key})
        agent(name).prepare(request)
        link = tmp_path / "w" / "home" / login
        assert link.is_symlink() == linked
        assert not linked or link.resolve() == own / login
    agent(name).tidy(tmp_path / "w" / "home")
    assert (own / login).read_text() == "{}"
