"""What a look at a finished batch of N trials costs: each view in a process of its own, the first that looks and one after it.

The stores are written as files, as ticks leave them, but for the attempts' own folders: no view of a batch is to look into them.

    python -m benchmarks.views FOLDER JOBS TRIALS       write a store of so many jobs, with so many trials each
"""

import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.results import Figure, Row
from benchmarks.setting import Setting
from parallelhassnes.plan import BatchMeta, JobSpec, StepSpec
from parallelhassnes.report import spans
from parallelhassnes.results import trial_plans
from parallelhassnes.schedule.job_state import step_facts
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import atomic, batches, index
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views import batch_scoreboard, projection

BATCH = "20261101T000000Z-vvvvvvvv"
_AGENTS = ("terminus-2", "oracle")
_MODEL = "openai/gpt-5.2"
_ORIGIN = {"harness_version": "1.0", "host": "here", "config_sha256": "f" * 64}
_BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def store(root: Path, jobs: int, trials: int) -> Layout:
    """One batch of so many jobs with so many ended trials each: three of five scored, one of ten lost by its agent."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "parallelhassnes.toml").write_text("concurrency = 1\ndurable = false\n")
    layout = Layout(root)
    for folder in layout.folders():
        folder.mkdir(parents=True, exist_ok=True)
    batch_dir = layout.batch(BATCH)
    batch_dir.mkdir()
    made = [_job(number, trials) for number in range(jobs)]
    for job in made:
        (batch_dir / job.job_id).mkdir()
        document = job.model_dump(mode="json", exclude_defaults=True) | {"schema_version": 1}
        (batch_dir / job.job_id / batches.JOB).write_text(atomic.dumps(document))
    index.write(batch_dir, made)
    ledger.append(batch_dir, "submitted", jobs=jobs, steps=jobs * trials)
    with (batch_dir / ledger.LEDGER).open("a") as stream:
        for job in made:
            for place, step in enumerate(job.steps):
                for line in _lines(job, step, job.first_seq + place):
                    stream.write(atomic.dumps(line))
    meta = BatchMeta(
        batch_id=BATCH,
        created_at=now_text(_BEGAN),
        table_sha256="0" * 64,
        table_format="parallelhassnes-2",
        job_ids=tuple(job.job_id for job in made),
        steps_total=jobs * trials,
    )
    atomic.write_json(batch_dir / batches.META, meta.model_dump(mode="json"), durable=False)
    return layout


def _job(number: int, trials: int) -> JobSpec:
    job_id = f"task-{number:06d}"
    return JobSpec(
        batch_id=BATCH,
        job_id=job_id,
        first_seq=number * trials,
        steps=tuple(_step(job_id, repeat) for repeat in range(trials)),
    )


def _step(task: str, repeat: int) -> StepSpec:
    agent = _AGENTS[repeat % 2]
    config: dict[str, Any] = {
        "task": {"path": f"/tasks/{task}"},
        "agent": {"name": agent, **({"model_name": _MODEL} if agent != "oracle" else {}), "kwargs": {"max_turns": 20}},
        "environment": {"import_path": "parallelhassnes.sandbox.environment:SandboxEnvironment"},
        "timeout_multiplier": 1.0,
    }
    key = "agent:oracle" if agent == "oracle" else _MODEL
    label = agent if agent == "oracle" else f"{agent} · {_MODEL}"
    spec = {"config": config, "task_name": f"org/{task}", "task_checksum": "c" * 64, "repeat": repeat + 1}
    return StepSpec(step_id=f"t{repeat:04d}", kind="trial", queue_key=key, label=label, spec=spec)


def _lines(job: JobSpec, step: StepSpec, seq: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the ledger says of an attempt's start and end, by the functions that say it of real ones."""
    at = _BEGAN + timedelta(seconds=seq)
    run_id = f"r{seq:011d}"
    facts = {
        "job_id": job.job_id,
        "step_id": step.step_id,
        "run_id": run_id,
        "attempt": f"{at:%Y%m%dT%H%M%SZ}_{run_id}",
        "number": 1,
    }
    failed = seq % 10 == 9
    exception = {"type": "NonZeroAgentExitCodeError", "class": "agent_error", "message": f"exit code {seq}"}
    trial = {
        "task": {"name": f"org/{job.job_id}", "checksum": "c" * 64},
        "agent": {"name": _AGENTS[seq % 2], "version": "2.1", "model": _MODEL if seq % 2 == 0 else None},
        "rewards": None if failed else {"reward": seq % 5 < 3},
        "reward": None if failed else int(seq % 5 < 3),
        "exception": exception if failed else None,
        "cost_usd": 0.01,
        "tokens": {"input": 1000 + seq % 7, "cache": 100, "output": 50},
        "timings_sec": {"environment_setup": 1.0, "agent_execution": 2.0, "verifier": 1.0, "total": 4.5},
    }
    failure = {"failure_class": "agent_error", "line": f"agent ended with exit code {seq}"} if failed else None
    status = "failed" if failed else "succeeded"
    report = {"trial": trial, "failure": {"class": "agent_error"} if failed else None}
    key = {"queue_key": step.queue_key}
    started = {"event": "launched", "at": now_text(at), **facts, **key, **_ORIGIN, **step_facts(step)}
    ended_at = now_text(at + timedelta(seconds=5))
    ended = {"event": "ended", "at": ended_at, **facts, "status": status, "failure": failure, "ended_at": ended_at}
    return started, {**ended, **key, "seal_sha256": "e" * 64, **ended_line.line(step, status, report)}


LOOKS: dict[str, tuple[tuple[str, ...], float, float]] = {
    "results": (("results", BATCH, "--json"), 0.6, 0.6),
    "errors": (("errors", BATCH, "--json"), 0.6, 0.6),
    "compare": (("compare", f"{BATCH}@oracle", f"{BATCH}@terminus-2", "--json"), 1.0, 0.6),
    "report": (("report", BATCH, "--markdown"), 3.0, 0.6),
    "scoreboard": (("scoreboard", BATCH, "--json"), 0.6, 0.6),
    "explain": (("explain", BATCH, "--json"), 0.6, 0.6),
    "show": (("show", f"{BATCH}/task-000003/t0000", "--json"), 0.6, 0.6),
}
"""View → its command line, and seconds that a process of its own may take at 10,000 trials: the first that looks, when nothing
is kept beside the ledger yet, and one after it."""
_LARGE_SEC = 4.0
"""Seconds that either may take at 100,000."""


def views(setting: Setting) -> Row:
    """Every view of a batch of N finished trials: by the first process that looks at it, and by one after it."""
    row = Row(name="views", work="a look at a batch of finished trials, ten of each task")
    for n in (100, 1_000) if setting.quick else (10_000, 100_000):
        folder = setting.fresh(f"views-{n}")
        store(folder, n // 10, 10)
        for name, (arguments, *goals) in LOOKS.items():
            for which, goal in zip(("first", "next"), goals, strict=True):
                took = [_look(setting, folder, arguments, first=which == "first") for _ in range(setting.runs(3))]
                measured = f"{name} of {n:,}, {which} look: wall"
                row.figures.append(
                    Figure(
                        measure=measured,
                        unit="s",
                        ours=statistics.median(took),
                        goal={10_000: goal, 100_000: _LARGE_SEC}.get(n),
                    )
                )
                print(f"  views: {measured} {took}", file=sys.stderr, flush=True)
    return row


def _look(setting: Setting, folder: Path, arguments: tuple[str, ...], *, first: bool) -> float:
    for kept in (projection.CACHE, trial_plans.CACHE, batch_scoreboard.KEPT, spans.KEPT) if first else ():
        (folder / "runs" / BATCH / kept).unlink(missing_ok=True)
    command = s.ours(*arguments, "--root", str(folder))
    return measure(command, setting.work / "views.log", s.environment()).wall_sec


def main(folder: str, jobs: str, trials: str) -> None:
    began = time.perf_counter()
    store(Path(folder), int(jobs), int(trials))
    print(f"{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
