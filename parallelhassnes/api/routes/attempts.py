"""Attempts, by their run id: records, files, logs, a zip."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from parallelhassnes.actions import cancel_retry
from parallelhassnes.actions.cancel_retry import Operated
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.file_responses import WantedHere, send_file, send_zip
from parallelhassnes.api.http.responses import Id, KnownHere, Reason, polled, tag_of, tagged
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.attempt_data.follow_logs import Logs
from parallelhassnes.attempt_data.safe_open import FileName
from parallelhassnes.errors import UserError
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import AttemptMeta, AttemptState
from parallelhassnes.views.show import FileLine, ShowDocument, show

router = APIRouter(prefix="/v1/attempts/{attempt}", tags=["attempts"], dependencies=[Depends(needs("read"))])

FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}, "text/plain": {}}, "description": "The file."},
    206: {
        "content": {"application/octet-stream": {}, "text/plain": {}},
        "description": "The range that was asked for.",
    },
}


class FileList(BaseModel):
    """The files of an attempt."""

    items: list[FileLine]
    more: int
    """Files left out of the list."""
    sealed: bool
    """Nothing in its folder changes any more."""


class LogTexts(BaseModel):
    """The logs of an attempt."""

    id: str
    ended: bool
    """Nothing will be added."""
    logs: dict[FileName, str]
    """Path in its folder → text."""
    cut: list[FileName] = []
    """Of those only the end is here: the stream and the file have the rest."""


class LedgerLines(BaseModel):
    """What the batch's ledger says of an attempt."""

    items: list[dict[str, Any]]


@router.get("", response_model=ShowDocument)
def get_attempt(known: KnownHere, site: SiteHere, attempt: Id) -> Response:
    """One attempt: state, record, report, files."""
    return polled(known, show(site.layout, str(site.attempt(attempt))))


@router.get("/meta", response_model=AttemptMeta)
def get_meta(known: KnownHere, site: SiteHere, attempt: Id) -> Response:
    """`meta.json`: what it was started as."""
    return polled(known, attempts.read_meta(_folder(site, attempt)))


@router.get("/state", response_model=AttemptState)
def get_state(known: KnownHere, site: SiteHere, attempt: Id) -> Response:
    """`state.json`: how it stands; `phase` and `heartbeat` move while it runs."""
    return polled(known, attempts.read_state(_folder(site, attempt)))


@router.get("/report", response_model=dict[str, Any])
def get_report(known: KnownHere, site: SiteHere, attempt: Id) -> Response:
    """`final.json`: its structured outcome; 404 before it has ended."""
    document = atomic.read_json_or_none(_folder(site, attempt) / attempts.FINAL)
    if document is None:
        raise HTTPException(404, f"{attempt} has no report yet")
    body = atomic.dumps(document).encode("utf-8", "surrogateescape")
    return tagged(known, body, tag_of(body), "application/json")


@router.get("/ledger", response_model=LedgerLines)
def get_ledger(known: KnownHere, site: SiteHere, attempt: Id) -> Response:
    """The lines of the batch's ledger that are about it."""
    found = site.attempt(attempt)
    run_id = (found.attempt or "").partition("_")[2]
    lines = [
        line
        for _, line in ledger.read(site.layout.batch(found.batch_id))
        if run_id in (line.get("run_id"), *_run_ids(line))
    ]
    return polled(known, LedgerLines(items=lines))


def _run_ids(line: dict[str, Any]) -> list[str]:
    """Of a line about several attempts."""
    named = line.get("attempts")
    if not isinstance(named, list):
        return []
    return [str(name).partition("_")[2] for name in named]


@router.get("/files", response_model=FileList)
def list_files(known: KnownHere, site: SiteHere, attempt: Id) -> Response:
    """What it has written."""
    found = show(site.layout, str(site.attempt(attempt)))
    sealed = attempts.is_sealed(_folder(site, attempt))
    return polled(known, FileList(items=found.files, more=found.more_files, sealed=sealed))


@router.get("/files/{path:path}", responses=FILE, response_class=Response)
def get_file(wanted: WantedHere, site: SiteHere, attempt: Id, path: str) -> Response:
    """One file, or a range of it (`Range: bytes=…`); links are not followed."""
    return send_file(wanted, _folder(site, attempt), path)


@router.get(
    "/zip", responses={200: {"content": {"application/zip": {}}, "description": "The zip."}}, response_class=Response
)
def get_zip(site: SiteHere, attempt: Id) -> Response:
    """All its files, as they are now."""
    folder = _folder(site, attempt)
    return send_zip(folder, folder.name)


@router.get("/logs", response_model=LogTexts)
def get_logs(
    known: KnownHere,
    site: SiteHere,
    attempt: Id,
    file: Annotated[
        str | None, Query(max_length=500, pattern=r"^[^\x00]*$", description="Only this log, such as `stdout.log`.")
    ] = None,
    tail_kb: Annotated[int, Query(ge=1, le=16_384, description="Of each log at most so much, from its end.")] = 256,
) -> Response:
    """The ends of its logs, its agent's and its verifier's."""
    found = site.attempt(attempt)
    logs = Logs(site.layout, found.folder(site.layout), found)
    texts, cut = logs.tails(file, tail_kb << 10)
    document = LogTexts(id=str(found), ended=logs.ended, logs=texts, cut=cut)
    return polled(known, document)


@router.post("/cancel", dependencies=[Depends(needs("operate"))])
def cancel(site: SiteHere, attempt: Id, reason: Reason = "") -> Operated:
    """End it, with whatever it has so far; its step does not start again by itself.

    Refused where it is not its step's newest attempt, which is what a cancel would end.
    """
    found = site.attempt(attempt)
    step_dir = site.layout.step(found.batch_id, found.job_id or "", found.step_id or "")
    newest = attempts.newest(step_dir)
    if newest is None or newest.name != found.attempt:
        raise UserError(f"{found} is over and was followed by another", fix="cancel the step")
    return cancel_retry.cancel(site.context(), found, reason)


def _folder(site: ServerState, text: str) -> Path:
    return site.attempt(text).folder(site.layout)
