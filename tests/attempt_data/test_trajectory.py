"""Trajectories as turns, whatever an agent wrote."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.attempt_data import pictures
from parallelhassnes.attempt_data.trajectory import MOST_PICTURES, MOST_TEXT, PER_PAGE, read_trajectory

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
    assert (turn.message, turn.reasoning, turn.results) == (
        "look\n[image that is no file beside the trajectory]",
        "hm",
        ["a b"],
    )
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


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def shown(folder: Path, *places: object) -> tuple[str, list[str]]:
    """A turn that shows pictures at these places: its text, and the names of those that can be shown."""
    parts = [{"type": "image", "source": {"media_type": "image/png", "path": place}} for place in places]
    step = {"message": "hm", "observation": {"results": [{"content": parts}]}}
    (folder / "trajectory.json").write_text(json.dumps({"steps": [step]}))
    (turn,) = read_trajectory(folder / "trajectory.json").turns
    return turn.results[0], [picture.name for picture in turn.pictures]


def test_pictures_are_files_beside_the_trajectory(tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(PNG)
    (tmp_path / "two.JPG").write_bytes(b"\xff\xd8\xff" + bytes(9))
    text, names = shown(tmp_path, "images/one.png", "/logs/agent/two.JPG", "./images/one.png")
    assert names == ["images/one.png", "two.JPG", "images/one.png"]
    assert text == "[image images/one.png]\n[image two.JPG]\n[image images/one.png]"
    text, names = shown(tmp_path, *["two.JPG"] * (MOST_PICTURES + 2))
    assert len(names) == MOST_PICTURES
    assert text.count("one of too many") == 2


@pytest.mark.parametrize(
    "place",
    [
        "../one.png",
        "images/../../one.png",
        "/etc/passwd.png",
        "https://example.com/one.png",
        "//example.com/one.png",
        "data:image/png;base64,AAAA",
        "link.png",
        "behind/one.png",
        "pipe.png",
        "page.png",
        "page.svg",
        "png",
        "big.png",
        "none.png",
        "a\nb.png",
        "",
        ".",
        "x" * 5000,
        None,
        {"path": "one.png"},
        7,
    ],
)
def test_what_is_no_picture_beside_it_is_named_and_not_shown(tmp_path: Path, place: object):
    folder = tmp_path / "attempts" / "20260101T000000Z_abcdefgh" / "agent"
    folder.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in (outside / "one.png", folder.parent / "one.png", folder / "png"):
        name.write_bytes(PNG)
    (folder / "link.png").symlink_to(outside / "one.png")
    (folder / "behind").symlink_to(outside)
    os.mkfifo(folder / "pipe.png")
    (folder / "page.png").write_text("<script>alert(1)</script>")
    (folder / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    with (folder / "big.png").open("wb") as stream:
        stream.write(PNG)
        stream.truncate(pictures.MOST_BYTES + 1)
    text, names = shown(folder, place)
    assert names == []
    assert text.startswith("[image ")
    assert len(text) < 300
