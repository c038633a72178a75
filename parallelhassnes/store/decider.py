"""Who of several hosts on one root decides: the right, which one host holds at a time, and its lock.

    runners/.hosts/right/<epoch>.json   who has the right to decide; the highest epoch counts

One host decides: it alone ingests, settles, repairs what others left, and hands out. Every host runs what it is handed. So no
fact has two writers, whether or not locks reach from host to host. A right is claimed by ``link()``, so that one claim wins, when
the one before was given up, or when the beat of its holder has stood still for ``hosts.still_sec`` by the claimer's own clock. A holder that
comes back sees the higher epoch before it acts (``decides``). The one who takes over waits until it must see all that was written before.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from parallelhassnes.errors import UserError
from parallelhassnes.store import atomic, clocks, hosts, locks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text

_EPOCHS_KEPT = 32
_EPOCH = re.compile(r"(\d{8})\.json")


class Right(hosts.Told):
    """``right/<epoch>.json``: who decides from then on."""

    schema_version: Literal[1] = 1
    epoch: int
    runner: str
    boot_id: str
    at: str
    given_up: bool = False
    """Nobody holds it: the one who did has ended, and any member may claim the next."""
    acts_from: float = 0.0
    """Seconds since the start of the runner's host: before, it may not see all that the one before it has written."""


class NotHere(UserError):
    """Another host decides, and its locks do not reach here."""


def right(layout: Layout) -> Right | None:
    """Tell who has the right to decide; None where nobody ever had. Of an epoch that cannot be read nobody is known, but it counts."""
    epochs = [name for name in members.names(layout.hosts / "right") if _EPOCH.fullmatch(name)]
    if not epochs:
        return None
    try:
        return atomic.read_record(Right, layout.hosts / "right" / epochs[-1])
    except (OSError, atomic.CorruptFile):
        return Right(epoch=int(epochs[-1].partition(".")[0]), runner="", boot_id="", at="")


def decides(layout: Layout) -> bool:
    """Tell whether this host decides: always where it is the only one. Asked before each act of a decider."""
    if not layout.runner:
        return True
    found = right(layout)
    return found is not None and not found.given_up and _is_mine(layout, found) and clocks.boottime() >= found.acts_from


def claim_first_right(layout: Layout) -> bool:
    """Claim the first right of a root that is about to have several hosts; False where there has been one."""
    (layout.hosts / "right").mkdir(parents=True, exist_ok=True)
    return right(layout) is None and claim_right(layout, None)


def claim_right(layout: Layout, after: Right | None) -> bool:
    """Claim the epoch after that one; False where another was faster. What another host has decided must be seen first: ``acts_from``."""
    own = after is None or (after.given_up and _is_mine(layout, after))
    acts_from = 0.0 if own else clocks.boottime() + 2 * hosts.cache_sec(layout)
    return _next_epoch(layout, after, given_up=False, acts_from=acts_from)


def give_up_right(layout: Layout) -> None:
    """Have any other member be able to decide at once; nothing where this host has not decided."""
    found = right(layout)
    if found is not None and not found.given_up and _is_mine(layout, found):
        _next_epoch(layout, found, given_up=True)


def _is_mine(layout: Layout, found: Right) -> bool:
    return (found.runner, found.boot_id) == (layout.runner, hosts.machine().boot_id)


def _next_epoch(layout: Layout, after: Right | None, *, given_up: bool, acts_from: float = 0.0) -> bool:
    made = Right(
        epoch=1 if after is None else after.epoch + 1,
        runner=layout.runner,
        boot_id=hosts.machine().boot_id,
        at=now_text(),
        given_up=given_up,
        acts_from=acts_from,
    )
    path = layout.hosts / "right" / f"{made.epoch:08d}.json"
    atomic.claim(path, atomic.dumps(dump(made)).encode())
    for name in members.names(path.parent)[:-_EPOCHS_KEPT]:
        (path.parent / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError, atomic.CorruptFile):
        return atomic.read_record(Right, path) == made
    return False


@contextmanager
def deciding_if_free(layout: Layout) -> Iterator[bool]:
    """Whether this host decides within the block: a right that nobody holds is claimed for it, and given up at its end."""
    if decides(layout):
        yield True
        return
    found = right(layout)
    is_free = found is None or found.given_up
    if not (is_free and claim_right(layout, found)):
        yield False
        return
    try:
        claimed = right(layout)
        if claimed is not None and _is_mine(layout, claimed):
            time.sleep(max(0.0, claimed.acts_from - clocks.boottime()))
        yield True
    finally:
        give_up_right(layout)


@contextmanager
def deciding(layout: Layout) -> Iterator[None]:
    """Hold ``tick.lock`` for a block that changes what the scheduler goes by: an operator's word.

    Raises:
        SecondHost: this host may not work on the root.
        NotHere: another host decides, and locks do not reach from host to host.
        StoreBusy: somebody else has had the lock for a minute.
    """
    hosts.check(layout)
    with deciding_if_free(layout) as is_ours:
        here = hosts.member(layout, layout.runner) if not is_ours else None
        if not is_ours and not (here is not None and here.locks_cross):
            found = right(layout)
            who = (found and found.runner) or "another one"
            raise NotHere(
                f"the host that decides on {layout.root} is {who}, and locks do not reach from host to host here",
                fix=f"run this on {who}",
            )
        with locks.held(layout.tick_lock):
            yield
