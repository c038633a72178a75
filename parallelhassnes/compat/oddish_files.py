"""What ``oddish pull`` gets: logs, result, trajectory and files of a trial, and the files of a task.

A trial's files are those of its newest attempt's Harbor folder, under the names that they have in it.
"""

import os
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from parallelhassnes import walk
from parallelhassnes.api.http.file_responses import WantedHere, send_file
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.attempt_data.safe_open import open_below
from parallelhassnes.compat import oddish_tasks
from parallelhassnes.compat.oddish_shapes import ListedFile, ListedFiles
from parallelhassnes.compat.trials import log_text, log_texts
from parallelhassnes.errors import UnknownId
from parallelhassnes.steps import safe_read

router = APIRouter()

_MOST_LOG = 1 << 20
_MOST_FILES = 10_000
_MOST_TEXT = 16 << 20


@router.get("/trials/{trial_id}/logs")
def get_logs(site: SiteHere, trial_id: str) -> dict[str, str]:
    """The ends of a trial's logs, as one text."""
    found = oddish_tasks.trial(site, trial_id)
    return {"trial_id": trial_id, "logs": log_text(site.layout, found.batch_id, found.trial, _MOST_LOG)}


@router.get("/trials/{trial_id}/logs/structured")
def get_structured_logs(site: SiteHere, trial_id: str) -> dict[str, Any]:
    """The ends of a trial's logs by what wrote them."""
    found = oddish_tasks.trial(site, trial_id)
    texts = log_texts(site.layout, found.batch_id, found.trial, _MOST_LOG)
    agent = {name: text for name, text in texts.items() if "agent/" in name}
    verifier = {name: text for name, text in texts.items() if "verifier/" in name}
    row = found.trial.status.row
    return {
        "trial_id": trial_id,
        "agent": {
            "oracle": next((text for name, text in agent.items() if name.endswith("oracle.txt")), None),
            "setup": None,
            "commands": [{"name": name, "content": text} for name, text in agent.items()],
        },
        "verifier": {
            stream: next((text for name, text in verifier.items() if stream in name), None)
            for stream in ("stdout", "stderr")
        },
        "other": [{"name": n, "content": text} for n, text in texts.items() if n not in agent and n not in verifier],
        "exception": (row.failure or None) if row else None,
    }


@router.get("/trials/{trial_id}/result")
def get_result(site: SiteHere, trial_id: str) -> dict[str, Any]:
    """Harbor's own ``result.json``."""
    return _document(site, trial_id, "result.json", "result")


@router.get("/trials/{trial_id}/trajectory", response_class=Response)
def get_trajectory(site: SiteHere, trial_id: str) -> Response:
    """The agent's trajectory."""
    return JSONResponse(_document(site, trial_id, "agent/trajectory.json", "trajectory"))


@router.get("/trials/{trial_id}/files")
def list_trial_files(site: SiteHere, trial_id: str) -> ListedFiles:
    """The files of a trial."""
    return ListedFiles(id=trial_id, files=_listed(_folder(site, trial_id)))


@router.get("/trials/{trial_id}/files/{path:path}", response_class=Response)
def get_trial_file(wanted: WantedHere, site: SiteHere, trial_id: str, path: str) -> Response:
    """One file of a trial; links are not followed."""
    folder = _folder(site, trial_id)
    if folder is None:
        raise HTTPException(404, f"Trial {trial_id} has no files yet")
    return send_file(wanted, folder, path)


@router.get("/tasks/{task_id}/files")
def list_task_files(site: SiteHere, task_id: str) -> ListedFiles:
    """The files of a task."""
    return ListedFiles(id=task_id, files=_listed(_task_folder(site, task_id)))


@router.get("/tasks/{task_id}/files/{path:path}")
def get_task_file(site: SiteHere, task_id: str, path: str) -> dict[str, str]:
    """One file of a task, as text."""
    try:
        handle = open_below(_task_folder(site, task_id), path)
    except (OSError, UnknownId):
        raise HTTPException(404, f"Task {task_id} has no file {path[:200]}") from None
    with os.fdopen(handle, "rb") as stream:
        data = stream.read(_MOST_TEXT)
    return {"path": path, "content": data.decode("utf-8", "replace")}


def _folder(site: ServerState, trial_id: str) -> Path | None:
    """Return the Harbor folder of a trial's newest attempt; None before there is one."""
    attempt = oddish_tasks.trial(site, trial_id).trial.folder
    return attempt / "trial" if attempt is not None else None


def _task_folder(site: ServerState, task_id: str) -> Path:
    return site.layout.root / oddish_tasks.stored(site, task_id).path


def _document(site: ServerState, trial_id: str, name: str, what: str) -> dict[str, Any]:
    folder = _folder(site, trial_id)
    document = safe_read.read_object(folder / name) if folder else None
    if not isinstance(document, dict):
        raise HTTPException(404, f"Trial {trial_id} has no {what} yet")
    return document


def _listed(folder: Path | None) -> list[ListedFile]:
    return (
        [ListedFile(path=path, size=size) for path, size in sorted(walk.files(folder, most=_MOST_FILES))]
        if folder
        else []
    )
