"""How soon a freed slot is filled again: ``python -m tests.hosts.refill [--ways locks,own_locks,pilots] [--steps 120]``.

Two hosts, or two nodes of Slurm with a pilot each, of two slots and beats as they are by default; steps of a second, some shorter, some longer. Whatever ends on a host, its
slot there is free, and the next program that begins there fills it. Told is the time between the two, by the programs' own word, and
how much of it is between the seal of the one and the start of the other; by whether the host is the one that decides.

Prints a JSON object per way; milliseconds.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import stores

from parallelhassnes.store import decider, hosts
from tests.hosts.cluster import Cluster
from tests.hosts.lab import Lab
from tests.hosts.witness import Ran

SLOTS = 2
FILE_SYSTEMS = {"locks": "same", "own_locks": "own_locks", "pilots": "same"}
_TOML = f"durable = true\nmin_free_disk_mb = 0\nconcurrency = {SLOTS}\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", default=",".join(FILE_SYSTEMS))
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args(arguments)
    for way in given.ways.split(","):
        print(json.dumps({"way": way, **measured(way, given.steps)}), flush=True)
    return 0


def measured(way: str, steps: int) -> dict[str, object]:
    """Run so many steps on two hosts, and look how soon each slot was filled again."""
    with Lab(FILE_SYSTEMS[way], _TOML) as lab, contextlib.ExitStack() as stack:
        config = lab.disk / "parallelhassnes.toml"  # beats as they are by default, not as tests want them
        config.write_text("".join(line for line in config.read_text().splitlines(True) if "heartbeat" not in line))
        if way == "pilots":
            cluster = stack.enter_context(Cluster(lab))
            front, env = cluster.login, cluster.environment
            ask = ("pilot", "slurm", "-N", "2", "--cpus", "1", "--capacity", str(SLOTS), "--idle", "300")
            front.ours(*ask, root=lab.root, env=env)
            front.ours("doctor", "--hosts", root=lab.root, env=env, timeout_sec=90)
            front.ours("drain", "login", "--reason", "not measured", root=lab.root, env=env)
        else:
            front, env = lab.host("h1"), {}
            other = lab.host("h2")
            lab.join(front, other)
            for host in (front, other):
                lab.runner(host, "--capacity", str(SLOTS))
        chance = random.Random(steps)
        made = [lab.witness.command(chance.uniform(0.6, 1.4)) for _ in range(steps)]
        table = lab.folder / "table.json"
        table.write_bytes(stores.table(*(stores.job(f"j{n}", stores.command("s", *run)) for n, run in enumerate(made))))
        front.ours("submit", str(table), root=lab.root, env=env, timeout_sec=120)
        stores.wait_for(lambda: sum(ran.ended is not None for ran in lab.witness.runs()) >= steps, "the end", 300)
        stores.wait_for(lambda: len(_sealed(lab.disk)) >= steps, "the last seal", 60)
        right = decider.right(lab.ctx.layout)
        assert right is not None
        decides = hosts.host_of(lab.ctx.layout, right.runner)
        runs, sealed = lab.witness.runs(), _sealed(lab.disk)
    found: dict[str, object] = {"load": round(os.getloadavg()[0], 1)}
    for name in sorted({ran.host for ran in runs}):
        own = [ran for ran in runs if ran.host == name]
        which = "decides" if name == decides else "other"
        found |= {
            f"{which}_refills": len(own) - SLOTS,
            **_spread(f"{which}_end_to_begin", _gaps(own, (ran.ended for ran in own if ran.ended is not None))),
            **_spread(f"{which}_seal_to_begin", _gaps(own, (sealed[ran.run_id] for ran in own))),
        }
    return found


def _gaps(own: list[Ran], freed: Iterable[float]) -> list[float]:
    """Of one host: from each end to the begin that fills its slot; the first ones to begin have found theirs empty."""
    begins = sorted(ran.began for ran in own)[SLOTS:]
    return [begin - end for end, begin in zip(sorted(freed), begins, strict=False)]


def _sealed(root: Path) -> dict[str, float]:
    """Run id → when its attempt was sealed, by the clock of the witness."""
    return {
        path.parent.name.rpartition("_")[2]: path.stat().st_mtime - _boot()
        for path in root.glob("runs/*/*/steps/*/attempts/*/seal.json")
    }


def _boot() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _spread(name: str, found: list[float]) -> dict[str, int]:
    cuts = statistics.quantiles(found, n=20, method="inclusive")
    named = {"p50": cuts[9], "p95": cuts[18], "most": max(found)}
    return {f"{name}_{key}": round(value * 1000) for key, value in named.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
