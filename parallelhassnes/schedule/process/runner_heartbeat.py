"""This host as a place where attempts run: its health, and whether anything more is to start on it."""

import os
import platform
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from parallelhassnes.store import atomic, clocks, members
from parallelhassnes.version import __version__

if TYPE_CHECKING:
    from parallelhassnes.schedule.context import Context
    from parallelhassnes.store.layout import Layout

_HEALTH_EVERY_SEC = 10.0


def is_draining(ctx: "Context") -> bool:
    """Whether nothing more is to start on this runner; what cannot be looked at may say so."""
    return members.is_there(ctx.layout.runners / ctx.runner_id / "drain")


def report_health(layout: "Layout", runner_id: str, *, capacity: int, live: Callable[[], int]) -> None:
    """``runners/<runner_id>/health.json``, at most once in a few seconds.

    Args:
        capacity: live attempts on this host at most.
        live: tells how many there are.
    """
    path = layout.runners / runner_id / "health.json"
    try:
        if clocks.age(path.stat().st_mtime) < _HEALTH_EVERY_SEC:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(layout.runs)
    atomic.write_json(
        path,
        {
            "schema_version": 1,
            "at": clocks.now_text(),
            "host": platform.node(),
            "harness_version": __version__,
            "capacity": capacity,
            "live": live(),
            "load_1min": os.getloadavg()[0],
            "disk_free_bytes": disk.free,
        },
        durable=False,
    )
