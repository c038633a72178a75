"""Money and tokens as somebody reports them: what cannot be true is unknown, and is told.

A negative cost would give a budget back what was spent, and 1e299 would end every sum.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Annotated, Any, NamedTuple

from pydantic import PlainSerializer, WithJsonSchema

from parallelhassnes.steps import safe_read

MOST_USD = 1_000_000.0
"""Of one attempt."""
MOST_TOKENS = 10**12
"""Of one attempt and kind."""


class Tokens(NamedTuple):
    """Tokens used, by a turn, an attempt or many; None where nobody counted."""

    input: int | None = None
    """Those from the cache included."""
    cache: int | None = None
    output: int | None = None

    def __add__(self, other: "Tokens") -> "Tokens":  # type: ignore[override]
        return Tokens(*map(_plus, self, other))

    def minus(self, other: "Tokens") -> "Tokens":
        """Return those since ``other``."""
        if self.input is None:
            return self
        return Tokens(*(max((mine or 0) - (theirs or 0), 0) for mine, theirs in zip(self, other, strict=True)))

    @property
    def whole(self) -> int | None:
        """Input and output, as far as they are known."""
        return _plus(self.input, self.output)

    @classmethod
    def read(cls, said: object) -> "Tokens":
        """Return the counts in a document, ``{"input": …, "cache": …, "output": …}``; what cannot be true is None."""
        counts = safe_read.mapping(said)
        return cls(*(tokens(counts.get(name)) for name in cls._fields))


NO_TOKENS = Tokens()
"""Nobody has counted any."""

type StoredTokens = Annotated[
    Tokens,
    PlainSerializer(Tokens._asdict),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": False,
            "description": "Tokens that a model was sent and sent back; those from the cache are part of the input.",
            "properties": {
                name: {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None} for name in Tokens._fields
            },
        }
    ),
]
"""``Tokens`` in a document: an object with these three keys."""


class Usage(NamedTuple):
    """What an attempt, a conversation or an answer used; None where nobody knows."""

    cost_usd: float | None = None
    tokens: Tokens = Tokens()
    incomplete: tuple[str, ...] = ()
    """Which of cost and counts lack a part, or are unknown though something was said of them: the attempt used more."""
    warnings: tuple[str, ...] = ()
    """A line per value that cannot be true."""

    def __add__(self, other: "Usage") -> "Usage":  # type: ignore[override]
        return Usage(
            _plus(self.cost_usd, other.cost_usd),
            self.tokens + other.tokens,
            self.incomplete + other.incomplete,
            self.warnings + other.warnings,
        )

    @property
    def told(self) -> dict[str, Any]:
        """As reports have it: ``tokens`` and ``cost_usd``."""
        return {"tokens": self.tokens._asdict(), "cost_usd": self.cost_usd}


class UsageSum(NamedTuple):
    """What ended attempts have used: the one sum, in views by trial, batch and group, and in budgets by queue key."""

    cost_usd: float | None = None
    """Of those whose cost is known."""
    cost_known: int = 0
    """How many these are."""
    cost_unknown: int = 0
    """Attempts that have cost something nobody knows, in whole or in part: the sum is at least ``cost_usd``."""
    tokens: Tokens = Tokens()
    counted: int = 0
    """Attempts whose input or output tokens are known."""
    attempts: int = 0
    said: int = 0
    """Attempts that said anything of this."""
    silent: int = 0
    """Attempts that should have said something, and were silent."""

    def __add__(self, other: "UsageSum") -> "UsageSum":  # type: ignore[override]
        return UsageSum(
            _plus(self.cost_usd, other.cost_usd),
            self.cost_known + other.cost_known,
            self.cost_unknown + other.cost_unknown,
            self.tokens + other.tokens,
            self.counted + other.counted,
            self.attempts + other.attempts,
            self.said + other.said,
            self.silent + other.silent,
        )

    def stored(self) -> list[Any]:
        """As JSON, for a derived file."""
        return [list(part) if isinstance(part, Tokens) else part for part in self]

    @classmethod
    def restored(cls, stored: Sequence[Any]) -> "UsageSum":
        """Tell what ``stored`` has made.

        Raises:
            TypeError, ValueError: it is nothing of the kind.
        """
        cost, known, unknown, (one, two, three), counted, attempts, said, silent = stored
        return cls(cost, known, unknown, Tokens(one, two, three), counted, attempts, said, silent)


NOTHING = UsageSum()
"""By no attempt."""


def total(sums: Iterable[UsageSum]) -> UsageSum:
    """Return the sum of many, one column at a time: what adding them one by one gives, in a fifth of the time."""
    columns = tuple(zip(*sums, strict=True))
    if not columns:
        return NOTHING
    cost, known, unknown, tokens, *counts = columns
    of_tokens = Tokens(*map(_all, zip(*tokens, strict=True)))
    return UsageSum(_all(cost), sum(known), sum(unknown), of_tokens, *map(sum, counts))


def _all[N: (int, float)](values: Iterable[N | None]) -> N | None:
    """Return the sum of what is known, in their order: a float's sum depends on it."""
    known = [value for value in values if value is not None]
    return reduce(add, known) if known else None


def one_attempt(
    cost_usd: float | None, tokens: Tokens, *, cost_unknown: bool = False, must_say: bool = True
) -> UsageSum:
    """Tell what one ended attempt has used.

    Args:
        cost_unknown: it has cost more than ``cost_usd``, or nobody knows what.
        must_say: it is one that uses a model; else one that says nothing has used nothing.
    """
    said = cost_usd is not None or tokens != NO_TOKENS
    return UsageSum(
        cost_usd,
        int(cost_usd is not None),
        int(cost_unknown),
        tokens,
        int(tokens.whole is not None),
        1,
        int(said),
        int(must_say and not said),
    )


def _plus[N: (int, float)](one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def usd(value: object) -> float | None:
    """Return a cost in USD; None where the value is none that can be true."""
    found = safe_read.number(value)
    return float(found) if found is not None and 0 <= found <= MOST_USD else None


def tokens(value: object) -> int | None:
    """Return a count of tokens, also as ``12.0``; None where the value is none that can be true."""
    found = safe_read.number(value)
    if found is None or not 0 <= found <= MOST_TOKENS or found != int(found):
        return None
    return int(found)


def of_parts(parts: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Usage:
    """Return the sums over the parts of one attempt.

    Args:
        parts: what each part says, by how a warning calls the part (empty for the whole attempt).
        names: ``cost_usd`` or a field of ``Tokens`` → key in a part.
    """
    sums: dict[str, Any] = {}
    incomplete, warnings = [], []
    for field, key in names.items():
        check: Callable[[object], Any] = usd if field == "cost_usd" else tokens
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
    return Usage(sums.pop("cost_usd", None), Tokens(**sums), tuple(incomplete), tuple(warnings))


def quoted(value: object, limit: int = 60) -> str:
    """Return a value as it was given, cut, on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes out
        text = f"a {type(value).__name__} that is too long to show"
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
