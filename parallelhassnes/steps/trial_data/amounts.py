"""Money and tokens as somebody reports them: what cannot be true is unknown, and is told.

A negative cost would give a budget back what was spent, and 1e299 would end every sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from parallelhassnes.steps import safe_read

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


type Tokens = tuple[int | None, int | None, int | None]
"""Input (cache included), cache, output."""


class UsageSum(NamedTuple):
    """What ended attempts have used: the one sum, in views by trial, batch and group, and in budgets by queue key."""

    cost_usd: float | None = None
    """Of those whose cost is known."""
    cost_known: int = 0
    """How many these are."""
    cost_unknown: int = 0
    """Attempts that have cost something nobody knows, in whole or in part: the sum is at least ``cost_usd``."""
    tokens: Tokens = (None, None, None)
    counted: int = 0
    """Attempts whose input or output tokens are known."""
    attempts: int = 0
    said: int = 0
    """Attempts that said anything of this."""
    silent: int = 0
    """Attempts that should have, and did not."""

    def __add__(self, other: "UsageSum") -> "UsageSum":  # type: ignore[override]
        one, two, three = map(_plus, self.tokens, other.tokens)
        return UsageSum(
            _plus(self.cost_usd, other.cost_usd),
            self.cost_known + other.cost_known,
            self.cost_unknown + other.cost_unknown,
            (one, two, three),
            self.counted + other.counted,
            self.attempts + other.attempts,
            self.said + other.said,
            self.silent + other.silent,
        )

    @property
    def whole_tokens(self) -> int:
        """Input and output, as far as they are known."""
        return (self.tokens[0] or 0) + (self.tokens[2] or 0)

    def stored(self) -> list[Any]:
        """As JSON, for a derived file."""
        return [
            self.cost_usd,
            self.cost_known,
            self.cost_unknown,
            list(self.tokens),
            self.counted,
            self.attempts,
            self.said,
            self.silent,
        ]

    @classmethod
    def restored(cls, stored: Sequence[Any]) -> "UsageSum":
        """What ``stored`` has made.

        Raises:
            TypeError, ValueError: it is nothing of the kind.
        """
        cost, known, unknown, (one, two, three), counted, attempts, said, silent = stored
        return cls(cost, known, unknown, (one, two, three), counted, attempts, said, silent)


NOTHING = UsageSum()
"""By no attempt."""


def one_attempt(
    cost_usd: float | None, tokens: Tokens, *, cost_unknown: bool = False, must_say: bool = True
) -> UsageSum:
    """What one ended attempt has used.

    Args:
        cost_unknown: it has cost more than ``cost_usd``, or nobody knows what.
        must_say: it is one that uses a model; else one that says nothing has used nothing.
    """
    said = cost_usd is not None or any(count is not None for count in tokens)
    counted = tokens[0] is not None or tokens[2] is not None
    return UsageSum(
        cost_usd,
        int(cost_usd is not None),
        int(cost_unknown),
        tokens,
        int(counted),
        1,
        int(said),
        int(must_say and not said),
    )


def _plus[N: (int, float)](one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def usd(value: object) -> float | None:
    """A cost in USD; None where the value is none that can be true."""
    found = safe_read.number(value)
    return float(found) if found is not None and 0 <= found <= MOST_USD else None


def tokens(value: object) -> int | None:
    """A count of tokens, also as ``12.0``; None where the value is none that can be true."""
    found = safe_read.number(value)
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
