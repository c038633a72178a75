"""CPU, memory and process limits of a sandbox, by control groups (version 2, or 1) where they can be written.

A sandbox gets a group of its own below a group that this process may write to; its first process is moved there before
any command runs, and no other can leave it. Where there is no such group nothing is limited, and the record says so.
"""

import functools
import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROCESSES = 8192
"""Processes and threads of one sandbox at most, so that a fork bomb stays inside."""
_PERIOD_USEC = 100_000
_PREFIX = "parallelhassnes-"
_CONTROLLERS = ("cpu", "memory", "pids")
_FOREIGN_SEC = 600.0
"""A group that was made in another pid namespace and is empty for so long is nobody's."""
_numbers = itertools.count()


@functools.cache
def parents() -> Mapping[str, Path]:
    """For each controller that can be used, the group under which sandboxes get theirs."""
    found: dict[str, Path] = {}
    own = dict(_own_groups())
    for kind, point, options in _cgroup_mounts():
        for controller in _CONTROLLERS:
            if kind == "cgroup2":
                place = _writable(point, own.get("", "/"), controller)
            elif controller in options:
                place = _writable(point, own.get(controller, "/"), None)
            else:
                continue
            if place is not None:
                found.setdefault(controller, place)
    return found


def _own_groups() -> list[tuple[str, str]]:
    """Return the groups of this process: (controller, or "" for version 2; path)."""
    groups: list[tuple[str, str]] = []
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        groups += [(controller, path) for controller in controllers.split(",")]
    return groups


def _cgroup_mounts() -> list[tuple[str, Path, set[str]]]:
    mounts: list[tuple[str, Path, set[str]]] = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            mounts.append((kind, Path(before.split(" ")[4]), set(options.split(","))))
    return mounts


def _writable(point: Path, own: str, controller: str | None) -> Path | None:
    """Return the nearest group at or above this process's own whose children can have the controller."""
    group = point / own.lstrip("/")
    while group.is_relative_to(point):
        enabled = group / "cgroup.subtree_control"
        usable = controller is None or (enabled.is_file() and controller in enabled.read_text(encoding="utf-8").split())
        if usable and group.is_dir() and os.access(group / "cgroup.procs", os.W_OK):
            return group
        if group == point:
            break
        group = group.parent
    return None


@dataclass
class ControlGroup:
    """The control group of one sandbox, one folder per controller (the same one in version 2)."""

    folders: list[Path] = field(default_factory=list)
    enforced: dict[str, str] = field(default_factory=dict)
    """``cpus``, ``memory_mb``, ``processes`` → how much, in words for the record."""

    def add(self, processes: Iterable[int]) -> None:
        """Move these processes into the group; what they start later is in it from its start."""
        for folder in self.folders:
            for process in processes:
                _write(folder / "cgroup.procs", str(process))

    def remove(self) -> None:
        """Give the group back; the kernel does so only once it is empty."""
        for folder in self.folders:
            _remove(folder)


def make(cpus: float | None, memory_mb: int | None) -> ControlGroup:
    """Return a group with these limits, as far as they can be had."""
    group = ControlGroup()
    name = f"{_PREFIX}{_namespace()}-{os.getpid()}-{next(_numbers)}"
    wanted: dict[str, float | None] = {"cpu": cpus, "memory": memory_mb, "pids": PROCESSES}
    for controller, parent in parents().items():
        amount = wanted[controller]
        if amount is None:
            continue
        folder = parent / name
        try:
            folder.mkdir(exist_ok=True)
            _sweep(parent, folder.stat().st_ctime)
            said = _set(folder, controller, amount)
        except OSError:  # seen as writable, and yet not: then this limit is not enforced
            continue
        if folder not in group.folders:
            group.folders.append(folder)
        group.enforced |= said
    return group


def _set(folder: Path, controller: str, amount: float) -> dict[str, str]:
    new = (folder / "cgroup.type").exists() or (folder / "cgroup.events").exists()
    if controller == "cpu":
        quota = max(1000, int(amount * _PERIOD_USEC))
        if new:
            _write(folder / "cpu.max", f"{quota} {_PERIOD_USEC}")
        else:
            _write(folder / "cpu.cfs_period_us", str(_PERIOD_USEC))
            _write(folder / "cpu.cfs_quota_us", str(quota))
        return {"cpus": f"{amount:g}, by control group"}
    if controller == "memory":
        size = str(int(amount) * 2**20)
        _write(folder / ("memory.max" if new else "memory.limit_in_bytes"), size)
        return {"memory_mb": f"{amount:g}, by control group"}
    _write(folder / "pids.max", str(int(amount)))
    return {"processes": f"{amount:g}, by control group"}


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="ascii") as file:
        file.write(text)


@functools.cache
def _namespace() -> int:
    """Inode of this process's pid namespace: containers of one kernel see one tree of groups, and each counts pids from 1."""
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - not of the link itself


def _sweep(parent: Path, now: float) -> None:
    """Remove groups whose maker is dead: a harness that was killed could not remove them. One that is in use stays.

    Args:
        now: when a group was made just now, by the kernel's clock: this process's own may be another.
    """
    for name in os.listdir(parent):
        maker = name.removeprefix(_PREFIX).split("-")
        if not name.startswith(_PREFIX) or len(maker) != 3 or not all(part.isdigit() for part in maker):
            continue
        folder = parent / name
        is_ours = int(maker[0]) == _namespace()
        if not Path("/proc", maker[1]).exists() if is_ours else _age(folder, now) > _FOREIGN_SEC:
            _remove(folder)


def _age(folder: Path, now: float) -> float:
    try:
        return now - folder.stat().st_ctime
    except OSError:
        return 0.0


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # gone already, or a process in it has not quite ended: the next sweep takes it
        return
