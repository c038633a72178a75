"""The lab itself: its hosts are hosts, its faults are faults, and nothing is left of it."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import wait_for

from tests.hosts import judge as judging
from tests.hosts.cluster import NODES, Cluster
from tests.hosts.lab import Lab
from tests.hosts.throughput import measured

pytestmark = [pytest.mark.timeout(120), pytest.mark.hosts]
LOCK = """import fcntl, sys
stream = open(sys.argv[1], "w")
try:
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("taken", flush=True)
else:
    print("mine", flush=True)
    sys.stdin.read() if len(sys.argv) < 3 else None
"""


def identity(host) -> list[str]:
    said = host.run("cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/proc/sys/kernel/hostname").stdout
    return said.split()


def test_hosts_have_a_boot_a_name_processes_and_a_network_of_their_own():
    with Lab() as lab:
        one, two, _ = lab.three()
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        first, second = identity(one), identity(two)
        assert first[2] == "h1"
        assert second[2] == "h2"
        assert len({first[0], second[0], machine}) == 3
        assert first[1] != second[1]
        assert one.run("ip", "-o", "link").stdout.count("\n") < 3
        sleeping = one.popen("sleep", "100")
        wait_for(lambda: "sleep 100" in one.programs(), "the program")
        assert two.programs() == []
        (lab.disk / "seen").touch()
        assert two.run("ls", str(lab.root)).stdout.split().count("seen") == 1
        one.power_cut()
        assert sleeping.poll() is not None
        assert not one.is_up
        one.boot()
        assert identity(one)[0] != first[0]
        assert identity(one)[1] == first[1]
        assert "seen" in one.run("ls", str(lab.root)).stdout
        folder = lab.folder
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def test_a_host_that_is_frozen_does_nothing_and_goes_on():
    with Lab() as lab:
        host = lab.host("h1")
        counting = "n=0; while :; do n=$((n+1)); echo $n >$1/count; sleep 0.01; done"
        process = host.popen("sh", "-c", counting, "sh", str(lab.root))
        count = lab.disk / "count"
        wait_for(lambda: count.exists() and count.read_text().strip() > "1", "it to count")
        host.freeze()
        before = count.read_text()
        time.sleep(0.1)
        assert count.read_text() == before
        host.thaw()
        wait_for(lambda: count.read_text() not in ("", before), "it to go on")
        process.terminate()
        assert process.wait(20)
        wait_for(lambda: not host.programs(), "the program to end")


@pytest.mark.libfaketime
def test_the_clock_of_a_host_is_its_own_and_sleeping_takes_as_long():
    with Lab() as lab:
        host = lab.host("h1")
        host.clock = "+2h"
        code = "import time; a = time.monotonic(); time.sleep(0.3); print(time.time(), time.monotonic() - a)"
        said, slept = map(float, host.run(sys.executable, "-c", code).stdout.split())
        assert 7100 < said - time.time() < 7300
        assert 0.29 < slept < 3


@pytest.mark.parametrize(
    ("kind", "second"), [("same", "taken"), ("own_locks", "mine"), ("forwarded", "taken"), ("stale", "taken")]
)
def test_locks_cross_hosts_or_not(kind, second):
    with Lab(kind) as lab:
        one, two = lab.host("h1"), lab.host("h2")
        path = str(lab.root / "lock")
        holder = one.popen(
            sys.executable, "-c", LOCK + "\nimport time; time.sleep(60)", path, "x", stdout=subprocess.PIPE
        )
        assert holder.stdout.readline() == "mine\n"
        assert two.run(sys.executable, "-c", LOCK, path, "once").stdout == f"{second}\n"


def test_caches_of_a_host_may_be_old():
    with Lab("stale") as lab:
        one, two = lab.host("h1"), lab.host("h2")
        path = lab.root / "word"
        (lab.disk / "word").write_text("old")
        assert two.run("cat", str(path)).stdout == "old"
        one.run("sh", "-c", 'echo new >"$1.half"; mv "$1.half" "$1"', "sh", str(path))
        assert (lab.disk / "word").read_text() == "new\n"
        assert two.run("cat", str(path)).stdout == "old", "a file that was replaced is not seen at once"


def test_the_judge_knows_what_must_not_be():
    with Lab() as lab:
        lab.witness.path.write_text(
            "1.00 S b/j/s r1 h1 7 -\n2.00 S b/j/s r2 h2 7 -\n3.00 E b/j/s r1 h1 7 -\n4.00 E b/j/s r2 h2 7 -\n"
            "5.00 S b/k/s r3 h1 8 m\n5.00 S b/l/s r4 h1 9 m\n6.00 frozen h1\n6.50 S b/k/s r5 h2 9 m\n"
            "7.00 E b/k/s r5 h2 9 m\n8.00 thawed h1\n14.00 E b/k/s r3 h1 8 m\n8.50 E b/l/s r4 h1 9 m\n"
        )
        found = judging.judge(lab.witness, lab.disk, steps=3, capacity={"h1": 1}, limits={"m": 1}).faults
        assert "b/j/s began on h2 while it ran on h1" in found
        assert not [line for line in found if line.startswith("b/k/s began")], "its host was frozen"
        assert "b/k/s went on for 6.0 s on h1, which had been cut off and replaced" in found
        assert "2 at once on h1, which takes 1" in found
        assert "2 at once on the key m, whose limit is 1" in found
        assert "0 of 3 steps have succeeded" in found
        assert "5 runs began, and the store has 0 attempts" in found


def test_a_lock_of_the_machine_is_one_of_its_hosts_on_the_same_folder():
    with Lab() as lab, (lab.disk / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        host = lab.host("h1")
        assert host.run(sys.executable, "-c", LOCK, str(lab.root / "lock"), "once").stdout == "taken\n"


@pytest.mark.slurm
def test_a_cluster_runs_jobs_on_its_nodes_survives_its_controller_and_leaves_nothing():
    before = set(os.listdir("/proc"))
    with Lab() as lab, Cluster(lab) as cluster:
        script = lab.disk / "job.sh"
        script.write_text("#!/bin/sh\nhostname >$1/$SLURM_JOB_ID\nsleep 1\necho done >>$1/$SLURM_JOB_ID\n")
        submit = ("sbatch", "--parsable", "--export=NIL", "-o", "/dev/null", str(script), str(lab.root))
        jobs = [cluster.login.run(*submit, env=cluster.environment).stdout.strip() for _ in NODES]
        said = [lab.disk / job for job in jobs]
        wait_for(lambda: all(path.exists() and path.read_text() for path in said), "the jobs")
        assert {path.read_text().split()[0] for path in said} == set(NODES), "one on each node"
        cluster.kill_controller()
        cluster.start_controller()
        wait_for(lambda: all(path.read_text().endswith("done\n") for path in said), "their ends")
        wait_for(lambda: cluster.tool("sinfo", "-h", "-o", "%D", "-p", "low", check=False) == "3", "the controller")
        daemons = [str(daemon.pid) for daemon in cluster.daemons.values()]
    assert not any(pid in os.listdir("/proc") for pid in daemons if pid not in before)


def test_throughput_is_measured():
    found = measured("local", 2)
    assert found["seconds"] >= 1
    own = found["cpu_ms_per_step_of_submit_host"]
    assert own > 0
    assert found["cpu_ms_per_step"] >= 0.8 * own, "one host's is nearly all; the two are read at moments of their own"
