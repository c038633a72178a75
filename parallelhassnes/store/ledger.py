"""``ledger.jsonl`` of a batch: one line per decision, appended, never changed.

Written under ``tick.lock`` (by settle and launch) or, for what an operator says, in one ``write`` to a
file opened for appending, which the kernel keeps whole. A crash can repeat the last line's event (the
redo of a settle) or leave a last line without its newline; readers count an event of a run once and
leave an unfinished line alone, and the next writer ends it first.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parallelhassnes.store import atomic
from parallelhassnes.store.records import now_text

LEDGER = "ledger.jsonl"


def append(batch_dir: Path, event: str, **facts: Any) -> None:
    """Add one line: ``{"at", "event", **facts}``; None values are left out."""
    document = {"at": now_text(), "event": event}
    document.update({key: value for key, value in facts.items() if value is not None})
    line = atomic.dumps(document).encode("utf-8", "surrogateescape")
    handle = os.open(batch_dir / LEDGER, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        if end and os.pread(handle, 1, end - 1) != b"\n":
            line = b"\n" + line
        os.write(handle, line)
    finally:
        os.close(handle)


def read(batch_dir: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole line from byte ``offset`` on, with the offset behind it; lines that are not JSON are passed over."""
    try:
        stream = open(batch_dir / LEDGER, "rb")  # noqa: PTH123, SIM115 - hot path
    except FileNotFoundError:
        return
    with stream:
        stream.seek(offset)
        for raw in stream:
            if not raw.endswith(b"\n"):
                return
            offset += len(raw)
            try:
                document = json.loads(raw)
            except ValueError:
                continue
            if isinstance(document, dict):
                yield offset, document


def size(batch_dir: Path) -> int:
    """Bytes in the ledger; 0 where there is none."""
    try:
        return os.stat(batch_dir / LEDGER).st_size  # noqa: PTH116 - hot path
    except FileNotFoundError:
        return 0
