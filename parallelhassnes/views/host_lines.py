"""The hosts that have joined a root, and what they have found out with each other."""

from typing import Any

from parallelhassnes.store import atomic, decider, hosts, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.version import __version__
from parallelhassnes.views.scoreboard_models import JoinedHost

PROBE = "probe.json"
SKEW_SEC = 2.0
"""Clocks that are further apart are told: nothing depends on them but what people read."""


def every(layout: Layout) -> dict[str, JoinedHost]:
    """Runner → what is known of it as one of several hosts; empty on a root of one host."""
    known = hosts.members_of(layout) if hosts.is_shared(layout) else {}
    if not known:
        return {}
    right = decider.right(layout)
    decides = right.runner if right is not None and not right.given_up else ""
    skews = _skews(layout)
    return {
        name: _line(found, hosts.version_of(found, hosts.beat_of(layout, name)), decides, skews.get(name))
        for name, found in known.items()
    }


def _line(found: hosts.Member, version: str, decides: str, skew: float | None) -> JoinedHost:
    trouble = []
    if not found.locks_cross:
        trouble.append("locks do not reach it from other hosts: operators' commands work on the host that decides")
    if skew is not None and abs(skew) > SKEW_SEC:
        trouble.append(f"its clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}: set it")
    if version != __version__:
        trouble.append(f"it runs version {version}, and this is {__version__}: upgrade the older one soon")
    return JoinedHost(
        host=found.host,
        root=found.root,
        version=version,
        decides=found.name == decides,
        locks_cross=found.locks_cross,
        cache_sec=found.cache_sec,
        skew_sec=skew,
        probed_with=list(found.probed_with),
        joined_at=found.joined_at,
        trouble=trouble,
    )


def _skews(layout: Layout) -> dict[str, float]:
    """Runner → how far its clock is ahead of the one that it was probed with last; of two, that of the later probe."""
    found: dict[str, tuple[str, float]] = {}
    for name in members.names(layout.runners):
        told: list[dict[str, Any]] = atomic.read_derived(layout.runners / name / PROBE).get("hosts", [])
        for each in told:
            other, at, skew = each.get("host", {}).get("name"), str(each.get("at", "")), each.get("skew_sec")
            if isinstance(other, str) and isinstance(skew, int | float) and at > found.get(other, ("", 0.0))[0]:
                found[other] = at, float(skew)
    return {name: skew for name, (_, skew) in found.items()}
