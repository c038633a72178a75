"""What an audit says."""

from typing import Literal

from pydantic import BaseModel

type What = Literal[
    "changed",
    "missing",
    "added",
    "unsealed",
    "unreadable",
    "ledger",
    "checkpoint",
    "signature",
    "torn",
    "unrecorded",
    "live",
    "task",
    "uncovered",
    "unsent",
    "earlier",
]
NOTES: frozenset[What] = frozenset({"torn", "unrecorded", "live", "task", "uncovered", "unsent", "earlier"})
"""What counts as no problem: traces of crashes, what still runs, and what no record covers."""


class Finding(BaseModel):
    """One thing that is not as it was written down."""

    what: What
    place: str
    """Path below ``runs/``, with the line of a ledger behind a colon."""
    text: str = ""


class Audit(BaseModel):
    """What a verification found; ``ok`` where there is no problem."""

    ok: bool
    batches: int
    attempts: int
    """Sealed ones, all of whose files were read."""
    files: int
    bytes: int
    seconds: float
    heads: dict[str, str]
    """Batch → hash of its ledger's last line: kept elsewhere, it also proves that no line was cut off the end."""
    checkpoints: int = 0
    """Those of the store and those that were given, all of which the ledgers go on from."""
    removed: dict[str, int] = {}
    """Rule of ``[retention]`` → attempts whose files it has removed, as their tombstones say; their records were read."""
    problems: list[Finding]
    notes: list[Finding]
