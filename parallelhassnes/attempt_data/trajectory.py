"""An agent's trajectory (ATIF) as turns for people; what an agent wrote is taken as it is, however odd."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.attempt_data import pictures
from parallelhassnes.attempt_data.pictures import Picture
from parallelhassnes.formatting import counted
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.usage import Tokens, tokens, usd

MOST_TEXT = 20_000
"""Characters of one text that are shown."""
PER_PAGE = 50
MOST_PICTURES = 20
"""Of one turn that are looked for."""


class Call(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: str


class Turn(NamedTuple):
    """One step of a trajectory."""

    number: int
    """From 1."""
    source: str
    """``system``, ``user`` or ``agent``."""
    at: str
    message: str
    reasoning: str
    calls: list[Call]
    results: list[str]
    """What came back from the tools."""
    pictures: list[Picture]
    """Of the message and of what came back, in their order; the texts name each where it stands."""
    tokens: Tokens
    cost_usd: float | None


class Trajectory(NamedTuple):
    """Some turns of a trajectory."""

    agent: str
    total: int
    """Turns in all."""
    turns: list[Turn]
    page: int
    pages: int


def read_trajectory(path: Path, page: int = 1, per_page: int = PER_PAGE) -> Trajectory | None:
    """Return one page of it, of so many turns; None where the file is not there or is no trajectory."""
    document = safe_read.read_object(path)
    steps = document.get("steps") if isinstance(document, dict) else None
    if document is None or not isinstance(steps, list):
        return None
    pages = max(1, -(-len(steps) // per_page))
    page = min(max(page, 1), pages)
    first = (page - 1) * per_page
    found = [
        _turn(number, step, path.parent)
        for number, step in enumerate(steps[first : first + per_page], first + 1)
        if isinstance(step, dict)
    ]
    agent = _object(document.get("agent"))
    named = [str(agent[key]) for key in ("name", "version", "model_name") if agent.get(key)]
    return Trajectory(" ".join(named), len(steps), found, page, pages)


def _turn(number: int, step: dict[str, Any], folder: Path) -> Turn:
    shown = _Pictures(folder)
    metrics = _object(step.get("metrics"))
    results = _object(step.get("observation")).get("results")
    calls = step.get("tool_calls")
    return Turn(
        number=number,
        source=str(step.get("source", "")),
        at=str(step.get("timestamp") or ""),
        message=_text(step.get("message"), shown),
        reasoning=_text(step.get("reasoning_content")),
        calls=[
            Call(str(call.get("function_name", "")), _arguments(call.get("arguments")))
            for call in (calls if isinstance(calls, list) else [])
            if isinstance(call, dict)
        ],
        results=[
            _text(result.get("content"), shown)
            for result in (results if isinstance(results, list) else [])
            if isinstance(result, dict)
        ],
        pictures=shown.found,
        tokens=Tokens(tokens(metrics.get("prompt_tokens")), None, tokens(metrics.get("completion_tokens"))),
        cost_usd=usd(metrics.get("cost_usd")),
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _arguments(value: object) -> str:
    """Return a call's arguments: a single text as it is, since that is a command; anything else as JSON."""
    if isinstance(value, dict) and len(value) == 1:
        only = next(iter(value.values()))
        if isinstance(only, str):
            return _text(only)
    return _text(json.dumps(value, ensure_ascii=False, indent=1) if value else "")


class _Pictures:
    """The pictures of one turn.

    Args:
        folder: the trajectory's.
    """

    def __init__(self, folder: Path) -> None:
        self.found: list[Picture] = []
        self._folder, self._looked = folder, 0

    def mark(self, part: dict[str, Any]) -> str:
        """Take in what a part shows; what stands in its place in the text."""
        self._looked += 1
        if self._looked > MOST_PICTURES:
            return "[image, one of too many]"
        picture = pictures.find(self._folder, _object(part.get("source")).get("path"))
        if isinstance(picture, str):
            return f"[{picture}]"
        self.found.append(picture)
        return f"[image {picture.name}]"


def _text(value: object, shown: _Pictures | None = None) -> str:
    """Return a message: a text, or parts of which texts are shown, and pictures have their names in it."""
    if isinstance(value, list):
        value = "\n".join(_part(part if isinstance(part, dict) else {"text": str(part)}, shown) for part in value)
    text = value if isinstance(value, str) else ""
    left = len(text) - MOST_TEXT
    return text if left <= 0 else f"{text[:MOST_TEXT]}\n… {counted(left, 'more character')}"


def _part(part: dict[str, Any], shown: _Pictures | None) -> str:
    if part.get("type") == "image" and shown is not None:
        return shown.mark(part)
    return str(part.get("text") or f"[{part.get('type', 'part')}]")
