"""Results, comparisons and errors across batches."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Depends, Query
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.file_responses import INERT
from parallelhassnes.api.http.responses import Id, KnownAnswers, KnownHere, polled, tag_of, tagged
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.routes.batches import batch_id
from parallelhassnes.report import bundle as bundles
from parallelhassnes.report import write
from parallelhassnes.report.transcripts import Which
from parallelhassnes.results import aggregate as grouping
from parallelhassnes.results import analysis_list as analysing
from parallelhassnes.results import collect, error_groups, export
from parallelhassnes.results import compare as comparing
from parallelhassnes.results.aggregate import DEFAULT_BY, Results
from parallelhassnes.results.analysis_list import Analysed
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.compare import Comparison
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.results.export import FlatTable
from parallelhassnes.results.rows import TrialLines, trial_lines

router = APIRouter(prefix="/v1", tags=["results"], dependencies=[Depends(needs("read"))])

Batch = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[A-Za-z0-9._-]+$", description="One batch, or `latest`; left out: all of them."),
]
Experiment = Annotated[str | None, Query(min_length=1, max_length=500, description="The batches of an experiment.")]
Side = Annotated[
    str,
    Query(
        min_length=1,
        max_length=700,
        description="`BATCH`, `experiment:NAME` or `label:NAME=VALUE`, and perhaps `@AGENT[,MODEL][,NAME=VALUE…]`.",
    ),
]
Form = Annotated[
    Literal["json", "csv", "parquet"],
    Query(alias="format", description="`csv` and `parquet` are files; `parquet` needs the extra of that name."),
]
_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_FILES: dict[int | str, dict[str, Any]] = {200: {"content": {kind.partition(";")[0]: {} for kind in _TYPES.values()}}}
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}, "text/markdown": {}, "application/zip": {}}, "description": "The report."},
    503: {"description": "Others are being made; `Retry-After` says when to ask again."},
}
_CHUNK = 1 << 17
_ASKING, _DRAWING = threading.BoundedSemaphore(4), threading.Lock()
"""Who may wait for figures, each of whom takes a thread of the server; who has them drawn, seconds of a whole core."""
_WAIT_SEC = 10.0


@router.get("/results", response_model=Results, responses=_FILES)
def get_results(
    known: KnownHere,
    site: SiteHere,
    batch: Batch = None,
    experiment: Experiment = None,
    by: Annotated[str, Query(max_length=200, description="What to group by, as `agent,model,task`.")] = ",".join(
        DEFAULT_BY
    ),
    unscored_as_zero: Annotated[bool, Query(description="Count trials without a reward as 0.")] = False,
    form: Form = "json",
) -> Response:
    """Rates with intervals, pass@k, tokens, money and time, by agent and model or by anything else."""
    chosen = collect.choose(site.layout, batch, experiment)
    names = [name.strip() for name in by.split(",") if name.strip()]
    found = grouping.results(site.layout, chosen, names, unscored_as_zero=unscored_as_zero)
    if form == "json":
        return polled(known, found)
    return _table(known, export.of_groups(names, found.groups), form, f"results-{_named(chosen)}")


@router.get("/trials", response_model=TrialLines, responses=_FILES)
def get_trials(
    known: KnownHere, site: SiteHere, batch: Batch = None, experiment: Experiment = None, form: Form = "json"
) -> Response:
    """A line per trial: reward, tokens, money, time, agent, task."""
    chosen = collect.choose(site.layout, batch, experiment)
    found = trial_lines(site.layout, chosen)
    if form == "json":
        return polled(known, found)
    return _table(known, export.of_trials(found.trials), form, f"trials-{_named(chosen)}")


@router.get("/report", response_class=Response, responses=_REPORT)
def get_report(
    site: SiteHere,
    batch: Batch = None,
    experiment: Experiment = None,
    form: Annotated[
        Literal["html", "markdown", "zip"],
        Query(alias="format", description="`zip`: with transcripts of trials, to be unpacked anywhere."),
    ] = "html",
    trials: Annotated[Which, Query(description="Whose transcripts a zip has.")] = "failed",
) -> Response:
    """The report of a batch, of an experiment or of all batches, as a file; HTML needs the extra `report`.

    Figures are drawn for one request at a time.
    """
    chosen = collect.choose(site.layout, batch, experiment)
    name = f"report-{_named(chosen)}"
    if form == "markdown":
        text = write.markdown(site.layout, chosen, None).text or ""
        return Response(text, headers=_attached(f"{name}.md"), media_type="text/markdown")
    if form == "html":
        with _drawing():
            html = write.page_of(site.layout, chosen, None)
        return Response(html, headers=_attached(f"{name}.html"), media_type="text/html")
    stream = tempfile.SpooledTemporaryFile(max_size=16 << 20)  # noqa: SIM115 - closed when the last piece is sent
    try:
        with _drawing():
            bundles.write_zip(bundles.make(site.layout, chosen, trials), stream)  # type: ignore[arg-type]
    except BaseException:
        stream.close()
        raise
    return StreamingResponse(_pieces(stream), headers=_attached(f"{name}.zip"), media_type="application/zip")  # type: ignore[arg-type]


@contextmanager
def _drawing() -> Iterator[None]:
    """Hold the turn to draw figures.

    Raises:
        HTTPException: 503 where too many wait for it, or the turn has not come in time.
    """
    busy = HTTPException(503, "other reports are being made just now; ask again soon", {"Retry-After": "5"})
    if not _ASKING.acquire(blocking=False):
        raise busy
    try:
        if not _DRAWING.acquire(timeout=_WAIT_SEC):
            raise busy
        try:
            yield
        finally:
            _DRAWING.release()
    finally:
        _ASKING.release()


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        stream.seek(0)
        while data := stream.read(_CHUNK):
            yield data


def _table(known: KnownAnswers, table: FlatTable, form: Literal["csv", "parquet"], name: str) -> Response:
    data = export.csv_text(table).encode() if form == "csv" else export.parquet_bytes(table)
    answer = tagged(known, data, tag_of(data), _TYPES[form])
    answer.headers.update(_attached(f"{name}.{form}"))
    return answer


def _named(chosen: Choice) -> str:
    """Return what a file is called after: the one batch that it is of, or how many."""
    return chosen.batch_ids[0] if len(chosen.batch_ids) == 1 else f"{len(chosen.batch_ids)}-batches"


def _attached(name: str) -> dict[str, str]:
    """Return the headers of a file that is saved and not shown: what is in it is others' text."""
    return {**INERT, "Content-Disposition": f'attachment; filename="{name}"'}


@router.get("/compare", response_model=Comparison)
def get_comparison(known: KnownHere, site: SiteHere, a: Side, b: Side) -> Response:
    """Two batches, experiments or agents task by task: difference, flips, cost and time."""
    return polled(known, comparing.compare(site.layout, a, b))


@router.get("/batches/{batch}/analyses", response_model=Analysed)
def get_analyses(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """What the analyses say of each trial of a batch, and how far their engines agree."""
    return polled(known, analysing.analyses(site.layout, batch_id(site, batch)))


@router.get("/errors", response_model=Errors)
def get_errors(known: KnownHere, site: SiteHere, batch: Batch = None, experiment: Experiment = None) -> Response:
    """What failed, by class and message, with counts and an example each."""
    chosen = collect.choose(site.layout, batch, experiment)
    return polled(known, error_groups.errors(site.layout, chosen))
