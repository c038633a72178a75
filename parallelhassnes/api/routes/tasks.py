"""Uploads: tasks and datasets as archives, stored by content."""

from typing import Annotated

from fastapi import APIRouter, Depends, File, Query, UploadFile
from pydantic import BaseModel
from starlette.responses import Response

from parallelhassnes.actions import uploads
from parallelhassnes.actions.uploads import Archive, Uploaded
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Cursor, KnownHere, Limit, page, polled
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.store import uploaded_tasks
from parallelhassnes.store.uploaded_tasks import StoredTask

router = APIRouter(prefix="/v1/tasks", tags=["tasks"], dependencies=[Depends(needs("read"))])

MOST_ARCHIVES = 100


class TaskPage(BaseModel):
    """One page of the stored tasks."""

    items: list[StoredTask]
    next: str | None
    total: int


@router.post("", status_code=201, dependencies=[Depends(needs("submit"))])
def upload(
    site: SiteHere,
    file: Annotated[
        list[UploadFile],
        File(
            min_length=1, max_length=MOST_ARCHIVES, description="zip, tar or tar.gz of a task or of a folder of tasks."
        ),
    ],
) -> Uploaded:
    """Store tasks, checked as `submit` checks them; a table names each by the `path` that comes back.

    All of them or none: every problem of every archive is in the answer. The same task is stored once.
    """
    archives = [Archive(part.filename or "task.zip", part.file) for part in file]
    return uploads.upload(site.context(), archives)


@router.get("", response_model=TaskPage)
def list_tasks(
    known: KnownHere,
    site: SiteHere,
    name: Annotated[str, Query(max_length=200, description="Part of the task's name.")] = "",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """The stored tasks by name, the newest version of one first."""
    found = [task for task in uploaded_tasks.every(site.layout) if name.lower() in task.name.lower()]
    shown = page(found, lambda task: task.sha256, cursor, limit)
    return polled(known, TaskPage(items=list(shown.items), next=shown.next, total=len(found)))


@router.get("/{sha256}", response_model=StoredTask)
def get_task(known: KnownHere, site: SiteHere, sha256: str) -> Response:
    """One stored task, by its SHA-256 or the beginning of it."""
    return polled(known, uploaded_tasks.find(site.layout, sha256))
