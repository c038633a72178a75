"""What a step costs by where it runs: ``python -m tests.hosts.throughput [--steps 500] [--ways local,hosts,pilots,jobs]``.

Steps of one second, as many at once in each way (24): on one host alone, handed to two hosts, by three pilots of Slurm, as a job of Slurm each.
Processor time is that of every process of all hosts, of Slurm's controller and its nodes, from the submit to the end of the last step; setting up
is left out. Prints a JSON object per way.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import stores

from tests.hosts.cluster import Cluster
from tests.hosts.host import Host
from tests.hosts.lab import Lab

AT_ONCE = 24
WAYS = ("local", "hosts", "pilots", "jobs")
_TOML = "durable = true\nmin_free_disk_mb = 0\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--ways", default=",".join(WAYS))
    given = parser.parse_args(arguments)
    for way in given.ways.split(","):
        print(json.dumps({"way": way, "steps": given.steps, **measured(way, given.steps)}), flush=True)
    return 0


def measured(way: str, steps: int) -> dict[str, float]:
    """Run so many steps in one way; seconds, and milliseconds of processor time a step, of all and of the host that was asked."""
    share = {"local": AT_ONCE, "hosts": AT_ONCE // 2, "pilots": 1, "jobs": 1}[way]
    toml = f"{_TOML}concurrency = {share}\n" + (f"[slurm]\njobs = {AT_ONCE}\n" if way == "jobs" else "")
    with Lab("same", toml) as lab, contextlib.ExitStack() as stack:
        config = lab.disk / "parallelhassnes.toml"  # beats as they are by default, not as tests want them
        config.write_text("".join(line for line in config.read_text().splitlines(True) if "heartbeat" not in line))
        cluster = stack.enter_context(Cluster(lab)) if way in ("pilots", "jobs") else None
        front = cluster.login if cluster is not None else lab.host("h1")
        others = _begin(way, lab, cluster, front)
        path = lab.folder / "table.json"
        more = {"resources": {"cpus": 1, "time": "10"}} if way == "jobs" else {}
        run = [stores.job(f"j{n}", stores.command("s", "sleep", "1", **more)) for n in range(steps)]
        path.write_bytes(stores.table(*run))
        everyone = [front, *others, *(cluster.nodes.values() if cluster is not None else ())]
        daemons = [daemon.pid for daemon in cluster.daemons.values()] if cluster is not None else []
        asked = resource.getrusage(resource.RUSAGE_CHILDREN)
        before, own_before, began = cpu_sec(everyone, daemons), cpu_sec([front]), time.monotonic()
        env = cluster.environment if cluster is not None else {}
        front.ours("submit", str(path), root=lab.root, env=env, timeout_sec=120)
        front.ours("tick", root=lab.root, env=env, timeout_sec=120)
        stores.wait_for(lambda: sealed(lab.disk) >= steps, "the end", 900)
        seconds = time.monotonic() - began
        done = resource.getrusage(
            resource.RUSAGE_CHILDREN
        )  # the submit and the tick, which are this process's children
        asking = done.ru_utime + done.ru_stime - asked.ru_utime - asked.ru_stime
        total, own = cpu_sec(everyone, daemons) - before + asking, cpu_sec([front]) - own_before + asking
    return {
        "seconds": round(seconds, 1),
        "steps_per_sec": round(steps / seconds, 1),
        "cpu_ms_per_step": round(total * 1000 / steps),
        "cpu_ms_per_step_of_submit_host": round(own * 1000 / steps),
    }


def _begin(way: str, lab: Lab, cluster: Cluster | None, front: Host) -> list[Host]:
    """Have every host join and wait for work."""
    if way == "hosts":
        other = lab.host("h2")
        lab.join(front, other)
        for host in (front, other):
            lab.runner(host, "--capacity", str(AT_ONCE // 2))
        return [other]
    if cluster is not None and way == "pilots":
        env = cluster.environment
        front.ours("pilot", "slurm", "-N", "3", "--time", "60", "--idle", "300", root=lab.root, env=env)
        front.ours("doctor", "--hosts", root=lab.root, env=env, timeout_sec=90)
        front.ours("drain", "login", "--reason", "not measured", root=lab.root, env=env)
    return []


def sealed(root: Path) -> int:
    return sum(1 for _ in root.glob("runs/*/*/steps/*/attempts/*/seal.json"))


def cpu_sec(hosts: Iterable[Host], more: Iterable[int] = ()) -> float:
    """Seconds of processor time of what runs on these hosts, and of what has ended there and was waited for."""
    return sum(_seconds(pid) for pid in (*more, *(pid for host in hosts for pid in _pids(host))))


def _pids(host: Host) -> Iterator[int]:
    yield host.pid
    yield from host.pids()


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
