"""``du``: what the store takes on disk, by batch, kind of step or environment.

Counted are blocks, as ``du`` of the system does, and each file once however many names it has. Of a packed batch's archive each step gets
the part that its files are of what was packed.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from parallelhassnes import packed, places, walk
from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial.trial_paths import environment_of
from parallelhassnes.store import batches, members
from parallelhassnes.store.layout import Layout

type By = Literal["batch", "kind", "environment"]
RECORDS, STORE = "(records)", "(store)"
"""What belongs to a batch and to none of its steps; what belongs to no batch."""
_NONE = "(none)"


class Use(BaseModel):
    """What one of them takes."""

    name: str
    bytes: int = 0
    files: int = 0
    """Files, folders and whatever else has an inode."""
    attempts: int = 0


class DiskUse(BaseModel):
    """What the store takes."""

    schema_version: Literal[1] = 1
    ok: bool = True
    by: By
    bytes: int
    files: int
    rows: list[Use]
    """The largest first."""


def disk_use(layout: Layout, by: By, only: Iterable[str] = ()) -> DiskUse:
    """Measure the store, or some batches of it.

    Args:
        only: batch ids; none: all, and what belongs to no batch.
    """
    wanted = list(only)
    found: dict[str, Use] = {}
    seen: set[tuple[int, int]] = set()

    def give(name: str, size: int, files: int, attempts: int = 0) -> None:
        use = found.setdefault(name, Use(name=name))
        use.bytes, use.files, use.attempts = use.bytes + size, use.files + files, use.attempts + attempts

    for batch_id in wanted or layout.batch_ids():
        batch_dir = layout.batch(batch_id)
        with members.apart(batch_dir):
            whole = _measure(batch_dir, seen) if by == "batch" else None
            attempts = 0
            size, files = whole or (0, 0)
            for name, part, count, number in _steps(batch_dir, by, set() if whole else seen, measure=not whole):
                attempts += number
                if not whole:
                    give(name, part, count, number)
            if whole:
                give(batch_id, size, files, attempts)
            else:
                give(RECORDS, *_measure(batch_dir, seen))
                give(RECORDS, 0, int(packed.of(batch_dir) is not None))  # the archive, whose bytes its steps have
    if not wanted:
        known = set(layout.batch_ids())
        for place in (layout.runs, layout.runners, layout.worktrees):
            for name in _names(place):
                if place != layout.runs or name not in known:
                    give(STORE, *_measure(place / name, seen))
    rows = sorted(found.values(), key=lambda use: (-use.bytes, use.name))
    return DiskUse(by=by, bytes=sum(use.bytes for use in rows), files=sum(use.files for use in rows), rows=rows)


def _steps(
    batch_dir: Path, by: By, seen: set[tuple[int, int]], *, measure: bool
) -> Iterator[tuple[str, int, int, int]]:
    """Yield of each step what it counts as, its bytes, files and attempts; the attempts alone where no more is asked for."""
    pack = packed.of(batch_dir)
    shares: dict[str, list[int]] = defaultdict(list)
    for place, section in pack.attempts.items() if pack else ():
        shares[places.place(place).key.place].append(section.size)
    whole = sum(map(sum, shares.values())) or 1
    for job_id in batches.read_about(batch_dir)["job_ids"]:
        for step in batches.read_job(batch_dir / job_id).steps:
            place = places.StepKey(job_id, step.step_id).place
            name = step.kind if by == "kind" else _environment(step)
            own = shares.get(place, [])
            size, files = _measure(batch_dir / place, seen) if measure else (0, 0)
            if pack is not None and own and measure:
                archive = batch_dir / packed.ARCHIVE
                info = archive.lstat()
                seen.add((info.st_dev, info.st_ino))
                size += info.st_blocks * 512 * sum(own) // whole
            number = len(own) or len(_names(batch_dir / place / places.ATTEMPTS))
            yield name, size, files, number


def _environment(step: StepSpec) -> str:
    if step.kind != "trial":
        return _NONE
    return environment_of(dict(safe_read.mapping(step.spec.get("config"))))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _measure(path: Path, seen: set[tuple[int, int]]) -> tuple[int, int]:
    """Return bytes and inodes of a file, or of a folder with everything in it, that were not counted before."""
    size = files = 0

    def count(info: os.stat_result) -> None:
        nonlocal size, files
        if (info.st_dev, info.st_ino) not in seen:
            seen.add((info.st_dev, info.st_ino))
            size, files = size + info.st_blocks * 512, files + 1

    try:
        count(path.lstat())
        top = walk.open_folder(path)
    except OSError:  # gone meanwhile, or no folder
        return size, files
    try:
        for entry in walk.walk(top):
            if not entry.leaving:
                count(entry.info)
    finally:
        os.close(top)
    return size, files
