"""What each of several runners is given, by tickets.

    runners/<name>/handed/<ticket>   what it is to run: the decider's assignment
    runners/<name>/taken/<ticket>    what it runs, until the ticket has ended

The decider writes ``handed/`` after the attempt's folder is there and its ticket is in ``running/``. The runner takes it by rename, so it
is either taken or taken back (``take_back``), never both. A crash leaves a note of what has ended, which ``loads`` passes over by ``running/``.
"""

import contextlib
from typing import Any

from pydantic import BaseModel

from parallelhassnes.store import atomic, hosts, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets

JOBS = ".slurm"
"""In the place of a runner's name: what is run by jobs of Slurm, one for each attempt (``schedule/cluster``)."""


def handed(layout: Layout, name: str) -> list[str]:
    """Return the tickets that a runner is to take."""
    return [ticket for ticket in members.names(layout.runners / name / "handed") if tickets.is_name(ticket)]


def taken(layout: Layout, name: str) -> list[str]:
    """Return the tickets of what a runner runs."""
    return [ticket for ticket in members.names(layout.runners / name / "taken") if tickets.is_name(ticket)]


def loads(layout: Layout, running: set[str]) -> dict[str, set[str]]:
    """Return runner → the running tickets that it was given.

    Args:
        running: names of all running tickets; others that lie with a runner are of what has ended.
    """
    found = [name for name in members.names(layout.runners) if (layout.runners / name / hosts.MEMBER).exists()]
    return {name: {*handed(layout, name), *taken(layout, name)} & running for name in (*found, JOBS)}


def hand(layout: Layout, name: str, ticket: str, assignment: BaseModel) -> None:
    """Give a runner something to run; the attempt's folder is there, and its ticket in ``running/``."""
    document = assignment.model_dump(mode="json", exclude={"root", "options"})
    if name == JOBS:
        for folder in ("handed", "taken", "jobs"):
            (layout.runners / name / folder).mkdir(parents=True, exist_ok=True)
    atomic.write_json(layout.runners / name / "handed" / ticket, document)


def take(layout: Layout, ticket: str, name: str = "") -> dict[str, Any] | None:
    """Take what was handed to a runner, this one where none is named; None where it was taken back."""
    folder = layout.runners / (name or layout.runner)
    try:
        (folder / "handed" / ticket).rename(folder / "taken" / ticket)
    except FileNotFoundError:
        return None
    return atomic.read_derived(folder / "taken" / ticket)


def give_back(layout: Layout, ticket: str) -> None:
    """Let this runner's taken ticket, whose attempt has not begun, be taken back, or be taken again."""
    folder = layout.runners / layout.runner
    with contextlib.suppress(FileNotFoundError):
        (folder / "taken" / ticket).rename(folder / "handed" / ticket)


def note_taken(layout: Layout, ticket: str, name: str = "") -> None:
    """Note that a runner, this one where none is named, runs what it was not handed: on the host that decides."""
    atomic.write_bytes(layout.runners / (name or layout.runner) / "taken" / ticket, b"", durable=False)


def let_go(layout: Layout, name: str, ticket: str) -> None:
    """Note that a runner has no more to do with what it was given by this ticket."""
    for folder in ("taken", "handed"):
        (layout.runners / name / folder / ticket).unlink(missing_ok=True)


def forget_taken(layout: Layout, ticket: str) -> None:
    """Remove what a crash has left of an attempt that this runner had: the ticket is that of another's by now."""
    (layout.runners / layout.runner / "taken" / ticket).unlink(missing_ok=True)


def let_go_old(layout: Layout, name: str, ticket: str, old_sec: float) -> None:
    """As ``let_go``, where the note is so old by the clock of the file system: it is written before the ticket is where it says."""
    if hosts.age_of(layout, layout.runners / name / "taken" / ticket) > old_sec:
        let_go(layout, name, ticket)


def take_back(layout: Layout, name: str, ticket: str) -> bool:
    """Take back what a runner was handed; False where it has taken it."""
    try:
        (layout.runners / name / "handed" / ticket).unlink()
    except FileNotFoundError:
        return False
    return True
