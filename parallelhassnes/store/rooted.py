"""Paths below the root, written so that the store can be moved: ``{root}/tasks/hello`` for ``/srv/evals/tasks/hello``.

For ``job.json``, additions and ``batch_meta.json``; everything else that the store needs names places relative to it. A document in which
there are such paths says so in ``rooted``: ``true`` where each of them is a whole string, or its beginning; ``2`` where some stand within an
argument or a text (``--in=/srv/evals/data``, ``PATH=/srv/evals/bin:/usr/bin``). Earlier versions wrote, and read, only ``true``, so that is
written wherever it does. Text that happens to have ``{root}`` where a path would get it gets another brace, which reading takes away again.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallelhassnes.store import atomic

MARK, KEY = "{root}", "rooted"
WITHIN = 2
"""Value of ``rooted`` in a document with paths within texts."""
_MARKED = re.compile(r"\{+root\}")
_BEFORE = r"""(?:(?<![^\s=:,;"'`(\[<>|&@])|(?<=://)|(?<=^-[A-Za-z])|(?<=\s-[A-Za-z]))"""
"""A path begins there: at the start, behind a sign that is none of a path, behind ``file://`` or a flag of one letter (``-I/srv/evals``)."""
_AFTER = r"""(?=$|[/:,;=\s"'`)\]}>|&])"""


def dumps(document: dict[str, Any], root: Path) -> str:
    """Return the document as it goes to disk."""
    written = atomic.dumps(document)
    tops = tuple(dict.fromkeys((str(root), str(root.resolve()))))
    if not any(atomic.dumps(top).strip()[1:-1] in written for top in tops):
        return written
    found = "|".join(re.escape(top) for top in sorted(tops, key=len, reverse=True))
    within = re.compile(rf"{_MARKED.pattern}|{_BEFORE}(?:{found}){_AFTER}", re.MULTILINE)

    def whole(text: str) -> str:
        for top in tops:
            if text == top or text.startswith(f"{top}/"):
                return MARK + text[len(top) :]
        return "{" + text if _MARKED.match(text) else text

    inner = []

    def marked(it: re.Match[str]) -> str:
        if it[0][0] == "{":
            return "{" + it[0]
        if it.start():
            inner.append(it[0])
        return MARK

    moved = _each(document, lambda text: within.sub(marked, text)) if str(root) != "/" else document
    return atomic.dumps(moved | {KEY: WITHIN} if inner else _each(document, whole) | {KEY: True})


def unfold(document: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the document as it was, with the root that it has now."""
    how = document.pop(KEY, False)
    if not how:
        return document
    top = str(root)

    def whole(text: str) -> str:
        if text.startswith(MARK):
            return top + text[len(MARK) :]
        return text[1:] if _MARKED.match(text) else text

    def anywhere(text: str) -> str:
        return _MARKED.sub(lambda it: top if it[0] == MARK else it[0][1:], text)

    made: dict[str, Any] = _each(document, anywhere if how == WITHIN else whole)
    return made


def _each(value: Any, one: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return one(value)
    if isinstance(value, list):
        return [_each(each, one) for each in value]
    if isinstance(value, dict):
        return {key: _each(each, one) for key, each in value.items()}
    return value
