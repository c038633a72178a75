"""Secrets that somebody has lent for one batch: in memory only, never in a file.

Whoever is given one (the ticking process of a server) keeps it while the batch has something in the queue. A process
forked from there has all of them at first and drops those of other batches before it does anything (``keep_only``), so a
secret is in the memory of who was given it, and in the memory and the environment of that batch's own supervisors and
workers. When none of these is left, the batch waits until it is lent again.
"""

from collections.abc import Collection

PREFIX = "PARALLELHASSNES_LENT_"
"""What the names of such secrets begin with; the rest is random, so that no two batches share one."""

_values: dict[str, str] = {}


def lend(name: str, value: str) -> None:
    """Keep a secret."""
    _values[name] = value


def known() -> dict[str, str]:
    """Name → value of those that this process has."""
    return _values


def keep_only(names: Collection[str]) -> None:
    """Forget all others."""
    for name in _values.keys() - set(names):
        del _values[name]


def missing(names: Collection[str], batch_id: str) -> str | None:
    """Tell why the batch waits, if what it waits for was lent; None where the names are of another kind."""
    if not any(name.startswith(PREFIX) for name in names):
        return None
    return (
        "its key is gone with the process that it was given to, and is written nowhere; "
        f"give it again: POST /api/jobs/{batch_id}/key"
    )
