"""What an operator's word came to, carried by the address of the page that follows it, and how to take it back.

Only a code and an id travel; the words are ours, so a made-up address can say nothing of its own.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import Request

from parallelhassnes import formatting
from parallelhassnes.actions.registry import BY_NAME
from parallelhassnes.plan import CAPS

_ID = re.compile(r"[\w./:@+-]{1,600}")


NOTHING = "nothing"
"""In the place of an action's name in an address: there was nothing to cancel."""


class Done(NamedTuple):
    """What was done, in words."""

    line: str
    target: str
    undo: str = ""
    undo_label: str = ""
    fields: Mapping[str, str] = {}
    """What the undoing sets: the earlier limit, priority or budget."""


_BUDGET = re.compile(r"(?P<usd>\d+(\.\d+)?)?;(?P<tokens>\d+)?")
"""``was`` of a budget: its parts, either of which may be missing."""
_CAPS = re.compile(r"[\d.]+(;[\d.]+){3}")
"""``was`` of caps: what an operator had said of each, 0 for none."""


_OURS = ("did", "of", "n", "was")


def address_of(request: Request) -> str:
    """Return the page's own address, without what it was told was done."""
    return _address(request.url.path, request.url.query, {})


def address(back: str, word: str, target: str, touched: int, was: str) -> str:
    """Return the page to go back to, told what was done."""
    values = {"did": word, "of": target, "n": str(touched or ""), "was": was}
    parts = urlsplit(back)
    return _address(parts.path, parts.query, values)


def _address(path: str, query: str, more: dict[str, str]) -> str:
    kept = [(name, value) for name, value in parse_qsl(query) if name not in _OURS]
    said = urlencode([*kept, *((name, value) for name, value in more.items() if value)])
    return f"{path}?{said}" if said else path


def done(request: Request) -> Done | None:
    """Tell what the address says was done; None where it says nothing that makes sense."""
    asked = request.query_params
    word, target = asked.get("did", ""), asked.get("of", "")
    action = BY_NAME.get("cancel" if word == NOTHING else word)
    if action is None or not _ID.fullmatch(target):
        return None
    if word == NOTHING:
        return Done(action.nothing.format(of=target), target)
    number = asked.get("n", "")
    line = action.done.format(of=target, n=formatting.counted(int(number) if number.isdecimal() else 0, "step"))
    fields = _earlier(word, asked.get("was", ""))
    # Of a batch or job: what was rejected waits for nobody any more, so approving that would find nothing.
    of_many = word == "reject" and target.count("/") < 2
    if fields is None or of_many or not action.undo_label:
        return Done(line, target)
    return Done(line, target, action.undo, action.undo_label, fields)


def _earlier(word: str, was: str) -> dict[str, str] | None:
    """Tell what takes a change of a number back; None where that is not known."""
    if word == "cap":
        return dict(zip(CAPS, was.split(";"), strict=True)) if _CAPS.fullmatch(was) else None
    if word.startswith("budget"):
        found = _BUDGET.fullmatch(was)
        return {k: v for k, v in found.groupdict().items() if v} or None if found else None
    if word not in ("limit", "priority"):
        return {}
    if word == "limit" and was == "none":
        return {"number": ""}
    return {"number": was} if was.removeprefix("-").isdecimal() else None
