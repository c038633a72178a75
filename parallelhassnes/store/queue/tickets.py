"""Tickets: the queue's entries, one file per step that is ready, delayed, running or just ended.

    ready/<key>/<batch_id>/<chunk>/<ticket>   ── launch (rename) ──▶  running/<key>/<ticket>
    running/<key>/<ticket>                    ── sealed (rename) ──▶  ended/<ticket>
    ended/<ticket>                            ── settle ──▶  gone, or delayed/… (``delayed``), or ready again
    delayed/…                                 ── due ──▶  ready/…

A ticket is named ``<batch_id>.<seq>.<hash>.<kind>``, the same at every write, so doing a thing twice
leaves one ticket. ``seq`` is the step's place in its batch (a step that was
added later goes on counting from its job's last one): a sorted listing of a batch's folder is its
order of starting. Chunks of 256 keep a look at the head of a queue of any length at two short
listings; between batches the scheduler is fair, so the batch is a folder and not part of the order: ``turns`` has that.
``ready/<key>/<batch_id>/_served`` carries, as its mtime, when the batch was last served there.

Renames are atomic and happen under ``tick.lock``, but for running → ended, which the attempt's own
supervisor does. Tickets are written at ingest without that lock, so a folder found empty may be in use
again: removal is by ``rmdir``, and a writer whose folder is gone makes it again.

What has another name than a ticket's (a README, an editor's backup) is nobody's business here, and is left alone.
"""

import contextlib
import hashlib
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.key_names import key_dir
from parallelhassnes.store import atomic, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import turns
from parallelhassnes.store.records import Ticket, dump

CHUNK = 256
SERVED = "_served"
_NAME = re.compile(r"[A-Za-z0-9._-]+\.\d{7,}\.[0-9a-f]{12}\.[a-z]+")


class TicketName(NamedTuple):
    """What a ticket's file name says."""

    batch_id: str
    seq: int
    digest: str
    """Of batch, job and step: what tells steps apart that have the same place (a later one of another job)."""
    kind: str


class Running(NamedTuple):
    """A ticket of a live attempt."""

    key_dir: str
    name: str
    path: Path


class Torn(atomic.CorruptFile):
    """A ticket that cannot be read; its name still tells its batch."""


def ticket_name(batch_id: str, seq: int, job_id: str, step_id: str, kind: str) -> str:
    return f"{batch_id}.{seq:07d}.{digest(batch_id, f'{job_id}/{step_id}')}.{kind}"


def digest(batch_id: str, key: str) -> str:
    """Tell what names a step in its ticket.

    Args:
        key: ``job_id/step_id``.
    """
    return hashlib.sha256(f"{batch_id}/{key}".encode()).hexdigest()[:12]


def parse_name(name: str) -> TicketName:
    batch_id, seq, mark, kind = name.rsplit(".", 3)
    return TicketName(batch_id, int(seq), mark, kind)


def read(path: Path) -> Ticket:
    """Return the ticket's content.

    Raises:
        FileNotFoundError: it has moved on.
        Torn: it is not one.
    """
    try:
        ticket = atomic.read_record(Ticket, path)
        key_dir(ticket.queue_key)
    except UserError as error:
        raise Torn(f"{path}: {error.message}") from None
    return ticket


def ready_path(layout: Layout, queue_key: str, name: str) -> Path:
    parsed = parse_name(name)
    chunk = f"{parsed.seq // CHUNK:05d}"
    return layout.ready / key_dir(queue_key) / parsed.batch_id / chunk / name


def put_ready(layout: Layout, ticket: Ticket, name: str, *, durable: bool = True) -> None:
    """Write the ticket into ``ready/``; harmless where it is there already."""
    path = ready_path(layout, ticket.queue_key, name)
    while True:
        is_new = _make_chunk(layout, path.parent)
        try:
            atomic.write_json(path, dump(ticket), durable=durable)
        except FileNotFoundError:  # the last ticket of the folder left, and the folder with it
            continue
        if is_new:
            turns.announce(layout, key_dir(ticket.queue_key), ticket.batch_id)
        return


def _make_chunk(layout: Layout, chunk: Path) -> bool:
    """Make the folders; whether the batch is new to the key: then it counts as never served, and gets its turn."""
    if chunk.is_dir():
        return False
    served = chunk.parent / SERVED
    is_new = not served.exists()
    if is_new:
        turns.announce(layout, chunk.parent.parent.name, chunk.parent.name)
    chunk.mkdir(parents=True, exist_ok=True)
    if is_new:
        with contextlib.suppress(FileNotFoundError):
            served.touch()
            os.utime(served, (0, 0))
    return is_new


def announce(layout: Layout, batch_id: str) -> None:
    """Have the next pass look where a batch belongs among those that wait."""
    for key in _listing(layout.ready):
        if members.is_there(layout.ready / key / batch_id):
            turns.announce(layout, key, batch_id)


def ready_folders(layout: Layout) -> Iterator[tuple[str, str, Path]]:
    """Yield each (key folder, batch id, path) that may hold ready tickets."""
    for key in _listing(layout.ready):
        yield from folders_of(layout, key)


def folders_of(layout: Layout, key: str) -> Iterator[tuple[str, str, Path]]:
    """As ``ready_folders``, of one key's folder."""
    for batch_id in members.names(layout.ready / key):
        yield key, batch_id, layout.ready / key / batch_id


def in_order(folder: Path) -> Iterator[Path]:
    """Yield the batch's ready tickets of one key, first to start first; lists no more than it must."""
    for chunk in members.names(folder):
        if chunk != SERVED:
            for name in _tickets(members.names(f"{folder}/{chunk}")):
                yield folder.joinpath(chunk, name)


def sample(folder: Path, most: int) -> list[Path]:
    """Return a few of the batch's ready tickets of one key, from anywhere; lists as many chunks at most."""
    chunks = [name for name in members.names(folder) if name != SERVED]
    picked = random.sample(chunks, min(most, len(chunks)))
    found: list[Path] = []
    for chunk in picked:
        listed = _tickets(members.names(folder / chunk))
        some = random.sample(listed, min(len(listed), -(-most // len(picked))))
        found += (folder / chunk / name for name in some)
    return sorted(random.sample(found, min(most, len(found))))


def last_served(folder: Path) -> float:
    """Tell when one of them was started last; the caller holds ``tick.lock``. One noted under a clock that was ahead is now."""
    path = f"{folder}/{SERVED}"
    with contextlib.suppress(OSError):
        found, now = os.stat(path).st_mtime, time.time()  # noqa: PTH116 - hot path
        if found > now:
            os.utime(path, (now, now))
        return min(found, now)
    return 0.0


def start_running(layout: Layout, path: Path, key_folder: str) -> Path:
    """Move a ready ticket to ``running/``; its old folders go where they are empty."""
    target_folder = layout.running / key_folder
    target = target_folder / path.name
    try:
        path.rename(target)
    except FileNotFoundError:
        target_folder.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    with contextlib.suppress(OSError):
        now = time.time()
        os.utime(path.parent.parent / SERVED, (now, now))
    tidy(path.parent)
    return target


def tidy(chunk: Path) -> None:
    """Remove a chunk's folder, its batch's and its key's, as far as they are empty."""
    with contextlib.suppress(OSError):
        chunk.rmdir()
        if _listing(chunk.parent) in ([], [SERVED]):
            (chunk.parent / SERVED).unlink(missing_ok=True)
            chunk.parent.rmdir()
            chunk.parent.parent.rmdir()


def drop_empty(folder: Path) -> bool:
    """Remove a batch's folder on a key where there is no ticket in it; whether it is gone."""
    for chunk in members.names(folder):
        if chunk != SERVED:
            with contextlib.suppress(OSError):
                (folder / chunk).rmdir()
    with contextlib.suppress(OSError):
        if _listing(folder) in ([], [SERVED]):
            (folder / SERVED).unlink(missing_ok=True)
            folder.rmdir()
            folder.parent.rmdir()
    return not members.is_there(folder)


def running(layout: Layout, told: members.Told | None = None) -> list[Running]:
    """Return every running ticket; counting these is the concurrency limit.

    Args:
        told: what is done about a key's folder that cannot be listed.
    """
    return [
        Running(key, name, layout.running / key / name)
        for key in _listing(layout.running)
        for name in _tickets(members.names(f"{layout.running}/{key}", told))
    ]


def end_running(layout: Layout, key_folder: str, name: str) -> bool:
    """Free the slot of a sealed attempt; False where the ticket was not there any more."""
    try:
        os.rename(f"{layout.running}/{key_folder}/{name}", f"{layout.ended}/{name}")  # noqa: PTH104 - hot path
    except FileNotFoundError:
        return False
    return True


def is_unsettled(layout: Layout, key_folder: str, name: str) -> bool:
    """Tell whether a step's attempt, which its ticket is named after, runs, has died, or has ended and is not settled."""
    return members.is_there(layout.ended / name) or members.is_there(layout.running / key_folder / name)


def put_back(layout: Layout, key_folder: str, name: str) -> None:
    """Have an ended ticket be a running one again, where that is missing: else nobody would look after the attempt."""
    target = layout.running / key_folder / name
    if not members.is_there(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        (layout.ended / name).rename(target)


def ended(layout: Layout) -> list[Path]:
    return [layout.ended / name for name in _tickets(_listing(layout.ended))]


def has_any(layout: Layout, batch_id: str, besides: str = "") -> bool:
    """Tell whether anything of the batch is ready, runs, or waits to be settled.

    Args:
        besides: name of an ended ticket that does not count.
    """
    if any(members.is_there(layout.ready / key / batch_id) for key in _listing(layout.ready)):
        return True
    prefix = f"{batch_id}."
    over = (path.name for path in ended(layout) if path.name != besides)
    return any(name.startswith(prefix) for name in (*(entry.name for entry in running(layout)), *over))


def is_name(name: str) -> bool:
    """Tell whether a file is named as a ticket."""
    return _NAME.fullmatch(name) is not None


def _tickets(listed: list[str]) -> list[str]:
    """Return those of the names that are tickets'."""
    return [name for name in listed if is_name(name)]


def _listing(folder: Path) -> list[str]:
    """Return the names in a folder of the queue, sorted. One that cannot be listed is no member's: it is the store's."""
    try:
        return sorted(name for name in os.listdir(folder) if name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
