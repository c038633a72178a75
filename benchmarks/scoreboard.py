"""How long the system scoreboard takes on stores of 1,000 to 100,000 jobs: ``python benchmarks/scoreboard.py [JOBS …]``.

The stores are written as files, as ticks would leave them, half of each batch ended and half ready. Times
are of the whole program, ``parallelhassnes scoreboard --json``, from start to exit; the median of some.

    first      nobody has looked before: the whole ledger is read
    unchanged  as cron or a second look finds it
    moved      one attempt was launched since the last look
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parallelhassnes.plan import BatchMeta, JobSpec, StepSpec
from parallelhassnes.schedule.job_state import ticket_of
from parallelhassnes.store import atomic, batches, index
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import now_text

KEY = "openai/gpt-5.2"
REPEATS = 5


def make(root: Path, jobs: int, in_batches: int) -> Layout:
    """A store with so many one-step jobs."""
    layout = Layout(root)
    for folder in layout.folders():
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(in_batches):
        stamp = f"20261121T{number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}Z"
        _batch(layout, f"{stamp}-aaaaaa", jobs // in_batches)
    return layout


def _batch(layout: Layout, batch_id: str, count: int) -> None:
    step = StepSpec(step_id="t1", kind="trial", queue_key=KEY, label="terminus-2 · openai/gpt-5.2")
    jobs = [JobSpec(batch_id=batch_id, job_id=f"job-{i:06d}", first_seq=i, steps=(step,)) for i in range(count)]
    batch_dir = layout.batch(batch_id)
    batch_dir.mkdir()
    index.write(batch_dir, jobs)
    for job in jobs:
        (batch_dir / job.job_id).mkdir()
        atomic.write_json(batch_dir / job.job_id / batches.JOB, job.model_dump(mode="json"))
    ledger.append(batch_dir, "submitted", jobs=count, steps=count)
    with (batch_dir / ledger.LEDGER).open("a") as stream:
        for job in jobs[: count // 2]:
            facts = {
                "at": now_text(),
                "job_id": job.job_id,
                "step_id": "t1",
                "run_id": "abcdefghijkl",
                "attempt": "20261121T000000Z_abcdefghijkl",
                "number": 1,
            }
            stream.write(atomic.dumps({"event": "launched", **facts, "queue_key": KEY}))
            stream.write(atomic.dumps({"event": "ended", **facts, "status": "succeeded", "ended_at": facts["at"]}))
    for job in jobs[count // 2 :]:
        ticket, name = ticket_of(job, step)
        tickets.put_ready(layout, ticket, name, durable=False)
    meta = BatchMeta(
        batch_id=batch_id,
        created_at=now_text(),
        table_sha256="0" * 64,
        table_format="parallelhassnes-2",
        job_ids=tuple(job.job_id for job in jobs),
        steps_total=count,
    )
    atomic.write_json(batch_dir / batches.META, meta.model_dump(mode="json"))


def move(layout: Layout, number: int) -> None:
    """One more launch in the newest batch."""
    batch_id = layout.batch_ids()[-1]
    ledger.append(
        layout.batch(batch_id),
        "launched",
        job_id="job-000000",
        step_id="t1",
        run_id=f"r{number}",
        attempt=f"20261121T000001Z_r{number}",
        number=number,
        queue_key=KEY,
    )


def look(root: Path) -> float:
    """Seconds of wall time of one look."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "parallelhassnes", "scoreboard", "--json", "--root", str(root)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    took = time.perf_counter() - began
    assert json.loads(done.stdout)["counts"]["succeeded"]
    return took


def measure(jobs: int, in_batches: int) -> dict[str, float]:
    """Seconds for each case."""
    with tempfile.TemporaryDirectory() as folder:
        layout = make(Path(folder), jobs, in_batches)
        first = look(layout.root)
        unchanged = [look(layout.root) for _ in range(REPEATS)]
        moved = []
        for number in range(2, 2 + REPEATS):
            move(layout, number)
            moved.append(look(layout.root))
    return {"first": first, "unchanged": statistics.median(unchanged), "moved": statistics.median(moved)}


def main(arguments: list[str]) -> None:
    atomic.set_durable(False)
    started = statistics.median(_help() for _ in range(REPEATS))
    print(f"--help alone: {started:.2f} s")
    print(f"{'jobs':>8} {'batches':>8} {'first':>8} {'unchanged':>10} {'moved':>8}")
    for jobs in [int(text) for text in arguments] or [1_000, 10_000, 100_000]:
        for in_batches in (1, jobs // 10 if jobs <= 10_000 else 100):
            found = measure(jobs, in_batches)
            print(
                f"{jobs:>8} {in_batches:>8} {found['first']:>8.2f} {found['unchanged']:>10.2f} {found['moved']:>8.2f}"
            )


def _help() -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "parallelhassnes", "--help"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1:])
