"""Draining a queue of jobs that do nothing, and looking at the store that is left when all is done."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import setting as s
from benchmarks.meter import Usage, measure
from benchmarks.results import OURS, Figure, Row, Side
from benchmarks.setting import Setting

_SIZES, _QUICK_SIZES = (100, 1000, 10_000), (10, 20)
_CONCURRENCY = "4"
_GOALS_MS = {"wall": 5.0, "CPU": 8.0}


def drain(setting: Setting) -> Row:
    """Submit N one-step jobs and tick until idle; then tick and look at the finished store."""
    sizes = _QUICK_SIZES if setting.quick else _SIZES
    row = Row(name="drain", work="one-step jobs that do nothing, 4 at a time; fsync on")
    per_job: dict[int, dict[str, float]] = {}
    for size in sizes:
        folder = setting.root("drain")
        submit, tick = s.ours("submit", str(_table(folder, size))), s.ours("tick", "--until-idle")
        submitted = _measure(setting, row, folder, f"submit {size}", submit)
        drained = _measure(setting, row, folder, f"drain {size}", [*tick, "--concurrency", _CONCURRENCY, "--quiet"])
        _check(folder, size)
        per_job[size] = {"wall": drained.wall_sec / size, "CPU": drained.cpu_sec / size}
        row.figures.append(Figure(measure=f"submit {size:,} jobs: wall", unit="s", ours=submitted.wall_sec))
        for measure_name, value in per_job[size].items():
            row.figures.append(
                Figure(
                    measure=f"drain {size:,} jobs: {measure_name} per job",
                    unit="ms",
                    ours=value * 1000,
                    goal=_GOALS_MS[measure_name] if size == sizes[-1] else None,
                )
            )
        row.figures += _looks(setting, row, folder, size)
    small, large = sizes[0], sizes[-1]
    for name in ("wall", "CPU"):
        row.figures.append(
            Figure(
                measure=f"{name} per job at {large:,} / at {small:,}",
                unit="ratio",
                ours=per_job[large][name] / per_job[small][name],
                goal=1.2,
            )
        )
    return row


def _looks(setting: Setting, row: Row, folder: Path, size: int) -> list[Figure]:
    """A tick and a scoreboard on a store where all is finished: medians."""
    figures = []
    s.bring_to_rest(setting, folder)
    for what, arguments, goal in (
        ("idle tick", ["tick", "--quiet"], 0.08),
        ("system scoreboard", ["scoreboard", "--json"], 0.15),
    ):
        runs = [_measure(setting, row, folder, f"{what} {size}", s.ours(*arguments)) for _ in range(setting.runs(5))]
        figures.append(
            Figure(
                measure=f"{what}, {size:,} finished jobs: wall",
                unit="s",
                ours=median(run.wall_sec for run in runs),
                goal=goal,
            )
        )
    return figures


def _measure(setting: Setting, row: Row, folder: Path, name: str, command: list[str]) -> Usage:
    log = setting.work / f"{name.replace(' ', '-')}.log"
    whole = [*command, "--root", str(folder)]
    usage = measure(whole, log, s.environment())
    for side in row.sides:
        if side.name == f"{OURS}: {name}":
            side.runs.append(usage)
            return usage
    row.sides.append(Side(name=f"{OURS}: {name}", command=whole, runs=[usage]))
    return usage


def _table(folder: Path, size: int) -> Path:
    step: dict[str, Any] = {"step_id": "s", "kind": "command", "command": ["true"]}
    jobs = [{"job_id": f"j{number}", "steps": [step]} for number in range(size)]
    return s.write_json(folder / "table.json", {"spec_version": "2.0", "jobs": jobs})


def _check(folder: Path, size: int) -> None:
    done = 0
    for path in folder.glob("runs/*/*/current.json"):
        done += json.loads(path.read_bytes())["steps"]["s"]["status"] == "succeeded"
    if done != size:
        raise ValueError(f"{folder}: {done} of {size} jobs succeeded")
