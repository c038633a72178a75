"""Tables that could not be taken in, as ``_queue/rejected`` has them."""

from typing import NamedTuple

from parallelhassnes.store import atomic, members
from parallelhassnes.store.layout import Layout

ENDING = ".error.json"


class RejectedFile(NamedTuple):
    """One table."""

    name: str
    at: str
    """When it was rejected."""
    errors: list[str]
    """Everything that is wrong with it, a line each."""


def newest_rejected(layout: Layout, most: int) -> list[RejectedFile]:
    """Return the last tables that were rejected, newest first."""
    listed = []
    for name in members.names(layout.rejected):
        path = layout.rejected / name
        if name.endswith(ENDING):
            with members.apart(path):
                listed.append((path.stat().st_mtime, path))
    found = []
    for _, path in sorted(listed, reverse=True)[:most]:
        document = atomic.read_derived(path)
        found.append(
            RejectedFile(
                name=path.name.removesuffix(ENDING),
                at=str(document.get("rejected_at", "")),
                errors=[str(problem.get("line", "")) for problem in document.get("errors", [])],
            )
        )
    return found
