"""Money and tokens as somebody reports them: what cannot be true is unknown, and is told.

A negative cost would give a budget back what was spent, and 1e299 would end every sum.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from parallelhassnes.steps import untrusted

MOST_USD = 1_000_000.0
"""Of one attempt."""
MOST_TOKENS = 10**12
"""Of one attempt and kind."""
TOKENS = ("input", "cache", "output")
"""Input tokens include those from the cache."""


class Usage(NamedTuple):
    """What an attempt used; None where nobody knows."""

    cost_usd: float | None = None
    input: int | None = None
    cache: int | None = None
    output: int | None = None
    incomplete: tuple[str, ...] = ()
    """Which of these lack a part, or are unknown though something was said of them: the attempt used more."""
    warnings: tuple[str, ...] = ()
    """A line per value that cannot be true."""


def usd(value: object) -> float | None:
    """A cost in USD; None where the value is none that can be true."""
    found = untrusted.number(value)
    return float(found) if found is not None and 0 <= found <= MOST_USD else None


def tokens(value: object) -> int | None:
    """A count of tokens, also as ``12.0``; None where the value is none that can be true."""
    found = untrusted.number(value)
    if found is None or not 0 <= found <= MOST_TOKENS or found != int(found):
        return None
    return int(found)


def usage(parts: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Usage:
    """The sums over the parts of one attempt.

    Args:
        parts: what each part says, by how a warning calls the part (empty for the whole attempt).
        names: field of ``Usage`` → key in a part.
    """
    sums: dict[str, Any] = {}
    incomplete, warnings = [], []
    for field, key in names.items():
        check = usd if field == "cost_usd" else tokens
        known, impossible = [], False
        for where, part in parts.items():
            value = part.get(key)
            found = check(value)
            if found is not None:
                known.append(found)
            elif value is not None:
                impossible = True
                said = f"{where}: " if where else ""
                warnings.append(f"{said}{key} {quoted(value)} cannot be true and counts as unknown")
        sums[field] = sum(known) if known else None
        if impossible or (known and len(known) < len(parts)):
            incomplete.append(field)
    return Usage(**sums, incomplete=tuple(incomplete), warnings=tuple(warnings))


def quoted(value: object, limit: int = 60) -> str:
    """A value as it was given, cut, on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes out
        text = f"a {type(value).__name__} that is too long to show"
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
