"""``_system/checkpoints/``: how far the ledgers had come, numbered and chained, to be kept where nobody here can write.

    <number>.json        W   heads of the ledgers that have got lines since the one before, and of the store's own
    <number>.json.sig    W   its signature by ``ssh-keygen -Y sign -n checkpoint@parallelhassnes``, where a key is configured
    sent.json            D   the last number that the hook has taken, and the last one that each address has got
    ../checkpoint.wanted     a batch has come to its end; the next process that can makes one, and removes this
    ../checkpoint.lock       held while one is made

Where they are sent to they lie side by side, each under a key that holds its hash, so that another of the same number is another key:

    checkpoints/<store_id>/<number>-<SHA-256>.json.sig      first, where there is one
    checkpoints/<store_id>/<number>-<SHA-256>.json

``prev`` is the SHA-256 of the file before, so a checkpoint that is kept elsewhere binds all that came before it, and each
can be as small as what is new; ``prev_sig`` is that of its signature. A crash leaves no file, or a whole one without its signature: it stays
unsigned, and the next one binds it. ``head`` is the SHA-256 of a ledger's last line; a ledger that still has that line
at that number is what it was then, as each line holds the hash of the one before.
"""

import hashlib
import os
import re
import time
from pathlib import Path
from typing import Literal

from parallelhassnes.plan import Record
from parallelhassnes.store import atomic, identity
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text

_MARGIN_NS = 1_000_000_000
"""By which the clock of files may be behind."""
_LOOK_BACK = 20

NAMESPACE = "checkpoint@parallelhassnes"
"""Of the signatures: one that was made for something else is none of a checkpoint."""
SIGNATURE = ".sig"
_NAME = re.compile(r"([1-9][0-9]*)\.json")


class LedgerHead(Record):
    """Where a ledger ended."""

    head: str
    """SHA-256 of its last line, without the newline; empty where there was none."""
    lines: int
    seals: int
    """Lines that name the seal of an attempt."""


class Checkpoint(Record):
    """The content of ``<number>.json``."""

    schema_version: Literal[1] = 1
    number: int
    at: str
    """RFC 3339, UTC, to the microsecond."""
    by: str
    store_id: str
    full: bool = False
    """Whether every batch is in it, and not only those that have got lines since the one before."""
    batches: dict[str, LedgerHead]
    system: LedgerHead
    prev: str = ""
    """SHA-256 of the checkpoint before; empty in the first."""
    prev_sig: str = ""
    """SHA-256 of its signature; empty where it had none then."""


def folder(layout: Layout) -> Path:
    return layout.system / "checkpoints"


def place(layout: Layout, number: int) -> Path:
    """Return the file of a checkpoint."""
    return folder(layout) / f"{number}.json"


def numbers(layout: Layout) -> list[int]:
    """Return those that there are, in order."""
    return sorted(int(found[1]) for name in listing(layout) if (found := _NAME.fullmatch(name)))


def listing(layout: Layout) -> set[str]:
    """Return every name in the folder of checkpoints, but what waits for its rename."""
    try:
        return {name for name in os.listdir(folder(layout)) if not name.startswith(".tmp-")}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def read(path: Path) -> Checkpoint:
    """Return a checkpoint, of this store or kept elsewhere.

    Raises:
        FileNotFoundError: there is none.
        CorruptFile: it is none.
    """
    return atomic.read_record(Checkpoint, path)


def write(layout: Layout, *, by: str, full: bool = False) -> Path | None:
    """Make the next checkpoint; None where nothing has come since the last one. The caller holds ``checkpoint.lock``."""
    known, began = numbers(layout), time.time_ns() - _MARGIN_NS
    last = read(place(layout, known[-1])) if known else None
    wanted = layout.batch_ids()
    if last is not None and not full:
        since = place(layout, known[-1]).stat().st_mtime_ns
        wanted = [name for name in wanted if _changed_ns(layout.batch(name)) >= since]
    heads = {name: _head(layout.batch(name)) for name in wanted}
    system = _head(layout.system)
    if last is not None and not full:
        heads = _news(layout, heads, known)
        if not heads and system == last.system:
            os.utime(place(layout, known[-1]), ns=(began, began))  # so far, and due again in a day
            return None
    number = known[-1] + 1 if known else 1
    before = place(layout, number - 1)
    made = Checkpoint(
        number=number,
        at=now_text(),
        by=by,
        store_id=identity.store_id(layout.runs),
        full=full or last is None,
        batches=heads,
        system=system,
        prev=ledger.content_hash(before) or "",
        prev_sig=ledger.content_hash(f"{before}{SIGNATURE}") or "",
    )
    folder(layout).mkdir(exist_ok=True)
    path = place(layout, number)
    atomic.write_json(path, dump(made))
    os.utime(path, ns=(began, began))  # what a ledger got while we looked is in the next one
    return path


def _news(layout: Layout, heads: dict[str, LedgerHead], known: list[int]) -> dict[str, LedgerHead]:
    """Return those of the heads that the newest checkpoints do not have: within the margin a ledger is looked at twice."""
    rest = dict(heads)
    for number in reversed(known[-_LOOK_BACK:]):
        if not rest:
            break
        before = read(place(layout, number)).batches
        for name in rest.keys() & before.keys():
            if before[name] == rest.pop(name):
                heads.pop(name)
    return heads


def digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _head(where: Path) -> LedgerHead:
    try:
        found = ledger.head(where)
        ledger.sync(where)  # else a power cut takes lines that the checkpoint has, which looks like another history
    except IsADirectoryError:  # damaged; an audit says so
        found = ledger.Head("", 0, 0)
    return LedgerHead(head=found.head, lines=found.lines, seals=found.seals)


def _changed_ns(batch_dir: Path) -> int:
    try:
        return (batch_dir / ledger.LEDGER).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def unsent(layout: Layout, to: str | None = None) -> list[int]:
    """Return the numbers that the hook has not taken yet.

    Args:
        to: an address in the hook's place.
    """
    said = atomic.read_derived(_sent(layout))
    done = said.get("number", 0) if to is None else said.get("to", {}).get(to, 0)
    return [number for number in numbers(layout) if number > done]


def note_sent(layout: Layout, number: int, to: str | None = None) -> None:
    """Note that the hook, or an address, has got a number; there is one who sends at a time."""
    said = {"schema_version": 1, "number": 0, **atomic.read_derived(_sent(layout))}
    if to is None:
        said["number"] = number
    else:
        said["to"] = {to: number}
    atomic.write_json(_sent(layout), said)


def _sent(layout: Layout) -> Path:
    return folder(layout) / "sent.json"


# --- where they are sent to -------------------------------------------------------------------------------------

ELSEWHERE = "checkpoints"
_KEPT = re.compile(r"0*([1-9][0-9]*)-([0-9a-f]{64})\.json")


def key(layout: Layout, number: int) -> str:
    """Return what a checkpoint is called where it is sent to."""
    return f"{ELSEWHERE}/{identity.store_id(layout.runs)}/{number:08d}-{digest(place(layout, number))}.json"


def kept_as(name: str) -> tuple[int, str] | None:
    """Return number and SHA-256 of a checkpoint by its name there; None where it names none."""
    found = _KEPT.fullmatch(name)
    return (int(found[1]), found[2]) if found else None
