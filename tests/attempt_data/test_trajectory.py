"""Trajectories as turns, whatever an agent wrote."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.attempt_data.trajectory import MOST_TEXT, PER_PAGE, read_trajectory

TURN = {
    "step_id": 1,
    "source": "agent",
    "message": [{"type": "text", "text": "look"}, {"type": "image"}],
    "reasoning_content": "hm",
    "tool_calls": [{"function_name": "bash", "arguments": {"command": "ls"}}],
    "observation": {"results": [{"content": "a b"}]},
    "metrics": {"prompt_tokens": 3},
}


def test_a_turn_has_what_was_said_done_and_seen(tmp_path: Path):
    path = tmp_path / "trajectory.json"
    agent = {"name": "terminus-2", "model_name": "openai/x"}
    path.write_text(json.dumps({"agent": agent, "steps": [TURN] * (PER_PAGE + 2)}))
    found = read_trajectory(path)
    assert (found.agent, found.total, found.pages) == ("terminus-2 openai/x", PER_PAGE + 2, 2)
    turn = found.turns[0]
    assert (turn.message, turn.reasoning, turn.results) == ("look\n[image]", "hm", ["a b"])
    assert [(call.name, call.arguments) for call in turn.calls] == [("bash", "ls")]
    assert [turn.number for turn in read_trajectory(path, 2).turns] == [PER_PAGE + 1, PER_PAGE + 2]


def test_long_texts_are_cut_and_what_is_none_is_none(tmp_path: Path):
    path = tmp_path / "trajectory.json"
    path.write_text(json.dumps({"steps": [{"message": "x" * (MOST_TEXT + 7)}]}))
    assert read_trajectory(path).turns[0].message.endswith("… 7 more characters")
    for text in ("{", "[]", '{"steps": 3}', "null"):
        path.write_text(text)
        assert read_trajectory(path) is None
    assert read_trajectory(tmp_path / "none") is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(TURN)), inner, max_size=4),
    max_leaves=12,
)


@given(ANYTHING)
def test_nothing_that_an_agent_writes_is_an_error(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("t") / "trajectory.json"
    path.write_text(json.dumps({"agent": written, "steps": [written, {**TURN, "observation": written}]}))
    assert read_trajectory(path) is not None
