"""Having people told of what happened, by a process of its own: a pass waits for no network.

Whoever notices something ``note``s it (``store.queue.notices``). The end of a pass, which no attempt waits for, starts the process
that tells of it, unless one is at it, which looks again before it ends.
"""

from functools import partial
from pathlib import Path

from parallelhassnes.execute import launcher
from parallelhassnes.schedule import health
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import senders
from parallelhassnes.store import locks
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import notices

SENDER = "parallelhassnes.admin.notifications"
"""The module of that process; by name, for it looks at batches as views do."""
LOG = "notices.log"


def sending_lock(layout: Layout) -> Path:
    """Return the lock of whoever sends."""
    return layout.system / "notices.lock"


def keep(ctx: Context) -> None:
    """See to it that what was noted is told; nothing where nobody wants to be told."""
    if not ctx.config.notify.to:
        return
    note_unserved(ctx)
    if notices.untold(ctx.layout) and not locks.is_held(sending_lock(ctx.layout)):
        root, sends = ctx.layout.root, partial(senders.become, sending_lock(ctx.layout), SENDER, str(ctx.layout.root))
        launcher.start_beside(sends, SENDER, str(root), log=ctx.layout.system / LOG, cwd=root)


def note_unserved(ctx: Context) -> None:
    """Note that passes are wanted and nobody makes one, once for each time that this is so."""
    waited = health.unserved_sec(ctx.layout)
    if waited is not None:
        line = (
            "; ".join(health.troubles(ctx.layout)) or f"a pass has been wanted for {waited:.0f} s and nobody makes one"
        )
        notices.note(ctx.layout, ctx.config.notify, "nothing_ticks", health.last_pass(ctx.layout), line=line)
