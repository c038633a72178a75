"""``python -m benchmarks [NAME…] [--quick] [--out build/bench]``: measure, print one table, write it as JSON."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    drain,
    growth,
    ingest,
    live,
    machine,
    packs,
    redaction,
    scale,
    serve,
    server,
    setting,
    slots,
    slurm,
    startup,
    terminus,
    trials,
    views,
)
from benchmarks.meter import CommandFailed
from benchmarks.results import Row
from benchmarks.setting import Setting
from benchmarks.table import show

ROWS: dict[str, Callable[[Setting], Row]] = {
    "startup": startup.startup,
    "sandbox": trials.sandbox,
    "serve": serve.serve,
    "docker": trials.docker,
    "terminus-8": terminus.eight,
    "terminus-32": terminus.thirty_two,
    "drain": drain.drain,
    "growth": growth.growth,
    "passes": growth.crowds,
    "slots": slots.slots,
    "starts": slots.starts,
    "memory": slots.supervisor_memory,
    "live": live.live,
    "ingest": ingest.ingest,
    "views": views.views,
    "server": server.server,
    "packs": packs.packs,
    "redaction": redaction.redaction,
    "scale": scale.scale,
    "sweep": trials.sweep,
    "slurm": slurm.slurm,
}


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 if every row was measured, 1 if one failed; a missed goal is a result, not a failure."""
    said = _parse(arguments)
    out: Path = said.out.absolute()
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    wanted = Setting(work=work, quick=said.quick, pairs=said.pairs)
    began = datetime.now(UTC)
    rows = [_measure(name, wanted) for name in said.names or ROWS]
    document = {
        "schema_version": 1,
        "at": began.isoformat(),
        "quick": said.quick,
        "machine": machine.describe(work),
        "rows": [_document(row) for row in rows],
    }
    path = setting.write_json(out / "benchmark.json", document)
    if not said.keep:
        shutil.rmtree(work)
    show(rows)
    print(f"written to {path}")
    return int(any(row.skipped and row.skipped.startswith("failed") for row in rows))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROWS)}; all without")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run each: only shows that it works")
    parser.add_argument("--pairs", type=int, help="runs of each side")
    parser.add_argument("--keep", action="store_true", help="leave the stores and logs in OUT/work")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the JSON and the stores")
    said = parser.parse_args(arguments)
    if unknown := [name for name in said.names if name not in ROWS]:
        parser.error(f"{', '.join(unknown)}: no such row; use {', '.join(ROWS)}")
    return said


def _measure(name: str, wanted: Setting) -> Row:
    """Measure one row; one that fails is noted and does not take the others with it."""
    load = os.getloadavg()[0]
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        row = ROWS[name](wanted)
    except (CommandFailed, OSError, ValueError) as error:
        row = Row(name=name, work="", skipped=f"failed: {error}")
        print(row.skipped, file=sys.stderr)
    row.load_1min = load
    return row


def _document(row: Row) -> dict[str, object]:
    document = row.model_dump(exclude_none=True)
    for said, figure in zip(document["figures"], row.figures, strict=True):
        if figure.met is not None:
            said["met"] = figure.met
    return document


if __name__ == "__main__":
    sys.exit(main())
