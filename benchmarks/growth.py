"""What an attempt costs beside 100, 10,000 and 100,000 others: processor time and operations on files a pass, and the exponents.

The stores are written as files, as ingest and ticks would leave them; of a job's steps half have ended. Then attempts of
``true`` run, each of them real, and what is measured are the passes that settle one and launch one.
"""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import passes
from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.results import Figure, Row
from benchmarks.setting import Setting
from parallelhassnes.plan import BatchMeta, JobSpec, StepSpec
from parallelhassnes.schedule.job_state import ticket_of
from parallelhassnes.store import atomic, batches, index, ledger, tickets
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import Current, StepNow, dump, now_text

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
    for i in range(n):
        name = f"20261121T{i // 3600:02d}{i // 60 % 60:02d}{i % 60:02d}Z-mmmmmmmm"
        _batch(layout, name, [_job(name, "j", [_step("s")])])


SHAPES: dict[str, Callable[[Path, int], None]] = {
    "wide job": wide,
    "fan-in": fan_in,
    "jobs": jobs,
    "batches": waiting_batches,
}


def run(root: Path, out: Path, most: int) -> list[passes.Cost]:
    """Run attempts until so many passes were made; those that settled one and launched one."""
    command = [*s.ours("tick")[:1], "-m", "benchmarks.passes", str(out), str(most), "tick", "--root", str(root)]  # fmt: skip
    measure(command, out.with_suffix(".log"), s.environment())
    return [cost for cost in passes.read(out) if (cost.settled, cost.launched) == (1, 1)]


def median(costs: list[passes.Cost], field: str) -> float:
    return statistics.median(getattr(cost, field) for cost in costs)


def growth(setting: Setting) -> Row:
    """The cost of a pass by what waits beside its attempt."""
    sizes = (100, 1_000) if setting.quick else (100, 10_000, 100_000)
    row = Row(
        name="growth", work="passes that settle and launch one attempt of `true`, beside N others"
    )
    for shape, make in SHAPES.items():
        found = {}
        for n in sizes:
            folder = setting.fresh(f"growth-{shape.replace(' ', '-')}-{n}")
            make(folder, n)
            found[n] = run(folder, folder.with_suffix(".passes"), 8 if setting.quick else 40)
        for field, unit in (("cpu_ms", "ms"), ("files", "count"), ("moved", "count")):
            values = {n: median(costs, field) for n, costs in found.items()}
            first, last = sizes[0], sizes[-1]
            exponent = math.log(values[last] / values[first]) / math.log(last / first)
            for n, value in values.items():
                row.figures.append(
                    Figure(measure=f"{shape} of {n:,}: {field}", unit=unit, ours=value)
                )  # type: ignore[arg-type]
            row.figures.append(
                Figure(
                    measure=f"{shape}: exponent of {field}", unit="ratio", ours=exponent, goal=0.1
                )
            )
    return row


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
    return StepSpec(step_id=step_id, kind="command", queue_key="command", spec={"command": ["true"]}, **more)  # fmt: skip


def _job(batch_id: str, job_id: str, steps: list[StepSpec], **more: Any) -> JobSpec:
    dependents: dict[str, list[str]] = {}
    for step in steps:
        for reference in step.depends_on:
            dependents.setdefault(reference.partition("/")[2], []).append(
                f"{job_id}/{step.step_id}"
            )
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
    for job in made:
        (batch_dir / job.job_id).mkdir()
        document = job.model_dump(**_SLIM) | {"schema_version": 1}
        atomic.write_json(batch_dir / job.job_id / batches.JOB, document, durable=False)
        for step in job.steps[ended:]:
            if not step.depends_on:
                ticket, name = ticket_of(job, step)
                tickets.put_ready(layout, ticket, name, durable=False)
    index.write(batch_dir, made)
    steps = sum(len(job.steps) for job in made)
    ledger.append(batch_dir, "submitted", jobs=len(made), steps=steps)
    if ended:
        _end(batch_dir, made[0], ended)
    meta = BatchMeta(
        batch_id=batch_id, created_at=now_text(), table_sha256="0" * 64, table_format="parallelhassnes-2",
        job_ids=tuple(job.job_id for job in made), steps_total=steps,
    )  # fmt: skip
    atomic.write_json(batch_dir / batches.META, meta.model_dump(mode="json"), durable=False)


def _end(batch_dir: Path, job: JobSpec, ended: int) -> None:
    now = StepNow(
        status="succeeded", attempt="20261121T000000Z_abcdefghijkl", run_id="abcdefghijkl", number=1,
        ended_at=now_text(), settled=True,
    )  # fmt: skip
    current = Current(steps={step.step_id: now for step in job.steps[:ended]})
    (batch_dir / job.job_id / "current.json").write_text(json.dumps(dump(current)))
