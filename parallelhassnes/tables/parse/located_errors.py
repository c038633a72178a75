"""Collecting everything that is wrong with a table, each thing with its JSON pointer."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from parallelhassnes.errors import InvalidInput, Problem
from parallelhassnes.formatting import counted
from parallelhassnes.names import did_you_mean

MAX_REPORTED = 100
"""Problems that are listed one by one; beyond it only their number is told."""


def pointer(*parts: str | int) -> str:
    """Return a JSON pointer (RFC 6901): ``pointer("jobs", 0, "a/b")`` is ``/jobs/0/a~1b``."""
    made = ""
    for part in parts:
        text = part if isinstance(part, str) else str(part)
        if "~" in text or "/" in text:
            text = text.replace("~", "~0").replace("/", "~1")
        made += f"/{text}"
    return made


def json_type(value: object) -> str:
    """Tell what JSON calls the type of a value, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
    return type(value).__name__


class Problems:
    """The problems of one input."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.found: list[Problem] = []
        self.warnings: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, at: str, message: str, fix: str = "", *, where: str | None = None) -> None:
        self.found.append(Problem(where or self.where, at, message, fix))

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def unknown_key(self, at: str, key: object, known: Iterable[str]) -> None:
        names = sorted(known)
        fix = did_you_mean(str(key), names, f"known here: {', '.join(names)}", repr)
        self.add(at + pointer(str(key)), f"unknown key {_short(key)}", fix)

    def unknown_value(self, at: str, what: str, value: str, known: Iterable[str]) -> None:
        names = sorted(known)
        fix = did_you_mean(value, names, f"known: {', '.join(names)}", repr)
        self.add(at, f"unknown {what} {_short(value)}", fix)

    def add_validation(self, at: str, error: ValidationError) -> None:
        """Add the errors of a pydantic model whose input stands at ``at``.

        Unknown keys are left out: ``tables.parse.field_names`` reports them, with the nearest known one. Values are never
        repeated, because they may be secrets.
        """
        seen = {(problem.pointer, problem.message) for problem in self.found[-200:]}
        for item in error.errors(include_url=False, include_context=False):
            if item["type"] == "extra_forbidden":
                continue
            place = at + pointer(*(part for part in item["loc"] if not _is_branch(part)))
            message = _message(item)
            if (place, message) not in seen:
                seen.add((place, message))
                self.add(place, message)

    def raise_any(self) -> None:
        """Raises InvalidInput where anything was found."""
        if not self.found:
            return
        unique = list(dict.fromkeys(self.found))
        shown = unique[:MAX_REPORTED]
        if len(unique) > len(shown):
            rest = len(unique) - len(shown)
            shown.append(Problem(self.where, "", f"{counted(rest, 'more problem')} not listed"))
        raise InvalidInput(shown)


def _is_branch(part: str | int) -> bool:
    """Tell whether a part of pydantic's location names the branch of a union, not a place in the document."""
    return isinstance(part, str) and (part in _BRANCHES or "[" in part or part.startswith("function"))


_BRANCHES = frozenset({"str", "int", "float", "bool", "list", "dict", "none", "ArtifactConfig"})


_SPELLED = {
    r"^[A-Za-z_][A-Za-z0-9_]*$": "must be letters, digits and _, and not begin with a digit",
    r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$": "must be at most 128 letters, digits, '.', '_' and '-', and not begin with a dot",
    r"^[A-Za-z0-9_][A-Za-z0-9_.,+-]{0,255}$": "must be letters, digits, '_', '.', ',', '+' and '-'",
    r"^([0-9]{1,4}-[0-9]{1,2}|[0-9]{1,7})(:[0-9]{1,2}){0,2}$": "must be a time as Slurm writes it: 30 (minutes), 4:00:00 or 2-12",
    r"^2(\.\d+){0,2}$": "must be 2, 2.0 or 2.0.0",
}
"""Pattern of a table's field → what it asks for, in words."""


def _message(item: Any) -> str:
    text = str(item["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if item["type"] == "missing":
        return "is missing"
    if item["type"] in {"value_error", "assertion_error"}:
        return text.splitlines()[0].rstrip(".")[:300]
    if item["type"] == "path_type":
        return f"must be a path, not {json_type(item.get('input'))}"
    if item["type"] == "string_pattern_mismatch":
        return _SPELLED.get(text.partition("'")[2].removesuffix("'"), text)
    text = text.replace("Input should be", "must be").replace("a valid dictionary", "an object")
    text = (
        text.replace("a valid integer", "an integer")
        .replace("valid ", "")
        .replace("a list", "an array")
        .replace("a boolean", "true or false")
    )
    text = text[0].lower() + text[1:]
    value = item.get("input")
    if item["type"] == "model_type":
        return f"must be an object, not {json_type(value)}"
    if item["type"].endswith(("_type", "_parsing")) or isinstance(value, bool | list | dict):
        return f"{text}, not {json_type(value)}"
    if isinstance(value, int | float):
        return f"{text}, not {value}"
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
