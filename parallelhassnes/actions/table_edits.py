"""``--edit key=value``: changing a table before it is submitted again.

``key`` is a path from the table's top, its parts joined by dots (``jobs.tutorial.steps.check.model``), or a JSON
pointer as error messages give it (``/jobs/0/steps/1/model``). In an array a part is an index, or the ``job_id``,
``step_id`` or ``name`` of an element. ``value`` is JSON where it can be read as such, else text; an empty one removes
the key.
"""

import json
from collections.abc import Iterable
from typing import Any

from parallelhassnes import names
from parallelhassnes.errors import UserError

_NAMED_BY = ("job_id", "step_id", "name")


def apply(document: Any, edits: Iterable[str]) -> None:
    """Change the document in place.

    Raises:
        UserError: an edit is not of that form, or its path leads nowhere.
    """
    for text in edits:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UserError(f"--edit {text}: is not key=value", fix="write --edit model=gpt-5.2")
        parts = _parts(key)
        place = document
        for part in parts[:-1]:
            place = _step_into(place, part, text)
        _set(place, parts[-1], value, text)


def _parts(key: str) -> list[str]:
    if key.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in key[1:].split("/")]
    return key.split(".")


def _step_into(place: Any, part: str, text: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, text)]
    if isinstance(place, dict):
        return place.setdefault(part, {})
    raise UserError(f"--edit {text}: {part} is inside a value that has no parts")


def _index(place: list[Any], part: str, text: str) -> int:
    known = [
        str(element.get(name))
        for element in place
        for name in _NAMED_BY
        if isinstance(element, dict) and name in element
    ]
    for index, element in enumerate(place):
        if isinstance(element, dict) and part in (element.get(name) for name in _NAMED_BY):
            return index
    if part.isdecimal() and int(part) < len(place):
        return int(part)
    fix = names.did_you_mean(part, known, f"there are {len(place)}, counted from 0")
    raise UserError(f"--edit {text}: nothing there is called {part}", fix=fix)


def _set(place: Any, part: str, value: str, text: str) -> None:
    target: Any = _index(place, part, text) if isinstance(place, list) else part
    if not isinstance(place, dict | list):
        raise UserError(f"--edit {text}: {part} is inside a value that has no parts")
    if value:
        place[target] = _value(value)
    elif isinstance(place, list) or target in place:
        del place[target]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
