"""Whether a tick has anything to do, found out without what a tick is made of.

    _system/at_rest.json   D   stamps of the files that a tick goes by, as they were when one last had nothing to do and to tell

Most ticks of cron find nothing, and loading what they do not use is nearly all that they cost. So a whole tick that has done
nothing and has told nothing notes how those files stood before it looked at them. While they stand so, the queue is
empty and nothing is due, a tick does what is left of it here: the time of ``tick.lock``, which says that passes are made, and the
health of the runner. Whatever is not as it must be, or cannot be looked at, is left to a whole tick. So is a wish for a pass that
comes while ``tick.lock`` is held here.

What is imported here imports no library but Python's own.
"""

import fcntl
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from parallelhassnes import file_stamp, names
from parallelhassnes.schedule.process import runner_heartbeat
from parallelhassnes.store import atomic, clocks, members, privacy, process_identity, space
from parallelhassnes.store.layout import Layout
from parallelhassnes.version import __version__

_DAY_SEC = 86_400.0


def found(layout: Layout) -> dict[str, Any]:
    """Tell how the files stand that a tick goes by, besides the queue; empty where one cannot be looked at."""
    paths = [layout.root / names.CONFIG_NAME, layout.configured, layout.system / "store_id"]
    try:
        paths += [layout.runners / name / "boot_id" for name in sorted(_listing(layout.runners)) if name[0] != "."]
        for folder in (layout.limits, layout.starts):
            paths += [folder / name for name in sorted(_listing(folder))]
        stamps = {str(path.relative_to(layout.root)): _stamp(path) for path in paths}
    except OSError:
        return {}
    host = [platform.node(), process_identity.table()]
    return {"schema_version": 1, "harness_version": __version__, "host": host, "stamps": stamps}


def note(layout: Layout, before: Mapping[str, Any]) -> None:
    """Note that a whole tick had nothing to do and to tell.

    Args:
        before: what was ``found`` before it began; where anything has changed since, nothing is noted.
    """
    if before and before == found(layout) and before != atomic.read_derived(layout.at_rest):
        atomic.write_json(layout.at_rest, before, durable=False)


def tick(root: Path, *, quiet: bool) -> bool:
    """Do what a tick does of a store that is at rest; False, where a whole tick must look.

    Args:
        quiet: the tick tells nothing but trouble.
    """
    layout = Layout(root)
    try:
        if atomic.read_derived(layout.at_rest) != found(layout):
            return False
        config = atomic.read_json(layout.configured)["config"]
        atomic.set_temp(layout.temp)
        privacy.set_mask(config["private"])
        return _rests(layout, config, quiet=quiet) and _passes(layout, config, quiet=quiet)
    except (OSError, atomic.CorruptFile, KeyError, TypeError, ValueError):
        return False


def _passes(layout: Layout, config: Mapping[str, Any], *, quiet: bool) -> bool:
    """Do, under ``tick.lock``, what a pass without anything to do does."""
    lock = os.open(layout.tick_lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _rests(layout, config, quiet=quiet):
            return False
        os.utime(lock)
    finally:
        os.close(lock)
    if members.is_there(layout.pass_wanted):
        return False
    runner_heartbeat.report_health(layout, config["runner_id"], capacity=config["concurrency"], live=lambda: 0)
    return True


def _rests(layout: Layout, config: Mapping[str, Any], *, quiet: bool) -> bool:
    """Tell whether nothing is queued, wished for, due, short or to be told."""
    marks = (layout.pass_wanted, layout.checkpoint_wanted, layout.failing, layout.hosts)
    floors = SimpleNamespace(**config)
    return (
        not any(members.is_there(path) for path in marks)
        and all(folder.is_dir() for folder in layout.folders())
        and not any(_entries(layout))
        and not (
            config.get("archive_while_running")
            and (_listing(layout.archive / "wanted") or _listing(layout.archive / "sending"))
        )
        and _is_ours(layout, private=config["private"])
        and not checkpoint_is_due(layout)
        and space.shortage(layout.runs, floors) is None
        and not (quiet and atomic.read_derived(layout.told).get("lines"))
    )


def _entries(layout: Layout) -> Iterator[str]:
    """Whatever lies in the queue, or was left behind by somebody who died; what is running first, since that moves on."""
    for key in _listing(layout.running):
        yield from os.listdir(layout.running / key)
    for folder in (
        layout.ended,
        layout.incoming,
        layout.ready,
        layout.turns,
        layout.delayed,
        layout.blocked,
        layout.added,
        layout.temp,
    ):
        yield from _listing(folder)
    yield from (name for name in _listing(layout.images) if name.endswith(".json"))
    yield from _listing(layout.notices / "new")


def _is_ours(layout: Layout, *, private: bool) -> bool:
    """Tell whether a private store is this user's, and closed to others."""
    info = layout.runs.stat()
    return not private or (info.st_uid == os.geteuid() and not info.st_mode & 0o077)


def checkpoint_is_due(layout: Layout) -> bool:
    """Tell whether nobody has looked for a day whether there is anything new to make a checkpoint of."""
    for path in (layout.checkpoint_lock, layout.configured):
        try:
            return clocks.age(path.stat().st_mtime) > _DAY_SEC
        except FileNotFoundError:
            continue
    return False


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _stamp(path: Path) -> list[int] | None:
    found = file_stamp.at(path)
    return found and list(found)
