"""Every body and every JSON answer of the OpenAPI document has an example, and it is what a real server takes and gives."""

import json
import platform
from collections.abc import Iterator
from typing import Any, NamedTuple

import api_examples
import pytest
from jsonschema import Draft202012Validator
from stores import CHECKOUT, context

from parallelhassnes.api.app import create_app
from parallelhassnes.api.http.openapi import ERRORS
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.config import ApiConfig


class Place(NamedTuple):
    """One place of the document where an example belongs."""

    operation: str
    what: str
    shape: dict[str, Any]


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("document")
    context(root)
    return create_app(ServerState(root, ApiConfig(), "token", ticking=False)).openapi()


def places(document) -> Iterator[Place]:
    """Every request body and every JSON answer."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path}"
            for kind, shape in operation.get("requestBody", {}).get("content", {}).items():
                yield Place(name, kind, shape)
            for status, answer in operation["responses"].items():
                for kind, shape in answer.get("content", {}).items():
                    if kind == "application/json":
                        yield Place(name, status, shape)
    for name, answer in document["components"]["responses"].items():
        for kind, shape in answer["content"].items():
            yield Place(name, kind, shape)


def test_every_body_and_every_answer_has_an_example_that_fits(document):
    seen = list(places(document))
    assert len(seen) > 80
    without = [f"{place.operation} {place.what}" for place in seen if "example" not in place.shape]
    assert not without, f"ask for these in tests/api_examples.py, then make examples: {without}"
    wrong = []
    for place in seen:
        schema = {**place.shape["schema"], "components": document["components"]}
        wrong += [
            f"{place.operation} {place.what} {error.json_path}: {error.message}"
            for error in Draft202012Validator(schema).iter_errors(place.shape["example"])
        ]
    assert not wrong, "\n".join(wrong)


def test_every_error_has_an_example_of_its_status(document):
    answers = document["components"]["responses"]
    assert answers.keys() == {f"Problem{status}" for status in ERRORS}
    for status in ERRORS:
        example = answers[f"Problem{status}"]["content"]["application/problem+json"]["example"]
        assert example["status"] == int(status)


def test_no_example_is_of_an_operation_that_is_gone(document):
    known = {f"{m.upper()} {path}" for path, found in document["paths"].items() for m in found}
    assert json.loads(api_examples.FILE.read_text()).keys() - {"errors"} <= known


@pytest.mark.timeout(400)
def test_the_examples_are_what_a_server_is_sent_and_answers_now(tmp_path):
    kept = json.loads(api_examples.FILE.read_text())
    made = api_examples.record(tmp_path)
    assert kept.keys() == made.keys()
    differing = [line for name in kept for line in _differing(name, kept[name], made[name])]
    assert not differing, "make examples; they differ:\n" + "\n".join(differing)


def _differing(place: str, kept: Any, made: Any) -> Iterator[str]:
    """Where the two have other keys or kinds of values; what is empty in one of them says nothing."""
    if place.endswith("/by_run_id"):  # its keys are run ids, which no two runs share
        kept, made = list(kept.values()), list(made.values())
    if isinstance(kept, dict) and isinstance(made, dict):
        # By the name of each step that somebody said something of; by what the host can limit.
        if "/overrides/" not in place and not place.endswith("/sandbox/limits"):
            yield from (f"{place}: {name}" for name in kept.keys() ^ made.keys())
        for name in kept.keys() & made.keys():
            yield from _differing(f"{place}/{name}", kept[name], made[name])
    elif isinstance(kept, list) and isinstance(made, list):
        for one, other in zip(kept, made, strict=False):
            yield from _differing(f"{place}/*", one, other)
    elif None not in (kept, made) and _kind(kept) != _kind(made):
        yield f"{place}: {kept!r} and {made!r}"


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def test_no_example_tells_of_the_machine_that_made_it():
    text = api_examples.FILE.read_text()
    for own in (platform.node(), str(CHECKOUT), "/tmp/", "phs_"):
        assert own not in text
