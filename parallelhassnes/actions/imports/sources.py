"""The sources that ``import`` reads: job folders of Harbor's, and exports of Oddish."""

import os
from pathlib import Path

from parallelhassnes.actions.imports import oddish_exports, source_jobs
from parallelhassnes.actions.imports.source_jobs import CONFIG, SourceJob
from parallelhassnes.errors import UserError

_REMEDY = "name a Harbor job folder, or a folder of them such as jobs/"


def find(path: Path) -> list[Path]:
    """Return the folders to import that a path names: itself, or those in it.

    Raises:
        UserError: it is none and holds none; in one line, with what it is instead.
    """
    if not path.is_dir():
        raise UserError(f"{path} {'is no folder' if os.path.lexists(path) else 'is not there'}", fix=_REMEDY)
    folder = path.resolve()
    if _is_source(folder):
        return [folder]
    inner = [folder / name for name in source_jobs.folders(folder)]
    found = [each for each in inner if _is_source(each)]
    if found:
        return found
    if source_jobs.is_job(folder.parent) and source_jobs.object_at(folder, CONFIG):
        raise UserError(f"{path} is a trial", fix=f"name its job: {path.parent}")
    for above in folder.parents[:2]:
        if folder.is_relative_to(above / oddish_exports.TRIALS) and oddish_exports.is_export(above):
            raise UserError(f"{path} is of an export of Oddish", fix=f"name that: {above}")
    raise UserError(
        f"{path} is no Harbor job and holds none: no {CONFIG} with agents in it, or below it",
        fix="name a folder that harbor run or oddish pull has made, or the folder of these, such as jobs/",
    )


def read(folder: Path) -> list[SourceJob]:
    """Read one of these folders; an export of Oddish has a job for each experiment.

    Raises:
        UserError, OSError: it cannot be read.
    """
    return [source_jobs.read(folder)] if source_jobs.is_job(folder) else oddish_exports.read(folder)


def _is_source(folder: Path) -> bool:
    return source_jobs.is_job(folder) or oddish_exports.is_export(folder)
