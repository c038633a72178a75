"""``/metrics``: how the store stands, for Prometheus. Made anew at each scrape, so that no server has to count."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException
from starlette.responses import Response

from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.errors import UserError, extra
from parallelhassnes.views.scoreboard_models import SlurmNow, SystemScoreboard

if TYPE_CHECKING:
    from prometheus_client.core import Metric

router = APIRouter(tags=["metrics"], dependencies=[Depends(needs("read"))])
_BREAKER = {"closed": 0, "half-open": 1, "open": 2}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}},
)
def metrics(site: SiteHere) -> Response:
    """Steps and batches by state, queue keys, runners, listeners, in Prometheus' text format."""
    try:
        with extra("server", "metrics need"):
            from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except UserError as error:
        raise HTTPException(501, str(error)) from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Store(site))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Store:
    def __init__(self, site: ServerState) -> None:
        self._site = site

    def collect(self) -> "Iterator[Metric]":
        board = self._site.board()
        yield _gauge("steps", "Steps of all batches, by state.", ["state"], _steps(board))
        yield _gauge("batches", "Batches, by state.", ["state"], _batches(board))
        yield _gauge("live_attempts", "Attempts that run.", [], [((), board.live)])
        yield _gauge("concurrency", "Attempts of this host at most.", [], [((), board.concurrency)])
        yield _gauge("incoming_tables", "Tables to be ingested.", [], [((), board.incoming)])
        yield _gauge("rejected_tables", "Tables that were rejected.", [], [((), board.rejected)])
        yield _gauge(
            "short_of_space", "1 where nothing starts for lack of disk or memory.", [], [((), bool(board.shortage))]
        )
        key = ["queue_key"]
        lines = board.queue
        yield _gauge("queue_live", "Live attempts of a queue key.", key, [((q.queue_key,), q.live) for q in lines])
        yield _gauge("queue_ready", "Steps that could start.", key, [((q.queue_key,), q.ready) for q in lines])
        yield _gauge(
            "queue_delayed",
            "Steps that wait for the time of a retry.",
            key,
            [((q.queue_key,), q.delayed) for q in lines],
        )
        limits = [((q.queue_key,), q.limit) for q in lines if q.limit is not None]
        yield _gauge("queue_limit", "Limit in force; absent for none.", key, limits)
        paused = [((q.queue_key,), bool(q.paused)) for q in lines]
        yield _gauge("queue_paused", "1 where nothing starts on the key.", key, paused)
        breakers = [((q.queue_key,), _BREAKER[q.breaker]) for q in lines]
        yield _gauge("queue_breaker", "0 closed, 1 half-open, 2 open.", key, breakers)
        drains = [((r.runner_id,), r.draining) for r in board.runners]
        yield _gauge("runner_draining", "1 where a runner starts nothing new.", ["runner"], drains)
        loads = [((r.runner_id,), r.live) for r in board.runners if r.live is not None]
        yield _gauge("runner_live", "Live attempts of a runner, as it reported.", ["runner"], loads)
        rooms = [((r.runner_id,), r.capacity) for r in board.runners if r.capacity is not None]
        yield _gauge("runner_capacity", "Attempts of a runner at most, as it reported.", ["runner"], rooms)
        if board.slurm is not None:
            yield from _cluster(board.slurm)
        joined = [((r.runner_id,), r.joined) for r in board.runners]
        decides = [(label, each.decides) for label, each in joined if each]
        yield _gauge("runner_decides", "1 where a runner decides for all hosts of the root.", ["runner"], decides)
        caches = [(label, each.cache_sec) for label, each in joined if each]
        yield _gauge("runner_cache_seconds", "Time until a runner sees what others write.", ["runner"], caches)
        skews = [(label, each.skew_sec) for label, each in joined if each and each.skew_sec is not None]
        yield _gauge("runner_clock_ahead_seconds", "How far a runner's clock is ahead.", ["runner"], skews)
        watching = self._site.watching
        listeners = [(("events",), sum(watching.listeners(type))), (("logs",), len(watching.listeners(Path)))]
        yield _gauge("listened_to", "Listeners of events; attempts whose logs are followed.", ["stream"], listeners)


def _cluster(slurm: SlurmNow) -> "Iterator[Metric]":
    yield _gauge("slurm_answers", "1 where Slurm answered when it was asked last.", [], [((), slurm.answers)])
    for name, about, states in (
        ("slurm_pilots", "Jobs of Slurm that are runners, by Slurm's state.", [p.state for p in slurm.pilots]),
        ("slurm_jobs", "Jobs of Slurm that are one attempt each, by Slurm's state.", [j.state for j in slurm.jobs]),
    ):
        counts = Counter((state or "unknown").lower() for state in states)
        yield _gauge(name, about, ["state"], [((state,), count) for state, count in sorted(counts.items())])


def _steps(board: SystemScoreboard) -> list[tuple[tuple[str, ...], float]]:
    return [((state,), count) for state, count in dict(board.counts).items()]


def _batches(board: SystemScoreboard) -> list[tuple[tuple[str, ...], float]]:
    states = ("running", "waiting", "blocked", "attention", "canceled", "done")
    return [((state,), sum(line.state == state for line in board.batches)) for state in states]


def _gauge(name: str, about: str, labels: list[str], values: Sequence[tuple[tuple[str, ...], float]]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    made = GaugeMetricFamily(f"parallelhassnes_{name}", about, labels=labels)
    for places, value in values:
        made.add_metric(list(places), float(value))
    return made
