"""What a large store costs where people wait: 1,000 batches of 1,000 finished steps each, packed, beside one such batch alone.

The first batch is run and packed by this project, each of its steps a process. The others are its files under other names, as if they
had run, too; the hashes of their ledgers are not their own, so only the first is audited.
"""

import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.packs import weight
from benchmarks.results import Figure, Row
from benchmarks.server import opened
from benchmarks.setting import Setting, write_json
from parallelhassnes.store.layout import Layout

BATCHES, JOBS, STEPS = 1_000, 10, 100
MOST = 1.2
"""Times what a look costs in a store of one batch."""


def scale(setting: Setting) -> Row:
    """Each look in the same store before and after the other batches came."""
    batches, steps = (20, 5) if setting.quick else (BATCHES, STEPS)
    row = Row(
        name="scale", work=f"looks into a store of {batches:,} packed batches of {JOBS * steps:,} steps, and of one"
    )
    root = setting.root("scale")
    first = _run(setting, root, steps)
    looks = {
        "idle tick": ("tick", "--quiet"),
        "scoreboard": ("scoreboard", "--json"),
        "scoreboard of a batch": ("scoreboard", first, "--json"),
        "results of a batch": ("results", first, "--json"),
        "show of a step": ("show", f"{first}/j0/s0", "--json"),
        "logs of a step": ("logs", f"{first}/j0/s0"),
        "audit of a batch": ("audit", "verify", first),
    }
    pages = {"page of all batches": "/", "page of a batch": f"/batches/{first}"}
    alone = {name: _took(setting, root, arguments) for name, arguments in looks.items()} | opened(root, pages)
    _copy(Layout(root), first, batches)
    inodes, size = weight(root / "runs")
    beside = {name: _took(setting, root, arguments) for name, arguments in looks.items()} | opened(root, pages)
    for name, took in beside.items():
        ratio, what = took / alone[name], f"{name}: CPU, and times that of one batch alone"
        row.figures.append(Figure(measure=what, unit="s", ours=took, ratio=ratio, goal=MOST))
        print(f"  scale: {name}: {alone[name]:.3f} s, then {took:.3f} s", file=sys.stderr, flush=True)
    million = 1e6 / (batches * JOBS * steps)
    row.figures.append(Figure(measure="files and folders per million steps", unit="count", ours=inodes * million))
    row.figures.append(Figure(measure="on disk per million steps", unit="MB", ours=size * million / 1e6))
    return row


def _run(setting: Setting, root: Path, steps: int) -> str:
    """Run and pack the first batch."""
    with (root / "parallelhassnes.toml").open("a") as stream:
        stream.write("\ndurable = false\n")
    jobs = [
        {
            "job_id": f"j{job}",
            "steps": [
                {"step_id": f"s{step}", "kind": "command", "command": ["echo", f"{job}.{step}"]}
                for step in range(steps)
            ],
        }
        for job in range(JOBS)
    ]
    table = write_json(setting.work / "scale.json", {"jobs": jobs})
    for words in (("submit", str(table)), ("tick", "--until-idle"), ("pack", "latest")):
        measure(s.ours(*words, "--root", str(root)), setting.work / "scale.log", s.environment())
    (found,) = Layout(root).batch_ids()
    return found


def _copy(layout: Layout, first: str, batches: int) -> None:
    """Write the first batch's files under other names, the first looks' kept ones too."""
    source = layout.batch(first)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    contents = {path.relative_to(source): path.read_bytes() for path in files}
    folders = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_dir()]
    old = first.encode()
    for number in range(1, batches):
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        name = f"{at:%Y%m%dT%H%M%SZ}-{first.rpartition('-')[2]}"
        target = layout.batch(name)
        target.mkdir()
        for folder in folders:
            (target / folder).mkdir()
        for path, content in contents.items():
            (target / path).write_bytes(content.replace(old, name.encode()))


def _took(setting: Setting, root: Path, arguments: tuple[str, ...]) -> float:
    """Median seconds of the processor, once what is kept has been made."""
    command = s.ours(*arguments, "--root", str(root))
    log = setting.work / "scale.log"
    measure(command, log, s.environment())
    time.sleep(0.1 if setting.quick else 2.5)  # what changed a moment ago is not kept
    measure(command, log, s.environment())
    return statistics.median(measure(command, log, s.environment()).cpu_sec for _ in range(setting.runs(5)))
