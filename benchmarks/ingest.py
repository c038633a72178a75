"""Taking in a large table."""

from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.results import OURS, Figure, Row, Side
from benchmarks.setting import Setting


def ingest(setting: Setting) -> Row:
    """Submit a table of many steps: 100 steps a job, each waiting for the first."""
    steps = 1000 if setting.quick else 100_000
    row = Row(name="ingest", work=f"submit a table of {steps:,} steps")
    folder = setting.root("ingest")
    first = {"step_id": "s0", "kind": "command", "command": ["true"]}
    others = [{"step_id": f"s{n}", "kind": "command", "command": ["true"], "depends_on": ["s0"]} for n in range(1, 100)]
    jobs = [{"job_id": f"j{number}", "steps": [first, *others]} for number in range(steps // 100)]
    table = s.write_json(folder / "table.json", {"spec_version": "2.0", "jobs": jobs})
    command = s.ours("submit", str(table), "--again", "--root", str(folder))
    log = setting.work / "ingest.log"
    usage = measure(command, log, s.environment())
    memory = measure(command, log, s.environment(), memory=True)
    row.sides = [Side(name=OURS, command=command, runs=[usage], memory=memory)]
    row.figures = [
        Figure(measure="wall", unit="s", ours=usage.wall_sec, goal=5.0),
        Figure(measure="CPU", unit="s", ours=usage.cpu_sec),
    ]
    if memory.peak_pss_bytes:
        megabytes = memory.peak_pss_bytes / 1e6
        row.figures.append(Figure(measure="peak memory", unit="MB", ours=megabytes, goal=300.0))
    return row
