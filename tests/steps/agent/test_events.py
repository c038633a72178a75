"""What the readers make of events that no server here can bring about, and of lines that are none."""

import pytest

from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.adapters.codex import _toml
from parallelhassnes.steps.failure_evidence import failure_of as classify


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_lines_that_are_no_events_are_passed_over(name):
    reader = agent(name).reader()
    for line in (b"", b"{", b"[]", b"null", b'{"type":null}', b'{"type":"result","modelUsage":[1]}', b"\xff\xfe"):
        reader.feed(line)
    assert reader.transcript.thread_id is None


def test_codex_going_on_after_an_error_is_no_failure():
    reader = agent("codex").reader()
    reader.feed(b'{"type":"turn.started"}')
    reader.feed(b'{"type":"error","message":"Reconnecting... 1/5 (stream disconnected)"}')
    assert reader.transcript.failure is None
    assert reader.transcript.current_item == "Reconnecting... 1/5 (stream disconnected)"
    reader.feed(b'{"type":"item.started","item":{"type":"command_execution","command":"make test"}}')
    assert reader.transcript.current_item == "command_execution: make test"
    reader.feed(b'{"type":"turn.completed","usage":{"input_tokens":3,"output_tokens":true}}')
    said = reader.transcript
    assert (said.done, said.current_item, said.used.tokens.input, said.used.tokens.output) == (True, None, 3, 0)


@pytest.mark.parametrize(
    ("message", "failure_class"),
    [
        ("You've hit your usage limit. Try again at 3 pm.", "quota"),
        ("unexpected status 403 Forbidden: no access", "auth"),
        ("exceeded retry limit, last status: 429 Too Many Requests", "rate_limit"),
        ("stream disconnected before completion: error sending request", "transient_provider"),
        ("unexpected status 502 Bad Gateway: x", "transient_provider"),
        ("API Error: Connection error.", "transient_provider"),
        ("Selected model is at capacity. Please try a different model.", "overloaded"),
        ("Invalid schema for response_format", "task_definition"),
        ("Rate limit reached for gpt-5.2 on tokens per min (TPM): see your billing page", "rate_limit"),
        ("something else", "agent_error"),
        ("", "agent_error"),
    ],
)
def test_the_words_of_failures(message, failure_class):
    assert classify(message).failure_class == failure_class
    assert classify(message).line


def test_toml_is_read_back_as_it_was_written():
    import tomllib

    document = {"a b": 'x"\n\\é', "n": 1, "f": 1.5, "t": True, "l": ["p", 2], "d": {"e.f": {"g": False}}}
    assert tomllib.loads(_toml({**document, "none": None})) == document
    with pytest.raises(TypeError, match="not TOML serializable"):
        _toml({"a": object()})
