"""Having the archive get what has ended, by a process of its own: a pass waits for no network.

    _system/archive/wanted/<batch_id>       something of the batch has ended since it was sent; made before the end's ticket goes, and after the last
    _system/archive/sending/<batch_id>      such a wish while it is seen to; if whoever saw to it was killed, it is a wish still
    _system/archive/sent/<batch_id>.json D  up to which byte of its ledger every attempt is there; when its last head was put, and how much of the ledger that has
    _system/archive/failed.json          D  why nothing is sent just now; its age says when that was tried last
    _system/archive/sending.lock  sending.log L

The end of a pass, which no attempt waits for, starts the process, unless one is at it. That one puts a wish aside, then looks at the ledger; where
the archive cannot be reached it puts the wish back, and another is started a minute later, by a pass or a tick.
"""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from parallelhassnes.execute import launcher
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import senders
from parallelhassnes.store import atomic, clocks, locks, members
from parallelhassnes.store.layout import Layout

SENDER = "parallelhassnes.actions.archive.send_beside"
"""The module of that process; by name, for it looks at batches as views do."""
LOG = "sending.log"
_TRY_AGAIN_SEC = 60.0


def wish(ctx: Context, batch_id: str) -> None:
    """Note that something of a batch has ended; nothing where nobody wants it sent."""
    if ctx.config.archive_while_running:
        folder = wanted(ctx.layout)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / batch_id).touch()


def keep(ctx: Context) -> None:
    """See to it that what is wished for is sent."""
    layout = ctx.layout
    if not ctx.config.archive_while_running or not has_wishes(layout):
        return
    if _has_just_failed(layout) or locks.is_held(sending_lock(layout)):
        return
    sends = partial(senders.become, sending_lock(layout), SENDER, str(layout.root))
    launcher.start_beside(sends, SENDER, str(layout.root), log=layout.archive / LOG, cwd=layout.root)


def wanted(layout: Layout) -> Path:
    """Return the folder of wishes."""
    return layout.archive / "wanted"


def has_wishes(layout: Layout) -> bool:
    """Tell whether something is to be sent, or was being sent by one who was killed."""
    return bool(members.names(wanted(layout)) or members.names(seen_to(layout)))


def seen_to(layout: Layout) -> Path:
    """Return the folder of the wishes that are seen to, by whoever holds the lock."""
    return layout.archive / "sending"


def sending_lock(layout: Layout) -> Path:
    """Return the lock of whoever sends."""
    return layout.archive / "sending.lock"


def sent(layout: Layout, batch_id: str, address: str) -> dict[str, Any]:
    """Return what is noted of how far a batch was sent to an archive: ``bytes``, ``head_at``, ``head_bytes``."""
    known = atomic.read_derived(_sent(layout, batch_id))
    fresh = {"schema_version": 1, "url": address, "bytes": 0, "head_at": 0.0, "head_bytes": 0}
    is_ours = known.get("url") == address and all(
        isinstance(known.get(key, 0), int | float) for key in fresh if key != "url"
    )
    return fresh | known if is_ours else fresh


def note_sent(layout: Layout, batch_id: str, address: str, **facts: float) -> None:
    """Note how far a batch was sent to the configured archive; a store that cannot be written to is sent all the same."""
    path = _sent(layout, batch_id)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(path, sent(layout, batch_id, address) | facts, durable=False)


def _sent(layout: Layout, batch_id: str) -> Path:
    return layout.archive / "sent" / f"{batch_id}.json"


def last_trouble(layout: Layout) -> str:
    """Tell why nothing is sent just now; empty where all is well."""
    return str(atomic.read_derived(_failed(layout)).get("line", ""))


def note_trouble(layout: Layout, line: str) -> None:
    """Note why nothing is sent just now; an empty line that all is well."""
    if line:
        atomic.write_json(_failed(layout), {"schema_version": 1, "line": line}, durable=False)
    else:
        _failed(layout).unlink(missing_ok=True)


def _failed(layout: Layout) -> Path:
    return layout.archive / "failed.json"


def _has_just_failed(layout: Layout) -> bool:
    try:
        return clocks.age(_failed(layout).stat().st_mtime) < _TRY_AGAIN_SEC
    except FileNotFoundError:
        return False
