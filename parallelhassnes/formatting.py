"""Short forms of numbers and times, for tables of any kind: in a terminal, on a page."""

from datetime import UTC, datetime
from typing import Literal

GUESSED = " (guessed)"
"""Behind a failure class that nobody named."""


def failure_class(name: str, guessed: bool | None) -> str:
    """Return a failure class; one that nobody named says so."""
    return f"{name}{GUESSED}" if guessed else name


def failure(name: str | None, line: str | None, guessed: bool | None) -> str:
    """Return ``verifier: no reward file``; empty where there is no class."""
    return f"{failure_class(name, guessed)}: {line or ''}" if name else ""


def duration(seconds: float | None) -> str:
    """Return ``4s``, ``3m05s``, ``2h07m``, ``3d04h``; ``–`` for None."""
    if seconds is None:
        return "–"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def ago(text: str, now: datetime | None = None) -> str:
    """Time since an RFC 3339 time; empty for an empty one."""
    if not text:
        return ""
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(text)
    return duration(max(0.0, passed.total_seconds()))


def until(text: str, now: datetime | None = None) -> str:
    """Time to an RFC 3339 time; ``now`` where that has come."""
    left = (datetime.fromisoformat(text) - (now or datetime.now(UTC))).total_seconds()
    return duration(left) if left > 0 else "now"


def number(value: float | None) -> str:
    """Return ``950``, ``12.3k``, ``4.5M``; ``–`` for None."""
    if value is None:
        return "–"
    for limit, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if abs(value) >= limit:
            return f"{value / (1000 if suffix == 'k' else limit):.1f}{suffix}"
    return f"{value:g}"


def fixed(value: float, digits: int = 2, mark: Literal["", "+", ","] = "") -> str:
    """Return ``0.75``, ``+0.10``, ``1,234.50``, ``1e+300``: so many digits behind the point, three in all from a billion on."""
    if abs(value) >= 1e9:
        return f"{value:{mark.strip(',')}.3g}"
    return f"{value:{mark}.{digits}f}"


def money(value: float | None, *, at_least: bool = False) -> str:
    """Return ``$4.00``, ``≥$4.00`` where a part of it is not known; ``–`` for None."""
    if value is None:
        return "–"
    digits = 2 if value >= 0.01 or value == 0 else 4
    return f"{'≥' if at_least else ''}${fixed(value, digits, ',')}"


def size(count: int) -> str:
    """Bytes: ``812 B``, ``3.4 KB``, ``1.2 GB``."""
    value, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def plural(noun: str) -> str:
    """Return ``batches`` of ``batch``, ``analyses`` of ``analysis``."""
    return f"{noun[:-2]}es" if noun.endswith("sis") else f"{noun}{'es' if noun.endswith(('ch', 's')) else 's'}"


def counted(count: int, noun: str) -> str:
    """Return ``1 batch``, ``3 batches``."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def between(start: str, end: str) -> str:
    """Time from one RFC 3339 time to another; short ones with a tenth."""
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f"{seconds:.1f}s" if 0 <= seconds < 10 else duration(max(0.0, seconds))


def percent(share: float | None) -> str:
    """Return ``75 %``; ``–`` for None."""
    return "–" if share is None else f"{100 * share:.0f} %"


def percent_with(share: float | None, low: float | None, high: float | None) -> str:
    """Return ``75 % (30–95)``: a rate and its interval."""
    if share is None or low is None or high is None:
        return percent(share)
    return f"{percent(share)} ({100 * low:.0f}–{100 * high:.0f})"


def value_with(value: float | None, low: float | None, high: float | None) -> str:
    """Return ``0.75 (0.30–0.95)``: a mean and its interval."""
    if value is None:
        return "–"
    if low is None or high is None:
        return reward(value)
    return f"{reward(value)} ({reward(low)}–{reward(high)})"


def reward(value: float, *, plain: bool = False) -> str:
    """Return ``0.75``, ``1.00``, ``0.999999``, ``1e+308``: at most about eight characters.

    One that is not a whole number is never shown as one, so that what is just short of a pass does not look like it.

    Args:
        plain: without zeros at the end: ``0.5``, ``1``.
    """
    whole = round(value)
    if abs(value - whole) <= 1e-9 * max(1.0, abs(value)) and abs(value) < 100_000:
        return f"{whole}" if plain else f"{whole:.2f}"
    if not 0.001 <= abs(value) < 100_000:
        return f"{value:.3g}"
    for digits in range(2, 7):
        text = f"{value:.{digits + 2}g}" if plain else f"{value:.{digits}f}"
        if float(text) != whole:
            return text
    return f"{'<' if value < whole else '>'}{whole}"


def seconds(value: float | None) -> str:
    """As ``duration``, short ones with a tenth."""
    return f"{value:.1f}s" if value is not None and value < 10 else duration(value)


def joined(parts: list[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
