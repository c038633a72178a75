"""A table's text with its problems at their lines."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import yaml

from parallelhassnes.errors import Problem

_LINE = re.compile(r"line (\d+)")
_MOST_TEXT = 1 << 20


class MarkedLine(NamedTuple):
    """One line of the text."""

    number: int
    """From 1."""
    text: str
    problems: list[Problem]


class Marked(NamedTuple):
    """The whole text."""

    lines: list[MarkedLine]
    elsewhere: list[Problem]
    """Problems that have no line in it."""


def mark(text: str, problems: Sequence[Problem]) -> Marked:
    """Put each problem at its line: the one that it names, or that of what its JSON pointer names or comes nearest to."""
    places = _places(text)
    at: dict[int, list[Problem]] = {}
    elsewhere = []
    for problem in problems:
        named = _LINE.search(problem.pointer or problem.message)
        number = int(named[1]) if named else _nearest(places, problem.pointer)
        if number is None:
            elsewhere.append(problem)
        else:
            at.setdefault(number, []).append(problem)
    lines = [MarkedLine(number, line, at.pop(number, [])) for number, line in enumerate(text.splitlines(), 1)]
    return Marked(lines, elsewhere + [problem for left in at.values() for problem in left])


def _nearest(places: dict[str, int], pointer: str) -> int | None:
    while pointer and pointer not in places:
        pointer = pointer.rpartition("/")[0]
    return places.get(pointer) if pointer else None


def _places(text: str) -> dict[str, int]:
    """Return JSON pointer → line, of JSON and YAML alike; empty where the text is neither."""
    if len(text) > _MOST_TEXT:
        return {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    places: dict[str, int] = {}
    stack: list[tuple[str, yaml.Node]] = [("", root)] if root is not None else []
    while stack:
        pointer, node = stack.pop()
        if len(places) > 100_000:  # anchors that repeat each other
            break
        places.setdefault(pointer, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value).replace("~", "~0").replace("/", "~1")
                places[f"{pointer}/{name}"] = key.start_mark.line + 1
                stack.append((f"{pointer}/{name}", value))
        elif isinstance(node, yaml.SequenceNode):
            stack += [(f"{pointer}/{index}", each) for index, each in enumerate(node.value)]
    return places
