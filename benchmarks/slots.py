"""A slot falls free and the next worker runs; what a supervisor weighs meanwhile."""

import itertools
import json
import subprocess
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import setting as s
from benchmarks.meter import measure, rollup
from benchmarks.results import OURS, Figure, Row, Side
from benchmarks.setting import CHECKOUT, SANDBOX, Setting

_DEADLINE_SEC = 60.0


def slots(setting: Setting) -> Row:
    """One at a time: from the end of a worker to the first act of the next, seal and scheduling included."""
    count = 5 if setting.quick else 60
    row = Row(name="slots", work=f"{count} jobs of `date`, one at a time, no daemon")
    folder = setting.fresh("slots")
    table = _table(folder, [_command("date", "+%s.%N")] * count)
    command = s.ours("run", "-c", str(table), "--root", str(folder), "--concurrency", "1")
    usage = measure(command, setting.work / "slots.log", s.environment())
    row.sides = [Side(name=OURS, command=command, runs=[usage])]
    spans = sorted(
        (float((path / "stdout.log").read_text()), _ended(path)) for path in folder.glob("runs/*/*/steps/*/attempts/*")
    )
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    row.figures = [
        Figure(measure="slot free to next worker: median", unit="ms", ours=median(gaps) * 1000, goal=10.0),
        Figure(measure="slot free to next worker: longest", unit="ms", ours=max(gaps) * 1000),
    ]
    return row


def starts(setting: Setting) -> Row:
    """From an attempt's claim to its supervisor's first act, while others end all the time."""
    count = 12 if setting.quick else 400
    row = Row(name="starts", work=f"{count} jobs of `true`, 4 at a time")
    folder = setting.fresh("starts")
    table = _table(folder, [_command("true")] * count)
    command = s.ours("run", "-c", str(table), "--root", str(folder), "--concurrency", "4")
    row.sides = [
        Side(name=OURS, command=command, runs=[measure(command, setting.work / "starts.log", s.environment())])
    ]
    waits = [_waited(path) for path in folder.glob("runs/*/*/steps/*/attempts/*")]
    row.figures = [
        Figure(measure="claimed to started: longest", unit="s", ours=max(waits), goal=1.0),
        Figure(measure="claimed to started: median", unit="s", ours=median(waits)),
    ]
    return row


def supervisor_memory(setting: Setting) -> Row:
    """Private memory of supervisors while their workers run."""
    count = 2 if setting.quick else 8
    row = Row(name="memory", work=f"{count} attempts at once, each sleeping")
    task = str(CHECKOUT / "examples/tasks/slow")
    steps = {
        "command": _command("sleep", "4"),
        "trial": {
            "step_id": "s",
            "kind": "trial",
            "task": {"path": task},
            "agent": {"name": "oracle"},
            "environment": SANDBOX,
        },
    }
    for kind, step in steps.items():
        folder = setting.fresh(f"memory-{kind}")
        table = _table(folder, [step] * count)
        command = s.ours("run", "-c", str(table), "--root", str(folder), "--concurrency", str(count))
        sizes = _watch(folder, command, count)
        row.sides.append(Side(name=f"{OURS}: {kind}", command=command))
        row.figures.append(
            Figure(measure=f"private memory of a supervisor, {kind}", unit="MB", ours=median(sizes) / 1e6, goal=3.0)
        )
    return row


def _watch(folder: Path, command: list[str], count: int) -> list[int]:
    """Bytes of each supervisor's private memory once all workers run."""
    with subprocess.Popen(
        command, env=s.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        end = time.monotonic() + _DEADLINE_SEC
        while len(pids := _running(folder)) < count:
            if time.monotonic() > end or program.poll() is not None:
                raise TimeoutError(f"{folder}: {len(pids)} of {count} attempts run")
            time.sleep(0.05)
        time.sleep(1.0)  # past the start of the worker, into the supervisor's wait
        return [rollup(pid, "Private_Clean", "Private_Dirty") for pid in pids]


def _running(folder: Path) -> list[int]:
    states = [json.loads(path.read_bytes()) for path in folder.glob("runs/*/*/steps/*/attempts/*/state.json")]
    return [state["pid"] for state in states if state["status"] == "running"]


def _ended(attempt: Path) -> float:
    state = json.loads((attempt / "state.json").read_bytes())
    return datetime.fromisoformat(state["ended_at"]).timestamp()


def _waited(attempt: Path) -> float:
    claimed, started = (
        datetime.fromisoformat(json.loads((attempt / name).read_bytes())[field])
        for name, field in (("meta.json", "created_at"), ("state.json", "started_at"))
    )
    return (started - claimed).total_seconds()


def _command(*argv: str) -> dict[str, Any]:
    return {"step_id": "s", "kind": "command", "command": list(argv)}


def _table(folder: Path, steps: list[dict[str, Any]]) -> Path:
    jobs = [{"job_id": f"j{number}", "steps": [step]} for number, step in enumerate(steps)]
    return s.write_json(folder / "table.json", {"spec_version": "2.0", "jobs": jobs})
