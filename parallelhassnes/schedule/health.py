"""Whether passes are made: what is written down where none succeeds, and what every view tells of it.

    _system/tick.lock          its mtime: when a pass last succeeded
    _system/pass.wanted        its mtime: since when a pass is wished for that nobody has made
    _system/health.json    A   there while passes fail: since when, why, how often

A pass that fails leaves the wish for another: the waker tries again, then whoever comes. The first that succeeds
removes ``health.json``.
"""

import contextlib
import os
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from parallelhassnes import file_stamp
from parallelhassnes.execute import logs
from parallelhassnes.plan import Record
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.limits import start_rate
from parallelhassnes.store import atomic, clocks, decider, hosts, locks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text

LOG = "passes.log"
UNSERVED_SEC = 30.0
"""After so long a wish for a pass is told as one that nobody serves."""
TICKED_SEC = 180.0
"""Without a tick for so long, nobody ticks."""
_MOST_LOG = 1 << 20
"""Bytes of the log beyond which it is begun anew; the one before is kept beside it."""


class Failing(Record):
    """Passes that fail."""

    schema_version: Literal[1] = 1
    since: str
    """When a pass last succeeded; where nobody knows, when one first failed."""
    at: str
    """When one last failed."""
    times: int
    """Failures since then."""
    error: str
    """The last one's, in one line."""
    log: str
    """Where its traceback is."""


def log_of(layout: Layout) -> Path:
    """Tell where processes of the root write what they say outside of an attempt."""
    path = layout.system / LOG
    with contextlib.suppress(OSError):
        if path.stat().st_size > _MOST_LOG:
            path.rename(path.with_suffix(".1.log"))
    return path


def wish(layout: Layout) -> None:
    """Leave the wish for a pass; one that is there keeps its time."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        os.close(os.open(layout.pass_wanted, flags, 0o666))


def wished(layout: Layout) -> file_stamp.FileStamp | None:
    """Return what tells one wish for a pass from another; None where there is none."""
    return file_stamp.at(layout.pass_wanted)


def failed(layout: Layout, error: Exception) -> None:
    """Note that a pass failed; the traceback goes to the log once for each new error."""
    known = failing(layout)
    line = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    log = log_of(layout)
    made = Failing(
        since=known.since if known else last_pass(layout),
        at=now_text(),
        times=known.times + 1 if known else 1,
        error=line,
        log=str(log),
    )
    with contextlib.suppress(OSError):
        if known is None or known.error != line:
            with log.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                text = "".join(traceback.format_exception(error))
                stream.write(f"{now_text()} a pass failed in process {os.getpid()}\n{text}")
        atomic.write_json(layout.failing, dump(made), durable=False)


def succeeded(layout: Layout) -> None:
    """Note that a pass succeeded."""
    with contextlib.suppress(OSError):
        os.utime(layout.tick_lock)
        if os.path.exists(layout.failing):  # noqa: PTH110 - hot path
            layout.failing.unlink(missing_ok=True)
            logs.say("a pass has succeeded again")


def failing(layout: Layout) -> Failing | None:
    """Tell what is known of passes that fail; None where they do not."""
    try:
        return atomic.read_record(Failing, layout.failing)
    except (OSError, atomic.CorruptFile):
        return None


def was_ticked(layout: Layout) -> bool:
    """Tell whether any runner has ticked of late; one that cron ticks does once a minute."""
    for name in members.names(layout.runners):
        with contextlib.suppress(OSError):
            if clocks.age((layout.runners / name / "health.json").stat().st_mtime) < TICKED_SEC:
                return True
    return False


def last_pass(layout: Layout) -> str:
    """Tell when a pass last succeeded; now, where nobody knows."""
    try:
        return now_text(datetime.fromtimestamp(layout.tick_lock.stat().st_mtime, UTC))
    except OSError:
        return now_text()


def troubles(layout: Layout) -> list[str]:
    """Tell what keeps passes from being made as they should, in lines with what to do; none where nothing does."""
    found = failing(layout)
    lines = [configuration.trouble(layout)]
    if found is not None:
        lines.append(f"no pass has succeeded since {found.since} ({found.error}); it is tried again; see {found.log}")
    waited = unserved_sec(layout)
    if waited is not None:
        lines.append(_unserved(layout, waited, is_failing=found is not None))
    return [line for line in lines if line]


def waiting(layout: Layout) -> list[str]:
    """Tell what keeps ready steps of every batch from starting, a line each with what to do: no passes, no engine."""
    return [*troubles(layout), *start_rate.held(layout)]


def unserved_sec(layout: Layout) -> float | None:
    """For how long a pass has been wished for, where that is too long."""
    try:
        waited = clocks.age(layout.pass_wanted.stat().st_mtime)
    except OSError:
        return None
    return waited if waited > UNSERVED_SEC else None


def _unserved(layout: Layout, waited: float, *, is_failing: bool) -> str:
    right = decider.right(layout) if hosts.is_shared(layout) else None
    if right is not None and (right.given_up or right.runner != layout.runner):
        who = "no host decides" if right.given_up else f"{right.runner} decides, and makes none"
        return (
            f"a pass has been wanted for {waited:.0f} s; {who}: another host takes over once the beat of one that decides "
            "stands still; see `parallelhassnes runners`"
        )
    pid = locks.holder(layout.tick_lock)
    if pid is None:
        if is_failing:
            return ""
        if locks.is_held(layout.tick_lock):
            return (
                f"a process that cannot be seen from here, as one of a container, has held {layout.tick_lock} while a pass "
                f"is wanted for {waited:.0f} s; if it hangs, end it, and the next tick goes on"
            )
        return f"a pass has been wanted for {waited:.0f} s and nobody makes one; run `parallelhassnes tick`"
    if _is_stopped(pid):
        return (
            f"process {pid} is stopped and holds {layout.tick_lock}, so nothing has started for {waited:.0f} s; "
            f"let it go on (kill -CONT {pid}) or end it (kill -9 {pid})"
        )
    return (
        f"process {pid} has held {layout.tick_lock} while a pass is wanted for {waited:.0f} s; "
        f"if it hangs, end it (kill -9 {pid}), and the next tick goes on"
    )


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
