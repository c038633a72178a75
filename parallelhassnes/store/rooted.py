"""Paths below the root, written so that the store can be moved: ``{root}/tasks/hello`` for ``/srv/evals/tasks/hello``.

For ``job.json``, additions and ``batch_meta.json``; everything else that the store needs names places relative to it. A document in which
there is such a path says ``"rooted": true``. Only whole strings that are the root or lie below it are written so; text
that happens to begin with ``{root}`` gets another brace, which reading takes away again.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallelhassnes.store import atomic

MARK, KEY = "{root}", "rooted"
_MARKED = re.compile(r"\{+root\}")


def dumps(document: dict[str, Any], root: Path) -> str:
    """Return the document as it goes to disk."""
    written = atomic.dumps(document)
    tops = tuple(dict.fromkeys((str(root), str(root.resolve()))))
    if not any(atomic.dumps(top).strip()[1:-1] in written for top in tops):
        return written

    def one(text: str) -> str:
        for top in tops:
            if text == top or text.startswith(f"{top}/"):
                return MARK + text[len(top) :]
        return "{" + text if _MARKED.match(text) else text

    return atomic.dumps(_each(document, one) | {KEY: True})


def unfold(document: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return the document as it was, with the root that it has now."""
    if not document.pop(KEY, False):
        return document
    top = str(root)

    def one(text: str) -> str:
        if text.startswith(MARK):
            return top + text[len(MARK) :]
        return text[1:] if _MARKED.match(text) else text

    made: dict[str, Any] = _each(document, one)
    return made


def _each(value: Any, one: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return one(value)
    if isinstance(value, list):
        return [_each(each, one) for each in value]
    if isinstance(value, dict):
        return {key: _each(each, one) for key, each in value.items()}
    return value
