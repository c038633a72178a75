"""Answers that are polled: JSON with an ``ETag``, 304 where nothing has changed."""

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, NamedTuple

from fastapi import Depends, Header, Path, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

MOST_ITEMS = 500

Id = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$", description="Whole, or a prefix of one thing only.")
]
Cursor = Annotated[
    str | None, Query(max_length=500, description="`next` of the page before; left out: the first page.")
]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Items of a page at most.")]
Reason = Annotated[str, Query(max_length=500, description="Why; it stands in the ledger.")]
Why = Annotated[
    str, Query(min_length=1, max_length=500, pattern=r"\S", description="Why; it stands in the ledger. Needed.")
]


class KnownAnswers(NamedTuple):
    """The answers that the client has already, and those that it wants alone."""

    tags: frozenset[str]
    wanted: frozenset[str] | None = None
    """Of ``If-Match``, as they were sent; None for any."""

    def has(self, tag: str) -> bool:
        """Tell whether the client has it; raises where it wants another one (RFC 9110, 13.2.2).

        Raises:
            HTTPException: 412.
        """
        strong = not tag.startswith("W/")
        if self.wanted is not None and "*" not in self.wanted and not (strong and tag in self.wanted):
            why = "has changed" if strong else "has a weak tag, which If-Match never means"
            raise HTTPException(412, f"what is there {why}", {"ETag": tag})
        return "*" in self.tags or tag.removeprefix("W/") in self.tags


async def _known(
    if_none_match: Annotated[
        str | None, Header(description="The `ETag` of the answer that you have: 304 where it still holds.")
    ] = None,
    if_match: Annotated[
        str | None, Header(description="The `ETag` of the only answer that is wanted: else 412.")
    ] = None,
) -> KnownAnswers:
    said = (if_none_match or "").split(",")
    wanted = None if if_match is None else frozenset(text.strip() for text in if_match.split(","))
    return KnownAnswers(frozenset(text.strip().removeprefix("W/") for text in said), wanted)


KnownHere = Annotated[KnownAnswers, Depends(_known)]
"""Asked for by every route whose answer has a tag; the document says so by it."""


def polled(known: KnownAnswers, document: BaseModel, *, apart_from: Collection[str] = ("at",)) -> Response:
    """Return the document, or 304 where the client has it already.

    Args:
        apart_from: top-level fields that say when it was made and make no difference.
    """
    body = document.model_dump_json()
    seen = document.model_dump_json(exclude=set(apart_from)) if _has(document, apart_from) else body
    return tagged(known, body.encode(), tag_of(seen.encode()), "application/json")


def _has(document: BaseModel, fields: Collection[str]) -> bool:
    return any(field in type(document).model_fields for field in fields)


def tag_of(data: bytes) -> str:
    return f'W/"{hashlib.sha256(data).hexdigest()[:32]}"'


def tagged(known: KnownAnswers, body: bytes, tag: str, media_type: str) -> Response:
    """Return the body under its tag, or 304."""
    headers = {"ETag": tag}
    if known.has(tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


class Paged[T](NamedTuple):
    """One page of a list."""

    items: Sequence[T]
    next: str | None
    """What asks for the page after it; None where there is none."""


def page[T](items: Sequence[T], name: Callable[[T], str], cursor: str | None, limit: int) -> Paged[T]:
    """Return the page after the cursor. What the last page ended with is looked for by name, so nothing is shown twice or left
    out because something before it came or went; where it is gone itself, by its place.

    Raises:
        HTTPException: 400, no page has handed out this cursor.
    """
    start = 0
    if cursor is not None:
        place, last = _read(cursor)
        found = next((n for n, item in enumerate(items) if name(item) == last), None)
        start = place if found is None else found + 1
    shown = items[start : start + limit]
    more = start + limit < len(items)
    return Paged(shown, _write(start + limit, name(shown[-1])) if more else None)


def _write(place: int, last: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([place, last]).encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[int, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        place, last = json.loads(text)
        if isinstance(place, int) and isinstance(last, str) and place >= 0:
            return place, last
    except ValueError:
        pass
    raise HTTPException(400, "unknown cursor; send `next` of the page before, unchanged")
