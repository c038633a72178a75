"""Archives of Oddish 0.1.10: tasks, and trials that ran elsewhere. Where their service names a bucket, the address of this server stands.

    init ─▶ _system/oddish_uploads/<nonce>.json ─▶ PUT ─▶ <nonce>.tar.gz ─▶ complete ─▶ stored or imported, both files removed

Whoever may submit may do each of the three; the PUT gets the header that the client has shown with ``init``, since it sends none of its own. A crash
leaves what the next ``init`` removes once it is a day old; complete a second time finds nothing, and the client sends all again, which
adds nothing twice: a task is stored by its content, a trial imported by its job's id and its name.
"""

import contextlib
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from parallelhassnes import walk
from parallelhassnes.actions import uploads
from parallelhassnes.actions.imports.import_jobs import import_jobs
from parallelhassnes.actions.unpack_archive import unpack
from parallelhassnes.actions.uploads import Archive
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.compat import oddish_shapes, oddish_tasks
from parallelhassnes.compat.oddish_shapes import (
    CompleteAnswer,
    CompleteWanted,
    ImportAnswer,
    ImportEnd,
    ImportPlace,
    ImportWanted,
    InitAnswer,
    InitWanted,
)
from parallelhassnes.formatting import counted
from parallelhassnes.names import is_safe_id
from parallelhassnes.store import atomic, clocks, hosts, members
from parallelhassnes.store.layout import Layout

router = APIRouter(dependencies=[Depends(needs("submit"))])

_PLACE = "/tasks/upload/archive/"
_OLD_SEC = 86_400.0
_NO_ARCHIVE = "there is no archive of that name; begin with init"


@router.post("/tasks/upload/init")
def begin_task(request: Request, site: SiteHere, wanted: InitWanted) -> InitAnswer:
    """Say where the archive of a task is sent."""
    nonce = _begin(site.layout, {"name": wanted.name})
    return InitAnswer(
        task_id=f"{wanted.name[:80]}-{nonce}",
        name=wanted.name,
        content_hash=wanted.content_hash,
        **_where(request, nonce),
    )


@router.post("/tasks/upload/complete")
def end_task(site: SiteHere, wanted: CompleteWanted) -> CompleteAnswer:
    """Store the task that was sent."""
    nonce = _nonce(wanted.task_id)
    name = wanted.name if is_safe_id(wanted.name) else "task"
    with contextlib.ExitStack() as opened:
        archive = opened.enter_context(_archive(site.layout, nonce).open("rb"))
        done = uploads.upload(site.context(), [Archive(f"{name}.tar.gz", archive)])
    _drop(site.layout, nonce)
    if len(done.tasks) != 1:
        raise HTTPException(400, f"the archive holds {counted(len(done.tasks), 'task')}; send one at a time")
    task = done.tasks[0]
    return CompleteAnswer(
        task_id=oddish_tasks.new_id(task), name=task.name, task_path=task.path, content_hash=wanted.content_hash
    )


@router.put("/tasks/upload/archive/{nonce}", include_in_schema=False)
async def send_archive(request: Request, site: SiteHere, nonce: str) -> dict[str, int]:
    """Take in an archive."""
    layout = site.layout
    if not members.is_there(_note(layout, nonce)):
        raise HTTPException(404, _NO_ARCHIVE)
    fresh, size = atomic.temp_path(layout.temp), 0
    try:
        with await run_in_threadpool(fresh.open, "xb") as stream:
            async for piece in request.stream():
                size += await run_in_threadpool(stream.write, piece)
        await run_in_threadpool(fresh.rename, _folder(layout) / f"{nonce}.tar.gz")
    finally:
        fresh.unlink(missing_ok=True)
    return {"bytes": size}


@router.post("/trials/import/init")
def begin_import(request: Request, site: SiteHere, wanted: ImportWanted) -> ImportPlace:
    """Say where the archive of a trial that ran elsewhere is sent: its folder, and the files of its Harbor job."""
    if not wanted.upload_artifacts:
        raise HTTPException(400, "a trial comes in with its files here; leave --skip-artifacts out")
    oddish_tasks.stored(site, wanted.task_id)
    experiment = wanted.experiment_id or "imported"
    nonce = _begin(site.layout, {"experiment": experiment})
    return ImportPlace(
        trial_id=f"import-{nonce}",
        task_id=wanted.task_id,
        experiment_id=experiment,
        experiment_name=oddish_shapes.given(site.layout).get(experiment, experiment),
        **_where(request, nonce),
    )


@router.post("/trials/import/complete", include_in_schema=False)
def end_import(site: SiteHere, wanted: ImportEnd) -> ImportAnswer:
    """Import the job with its trial, as `parallelhassnes import` does; further trials of the job go into the same batch."""
    nonce = _nonce(wanted.trial_id)
    place, said = _archive(site.layout, nonce), atomic.read_json(_note(site.layout, nonce))
    ctx = site.context()
    hosts.check(ctx.layout)
    work = atomic.temp_path(ctx.layout.temp)
    folder = work / "job"
    folder.mkdir(parents=True)
    try:
        with place.open("rb") as archive:
            unpack(archive, "trial.tar.gz", folder, ctx.config.api.max_unpacked_mb << 20)
        count = len(walk.files(folder))
        done = import_jobs(ctx, [folder], experiment=str(said.get("experiment") or "imported"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if done.problems or not done.jobs:
        raise HTTPException(400, "; ".join(done.problems).replace(f"{folder}", "the job") or "it holds no Harbor job")
    _drop(site.layout, nonce)
    batch_id = done.jobs[0].batch_id or ""
    return ImportAnswer(trial_id=wanted.trial_id, trial_s3_key=batch_id, files_extracted=count)


def _folder(layout: Layout) -> Path:
    return layout.system / "oddish_uploads"


def _note(layout: Layout, nonce: str) -> Path:
    if re.fullmatch(r"[0-9a-f]{32}", nonce) is None:
        raise HTTPException(404, _NO_ARCHIVE)
    return _folder(layout) / f"{nonce}.json"


def _archive(layout: Layout, nonce: str) -> Path:
    place = _note(layout, nonce).with_suffix(".tar.gz")
    if not members.is_there(place):
        raise HTTPException(404, _NO_ARCHIVE)
    return place


def _begin(layout: Layout, said: dict[str, Any]) -> str:
    """Make room for an archive, and remove what nobody has completed for a day; its name."""
    folder, nonce = _folder(layout), secrets.token_hex(16)
    folder.mkdir(exist_ok=True)
    for name in members.names(folder):
        with contextlib.suppress(OSError):
            if clocks.age((folder / name).stat().st_mtime) > _OLD_SEC:
                (folder / name).unlink()
    atomic.write_json(_note(layout, nonce), said)
    return nonce


def _drop(layout: Layout, nonce: str) -> None:
    for place in (_note(layout, nonce).with_suffix(".tar.gz"), _note(layout, nonce)):
        place.unlink(missing_ok=True)


def _nonce(name: str) -> str:
    return name.rpartition("-")[2]


def _where(request: Request, nonce: str) -> dict[str, Any]:
    shown = request.headers.get("authorization")
    headers = {"Content-Type": "application/gzip", **({"Authorization": shown} if shown else {})}
    return {"upload_url": f"{str(request.base_url).rstrip('/')}{_PLACE}{nonce}", "upload_headers": headers}
