"""Instants that are kept on disk, read under a clock that may have been set since.

A host's clock is set forwards and back: by its user, by NTP, by a battery that is empty, by a suspend. What was noted
under one that was ahead lies far in the future afterwards. So an instant to come is never believed to be further away
than the rule that made it allows, and one that has passed is as old as it is far from now. A pass writes what it had to
bound back, so that it does arrive. Leap seconds and time zones do not count: all is seconds since the epoch.
"""

import time
from datetime import UTC, datetime


def now_text(moment: datetime | None = None) -> str:
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Return seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def latest(at: float, now: float, most: float) -> float:
    """Tell when something is due that was to be due at ``at``, where the rule that said so lets it wait ``most`` seconds."""
    return min(at, now + max(0.0, most))


def age(at: float, now: float | None = None) -> float:
    """Return the seconds since an instant that has passed; one that lies ahead was noted under another clock, and is not fresh."""
    return abs((time.time() if now is None else now) - at)


def boottime() -> float:
    """Return the seconds since the host was started, suspends included: the same for every process of this start of it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Jumps:
    """Notices that the clock was set, or that the host was suspended, between two looks."""

    _LEAST_SEC = 1.0

    def __init__(self) -> None:
        self._ahead = self._now()

    def _now(self) -> float:
        return time.time() - time.monotonic()

    def seen(self) -> bool:
        """Tell whether one came since the last look."""
        before, self._ahead = self._ahead, self._now()
        return abs(self._ahead - before) > self._LEAST_SEC
