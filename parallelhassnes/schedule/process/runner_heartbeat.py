"""This host as a place where attempts run: its health, and whether anything more is to start on it."""

import os
import platform
import shutil

from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, clocks, members
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import now_text
from parallelhassnes.version import __version__

_HEALTH_EVERY_SEC = 10.0


def is_draining(ctx: Context) -> bool:
    """Whether nothing more is to start on this runner; what cannot be looked at may say so."""
    return members.is_there(ctx.layout.runners / ctx.runner_id / "drain")


def report_health(ctx: Context) -> None:
    """``runners/<runner_id>/health.json``, at most once in a few seconds."""
    path = ctx.layout.runners / ctx.runner_id / "health.json"
    try:
        if clocks.age(path.stat().st_mtime) < _HEALTH_EVERY_SEC:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(ctx.layout.runs)
    atomic.write_json(
        path,
        {
            "schema_version": 1,
            "at": now_text(),
            "host": platform.node(),
            "harness_version": __version__,
            "capacity": ctx.concurrency,
            "live": len(tickets.running(ctx.layout)),
            "load_1min": os.getloadavg()[0],
            "disk_free_bytes": disk.free,
        },
        durable=False,
    )
