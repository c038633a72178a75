"""What an attempt costs beside 100, 10,000 and 100,000 others: processor time and operations on files a pass, and the exponents.

The stores are written as files, as ingest and ticks would leave them; of a job's steps half have ended. Then attempts of
``true`` run, each of them real, and what is measured are the passes that settle one and launch one.
"""

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import passes
from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.results import Figure, Row
from benchmarks.setting import Setting
from parallelhassnes.plan import BatchMeta, JobSpec, StepSpec
from parallelhassnes.store import atomic, batches, index, locks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import delayed, tickets, turns
from parallelhassnes.store.records import Current, StepNow, Ticket, dump, now_text

MOST_SEC = 220.0
"""A store that would take longer to write, by how long the one before it took, is left out."""
_KEY = "command"
_FEW = 64
"""Batches that run beside what is delayed."""
_SLIM: dict[str, Any] = {"mode": "json", "exclude_defaults": True}


def wide(root: Path, n: int) -> None:
    """One job of N steps that wait for nothing."""
    _one_job(root, n, [])


def fan_in(root: Path, n: int) -> None:
    """One job of N steps and one that needs them all, named in the order in which they do not end."""
    depends_on = tuple(f"j/{_name(i)}" for i in reversed(range(n)))
    _one_job(root, n, [_step("last", depends_on=depends_on, after="success")])


def jobs(root: Path, n: int) -> None:
    """N jobs of one step."""
    made = [_job("b", f"j{i}", [_step("s")], first_seq=i) for i in range(n)]
    _batch(_layout(root), "b", made)


def waiting_batches(root: Path, n: int) -> None:
    """N batches of one step."""
    layout = _layout(root)
    first = _batch_name(0)
    _batch(layout, first, [_job(first, "j", [_step("s")])])
    batch_dir = layout.batch(first)
    files = {name: (batch_dir / name).read_text() for name in ("j/job.json", batches.META, ledger.LEDGER)}
    folders: set[Path] = set()
    for i in range(1, n):
        _copy(layout, first, _batch_name(i), files, folders)


def budgeted_batches(root: Path, n: int) -> None:
    """N batches of one step whose queue key has a budget."""
    waiting_batches(root, n)
    with (root / "parallelhassnes.toml").open("a") as stream:
        stream.write(f"[budgets.keys.{_KEY}]\nusd = 1000\n")


def delayed_steps(root: Path, n: int) -> None:
    """A few batches of one step beside N steps of as many others that may start again in some hours."""
    waiting_batches(root, _FEW)
    layout = Layout(root)
    atomic.set_durable(False)
    for i in range(_FEW, _FEW + n):
        batch_id = _batch_name(i)
        ended = datetime.now(UTC) - timedelta(seconds=i % 1000)
        again = StepNow(
            status="failed",
            attempt="20261121T000000Z_abcdefghijkl",
            run_id="abcdefghijkl",
            number=1,
            ended_at=now_text(ended),
            retry_at=now_text(ended + timedelta(hours=10)),
            settled=True,
        )
        name = tickets.ticket_name(batch_id, 0, "j", "s", "command")
        delayed.put(
            layout, Ticket(batch_id=batch_id, job_id="j", step_id="s", queue_key=_KEY, kind="command"), name, again
        )


def _batch_name(i: int) -> str:
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=i)
    return f"{at:%Y%m%dT%H%M%SZ}-mmmmmmmm"


def _copy(layout: Layout, first: str, batch_id: str, files: Mapping[str, str], folders: set[Path]) -> None:
    """A batch like the first one, as it is once a pass has given it its place in the queue."""
    batch_dir = f"{layout.runs}/{batch_id}"
    os.mkdir(batch_dir)  # noqa: PTH102 - 100,000 of them
    os.mkdir(f"{batch_dir}/j")  # noqa: PTH102
    for name, text in files.items():
        _write(f"{batch_dir}/{name}", text.replace(first, batch_id))
    _put(layout, batch_id, "j", "s", 0, set())
    served = f"{layout.ready}/{_KEY}/{batch_id}/{tickets.SERVED}"
    _write(served, "")
    os.utime(served, (0, 0))
    turn = turns.place(layout, _KEY, batch_id, priority=0, served=0, arrival=batch_id.partition("-")[0])
    if turn.parent not in folders:
        turn.parent.mkdir(parents=True, exist_ok=True)
        folders.add(turn.parent)
    _write(str(turn), "")


SHAPES: dict[str, Callable[[Path, int], None]] = {
    "wide job": wide,
    "fan-in": fan_in,
    "jobs": jobs,
    "batches": waiting_batches,
    "batches with a budget": budgeted_batches,
    "delayed steps": delayed_steps,
}


def run(root: Path, out: Path, most: int, how: str = "counted") -> list[passes.Cost]:
    """Run attempts until so many passes were made; those that settled one and launched one."""
    drain = root / "runners" / "local" / "drain"
    drain.unlink(missing_ok=True)
    command = [*s.ours("tick")[:1], "-m", "benchmarks.passes", str(out), str(most), how, "tick", "--root", str(root)]
    layout = Layout(root)
    waits = delayed.next_at(layout, time.time()) is not None
    lock = locks.hold(layout.waker_lock) if waits else None  # nobody stays to wake what is due in some hours
    try:
        measure(command, out.with_suffix(".log"), s.environment())
    finally:
        if lock is not None:
            locks.release(lock)
    return [cost for cost in passes.read(out) if (cost.settled, cost.launched) == (1, 1)]


def median(costs: list[passes.Cost], field: str) -> float:
    return statistics.median(getattr(cost, field) for cost in costs)


def growth(setting: Setting) -> Row:
    """The cost of an attempt by what waits beside it."""
    sizes = (100, 1_000) if setting.quick else (100, 10_000, 100_000)
    row = Row(name="growth", work="attempts of `true`, one at a time, beside N others")
    found: dict[str, dict[int, dict[str, float]]] = {shape: {} for shape in SHAPES}
    began, took = time.monotonic(), dict.fromkeys(SHAPES, 0.0)
    for n in sizes:
        for shape, make in SHAPES.items():
            start = time.monotonic()
            last = max(found[shape], default=0)
            if last and start - began + took[shape] * n / last > MOST_SEC:
                print(f"  growth: {shape} of {n:,}: left out, there is no time for it", file=sys.stderr)
                continue
            folder = setting.fresh(f"growth-{shape.replace(' ', '-')}-{n}")
            make(folder, n)
            took[shape] = time.monotonic() - start
            found[shape][n] = _cost(folder, 8 if setting.quick else 16)
            print(f"  growth: {shape} of {n:,}: {found[shape][n]}", file=sys.stderr, flush=True)
    for shape, costs in found.items():
        row.figures += _figures(shape, costs)
    return row


def crowds(setting: Setting) -> Row:
    """A pass that settles one attempt and launches one: in a large job, beside a fan-in, beside many batches."""
    row = Row(name="passes", work="passes of one attempt of `true` each, beside others")
    for shape, n in (("wide job", 8_000), ("fan-in", 1_600), ("batches", 400)):
        size = n // 40 if setting.quick else n
        folder = setting.fresh(f"passes-{shape.replace(' ', '-')}")
        SHAPES[shape](folder, size)
        cost = _cost(folder, 8 if setting.quick else 16)
        measure = f"{shape} of {size:,}: CPU of a pass"
        row.figures.append(Figure(measure=measure, unit="ms", ours=cost["CPU of its pass"], goal=3.0))
    return row


def _figures(shape: str, costs: Mapping[int, Mapping[str, float]]) -> Iterator[Figure]:
    first, last = min(costs), max(costs)
    for field, unit in _FIELDS.items():
        for n, cost in costs.items():
            yield Figure(measure=f"{shape} of {n:,}: {field}", unit=unit, ours=cost[field])  # type: ignore[arg-type]
        grown = costs[last][field] / costs[first][field]
        exponent = math.log(grown) / math.log(last / first) if last > first else 0.0
        measure = f"{shape}: exponent of {field}, to {last:,}"
        yield Figure(measure=measure, unit="ratio", ours=exponent, goal=0.1)


_FIELDS = {"CPU of an attempt": "ms", "CPU of its pass": "ms", "files": "count", "moved": "count"}


def _cost(root: Path, most: int) -> dict[str, float]:
    """Medians of one attempt."""
    timed = run(root, root.with_suffix(".timed"), most, "timed")
    counted = run(root, root.with_suffix(".passes"), most)
    return {
        "CPU of an attempt": round(statistics.median(passes.per_attempt(timed)), 2),
        "CPU of its pass": median(timed, "cpu_ms"),
        "files": median(counted, "files"),
        "moved": median(counted, "moved"),
    }


# --- stores -------------------------------------------------------------------------------------------


def _layout(root: Path) -> Layout:
    root.mkdir(parents=True, exist_ok=True)
    (root / "parallelhassnes.toml").write_text("concurrency = 1\ndurable = false\n")
    layout = Layout(root)
    for folder in layout.folders():
        folder.mkdir(parents=True, exist_ok=True)
    return layout


def _name(i: int) -> str:
    return f"s{i:06d}"


def _step(step_id: str, **more: Any) -> StepSpec:
    return StepSpec(step_id=step_id, kind="command", queue_key="command", spec={"command": ["true"]}, **more)


def _job(batch_id: str, job_id: str, steps: list[StepSpec], **more: Any) -> JobSpec:
    dependents: dict[str, list[str]] = {}
    for step in steps:
        for reference in step.depends_on:
            dependents.setdefault(reference.partition("/")[2], []).append(f"{job_id}/{step.step_id}")
    told = {step_id: tuple(references) for step_id, references in dependents.items()}
    return JobSpec(batch_id=batch_id, job_id=job_id, steps=tuple(steps), dependents=told, **more)


def _one_job(root: Path, n: int, more: list[StepSpec]) -> None:
    layout = _layout(root)
    job = _job("b", "j", [*(_step(_name(i)) for i in range(n)), *more])
    _batch(layout, "b", [job], ended=n // 2)


def _batch(layout: Layout, batch_id: str, made: list[JobSpec], ended: int = 0) -> None:
    """A batch as ingest leaves it; of its only job the first so many steps have ended."""
    batch_dir = layout.batch(batch_id)
    batch_dir.mkdir()
    chunks: set[str] = set()
    for job in made:
        (batch_dir / job.job_id).mkdir()
        document = job.model_dump(**_SLIM) | {"schema_version": 1}
        _write(f"{batch_dir}/{job.job_id}/{batches.JOB}", atomic.dumps(document))
        for place, step in enumerate(job.steps[ended:], ended):
            if not step.depends_on:
                _put(layout, batch_id, job.job_id, step.step_id, job.first_seq + place, chunks)
    turns.announce(layout, _KEY, batch_id)
    index.write(batch_dir, made)
    steps = sum(len(job.steps) for job in made)
    ledger.append(batch_dir, "submitted", jobs=len(made), steps=steps)
    if ended:
        _end(batch_dir, made[0], ended)
    meta = BatchMeta(
        batch_id=batch_id,
        created_at=now_text(),
        table_sha256="0" * 64,
        table_format="parallelhassnes-2",
        job_ids=tuple(job.job_id for job in made),
        steps_total=steps,
    )
    atomic.write_json(batch_dir / batches.META, meta.model_dump(mode="json"), durable=False)


def _put(layout: Layout, batch_id: str, job_id: str, step_id: str, seq: int, chunks: set[str]) -> None:
    """A ready ticket, as ``tickets.put_ready`` leaves it: written in place, since nobody reads it yet."""
    name = tickets.ticket_name(batch_id, seq, job_id, step_id, "command")
    chunk = f"{layout.ready}/{_KEY}/{batch_id}/{seq // tickets.CHUNK:05d}"
    if chunk not in chunks:
        os.makedirs(chunk)  # noqa: PTH103
        chunks.add(chunk)
    ticket = {
        "schema_version": 1,
        "batch_id": batch_id,
        "job_id": job_id,
        "step_id": step_id,
        "queue_key": _KEY,
        "kind": "command",
    }
    _write(f"{chunk}/{name}", atomic.dumps(ticket))


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(handle, text.encode())
    os.close(handle)


def _end(batch_dir: Path, job: JobSpec, ended: int) -> None:
    now = StepNow(
        status="succeeded",
        attempt="20261121T000000Z_abcdefghijkl",
        run_id="abcdefghijkl",
        number=1,
        ended_at=now_text(),
        settled=True,
    )
    current = Current(steps={step.step_id: now for step in job.steps[:ended]})
    (batch_dir / job.job_id / "current.json").write_text(json.dumps(dump(current)))
