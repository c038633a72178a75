"""The first tick after the host was started anew: what did not wait for the disk may be torn, or gone.

``runners/<runner_id>/boot_id`` says under which start of which machine the last tick ran; it is written last, so a crash in
between does all of it again. On a root of several hosts this is done by whoever takes over the right to decide. Records, seals, controls and overrides wait for the disk before anything speaks of them;
everything else (tickets, ``current.json``, what a job publishes, counters, boards) is derived, and made anew from those.
"""

import contextlib
import shutil
from pathlib import Path

from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import atomic, hosts


def recover(ctx: Context) -> bool:
    """Make what is derived anew where the host has been started since the last tick; tell whether it was made anew.

    Raises:
        SecondHost: another host works on the root, and this one has not joined; nothing was changed.
    """
    here, note = hosts.machine(), _note(ctx)
    with contextlib.suppress(FileNotFoundError):
        before = hosts.read_note(note)
        if before == here:  # whoever is at the door has looked at who else there is
            return False
        check_host.check(ctx)
        if before.boot_id == here.boot_id or ctx.layout.runner:
            atomic.write_text(note, hosts.note_text())
            return False
        take_over(ctx)
        return True
    check_host.check(ctx)
    note.parent.mkdir(parents=True, exist_ok=True)
    atomic.claim(note, hosts.note_text().encode())
    check_host.check(ctx)  # two hosts may have been here at once: one of them has made the note
    return False


def take_over(ctx: Context) -> None:
    """Make what is derived anew, and note that this start of this host works on the root."""
    note = _note(ctx)
    note.parent.mkdir(parents=True, exist_ok=True)
    forget(ctx, note.parent)
    rebuild(ctx)
    atomic.write_text(note, hosts.note_text())


def _note(ctx: Context) -> Path:
    return ctx.layout.runners / ctx.runner_id / hosts.NOTE


def forget(ctx: Context, runner: Path) -> None:
    """Remove the small files that are written without waiting and that nothing is lost with."""
    shutil.rmtree(ctx.layout.starts, ignore_errors=True)
    for path in (runner / "health.json", *ctx.layout.system.glob("scoreboard.*")):
        path.unlink(missing_ok=True)
