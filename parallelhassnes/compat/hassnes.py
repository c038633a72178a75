"""The calls of the earlier ParallelHassnes that ours do not have under the same address and shape.

The same in both: ``/health``, ``POST /v1/batches`` (``batch_id``, ``accepted_job_ids``), ``POST /v1/tick``,
``/v1/scoreboards/system``, ``/v1/batches/{b}/scoreboard``. ``/v1/batches/{b}/jobs/{j}/current`` has more of each step here than
``current.json``. An attempt is named by
its folder (``attempt_dir``, relative or whole), or by batch, job, step and run id.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from parallelhassnes import walk
from parallelhassnes.actions import cancel_retry
from parallelhassnes.actions.cancel_retry import Operated
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.file_responses import WantedHere, send_file
from parallelhassnes.api.http.responses import Id, KnownHere, polled
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.routes.attempts import FILE
from parallelhassnes.api.routes.attempts import cancel as cancel_attempt
from parallelhassnes.api.routes.jobs import place
from parallelhassnes.api.routes.streams import follow_logs
from parallelhassnes.attempt_data.follow_logs import Logs, LogText
from parallelhassnes.errors import UnknownId
from parallelhassnes.plan import Record
from parallelhassnes.refs import Found, resolve
from parallelhassnes.states import AttemptStatus
from parallelhassnes.steps.agent import files
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.store import atomic, attempts, batches, currents
from parallelhassnes.store.records import StepNow

router = APIRouter(prefix="/v1", tags=["earlier ParallelHassnes"], dependencies=[Depends(needs("read"))])
_operator = [Depends(needs("operate"))]

HANDOFF = "handoff.json"
_LISTS = ("files_read", "files_written", "artifacts")
_MOST = 4 << 20
"""Bytes from the end of them in which the last lines are looked for."""


def _named(
    site: SiteHere,
    attempt_dir: Annotated[str | None, Query(max_length=1000)] = None,
    batch_id: Annotated[str | None, Query(max_length=200)] = None,
    job_id: Annotated[str | None, Query(max_length=200)] = None,
    step_id: Annotated[str | None, Query(max_length=200)] = None,
    run_id: Annotated[str | None, Query(max_length=200)] = None,
) -> Found:
    """Return the attempt that is meant.

    Raises:
        UnknownId: there is none.
    """
    parts = (batch_id, job_id, step_id, run_id)
    text = attempt_dir if attempt_dir is not None else "/".join(part or "" for part in parts)
    found = resolve(site.layout, text)
    if found.attempt is None:
        raise UnknownId(
            f"{text} is a {found.what}, not an attempt", fix="give attempt_dir, or batch_id, job_id, step_id and run_id"
        )
    return found


Named = Annotated[Found, Depends(_named)]


@router.get("/attempts/resolve")
def resolve_attempt(site: SiteHere, found: Named) -> dict[str, str]:
    """The folder of an attempt."""
    return {"attempt_dir": str(found.folder(site.layout))}


@router.get("/attempts/artifact", responses=FILE, response_class=Response)
def get_artifact(
    wanted: WantedHere, site: SiteHere, found: Named, name: Annotated[str, Query(max_length=500)]
) -> Response:
    """A file of an attempt, by the name that it has or had in the earlier program."""
    folder = found.folder(site.layout)
    if name == HANDOFF and not walk.kind(folder / name):
        return JSONResponse(_handoff(folder))
    return send_file(wanted, folder, files.by_earlier_name(name))


def _handoff(folder: Path) -> dict[str, Any]:
    """Return the short form of an attempt's report, which the earlier program wrote into a file.

    Raises:
        UnknownId: the attempt has no report yet.
    """
    report = atomic.read_derived(folder / attempts.FINAL)
    if not report:
        raise UnknownId(f"{folder.name} has no report yet")
    own = mapping(mapping(report.get("agent")).get("report"))
    said = {name: own.get(name, report.get(name)) for name in ("schema_version", "status", "summary", *_LISTS)}
    return said | {"final_json_path": str(folder / attempts.FINAL), "final_txt_path": str(folder / attempts.FINAL_TEXT)}


class Pointer(Record):
    """An attempt, as the earlier ``current.json`` named it."""

    run_id: str
    attempt_dir: str
    resume_base_dir: str
    """The agent's home."""
    codex_thread_id: str | None = None


class AttemptPointer(Pointer):
    """The same, and how it stands."""

    status: AttemptStatus
    ended_at: str | None = None


class StepAttempts(StepNow):
    """How a step stands, and its attempts."""

    latest: Pointer | None = None
    latest_successful: Pointer | None = None
    by_run_id: dict[str, AttemptPointer] = {}


class EarlierCurrent(Record):
    """``current.json``, with each step's attempts."""

    schema_version: Literal[1] = 1
    steps: dict[str, StepAttempts] = {}
    dead: dict[str, str] = {}


@router.get("/batches/{batch}/jobs/{job}/current", response_model=EarlierCurrent)
def get_current(known: KnownHere, site: SiteHere, batch: Id, job: Id) -> Response:
    """`current.json`, and of each step its attempts as the earlier program had them there."""
    folder = place(site, batch, job).folder(site.layout)
    now = currents.read(folder)
    steps = {step_id: _step(step, folder / "steps" / step_id) for step_id, step in now.steps.items()}
    return polled(known, EarlierCurrent(steps=steps, dead=now.dead))


def _step(now: StepNow, step_dir: Path) -> StepAttempts:
    """Return how a step stands, with its attempts."""
    found: dict[str, AttemptPointer] = {}
    for name in attempts.names(step_dir):
        folder = step_dir / "attempts" / name
        try:
            state = attempts.read_state(folder)
        except (OSError, atomic.CorruptFile):  # one bad attempt hides no other
            continue
        agent = mapping(mapping(atomic.read_derived(folder / attempts.FINAL)).get("agent"))
        found[state.run_id] = AttemptPointer(
            run_id=state.run_id,
            attempt_dir=str(folder),
            resume_base_dir=str(folder / files.by_earlier_name("codex_home")),
            codex_thread_id=agent.get("thread_id") or (state.live.thread_id if state.live else None),
            status=state.status,
            ended_at=state.ended_at,
        )
    pointers = [Pointer(**each.model_dump(exclude={"status", "ended_at"})) for each in found.values()]
    good = [pointer for pointer in pointers if found[pointer.run_id].status == "succeeded"]
    return StepAttempts(
        **now.model_dump(),
        latest=pointers[-1] if pointers else None,
        latest_successful=good[-1] if good else None,
        by_run_id=found,
    )


@router.get("/attempts/events", response_class=PlainTextResponse)
def get_events(
    site: SiteHere,
    found: Named,
    lines: Annotated[int, Query(ge=0, le=10_000)] = 50,
    follow_on: Annotated[bool, Query(alias="follow")] = False,
) -> Response:
    """The last events of an attempt's agent, and what follows until it is sealed."""
    folder = found.folder(site.layout)
    known = _events(folder)
    if known is None:
        raise HTTPException(404, f"{found} has no events yet")
    logs = Logs(site.layout, folder, found)
    text = logs.last_lines(known, lines, _MOST)
    if not follow_on:
        return PlainTextResponse(text)
    return StreamingResponse(_and_on(text, follow_logs(site, logs, known)), media_type="text/plain")


def _events(folder: Path) -> str | None:
    """Return what an attempt has its agent's events in; its standard output where it has no agent."""
    names = [name for name, _ in walk.files(folder, files.FOLDER) if name.endswith(".events.jsonl")]
    return next((name for name in (*names, "events.jsonl", "stdout.log") if walk.kind(folder / name) == "file"), None)


async def _and_on(text: str, pieces: AsyncIterator[LogText]) -> AsyncIterator[str]:
    yield text
    async for piece in pieces:
        yield piece.text


@router.post("/attempts/cancel", dependencies=_operator)
def cancel(site: SiteHere, found: Named) -> Operated:
    """End an attempt."""
    return cancel_attempt(site, found.attempt or "", "")


# --- steps --------------------------------------------------------------------------------------------

_STEP = "/batches/{batch}/jobs/{job}/steps/{step}"
StepReason = Annotated[str | None, Query(max_length=500)]


@router.post(f"{_STEP}/force-retry", dependencies=_operator)
def force_retry(site: SiteHere, batch: str, job: str, step: str) -> dict[str, Any]:
    """Let a step run again, whatever it came to."""
    found = place(site, batch, job, step)
    cancel_retry.retry(site.context(), found)
    return _said(site, found)


@router.post(f"{_STEP}/requeue", dependencies=_operator)
def requeue(
    site: SiteHere,
    batch: str,
    job: str,
    step: str,
    runner_id: Annotated[str | None, Query(max_length=200)] = None,
    different: bool = False,
    reason: StepReason = None,
) -> dict[str, Any]:
    """As ``force-retry``; attempts run on the runner that ticks, so another one cannot be asked for."""
    found = place(site, batch, job, step)
    ctx = site.context()
    if different or runner_id not in (None, ctx.runner_id):
        raise HTTPException(409, f"attempts run on {ctx.runner_id}; another runner cannot be chosen")
    cancel_retry.retry(ctx, found, reason=reason or "")
    return _said(site, found)


@router.post(f"{_STEP}/mark-failed", dependencies=_operator)
def mark_failed(site: SiteHere, batch: str, job: str, step: str, reason: StepReason = None) -> dict[str, Any]:
    """Have a step never run (again): what runs of it ends, and what waits for its success cannot start.

    One that has not ended is shown as canceled, one that has as what it came to: how an attempt ended is written by its supervisor
    alone. `force-retry` takes the mark back.
    """
    found = place(site, batch, job, step)
    cancel_retry.cancel(site.context(), found, reason or "marked as failed", ended=True)
    return _said(site, found)


def _said(site: ServerState, found: Found) -> dict[str, Any]:
    job_dir = site.layout.job(found.batch_id, found.job_id or "")
    path = job_dir / batches.OVERRIDES
    return {"ok": True, "overrides_path": str(path), "overrides": atomic.read_json_or_none(path) or {}}
