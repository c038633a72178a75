"""Whatever bytes come in: a document, or problems; nothing else."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelhassnes.errors import InvalidInput, Problem
from parallelhassnes.tables.expand import expand, expand_document
from parallelhassnes.tables.parse.load import load

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = st.sampled_from(
    [
        "jobs",
        "steps",
        "step_id",
        "job_id",
        "sweep",
        "agents",
        "path",
        "command",
        "task",
        "agent",
        "kind",
        "name",
        "prompt",
        "depends_on",
        "env",
        "environment",
        "retry",
        "max_attempts",
        "n_trials",
        "labels",
        "tasks",
        "datasets",
        "verifier",
        "working_root",
        "spec_version",
        "limits",
        "secrets",
        "resume_from",
    ]
)
VALUES = SCALARS | st.sampled_from(["oracle", "docker", "tasks", "trial", "verdict", "1.0.0", "2.0"])
DOCUMENTS = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)
TABLES = st.dictionaries(KEYS, DOCUMENTS, max_size=6)


def problems_of(act: Callable[[], object]) -> list[Problem]:
    """The problems that ``act`` raises; none where it goes through."""
    try:
        act()
    except InvalidInput as error:
        return error.problems
    return []


def plain(value: Any) -> bool:
    """Finite and writable, so that it may be loaded."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, list):
        return all(map(plain, value))
    if isinstance(value, dict):
        return all(plain(key) and plain(item) for key, item in value.items())
    return True


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes(data: bytes) -> None:
    for name in ("x.json", "x.yaml", "-"):
        problems_of(lambda: load(data, name))  # noqa: B023 (called at once)


@given(TABLES.filter(plain))
def test_json_comes_out_as_it_went_in(document: Any) -> None:
    if document:
        assert load(json.dumps(document).encode(), "x.json") == document


@given(TABLES.filter(plain))
def test_yaml_comes_out_as_it_went_in(document: Any) -> None:
    # Quoted, as a program writes it that cannot know which words its reader takes for numbers.
    text = yaml.safe_dump(document, default_style='"', allow_unicode=True)
    if document:
        assert load(text.encode(), "x.yaml") == document


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_any_document_is_a_plan_or_problems(document: Any) -> None:
    here = [Path("/nonexistent")]
    problems = problems_of(lambda: expand_document(document, name="x.json", base_dirs=here))
    assert all("\n" not in problem.line() for problem in problems)


@given(st.integers(min_value=1, max_value=30), st.data())
def test_a_graph_is_valid_where_it_has_no_circle(size: int, data: st.DataObject) -> None:
    ids = [f"s{n}" for n in range(size)]
    steps = []
    for n, step_id in enumerate(ids):
        depends = data.draw(st.lists(st.sampled_from(ids[:n]), unique=True, max_size=3)) if n else []
        steps.append({"step_id": step_id, "command": ["true"], "depends_on": depends})
    shuffled = data.draw(st.permutations(steps))
    table = {"jobs": [{"job_id": "j", "steps": shuffled}]}
    made = expand(json.dumps(table).encode(), name="x.json", base_dirs=[])
    waiting = sum(len(step.depends_on) for step in made.jobs[0].steps)
    assert sum(map(len, made.jobs[0].dependents.values())) == waiting
    if size > 1:
        shuffled = [dict(step) for step in steps]
        shuffled[0]["depends_on"] = [ids[-1]]
        shuffled[-1]["depends_on"] = [*shuffled[-1]["depends_on"], ids[0]]
        table = {"jobs": [{"job_id": "j", "steps": shuffled}]}
        data_of_circle = json.dumps(table).encode()
        problems = problems_of(lambda: expand(data_of_circle, name="x.json", base_dirs=[]))
        assert any("circle" in problem.message for problem in problems)
