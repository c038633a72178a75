"""What may start again later: a ticket by its batch, and where it stands in time as an empty file.

    _queue/delayed/batches/<batch_id>/<ms>-<delay>.<ticket>             D   the ticket
    _queue/delayed/due/<hour>/<minute>/<second>/<ms>-<delay>.<ticket>   D   a hint: it is due in that second
    _queue/delayed/noted.<ms>                                           D   the latest instant at which one of them was noted

A name says when the ticket is due, and its delay, both in milliseconds: it is due after that delay at the latest, whatever clock
it was named under (``clocks``). A pass walks ``due`` in its order and stops at the first that is not due, so it reads what is
due and not what waits. Whether a batch has one is whether its folder is there.

A ticket that was noted under a clock that was ahead would come too late in that order. None was where ``noted`` does not lie in
the future: nothing is noted for later than the instant of noting and its delay. Else, and where ``noted`` is missing, all tickets are gone
through once (``put_in_order``): each gets the name and the hint that it should have, and ``noted`` becomes now.

Earlier versions wrote ``delayed/<ms>-<delay>.<ticket>``, the earliest ones without the delay. Processes that outlive an upgrade
still do; ``put_in_order`` takes these over.

All is written under ``tick.lock``. In which order, and what a crash between two acts leaves:

    noted            ─▶ later than any ticket: all are gone through once too often
    hint             ─▶ it leads to no ticket: the pass that comes to it removes it
    ticket

and when it is due: ``ready/`` (by ``tickets``) ─▶ both are there: it is moved again, under the same name ─▶ the ticket is removed ─▶ the
hint is removed. Taken over or named anew: new hint ─▶ rename of the ticket ─▶ old hint removed. When the last has gone the
folders go, with what crashes left in them, and ``noted``.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.store import atomic, clocks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import StepNow, Ticket, dump, parse_time

MOST_PROMOTED = 256
"""Tickets that one pass moves to ``ready/``; the next follows at once."""
MOST_DELAY_SEC = 7 * 86_400 * 1.2
"""Longer than any rule lets a step wait (``config.Wait``, stretched by the jitter)."""
_BATCHES, _DUE, _NOTED = "batches", "due", "noted."
_WHEN = re.compile(r"(\d{14})(?:-(\d{1,14}))?", re.ASCII)


class Delayed(NamedTuple):
    """A delayed ticket."""

    at: float
    """Not before this; never later than its delay from now."""
    path: Path
    noted: float
    """When it is due by its name."""
    delay: float | None
    """Seconds; None where an earlier version named it."""
    ticket: str
    """Its name in the rest of the queue."""

    @property
    def batch_id(self) -> str:
        return tickets.parse_name(self.ticket).batch_id


def put(layout: Layout, ticket: Ticket, name: str, step: StepNow) -> None:
    """Let the step start again at its ``retry_at``, not earlier."""
    if step.retry_at is None or step.ended_at is None:
        return
    now, delay = time.time(), delay_of(step)
    _note(layout, now)
    listed = _name(clocks.latest(parse_time(step.retry_at), now, delay), delay, name)
    _touch(_hint(layout, listed))
    _in_folder(_path(layout, listed), lambda path: atomic.write_json(path, dump(ticket)))


def delay_of(step: StepNow) -> float:
    """Return seconds from the end of the newest attempt to the next."""
    if step.retry_at is None or step.ended_at is None:
        return 0.0
    return max(0.0, parse_time(step.retry_at) - parse_time(step.ended_at))


def by_ticket(layout: Layout, batch_id: str) -> dict[str, list[Delayed]]:
    """Tell what waits of a batch, by the names in the rest of the queue."""
    found: dict[str, list[Delayed]] = {}
    for each in of_batch(layout, batch_id):
        found.setdefault(each.ticket, []).append(each)
    return found


def drop(layout: Layout, found: Iterable[Delayed]) -> None:
    """Let these not start again."""
    for each in found:
        _remove(each.path)
        _remove(_hint(layout, each.path.name))


def batch_ids(layout: Layout) -> list[str]:
    """Return the batches that have delayed tickets."""
    flat = {each.batch_id for each in _in(layout.delayed)}
    return sorted(flat.union(members.names(layout.delayed / _BATCHES)))


def has_any(layout: Layout, batch_id: str) -> bool:
    """Tell whether the batch has one."""
    return members.is_there(layout.delayed / _BATCHES / batch_id) or any(_flat_of(layout, batch_id))


def of_batch(layout: Layout, batch_id: str) -> list[Delayed]:
    """Return the batch's delayed tickets, soonest first."""
    return sorted([*_in(layout.delayed / _BATCHES / batch_id), *_flat_of(layout, batch_id)])


def every(layout: Layout) -> list[Delayed]:
    """Return every delayed ticket, soonest first."""
    top = layout.delayed / _BATCHES
    return sorted([*_in(layout.delayed), *(each for batch_id in members.names(top) for each in _in(top / batch_id))])


def batch_of(path: Path) -> str | None:
    """Return the batch of a delayed ticket; None where the file is named otherwise."""
    found = _parse(path.parent, path.name, 0.0)
    return None if found is None else found.batch_id


# --- by time ------------------------------------------------------------------------------------------


def next_at(layout: Layout, now: float) -> float | None:
    """Tell when a pass may find something to do here; None for never."""
    if is_out_of_order(layout, now):
        return now
    return next((found.at for found in _walk(layout, now)), None)


def is_out_of_order(layout: Layout, now: float) -> bool:
    """Tell whether a pass is to go through all tickets first."""
    listed = members.names(layout.delayed)
    if any(_parse(layout.delayed, name, now) for name in listed):
        return True
    noted = max((_instant(name) for name in listed if name.startswith(_NOTED)), default=None)
    return _BATCHES in listed and (noted is None or noted > now or _DUE not in listed)


def put_in_order(
    layout: Layout,
    now: float,
    on_damage: Callable[[Path, Exception], None],
    wanted_delay: Callable[[Ticket], float | None],
) -> None:
    """Give every ticket the name and the place that it should have.

    Args:
        on_damage: what is to become of a ticket that cannot be read.
        wanted_delay: the delay that one of an earlier version was given; None where that is not known any more.
    """
    for found in every(layout):
        with members.apart(found.path, partial(on_damage, found.path)):
            delay = found.delay
            if delay is None:
                delay = wanted_delay(tickets.read(found.path))
                delay = MOST_DELAY_SEC if delay is None else delay
            listed = _name(clocks.latest(found.noted, now, delay), delay, found.ticket)
            to = _path(layout, listed)
            _touch(_hint(layout, listed))
            if found.path != to:
                _in_folder(to, found.path.rename)
            if found.path.name != listed:
                _remove(_hint(layout, found.path.name))
    _forget_noted(layout)
    if members.is_there(layout.delayed / _BATCHES):
        _note(layout, now)


def promote_due(layout: Layout, now: float, on_damage: Callable[[Path, Exception], None]) -> bool:
    """Move what is due to ``ready/``, the first ``MOST_PROMOTED``; whether there is more of it.

    Args:
        on_damage: what is to become of a ticket that cannot be read.
    """
    moved = 0
    for found in _walk(layout, now):
        if found.noted > now:
            break
        if moved == MOST_PROMOTED:
            return True
        if members.is_there(found.path):
            with members.apart(found.path, partial(on_damage, found.path)):
                tickets.put_ready(layout, tickets.read(found.path), found.ticket)
                found.path.unlink()
                moved += 1
        if not members.is_there(found.path):
            drop(layout, [found])
    if not members.is_there(layout.delayed / _BATCHES) and members.names(layout.delayed):
        _clear(layout)
    return False


def _clear(layout: Layout) -> None:
    """Remove, where no ticket is left, what crashes have left of the order."""
    for found in list(_walk(layout, 0.0)):
        _hint(layout, found.path.name).unlink(missing_ok=True)
    for folder, _, _ in os.walk(layout.delayed / _DUE, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106 - as os.walk names it
    _forget_noted(layout)


def _walk(layout: Layout, now: float) -> Iterator[Delayed]:
    """Return the tickets that the hints lead to, in order; lists no more than it must."""
    for second in _seconds(layout.delayed / _DUE, 3):
        for name in members.names(second):
            found = _parse(second, name, now)
            if found is not None:
                yield found._replace(path=_path(layout, name))


def _seconds(folder: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        yield folder
        return
    for name in members.names(folder):
        yield from _seconds(folder / name, depth - 1)


# --- names --------------------------------------------------------------------------------------------


def _name(at: float, delay: float, ticket: str) -> str:
    """Tell how a delayed ticket is named; it sorts by when that is due."""
    return f"{int(at * 1000):014d}-{int(delay * 1000)}.{ticket}"


def _parse(folder: Path, listed: str, now: float) -> Delayed | None:
    """Tell what a name says; None where it is no delayed ticket's."""
    when, _, ticket = listed.partition(".")
    said = _WHEN.fullmatch(when)
    if said is None or not tickets.is_name(ticket):
        return None
    noted, delay = int(said[1]) / 1000, int(said[2]) / 1000 if said[2] else None
    at = clocks.latest(noted, now, MOST_DELAY_SEC if delay is None else delay)
    return Delayed(at, folder / listed, noted, delay, ticket)


def _in(folder: Path) -> Iterator[Delayed]:
    now = time.time()
    for name in members.names(folder):
        found = _parse(folder, name, now)
        if found is not None:
            yield found


def _flat_of(layout: Layout, batch_id: str) -> Iterator[Delayed]:
    """Tell what an earlier version wrote of the batch."""
    return (each for each in _in(layout.delayed) if each.batch_id == batch_id)


def _path(layout: Layout, listed: str) -> Path:
    return layout.delayed / _BATCHES / tickets.parse_name(listed.partition(".")[2]).batch_id / listed


def _hint(layout: Layout, listed: str) -> Path:
    moment = datetime.fromtimestamp(int(listed[:14]) // 1000, UTC)
    return layout.delayed / _DUE / f"{moment:%Y%m%dT%H}" / f"{moment:%M}" / f"{moment:%S}" / listed


# --- files --------------------------------------------------------------------------------------------


def _note(layout: Layout, now: float) -> None:
    """Have ``noted`` say no less than now."""
    before = [name for name in members.names(layout.delayed) if name.startswith(_NOTED)]
    name = f"{_NOTED}{int(now * 1000):014d}"
    if max(before, default="") >= name:
        return
    _touch(layout.delayed / name)
    for old in before:
        (layout.delayed / old).unlink(missing_ok=True)


def _forget_noted(layout: Layout) -> None:
    for name in members.names(layout.delayed):
        if name.startswith(_NOTED):
            (layout.delayed / name).unlink(missing_ok=True)


def _instant(name: str) -> float:
    said = name.removeprefix(_NOTED)
    return int(said) / 1000 if said.isdecimal() else 0.0


def _touch(path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    _in_folder(path, lambda path: os.close(os.open(path, flags, 0o666)))


def _in_folder(path: Path, act: Callable[[Path], object]) -> None:
    """Do something at a place whose folder may be missing."""
    try:
        act(path)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        path.parent.mkdir(parents=True, exist_ok=True)
        act(path)


def _remove(path: Path) -> None:
    """Remove a file, and the folders above it that are empty then."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in path.parents:
            if folder.name == "delayed":
                return
            with contextlib.suppress(FileNotFoundError):  # a crash left those above it
                folder.rmdir()
