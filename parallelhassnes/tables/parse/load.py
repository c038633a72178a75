"""Bytes to document: JSON or YAML, within limits, with nothing surprising in it.

What comes out is made of dict, list, str, int, float, bool and None only; it is at most
``MAX_DEPTH`` levels deep, has finite numbers, no text that cannot be written as UTF-8, and no object
that names a key twice. YAML is read as YAML 1.2 does: only ``true`` and ``false`` are booleans,
dates and ``1:30`` are text.
"""

import json
import math
import re
from typing import Any, NamedTuple

import yaml

from parallelhassnes.tables.parse.located_errors import Problems, pointer

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 64
MAX_TEXT = 1024 * 1024
"""Characters of one string."""
MAX_NODES = 5_000_000
"""Values of a YAML document after its aliases are followed."""

_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


type _Place = tuple["_Place | None", str | int]


class Twice(NamedTuple):
    """An object that names a key twice."""

    container: dict[str, Any]
    key: str


def load(data: bytes, name: str) -> Any:
    """Return the document in ``data``; ``name`` is the file's name, or ``-``.

    Raises InvalidInput: too large, empty, not UTF-8, not JSON or YAML (with the line), or beyond the limits above.
    """
    problems = Problems(name)
    text = _decode(data, problems)
    twice: list[Twice] = []
    document = None
    if text is not None:
        as_json = _looks_like_json(text, name)
        document = _json(text, twice, problems) if as_json else _yaml(text, problems)
    problems.raise_any()
    _inspect(document, twice, problems)
    problems.raise_any()
    return document


def _decode(data: bytes, problems: Problems) -> str | None:
    if len(data) > MAX_BYTES:
        size = f"{len(data) / 1024 / 1024:.0f} MiB"
        problems.add(
            "",
            f"is {size}, the largest table is {MAX_BYTES // 1024 // 1024} MiB",
            "split it, or put long prompts into files named by prompt_ref",
        )
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.add("", "is not UTF-8 but UTF-16", "save it as UTF-8")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(f"line {line}", f"is not UTF-8 (byte {error.start})", "save it as UTF-8")
        return None
    if not text.strip():
        problems.add("", "is empty", "write a launch table into it")
        return None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        problems.add(f"line {line}", "holds a null byte", "remove it")
        return None
    return text


def _looks_like_json(text: str, name: str) -> bool:
    if name.lower().endswith((".yaml", ".yml")):
        return False
    return name.lower().endswith(".json") or text.lstrip()[0] in "{["


def _json(text: str, twice: list[Twice], problems: Problems) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    twice.append(Twice(made, key))
                seen.add(key)
        return made

    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        problems.add(f"line {error.lineno}", f"is not JSON: {error.msg} (column {error.colno})", "correct it there")
    except RecursionError:
        problems.add("", f"is nested more than {MAX_DEPTH} deep", "flatten it")
    except ValueError:
        problems.add("", "holds a whole number of more than 4,300 digits", "remove it")
    return None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that takes scalars as YAML 1.2 does."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_pattern})$"),
        [*_first.replace("\0", ""), *([""] if "\0" in _first else [])],
    )


def _yaml(text: str, problems: Problems) -> Any:
    try:
        if not _yaml_is_tame(text, problems):
            return None
        node = yaml.compose(text, _Loader)
        if node is None or not _yaml_keys(node, problems):
            if node is None:
                problems.add("", "is empty", "write a launch table into it")
            return None
        return yaml.load(text, _Loader)  # noqa: S506 (the loader is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problems.add(line, f"is not YAML: {error.problem or error.context}", "correct it there")
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        problems.add(f"line {number}", f"is not YAML: {error.reason}")
    except (ValueError, TypeError) as error:
        problems.add("", f"is not YAML: {error}")
    return None


def _yaml_is_tame(text: str, problems: Problems) -> bool:
    """Depth and size, from the parser's events: no tree is built, so that nothing can blow up first."""
    depth, documents = 0, 0
    open_counts: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    total = 0
    for event in yaml.parse(text, _Loader):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else ""
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                problems.add(line, "a second document starts", "write one table per file")
                return False
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                problems.add(line, f"is nested more than {MAX_DEPTH} deep", "flatten it")
                return False
            open_counts.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
            anchor, before = open_counts.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                problems.add(line, f"*{event.anchor} is not defined before this line")
                return False
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if total > MAX_NODES:
            problems.add(line, "its aliases unfold to more values than a table may have")
            return False
    return True


def _yaml_keys(root: Any, problems: Problems) -> bool:
    """Return the keys are strings and stand once."""
    before = len(problems.found)
    stack, seen = [root], set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                stack.append(value)
                line = f"line {key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode) or (not key.tag.endswith((":str", ":merge"))):
                    problems.add(line, "a key is not a string", "put it into quotes")
                elif key.value in keys:
                    problems.add(line, f"the key {key.value!r} stands twice", "remove one")
                else:
                    keys.add(key.value)
    return len(problems.found) == before


def _inspect(document: Any, twice: list[Twice], problems: Problems) -> None:
    repeated: dict[int, list[str]] = {}
    for container, key in twice:
        repeated.setdefault(id(container), []).append(key)
    # A place is (place of the container, key): paths are spelt out only where something is wrong.
    stack: list[tuple[Any, _Place | None, int]] = [([document], None, -1)]
    while stack:
        container, place, depth = stack.pop()
        if depth >= MAX_DEPTH:
            problems.add(_spelt(place, 8), f"is nested more than {MAX_DEPTH} deep", "flatten it")
            return
        for key in repeated.get(id(container), ()):
            problems.add(_spelt((place, key)), f"the key {key!r} stands twice", "remove one")
        items: Any = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            if isinstance(value, str):
                if len(value) > MAX_TEXT or _UNWRITABLE.search(value):
                    _bad_text(value, (place, key), problems)
            elif isinstance(value, dict | list):
                stack.append((value, (place, key) if depth >= 0 else None, depth + 1))
            elif isinstance(value, float) and not math.isfinite(value):
                problems.add(_spelt((place, key)), "is not a finite number", "write a number")
            if isinstance(key, str) and (len(key) > MAX_TEXT or _UNWRITABLE.search(key)):
                _bad_text(key, place, problems)


def _spelt(place: "_Place | None", levels: int = MAX_DEPTH) -> str:
    parts: list[str | int] = []
    while place is not None:
        place, key = place
        parts.append(key)
    return pointer(*parts[::-1][:levels])


def _bad_text(text: str, place: "_Place | None", problems: Problems) -> None:
    at = _spelt(place)
    if len(text) > MAX_TEXT:
        fix = "put it into a file"
        if at.endswith("prompt"):
            fix += " and name it in prompt_ref"
        size = f"{len(text) / 1024 / 1024:.1f} MiB"
        problems.add(at, f"is a text of {size}, at most 1 MiB", fix)
    else:
        problems.add(at, "holds a null or half a character", "remove it")
