"""Taking in tasks as archives; ``store.uploaded_tasks`` says how they lie in the store.

An archive is unpacked under ``_system/tmp`` and checked whole as
``submit`` would; only then do its tasks appear, each by one rename. A crash leaves what the next tick sweeps away, or
whole tasks; sending the archive again completes the rest. Two who send the same task at once: the second rename fails,
as the folder is there, and what it would have made is dropped.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import BaseModel

from parallelhassnes.actions.unpack_archive import unpack
from parallelhassnes.errors import InvalidInput, Problem, UserError
from parallelhassnes.names import Ids, is_safe_id
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, decider, hosts
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.store.uploaded_tasks import RECORD, StoredTask, read, survey
from parallelhassnes.tables.expanders.tasks import is_task_dir, tasks_in
from parallelhassnes.tables.parse.located_errors import Problems


class Archive(NamedTuple):
    """An archive that was sent."""

    name: str
    file: IO[bytes]


class Uploaded(BaseModel):
    """What came of an upload."""

    ok: bool = True
    tasks: list[StoredTask]
    """In order of their names."""
    new: int
    """Of them those that were not there yet."""


def upload(ctx: Context, archives: list[Archive]) -> Uploaded:
    """Store every task in the archives; none, if anything is wrong with any.

    Raises:
        UserError: an archive cannot be unpacked.
        InvalidInput: a task is broken, or there is none; every problem is listed.
    """
    hosts.check(ctx.layout)
    work = atomic.temp_path(ctx.layout.temp)
    work.mkdir(parents=True)
    try:
        tasks: list[Path] = []
        problems = Problems("upload")
        for number, archive in enumerate(archives):
            folder = work / str(number) / _safe(archive.name)
            folder.mkdir(parents=True)
            unpack(archive.file, archive.name, folder, ctx.config.api.max_unpacked_mb << 20)
            top = _top(folder)
            at = f"{archive.name}"
            found = tasks_in(top, at, problems)
            tasks += [Path(str(task.config["path"])) for task in found]
        if problems.found:
            raise InvalidInput([_shown(problem, work) for problem in problems.found])
        _check_apart(tasks)
        stored = [_store(ctx.layout, task) for task in tasks]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    with decider.deciding(ctx.layout):
        ledger.append(
            ctx.layout.system,
            "uploaded",
            by=ledger.person(),
            tasks=[task.sha256 for task, _ in stored],
            records={task.sha256: ledger.content_hash(ctx.layout.tasks / task.sha256 / RECORD) for task, _ in stored},
        )
    return Uploaded(
        tasks=sorted((task for task, _ in stored), key=lambda task: task.name), new=sum(fresh for _, fresh in stored)
    )


# --- what is in an archive ----------------------------------------------------------------------------


def _safe(archive: str) -> str:
    """Return the name of a task whose files lie at the top of its archive: the archive's, without its ending."""
    name = archive.replace("\\", "/").rpartition("/")[2]
    for ending in (".tar.gz", ".tgz", ".zip", ".tar"):
        name = name.removesuffix(ending)
    return name if is_safe_id(name) else "task"


def _top(folder: Path) -> Path:
    """Return the folder that is a task or holds tasks: not one that only holds that one."""
    while not is_task_dir(folder):
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir() or is_task_dir(inside[0]):
            break
        folder = inside[0]
    return folder


def _shown(problem: Problem, work: Path) -> Problem:
    """Return the problem with names as they are in the archive instead of the folder that it was unpacked to."""

    def short(text: str) -> str:
        return text.replace(f"{work}/", "")

    where = short(problem.where)
    parts = where.split("/", 1)
    where = parts[1] if len(parts) == 2 and parts[0].isdecimal() else where
    return problem._replace(where=where, message=short(problem.message))


# --- storing ------------------------------------------------------------------------------------------


def _store(layout: Layout, task: Path) -> tuple[StoredTask, bool]:
    """Give the unpacked task its place; its record, and whether it was not there before."""
    if not is_safe_id(task.name):
        raise UserError(
            f"{task.name!r} cannot be the name of a task",
            fix="use 1 to 128 of the characters A-Z a-z 0-9 . _ - and no leading dot",
        )
    digest, count, size = survey(task)
    target = layout.tasks / digest
    known = read(target)
    if known is not None:
        return known, False
    record = StoredTask(
        sha256=digest,
        name=task.name,
        path=f"runs/_tasks/{digest}/{task.name}",
        files=count,
        bytes=size,
        uploaded_at=now_text(),
        by=ledger.person(),
    )
    fresh = atomic.temp_path(layout.temp)
    fresh.mkdir()
    try:
        task.rename(fresh / task.name)
        atomic.write_new(fresh / RECORD, record.model_dump(mode="json"))
        for place, _, _ in os.walk(fresh):
            atomic.sync_dir(place)
        layout.tasks.mkdir(exist_ok=True)
        fresh.rename(target)
        atomic.sync_dir(layout.tasks)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        known = read(target)  # somebody else was faster with the same task
        if known is None:
            raise
        return known, False
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return record, True


def _check_apart(tasks: list[Path]) -> None:
    """Refuse tasks of one upload whose names a file system may take for one."""
    names = Ids()
    for task in tasks:
        if (other := names.like(task.name)) not in (None, task.name):
            raise UserError(
                f"the tasks {other!r} and {task.name!r} are one folder on many file systems", fix="rename one"
            )
        names.add(task.name)
