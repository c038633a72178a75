"""The limit of a queue key that follows its provider: down by a factor at a signal, up by one after quiet.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, Analysis of the Increase and Decrease
Algorithms, 1989): it settles near what the provider allows, and shares of it even out. Pure functions.
"""

import math
from typing import NamedTuple

from parallelhassnes.config import AdaptiveConfig
from parallelhassnes.store.queue.queue_keys import Adaptive

SIGNALS = frozenset({"rate_limit", "overloaded"})
"""Failure classes by which a provider says that there is too much at once."""


class LimitRange(NamedTuple):
    """Between what the limit of one key may move."""

    floor: int
    ceiling: int


def bounds(config: AdaptiveConfig, queue_key: str, limit: int | None, concurrency: int) -> LimitRange:
    """Return the bounds of a key: the ceiling is its own, the limit that it would have anyway, or the host's concurrency."""
    own = config.keys.get(queue_key)
    found = [concurrency, *([limit] if limit is not None else [])]
    if own is not None and own.ceiling is not None:
        found.append(own.ceiling)
    ceiling = min(found)
    floor = own.floor if own is not None and own.floor is not None else config.floor
    return LimitRange(min(floor, ceiling), ceiling)


def is_on(config: AdaptiveConfig, queue_key: str) -> bool:
    own = config.keys.get(queue_key)
    return config.enabled and (own is None or own.enabled)


def after_signal(known: Adaptive | None, now: float, live: int, within: LimitRange, config: AdaptiveConfig) -> Adaptive:
    """Return the limit after the provider said that there is too much at once.

    Args:
        live: attempts that were live on the key, the one that ended included: a limit far above what ran is
            lowered from there, or lowering it would change nothing.
    """
    if known is not None and now - known.decreased_at < config.window_sec:
        return known  # the same window of the provider says it again
    before = min(limit_now(known, now, within, config), max(live, 1))
    lowered = max(within.floor, min(math.floor(before * config.decrease), within.ceiling))
    return Adaptive(limit=lowered, changed_at=now, decreased_at=now)


def limit_now(known: Adaptive | None, now: float, within: LimitRange, config: AdaptiveConfig) -> int:
    """Return the limit in force: as it was last set, one more for each quiet period since, within the bounds."""
    if known is None:
        return within.ceiling
    periods = max(0, math.floor((now - known.changed_at) / config.quiet_sec))
    return max(within.floor, min(known.limit + periods, within.ceiling))


def after_quiet(known: Adaptive | None, now: float, within: LimitRange, config: AdaptiveConfig) -> Adaptive | None:
    """Return the same with the periods that have passed written down; None where the whole limit is back."""
    if known is None:
        return None
    limit = limit_now(known, now, within, config)
    if limit >= within.ceiling and now - known.decreased_at >= config.quiet_sec:
        return None
    if limit == known.limit:
        return known
    periods = math.floor((now - known.changed_at) / config.quiet_sec)
    changed = known.changed_at + periods * config.quiet_sec
    return known.model_copy(update={"limit": limit, "changed_at": changed})
