"""What an operator's word came to, carried by the address of the page that follows it, and how to take it back.

Only a code and an id travel; the words are ours, so a made-up address can say nothing of its own.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import Request

from parallelhassnes import formatting

_ID = re.compile(r"[\w./:@+-]{1,600}")


class Undo(NamedTuple):
    """The word that takes another back."""

    word: str
    label: str


class Done(NamedTuple):
    """What was done, in words."""

    line: str
    target: str
    undo: str
    undo_label: str
    fields: dict[str, str]
    """What the undoing sets: the earlier limit, priority or budget."""


LINES = {
    "pause": "{of} is paused: what runs goes on, nothing starts",
    "resume": "{of} goes on",
    "close": "{of} is closed: what runs ends, nothing more starts",
    "reopen": "{of} is open again",
    "cancel": "{of} is canceled: {n} told to end",
    "nothing": "{of} is over: there was nothing to cancel",
    "retry": "{n} of {of} to run again",
    "approve": "{n} approved of {of}",
    "reject": "{n} rejected of {of}: neither they nor what needs them will run",
    "drain": "{of} starts nothing more",
    "undrain": "{of} starts attempts again",
    "limit": "{of} has a new limit",
    "priority": "{of} has a new priority",
    "budget": "{of} has a new budget",
    "budget-key": "{of} has a new budget",
    "budget-experiment": "{of} has a new budget",
}
UNDO = {
    "pause": Undo("resume", "Resume"),
    "resume": Undo("pause", "Pause again"),
    "close": Undo("reopen", "Reopen"),
    "reopen": Undo("close", "Close again"),
    "cancel": Undo("retry", "Undo: run again what was canceled"),
    "retry": Undo("cancel", "Undo: cancel these again"),
    "nothing": Undo("", ""),
    "approve": Undo("", ""),
    "reject": Undo("approve", "Undo: approve instead"),
    "drain": Undo("undrain", "Undo: start attempts again"),
    "undrain": Undo("drain", "Drain again"),
    "limit": Undo("limit", "Undo: the earlier limit"),
    "priority": Undo("priority", "Undo: the earlier priority"),
    "budget": Undo("budget", "Undo: the earlier budget"),
    "budget-key": Undo("budget-key", "Undo: the earlier budget"),
    "budget-experiment": Undo("budget-experiment", "Undo: the earlier budget"),
}
_BUDGET = re.compile(r"(?P<usd>\d+(\.\d+)?)?;(?P<tokens>\d+)?")
"""``was`` of a budget: its parts, either of which may be missing."""


_OURS = ("did", "of", "n", "was")


def address_of(request: Request) -> str:
    """The page's own address, without what it was told was done."""
    return _address(request.url.path, request.url.query, {})


def address(back: str, word: str, target: str, touched: int, was: str) -> str:
    """The page to go back to, told what was done."""
    values = {"did": word, "of": target, "n": str(touched or ""), "was": was}
    parts = urlsplit(back)
    return _address(parts.path, parts.query, values)


def _address(path: str, query: str, more: dict[str, str]) -> str:
    kept = [(name, value) for name, value in parse_qsl(query) if name not in _OURS]
    said = urlencode([*kept, *((name, value) for name, value in more.items() if value)])
    return f"{path}?{said}" if said else path


def done(request: Request) -> Done | None:
    """What the address says was done; None where it says nothing that makes sense."""
    asked = request.query_params
    word, target = asked.get("did", ""), asked.get("of", "")
    if word not in LINES or not _ID.fullmatch(target):
        return None
    number = asked.get("n", "")
    touched = formatting.counted(int(number) if number.isdecimal() else 0, "step")
    undo, fields = UNDO[word], _earlier(word, asked.get("was", ""))
    # Of a batch or job: what was rejected waits for nobody any more, so approving that would find nothing.
    of_many = word == "reject" and target.count("/") < 2
    if fields is None or of_many:
        undo, fields = Undo("", ""), {}
    return Done(LINES[word].format(of=target, n=touched), target, undo.word, undo.label, fields)


def _earlier(word: str, was: str) -> dict[str, str] | None:
    """What takes a change of a number back; None where that is not known."""
    if word.startswith("budget"):
        found = _BUDGET.fullmatch(was)
        return {k: v for k, v in found.groupdict().items() if v} or None if found else None
    if word not in ("limit", "priority"):
        return {}
    if word == "limit" and was == "none":
        return {"number": ""}
    return {"number": was} if was.removeprefix("-").isdecimal() else None
