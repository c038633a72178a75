"""Tables that could not be taken in, as ``_queue/rejected`` has them."""

from typing import NamedTuple

from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout

ENDING = ".error.json"


class Rejected(NamedTuple):
    """One table."""

    name: str
    at: str
    """When it was rejected."""
    errors: list[str]
    """Everything that is wrong with it, a line each."""


def newest_rejected(layout: Layout, most: int) -> list[Rejected]:
    """The last tables that were rejected, newest first."""
    try:
        listed = [(path.stat().st_mtime, path) for path in layout.rejected.glob(f"*{ENDING}")]
    except FileNotFoundError:  # just being tidied away
        return []
    found = []
    for _, path in sorted(listed, reverse=True)[:most]:
        document = atomic.read_json_or_none(path) or {}
        found.append(
            Rejected(
                name=path.name.removesuffix(ENDING), at=str(document.get("rejected_at", "")),
                errors=[str(problem.get("line", "")) for problem in document.get("errors", [])],
            )
        )  # fmt: skip
    return found
