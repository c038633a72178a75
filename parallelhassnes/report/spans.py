"""Where the time of every attempt went: waiting in the queue, set-up, agent, verifier, the rest; by queue key.

From the ledgers: when an attempt was launched and ended, and how long each phase of a trial took. An
attempt waits from when nothing but a limit kept it: its batch was made, the steps it depends on had ended, its retry
was due.

    ledger, index ──▶ Span … ◀──▶ spans.batch.json   (derived: may be deleted)

To go through the ledger of many attempts is most of what a report of them costs, so what was found is kept beside it, with the size and the last
line of the ledger that it speaks of: of a chained one that line vouches for all of it. Any reader may write the file, at any time, by rename.

Shape: ``{"schema_version": 1, "made_from": [bytes, "<SHA-256>"], "keys": [queue_key, …], "spans": [[place in keys, *times], …]}``.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data.ended_line import PHASE_TIMINGS, phases
from parallelhassnes.steps.verdict.discrimination import percentile
from parallelhassnes.store import atomic, attempts, batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.index import IndexedStep
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import parse_time
from parallelhassnes.views.batch_status import BatchStatus

KEPT = "spans.batch.json"
VERSION = 1
MANY = 1_000
"""From so many attempts on they are kept: to go through fewer costs as little."""
PHASES = ("queued", *PHASE_TIMINGS, "other")
"""In the order in which they come; ``other`` is what no phase of a trial accounts for, and all of other steps."""


class Span(NamedTuple):
    """One attempt; times are seconds since the epoch."""

    queue_key: str
    times: tuple[float, ...]
    """When each of ``PHASES`` began, and when the last one ended."""

    def seconds(self, phase: int) -> float:
        return self.times[phase + 1] - self.times[phase]


class KeyTime(NamedTuple):
    """One queue key."""

    queue_key: str
    attempts: int
    totals: tuple[float, ...]
    """Seconds in each of ``PHASES``, over its attempts."""
    queued_p50: float
    queued_p90: float


def of_batches(layout: Layout, statuses: Mapping[str, BatchStatus]) -> list[Span]:
    """Return every ended attempt of these batches."""
    return [span for batch_id, status in statuses.items() for span in _known(layout, batch_id, status.steps)]


def _known(layout: Layout, batch_id: str, steps: Mapping[str, IndexedStep]) -> list[Span]:
    batch_dir = layout.batch(batch_id)
    size = ledger.size(batch_dir)
    made_from = [size, ledger.line_hash(batch_dir, size) if size else ""]
    kept = atomic.read_kept(batch_dir / KEPT)
    if made_from[1] and kept.get("schema_version") == VERSION and kept.get("made_from") == made_from:
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            keys = kept["keys"]
            return [Span(keys[own[0]], tuple(own[1:])) for own in kept["spans"]]
    found = list(_of_batch(layout, batch_id, steps))
    if made_from[1] and len(found) >= MANY:
        places = {key: place for place, key in enumerate(dict.fromkeys(span.queue_key for span in found))}
        said = [[places[span.queue_key], *span.times] for span in found]
        document = {"schema_version": VERSION, "made_from": made_from, "keys": list(places), "spans": said}
        with contextlib.suppress(OSError):  # a reader with no right to write, a full disk, a batch being deleted
            atomic.write_kept(batch_dir / KEPT, document)
    return found


def by_key(spans: Sequence[Span]) -> list[KeyTime]:
    """Return the queue keys, those with the most time first."""
    keys: dict[str, list[Span]] = {}
    for span in spans:
        keys.setdefault(span.queue_key, []).append(span)
    found = [
        KeyTime(
            key,
            len(own),
            tuple(sum(span.seconds(phase) for span in own) for phase in range(len(PHASES))),
            percentile([span.seconds(0) for span in own], 0.5) or 0.0,
            percentile([span.seconds(0) for span in own], 0.9) or 0.0,
        )
        for key, own in keys.items()
    ]
    return sorted(found, key=lambda time: -sum(time.totals[1:]))


def _of_batch(layout: Layout, batch_id: str, steps: Mapping[str, IndexedStep]) -> Iterator[Span]:
    batch_dir = layout.batch(batch_id)
    created = parse_time(batches.read_batch(batch_dir).created_at)
    launched: dict[str, Mapping[str, Any]] = {}
    free: dict[str, float] = {}
    ended: dict[str, float] = {}
    for _, event in ledger.read(batch_dir):
        match event.get("event"):
            case "launched":
                launched[event["run_id"]] = event
            case "ended" if event["run_id"] in launched and event.get("ended_at"):
                key = f"{event['job_id']}/{event['step_id']}"
                start = launched.pop(event["run_id"])
                waits = [created, free.get(key, created)]
                waits += [ended.get(other, created) for other in (steps[key].depends_on if key in steps else ())]
                end = parse_time(event["ended_at"])
                yield _span(start, end, max(waits), _phases(layout, batch_id, event))
                ended[key] = end
                free[key] = parse_time(event["retry_at"]) if event.get("retry_at") else end


def _span(launched: Mapping[str, Any], end: float, free: float, phases: Sequence[float]) -> Span:
    start = parse_time(launched["at"])
    times = [min(free, start), start]
    for took in phases:
        # The clocks of phases and of the supervisor are read by different processes.
        times.append(min(times[-1] + took, max(end, start)))
    return Span(str(launched["queue_key"]), (*times, max(end, start)))


def _phases(layout: Layout, batch_id: str, ended: Mapping[str, Any]) -> list[float]:
    """Of the line of an attempt's end; of a trial's line of an older version, by its report."""
    if "phases" in ended or ended.get("kind") not in ("trial", None):
        return ended.get("phases") or [0.0] * len(PHASE_TIMINGS)
    folder = layout.step(batch_id, ended["job_id"], ended["step_id"]) / "attempts" / ended["attempt"]
    report = safe_read.read_object(folder / attempts.FINAL) or {}
    return phases(safe_read.mapping(report.get("trial")))
