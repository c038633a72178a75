"""This host as a place where attempts run: its health, and the configuration that it runs them under."""

import contextlib
import os
import platform
import shutil
import time

from parallelhassnes import __version__
from parallelhassnes.errors import StoreBusy
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, ledger, locks, members, tickets
from parallelhassnes.store.records import now_text

_HEALTH_EVERY_SEC = 10.0
_PATIENCE_SEC = 5.0


def is_draining(ctx: Context) -> bool:
    """Whether nothing more is to start on this runner; what cannot be looked at may say so."""
    return members.is_there(ctx.layout.runners / ctx.config.runner_id / "drain")


def snapshot_config(ctx: Context) -> None:
    """Keep the configuration in force: ``_system/harness_config.json`` and ``config_versions/<sha>.json``.

    Where somebody holds ``tick.lock`` for long, nothing starts either, and a later tick keeps it.
    """
    digest = ctx.config.sha256()
    current = ctx.layout.system / "harness_config.json"
    if atomic.read_derived(current).get("sha256") == digest:
        return
    document = ctx.config.model_dump(mode="json")
    with contextlib.suppress(StoreBusy), locks.held(ctx.layout.tick_lock, _PATIENCE_SEC):
        ledger.replace_json(ctx.layout.system, f"config_versions/{digest}.json", document)
        both = {"sha256": digest, "config": document}
        ledger.replace_json(ctx.layout.system, "harness_config.json", both)
        ledger.append(ctx.layout.system, "configured", config_sha256=digest)


def report_health(ctx: Context) -> None:
    """``runners/<runner_id>/health.json``, at most once in a few seconds."""
    path = ctx.layout.runners / ctx.config.runner_id / "health.json"
    try:
        if time.time() - path.stat().st_mtime < _HEALTH_EVERY_SEC:
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
