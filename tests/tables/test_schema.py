"""The published schema is the model's, and says what the model says."""

import json
from pathlib import Path

import jsonschema
import pytest

from parallelhassnes.tables.parse import located_errors
from parallelhassnes.tables.schema import SCHEMA_PATH, launch_table_schema

from .test_expand import EXAMPLE

ROOT = Path(__file__).parents[2]


def test_the_file_is_current() -> None:
    # If this fails: python -m parallelhassnes.tables.schema
    assert json.loads((ROOT / SCHEMA_PATH).read_text()) == launch_table_schema()


def test_it_is_a_schema_and_takes_the_example() -> None:
    schema = launch_table_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(EXAMPLE)


@pytest.mark.parametrize("bad", [{"jobs": {}}, {"unknown": 1}, {"jobs": [{"steps": []}]}, {"concurrency": 0}])
def test_it_refuses_what_the_model_refuses(bad: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(launch_table_schema()).validate(bad)


def _patterns(document: object) -> set[str]:
    if isinstance(document, list):
        return set().union(*map(_patterns, document))
    if not isinstance(document, dict):
        return set()
    found = document.get("pattern")
    return set().union({found} if isinstance(found, str) else (), *map(_patterns, document.values()))


def test_what_a_text_must_look_like_is_told_in_words() -> None:
    patterns = _patterns(launch_table_schema())
    assert len(patterns) > 3
    assert patterns <= set(located_errors._SPELLED), "say there in words what the pattern asks for"
