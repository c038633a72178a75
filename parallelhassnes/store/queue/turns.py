"""Whose turn it is: the batches with ready tickets on a queue key in the order in which they are served, as empty files.

    _queue/turns/<key>/<rank>/<hour>/<minute>/<second>/<fraction>.<batch_id>   D   by priority, never served, longest not served
    _queue/turns/<key>/new/<batch_id>                                 D   has got tickets, or another priority: its place is to be found
    _queue/turns/<key>/held/<batch_id>                                D   may start nothing now (paused, its budget spent); looked at again
    _queue/turns/<key>/limits/<number>/<batch_id>                     D   its table allows so many live attempts on the key

A sorted walk meets the batches in their order, and each folder of the way is small, so the first of 50,000 waiting
batches is found as soon as the first of ten. The place of a batch follows from its priority and from when it was last served
(``tickets.last_served``), and a file elsewhere is only moved there. These files are hints: what a batch has to start is in
``ready/``, and whoever follows one that leads to nothing removes it.

Who writes a batch's first ticket on a key (at ingest without ``tick.lock``) touches ``new`` before it and after it: before it, so
that a crash leaves the hint; after it, since a pass may have followed the first one before the ticket was there. All else
happens under ``tick.lock``. Should a crash and a pass both come in between, the first pass that is left with room finds the
folder in ``ready/`` that no turn has led to (``missing``), as it finds those of a store of an earlier version.
"""

import contextlib
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.store import members
from parallelhassnes.store.layout import Layout

_NEW, _HELD, _LIMITS = "new", "held", "limits"
_LOOKS = 64
"""Held batches that a pass looks at again; where there are more, other ones each time."""
HIGHEST = 1000
"""Of priorities."""
_HOUR = len("020261121T01")


class QueueTurn(NamedTuple):
    """One batch's place on one key."""

    path: Path
    batch_id: str


def announce(layout: Layout, key_folder: str, batch_id: str) -> None:
    """Have the next pass find the batch's place on the key."""
    _touch(layout.turns / key_folder / _NEW / batch_id)


def place(layout: Layout, key_folder: str, batch_id: str, *, priority: int, served: float, arrival: str) -> Path:
    """Tell where the batch's file belongs.

    Args:
        served: seconds since the epoch; 0 for never.
        arrival: ``YYYYMMDDTHHMMSS…`` of one that was never served; empty where it is not known.
    """
    if served:
        moment = datetime.fromtimestamp(served, UTC)
        when, fraction = f"1{moment:%Y%m%dT%H%M%S}", f"{moment:%f}"
    else:
        when, fraction = f"0{arrival}", "0"
    rank = f"{HIGHEST - priority:04d}"
    hour, minute, second = when[:_HOUR], when[_HOUR : _HOUR + 2], when[_HOUR + 2 : _HOUR + 4]
    return layout.turns.joinpath(key_folder, rank, hour, minute or "0", second or "0", f"{fraction}.{batch_id}")


def keys(layout: Layout) -> list[str]:
    """Return the folders of queue keys that have turns."""
    return members.names(layout.turns)


def fresh(layout: Layout, key_folder: str) -> list[QueueTurn]:
    """Return the batches whose places are to be found."""
    return _named(layout.turns / key_folder / _NEW)


def held(layout: Layout, key_folder: str) -> list[QueueTurn]:
    """Return the batches that could start nothing when their turn came."""
    found = _named(layout.turns / key_folder / _HELD)
    return found if len(found) <= _LOOKS else random.sample(found, _LOOKS)


def held_ids(layout: Layout, key_folder: str) -> set[str]:
    """Return every batch that waits until it may start something again."""
    return set(members.names(layout.turns / key_folder / _HELD))


def recall(layout: Layout) -> None:
    """Have the next pass look at every held batch, where there are more than it looks at by itself."""
    for key_folder in keys(layout):
        recall_on(layout, key_folder)


def recall_on(layout: Layout, key_folder: str) -> None:
    """As ``recall``, of one key."""
    found = _named(layout.turns / key_folder / _HELD)
    for turn in found if len(found) > _LOOKS else ():
        move(turn, layout.turns / key_folder / _NEW / turn.batch_id)


def hold(layout: Layout, key_folder: str, turn: QueueTurn) -> None:
    """Pass over a batch until it may start something again."""
    move(turn, layout.turns / key_folder / _HELD / turn.batch_id)


def _named(folder: Path) -> list[QueueTurn]:
    return [QueueTurn(folder / name, name) for name in members.names(folder)]


def in_order(layout: Layout, key_folder: str) -> Iterator[QueueTurn]:
    """Yield the turns on a key, first to be served first; lists no more than needed.

    Within a priority those noted under a clock that was ahead come before all others: whoever looks at one finds that its
    place is another.
    """
    top = layout.turns / key_folder
    now = f"1{datetime.now(UTC):%Y%m%dT%H%M%S}"[:_HOUR]
    for rank in members.names(top):
        hours = members.names(f"{top}/{rank}") if rank.isdecimal() else []
        for hour in sorted(hours, key=lambda hour: (hour <= now, hour)):
            for path in _leaves(f"{top}/{rank}/{hour}", 2):
                fraction, _, batch_id = path.rpartition("/")[2].partition(".")
                if fraction.isdecimal() and batch_id:
                    yield QueueTurn(Path(path), batch_id)


def _leaves(folder: str, depth: int) -> Iterator[str]:
    for name in members.names(folder):
        if depth:
            yield from _leaves(f"{folder}/{name}", depth - 1)
        else:
            yield f"{folder}/{name}"


def move(turn: QueueTurn, to: Path) -> QueueTurn:
    """Give a batch another place; harmless where its file has gone."""
    with contextlib.suppress(FileNotFoundError):
        while True:
            try:
                turn.path.rename(to)
            except FileNotFoundError:
                if to.parent.is_dir():
                    raise
                to.parent.mkdir(parents=True, exist_ok=True)
                continue
            break
    _tidy(turn.path.parent)
    return QueueTurn(to, turn.batch_id)


def remove(turn: QueueTurn) -> None:
    """Remove a turn that leads to nothing."""
    turn.path.unlink(missing_ok=True)
    _tidy(turn.path.parent)


def _tidy(folder: Path) -> None:
    """Remove the folders of the way that are empty, up to the key's."""
    with contextlib.suppress(OSError):
        for _ in range(5):
            folder.rmdir()
            folder = folder.parent
            if folder.parent.name == "_queue":
                return


def _touch(path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            os.close(os.open(path, flags, 0o666))
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        return


# --- limits of tables ---------------------------------------------------------------------------------


def note_limit(layout: Layout, key_folder: str, batch_id: str, number: int) -> None:
    """Note that the batch's table allows so many live attempts on the key, as long as it waits there."""
    _touch(layout.turns / key_folder / _LIMITS / f"{number:09d}" / batch_id)


def strictest(layout: Layout, key_folder: str) -> str | None:
    """Return the batch with the lowest limit of its table among those that wait on the key; None where none has one."""
    top = layout.turns / key_folder / _LIMITS
    for number in members.names(top):
        with members.apart(top / number), os.scandir(top / number) as entries:
            for entry in entries:
                if members.is_there(layout.ready / key_folder / entry.name):
                    return entry.name
                os.unlink(entry.path)  # noqa: PTH108 - hot path
        with contextlib.suppress(OSError):
            (top / number).rmdir()
    return None
