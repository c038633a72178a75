"""Steps of one second by pilots of Slurm and by a job of Slurm each, on a cluster of three nodes that is made for it."""

import json
import os
import subprocess
import sys

from benchmarks import setting as s
from benchmarks.results import Figure, Row, Side
from benchmarks.setting import CHECKOUT, Setting

_WAYS = ("pilots", "jobs")


def slurm(setting: Setting) -> Row:
    """As ``tests/hosts/throughput.py`` measures it: steps a second, and processor time a step of all hosts and of Slurm."""
    steps = 24 if setting.quick else 500
    row = Row(name="slurm", work=f"{steps} steps of one second, 24 at once, on three nodes of Slurm")
    places = os.pathsep.join(str(CHECKOUT / name) for name in ("", "tests", "tests/support"))
    environ = s.environment(PYTHONPATH=places)
    for way in _WAYS:
        command = [sys.executable, "-m", "tests.hosts.throughput", "--steps", str(steps), "--ways", way]
        done = subprocess.run(command, check=False, env=environ, cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode != 0 or not done.stdout.strip():
            row.skipped = (
                f"needs Slurm, munge and root: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
            )
            return row
        found = json.loads(done.stdout.splitlines()[-1])
        row.sides.append(Side(name=way, command=command))
        row.figures += [
            Figure(
                measure=f"{way}: time for a step, 24 at once",
                unit="ms",
                ours=found["seconds"] * 1000 / steps,
                goal=1000 / 18 if way == "pilots" else None,
            ),
            Figure(measure=f"{way}: CPU of a step", unit="ms", ours=found["cpu_ms_per_step"]),
        ]
    return row
