"""What many runners of one root do to ``tick.lock``: ``python -m tests.hosts.tick_lock [--runners 5,10,20,50] [--rate 4] [--seconds 30]``.

Real runners with beats as they are by default, and real steps. What is simulated is that they have hosts of their own: all are processes of one
emulated host, which has joined for all of them, so that a machine of two cores gets them up. Each has one slot, and steps last so long, some twice as long as others, that all
runners together end as many a second, however many they are; what grows is the number of beats, of listings and of places to hand something to.

Every process notes when it takes ``tick.lock`` and lets go of it. Beside them one process takes it as an operator's word does, twice a second: how long that
waits is told. Prints a JSON object for each number of runners: passes and ended steps a second, the share of the time in which the lock is
held, holds, their processor time, and waits in milliseconds.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import stores

from parallelhassnes.actions.pull_runner import pull
from parallelhassnes.schedule.context import open_context
from parallelhassnes.schedule.joining.measured import join_first
from parallelhassnes.store import hosts, locks
from tests.hosts.lab import Lab
from tests.hosts.throughput import cpu_sec, sealed

_ASK_SEC = 0.5
_NOTES = "HOLDS_OF_TICK_LOCK"


def main(arguments: list[str]) -> int:
    if (notes := os.environ.get(_NOTES)) is not None:  # on the emulated host
        _be_runners(Path(arguments[0]), int(arguments[1]), Path(notes))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runners", default="5,10,20,50")
    parser.add_argument("--rate", type=float, default=4.0, help="steps that end a second, of all runners")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args(arguments)
    for runners in map(int, given.runners.split(",")):
        print(json.dumps({"runners": runners, **measured(runners, given.rate, given.seconds)}), flush=True)
    return 0


def measured(runners: int, rate: float, seconds: float) -> dict[str, float]:
    """Have so many runners end so many steps a second, and look at the lock for so long."""
    with Lab("same", "durable = true\nmin_free_disk_mb = 0\nconcurrency = 1\n") as lab:
        config = lab.disk / "parallelhassnes.toml"  # beats as they are by default, not as tests want them
        config.write_text("".join(line for line in config.read_text().splitlines(True) if "heartbeat" not in line))
        host, notes, lasts = lab.host("h1"), lab.folder / "holds", runners / rate
        with (lab.folder / "runners.log").open("w") as log:
            argv = (sys.executable, "-m", "tests.hosts.tick_lock", str(lab.root), str(runners))
            host.popen(*argv, env={_NOTES: str(notes)}, stdout=log, stderr=log)
        beats = "runners/*/beat.json"
        stores.wait_for(lambda: len(list(lab.disk.glob(beats))) == runners, f"the runners: {_said(lab)}", 300)
        count = int(rate * (seconds + 120)) + runners
        table = lab.folder / "table.json"
        sleeps = [stores.command("s", "sleep", f"{lasts * (0.55 + n % 10 / 10):.2f}") for n in range(count)]
        table.write_bytes(stores.table(*(stores.job(f"j{n}", step) for n, step in enumerate(sleeps))))
        host.ours("submit", str(table), root=lab.root, env={hosts.NAME_VARIABLE: "r1"}, timeout_sec=120)
        stores.wait_for(lambda: sealed(lab.disk) >= 2 * runners, "the second round", 300)
        ended, cpu = sealed(lab.disk), cpu_sec([host])
        began, waits = time.monotonic(), list(_waits(lab.disk / "runs" / "_system" / "tick.lock", seconds))
        end = time.monotonic()
        took = end - began
        held = [each for each in _holds(notes) if began <= each.at < end]
        return {
            "steps_per_sec": round((sealed(lab.disk) - ended) / took, 1),
            "passes_per_sec": round(len(held) / took, 1),
            "held_percent": round(100 * sum(each.for_sec for each in held) / took, 1),
            "held_cpu_percent": round(100 * sum(each.cpu_sec for each in held) / took, 1),
            **_spread("hold", [each.for_sec for each in held]),
            **_spread("hold_cpu", [each.cpu_sec for each in held]),
            **_spread("wait", waits),
            "looks": len(waits),
            "cpu_cores": round((cpu_sec([host]) - cpu) / took, 2),
            "load": round(os.getloadavg()[0], 1),
        }


def _spread(name: str, found: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(found, n=20, method="inclusive")
    named = {"p50": cuts[9], "p95": cuts[18], "most": max(found)}
    return {f"{name}_{key}_ms": round(value * 1000, 1) for key, value in named.items()}


def _waits(lock: Path, seconds: float) -> Iterator[float]:
    """Take the lock again and again; how long each waited."""
    end = time.monotonic() + seconds
    while (asked := time.monotonic()) < end:
        with locks.held(lock):
            waited = time.monotonic() - asked
        yield waited
        time.sleep(_ASK_SEC)


class _Hold(NamedTuple):
    at: float
    """When the lock was taken, by the machine's monotonic clock."""
    for_sec: float
    cpu_sec: float
    """Processor time of the holder meanwhile: what it would take on a machine with nothing else to do, the disk left out."""


def _holds(notes: Path) -> Iterator[_Hold]:
    for line in notes.read_text().splitlines():
        yield _Hold(*map(float, line.split()))


def _said(lab: Lab) -> str:
    return (lab.folder / "runners.log").read_text()[-500:]


def _be_runners(root: Path, count: int, notes: Path) -> None:
    """Be so many runners, each a process, until the host is gone."""
    _note_holds(notes)
    for number in itertools.count(1):
        os.environ[hosts.NAME_VARIABLE] = f"r{number}"
        if number == 1:
            join_first(open_context(root))
        if number == count or os.fork() == 0:
            pull(root, name=f"r{number}", capacity=1)
            return


def _note_holds(notes: Path) -> None:
    """Have this process, and its forks, note each hold of ``tick.lock``."""
    handle = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    hold, release = locks.hold, locks.release
    taken: dict[int, tuple[float, float]] = {}

    def noted_hold(path: Path | str) -> int | None:
        lock = hold(path)
        if lock is not None and Path(path).name == "tick.lock":
            taken[lock] = time.monotonic(), time.thread_time()
        return lock

    def noted_release(lock: int) -> None:
        release(lock)
        if (before := taken.pop(lock, None)) is not None:
            at, cpu = before
            os.write(handle, f"{at} {time.monotonic() - at} {time.thread_time() - cpu}\n".encode())

    locks.hold, locks.release = noted_hold, noted_release


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
