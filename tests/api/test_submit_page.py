"""The form that becomes a launch table: what is filled in stands in the table, mistakes are said, nothing secret is shown."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import make_task
from servers import serving
from stores import context


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """A server, and a folder with a task."""
    folder = tmp_path_factory.mktemp("submitted")
    root = folder / "root"
    root.mkdir()
    context(root, 'environment = "sandbox"\n')
    with serving(root, "--no-tick") as server:
        yield server.client, make_task(folder)


def table_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(html.unescape(re.search(r"<textarea name=\"table\"[^>]*>([^<]+)<", text)[1]))
    return found


def test_everything_that_is_filled_in_stands_in_the_table(site):
    client, task = site
    names = [f"agent_{n}:Agent" for n in range(12)]
    filled = {
        "path": str(task),
        "agent": names,
        "model": ["openai/gpt-5.2", *[""] * 11],
        "kwargs": ["max_turns=20 note='two words' 'deep={\"a\": 1}'", *[""] * 11],
        "secrets": "OPENAI_API_KEY OTHER_KEY",
        "analysis": "rules",
        "budget_usd": "2.50",
        "budget_tokens": "9000",
        "trials": "2",
    }
    answer = client.post("/submit/form", data=filled)
    assert answer.status_code in (200, 422), answer.text  # no such agents here; the table is shown all the same
    text = answer.text if answer.status_code == 200 else client.post("/submit/form", data=filled).text
    if answer.status_code == 200:
        made = table_of(text)
    else:
        lines = re.findall(r"<code>(.*?)</code></div>", text, re.DOTALL)
        made = json.loads(html.unescape("\n".join(lines)))
    assert [agent["import_path"] for agent in made["sweep"]["agents"]] == names
    first = made["sweep"]["agents"][0]
    assert (first["model_name"], first["n_trials"]) == ("openai/gpt-5.2", 2)
    assert first["kwargs"] == {"max_turns": 20, "note": "two words", "deep": {"a": 1}}
    assert made["secrets"] == ["OPENAI_API_KEY", "OTHER_KEY"]
    assert made["budget"] == {"usd": 2.5, "tokens": 9000}
    assert made["analysis"] == ["rules"]


def test_there_is_room_for_any_number_of_agents_without_scripts(site):
    client, task = site
    filled = {"path": str(task), "agent": ["oracle", "nop", ""], "model": ["", "", ""], "kwargs": ["", "", ""]}
    for rows in (6, 9):
        answer = client.post("/submit/form", data=filled | {"more": "1"})
        assert answer.status_code == 200
        assert len(re.findall(r'name="agent"', answer.text)) == rows
        assert 'value="nop"' in answer.text
        filled["agent"] = ["oracle", "nop", *[""] * (rows - 2)]
        filled["model"] = filled["kwargs"] = [""] * rows


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("kwargs", "max_turns", "argument max_turns: is not NAME=VALUE; write max_turns=20"),
        ("kwargs", "a='b", "close the quotes"),
        ("budget_usd", "much", "budget much: is no sum of money"),
        ("budget_usd", "nan", "budget nan: is no sum of money"),
        ("budget_usd", "-1", "budget -1: is no sum of money"),
        ("budget_tokens", "1.5", "1.5 is not a number"),
        ("secrets", "sk-proj-a1B2c3D4", "a value must not be typed here"),
    ],
)
def test_a_mistake_is_said_above_the_form(site, field, value, why):
    client, task = site
    answer = client.post("/submit/form", data={"path": str(task), "agent": "oracle", field: value})
    assert answer.status_code == 422
    assert why in html.unescape(answer.text)
    if field == "secrets":
        assert value not in answer.text
