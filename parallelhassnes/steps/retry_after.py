"""How long a provider asked to wait, found in the message of its refusal."""

import re

MOST_SEC = 7 * 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_UNIT = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
_SPAN = rf"{_NUMBER}\s*{_UNIT}(?![a-z])(?:\s*{_NUMBER}\s*{_UNIT}(?![a-z]))*"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # The header, as clients print it: Retry-After: 30, 'retry-after': '30', retry_after=1.5 (seconds).
        rf"retry[-_ ]after(?:[-_](?P<unit>ms|seconds|sec))?[\"']?\s*[:=]?\s*[\"']?(?P<bare>{_NUMBER})(?![\d.]*\s*{_UNIT}(?![a-z]))",
        rf"retry[-_ ]after[\"']?\s*[:=]?\s*[\"']?(?P<span>{_SPAN})",
        # OpenAI: "Please try again in 6m0s"; Google: "retryDelay": "34s", "Please retry in 34.07s".
        rf"(?:try|retry)(?:ing)?(?: again)? (?:in|after) (?P<span>{_SPAN})",
        rf"retry_?delay[\"']?\s*[:=]?\s*[\"']?(?P<span>{_SPAN})",
        rf"(?:wait|resets? in|available in) (?P<span>{_SPAN})",
    )
)
_PART = re.compile(rf"({_NUMBER})\s*({_UNIT})", re.IGNORECASE)


def find(message: str) -> float | None:
    """Seconds to wait, 0 to a week; None where the message names no time."""
    for pattern in _PATTERNS:
        found = pattern.search(message[:20_000])
        if found is None:
            continue
        parts = found.groupdict()
        if parts.get("bare"):
            seconds = float(parts["bare"]) * (0.001 if parts.get("unit") == "ms" else 1.0)
        else:
            seconds = sum(float(n) * _factor(unit) for n, unit in _PART.findall(parts["span"] or ""))
        return min(seconds, MOST_SEC)
    return None


def _factor(unit: str) -> float:
    unit = unit.lower()
    return _UNITS["ms"] if unit.startswith(("ms", "milli")) else _UNITS[unit[0]]
