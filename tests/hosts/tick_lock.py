"""What many runners of one root do to ``tick.lock``: ``python -m tests.hosts.tick_lock [--runners 50] [--seconds 20]``.

Real runners, each on a host of its own with one slot, on one store; steps of a second keep all of them at work. Beside them a process takes
``tick.lock`` as an operator's word does, again and again: how long it waits is what is asked for. Prints a JSON object: waits in milliseconds, steps
a second, and the processor time of all hosts for each second.
"""

import argparse
import json
import sys
import time

import stores

from parallelhassnes.store import locks
from tests.hosts.lab import Lab
from tests.hosts.throughput import cpu_sec, sealed

_PAUSE_SEC = 0.05


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runners", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args(arguments)
    print(json.dumps({"runners": given.runners, **measured(given.runners, given.seconds)}))
    return 0


def measured(runners: int, seconds: float) -> dict[str, float]:
    """Have so many runners work for so long; how long one waits for the lock meanwhile."""
    with Lab("same", "durable = true\nmin_free_disk_mb = 0\nconcurrency = 1\n") as lab:
        config = lab.disk / "parallelhassnes.toml"  # beats as they are by default, not as tests want them
        config.write_text("".join(line for line in config.read_text().splitlines(True) if "heartbeat" not in line))
        first = lab.host("h1")
        others = [lab.host(f"h{number}") for number in range(2, runners + 1)]
        if others:
            lab.join(first, others[0])
        for host in (first, *others):
            lab.runner(host, "--capacity", "1")
        count = int(runners * (seconds + 30))
        jobs = [stores.job(f"j{n}", stores.command("s", "sleep", "1")) for n in range(count)]
        path = lab.folder / "table.json"
        path.write_bytes(stores.table(*jobs))
        stores.wait_for(lambda: len(list(lab.disk.glob("runners/*/beat.json"))) == runners, "the runners", 300)
        first.ours("submit", str(path), root=lab.root, timeout_sec=120)
        stores.wait_for(lambda: sealed(lab.disk) >= runners, "the first round", 120)
        everyone = (first, *others)
        waits: list[float] = []
        done, cpu, began = sealed(lab.disk), cpu_sec(everyone), time.monotonic()
        while time.monotonic() - began < seconds:
            asked = time.monotonic()
            with locks.held(lab.disk / "runs" / "_system" / "tick.lock"):
                waits.append(time.monotonic() - asked)
            time.sleep(_PAUSE_SEC)
        took = time.monotonic() - began
        waits.sort()
        return {
            "wait_p50_ms": round(waits[len(waits) // 2] * 1000, 1),
            "wait_p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 1),
            "wait_most_ms": round(waits[-1] * 1000, 1),
            "looks": len(waits),
            "steps_per_sec": round((sealed(lab.disk) - done) / took, 1),
            "cpu_of_each_sec": round((cpu_sec(everyone) - cpu) / took, 2),
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
