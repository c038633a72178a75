"""``_system/notices/``: what people are to be told of, each at most once.

    new/<event>.<digest>.json    something happened; made by ``link()``, so what is there already stays
    told/<event>.<digest>.json   claimed by whoever tells of it, before that is done; never told again

The digest is of what makes the event this one (a batch and how far its ledger had come, a step, an attempt), so doing again what
a crash has cut notes nothing new. A crash after the claim loses the message: at most once, not at least once. Deleting ``told/``
has what is still so told again.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Literal

from parallelhassnes.config import NotifyConfig, NotifyEvent
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text


class Notice(Record):
    """Something that happened, and that somebody may be told of."""

    schema_version: Literal[1] = 1
    event: NotifyEvent
    at: str
    batch_id: str = ""
    """The batch that it is about; empty where it is about none."""
    step: str = ""
    """``job/step`` that waits for a person."""
    line: str = ""
    """What happened, in one line; empty where whoever tells of it looks how the batch stands."""


def note(
    layout: Layout,
    config: NotifyConfig,
    event: NotifyEvent,
    *which: object,
    line: str = "",
    batch_id: str = "",
    step: str = "",
) -> None:
    """Note that something happened, unless that is known, or nobody wants to hear of such.

    What the file system refuses is told as passed over, and stops nobody.

    Args:
        which: what makes it this event and no other.
    """
    if not config.to or event not in config.events:
        return
    digest = hashlib.sha256("\0".join(map(str, which)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    path = layout.notices / "new" / f"{event}.{digest}.json"
    with members.apart(path):
        # In this order: one that is claimed between the two looks is met in its next place.
        if members.is_there(path) or members.is_there(_claimed(path)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        found = Notice(event=event, at=now_text(), batch_id=batch_id, step=step, line=line)
        atomic.claim(path, atomic.dumps(dump(found)).encode("utf-8", "surrogateescape"))


def note_end(layout: Layout, config: NotifyConfig, batch_id: str) -> None:
    """Note that a batch has nothing queued any more; what its ledger gets later is another end."""
    if config.to:
        size = ledger.size(layout.batch(batch_id))
        note(layout, config, "batch_ended", batch_id, size, batch_id=batch_id)


def note_gate(layout: Layout, config: NotifyConfig, batch_id: str, job_id: str, step_id: str) -> None:
    """Note that a step waits for a person."""
    note(layout, config, "gate_waits", batch_id, job_id, step_id, batch_id=batch_id, step=f"{job_id}/{step_id}")


def untold(layout: Layout) -> list[Path]:
    """Return what nobody has claimed, sorted by event."""
    return [Path(path) for path in atomic.json_files(layout.notices / "new")]


def claim(path: Path) -> Notice | None:
    """Return a notice that is this process's alone to tell of, from now on; None where it is another's, or cannot be read."""
    told = _claimed(path)
    told.parent.mkdir(exist_ok=True)
    found = None
    with contextlib.suppress(FileExistsError, FileNotFoundError), members.apart(path):
        told.hardlink_to(path)
        atomic.sync_dir(told.parent)
        found = atomic.read_record(Notice, told)
    path.unlink(missing_ok=True)
    return found


def _claimed(path: Path) -> Path:
    return path.parent.parent / "told" / path.name
