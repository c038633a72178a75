"""What a ``gc`` has found in each batch, by which the next one passes over those where nothing has changed and nothing is due.

    rules, ledger, table, archive ──▶ BatchNote ◀──▶ _system/retention.json   (derived: may be deleted)

A note stands as long as the rules and this version are the same, and of its batch: size and last line of the ledger, which of a chained one
vouches for all of it; the version of ``batch_meta.json``, of the table, and of the archive's index; and no folder of what is packed
is there. What goes only once an archive has it is asked there each time, and not noted. Then its batch costs some stats and one line, however many attempts it has. A batch has one only where ``gc`` had nothing to do in it and
nothing to tell of it, so that no note hides anything. It says until when that is so: by then a rule has an attempt go.

Whoever looks may write the file, at any time, by rename; one without the right to looks at the whole of each batch.

Shape: ``{"made_by": "<version>", "rules": "<SHA-256>", "batches": {batch_id: [stamp, due, last_at, taken, packed], …}}``.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import file_stamp, packed
from parallelhassnes.config import RetentionConfig
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import RETENTION_NOTES, Layout
from parallelhassnes.version import __version__

_MADE_BY = f"{__version__}.1"
"""The last number is raised where another version of this code would find something else by the same rules."""
_STAMPED = (batches.META, batches.TABLE, packed.INDEX)


class BatchNote(NamedTuple):
    """What was found in a batch in which nothing was to be done."""

    stamp: str
    due: float | None
    """From when on a rule has something of it go, in seconds since the epoch; None: never."""
    last_at: float | None
    """When the newest event of its steps was, likewise; None where it is packed, or nobody has asked."""
    taken: list[str]
    """``batch/place`` of what it has taken over or judges."""
    packed: list[str]
    """``job/steps`` of what is in its archive, and not beside it."""

    def fits(self, batch_dir: Path) -> bool:
        """Tell whether the batch is as it was when this was noted."""
        return self.stamp == stamp(batch_dir) and not any(os.path.isdir(f"{batch_dir}/{own}") for own in self.packed)  # noqa: PTH112 - hot path

    def is_due(self, now: float) -> bool:
        """Tell whether a rule has something of it go by now."""
        return self.due is not None and now >= self.due


def stamp(batch_dir: Path) -> str:
    """Tell what a note is made from; empty where that cannot be told, and none is to be made."""
    size = ledger.size(batch_dir)
    try:
        last = ledger.line_hash(batch_dir, size)
    except (OSError, atomic.CorruptFile):  # whoever reads it is told
        return ""
    return f"{size}.{last}.{[file_stamp.seen(f'{batch_dir}/{name}') for name in _STAMPED]}" if last else ""


def read(layout: Layout, rules: RetentionConfig) -> dict[str, BatchNote]:
    """Return batch → its note; by other rules than those that it was made by, something may be due at once."""
    document = atomic.read_kept(layout.system / RETENTION_NOTES)
    if document.get("made_by") != _MADE_BY:
        return {}
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        notes = {batch_id: _note(said) for batch_id, said in document["batches"].items()}
        same = document["rules"] == _digest(rules)
        return notes if same else {batch_id: note._replace(due=0.0) for batch_id, note in notes.items()}
    return {}


def leave(layout: Layout, rules: RetentionConfig, notes: Mapping[str, BatchNote]) -> None:
    """Keep the notes for the next time, unless they are there; a store that cannot be written to is looked through all the same."""
    if notes == read(layout, rules):
        return
    with contextlib.suppress(OSError):
        document = {"made_by": _MADE_BY, "rules": _digest(rules), "batches": notes}
        atomic.write_kept(layout.system / RETENTION_NOTES, document)


def _digest(rules: RetentionConfig) -> str:
    said = json.dumps(rules.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _note(said: Any) -> BatchNote:
    """Return a note that was kept.

    Raises:
        TypeError, ValueError: it is none.
    """
    found = BatchNote(*said)
    times = [float(each) for each in (found.due, found.last_at) if each is not None]
    if not all(map(math.isfinite, times)) or not all(isinstance(each, str) for each in (*found.taken, *found.packed)):
        raise ValueError("a time or a name of a note is none")
    return found
