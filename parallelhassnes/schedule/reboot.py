"""The first tick after the host was started anew: what did not wait for the disk may be torn, or gone.

``runners/<runner_id>/boot_id`` says under which start of the host the last tick ran; it is written last, so a crash in
between does all of it again. Records, seals, controls and overrides wait for the disk before anything speaks of them;
everything else (tickets, ``current.json``, what a job publishes, counters, boards) is derived, and made anew from those.
"""

import shutil
from pathlib import Path

from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import atomic
from parallelhassnes.store.process_identity import boot_id


def recover(ctx: Context) -> bool:
    """Make what is derived anew where the host has been started since the last tick; whether it was."""
    now = boot_id()
    note = ctx.layout.runners / ctx.config.runner_id / "boot_id"
    try:
        before = note.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        before = now
        note.parent.mkdir(parents=True, exist_ok=True)
    else:
        if before == now:
            return False
    if before != now:
        _forget(ctx, note.parent)
        rebuild(ctx)
    atomic.write_text(note, f"{now}\n")
    return before != now


def _forget(ctx: Context, runner: Path) -> None:
    """Remove the small files that are written without waiting and that nothing is lost with."""
    shutil.rmtree(ctx.layout.system / "starts", ignore_errors=True)
    for path in (runner / "health.json", *ctx.layout.system.glob("scoreboard.*")):
        path.unlink(missing_ok=True)
