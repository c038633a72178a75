"""Attempts that are jobs of Slurm of their own, on three nodes: begun, out of time, preempted, canceled, lost; none is left."""

import contextlib
import json
import os
import shutil

import pytest
from stores import command, job, table, wait_for

from parallelhassnes.store.layout import Layout
from tests.hosts.cluster import CPUS, Cluster
from tests.hosts.judge import judge
from tests.hosts.lab import Lab

pytestmark = [pytest.mark.timeout(480), pytest.mark.hosts, pytest.mark.slurm]
PATIENT_SEC = 120
"""For what Slurm, or the host that decides, comes to after some seconds on a machine with nothing else to do."""
KEY, LIMIT = "model/one", 2
TOML = f'durable = false\nconcurrency = 8\n[limits]\n"{KEY}" = {LIMIT}\n[retry]\nbackoff_sec = 0.1\n[slurm]\njobs = 6\n'
SECRET = "never-in-the-controllers-state-5e3c"


@pytest.fixture
def cluster():
    with Lab("same", TOML) as lab, Cluster(lab) as made:
        made.environment["CLUSTER_TEST_TOKEN"] = SECRET
        yield made


def ours(cluster, *arguments, check=True):
    done = cluster.login.ours(*arguments, root=cluster.lab.root, env=cluster.environment, timeout_sec=90, check=check)
    return done.stdout + done.stderr


def submit(cluster, steps, seconds, resources, **more):
    """A batch of steps that are jobs, a job of the table each."""
    run = cluster.lab.witness.command(seconds)
    made = [job(f"j{n}", command("s", *run, resources=resources, **more)) for n in range(steps)]
    path = cluster.lab.folder / "table.json"
    path.write_bytes(table(*made))
    batch = ours(cluster, "submit", "--again", str(path)).split()[0]
    ours(cluster, "tick")
    return batch


def runs(cluster, *, ended=False):
    return [run for run in cluster.lab.witness.runs() if run.ended is not None or not ended]


def explained(cluster, step):
    return ours(cluster, "explain", step)


def jobs(cluster):
    """What the store knows of its jobs."""
    return json.loads(ours(cluster, "runners", "--quick", "--json"))["slurm"]["jobs"]


def counts(cluster, batch):
    return json.loads(ours(cluster, "scoreboard", batch, "--json", check=False))["counts"]


def nothing_left(cluster):
    """No job at Slurm, no record of one, nothing handed over."""
    wait_for(lambda: not cluster.jobs() and not jobs(cluster), "the end of all jobs", PATIENT_SEC)
    place = Layout(cluster.lab.disk).runners / ".slurm"
    assert [path for name in ("handed", "taken", "jobs") for path in (place / name).iterdir()] == []


def kept(cluster):
    """What the controller keeps of all jobs."""
    found = b""
    for path in (cluster.folder / "state").rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found += path.read_bytes()
    return found


def test_each_attempt_is_a_job_with_its_resources_and_without_secrets(cluster):
    batch = submit(cluster, 8, 1, {"cpus": 2, "memory_mb": 100}, timeout_sec=60)
    wait_for(lambda: len(runs(cluster)) >= 2, "two to begin", PATIENT_SEC)
    cluster.kill_controller()
    wait_for(lambda: len(runs(cluster, ended=True)) >= 2, "those to end without it", PATIENT_SEC)
    cluster.start_controller()

    def are_done():
        cluster.resume_nodes()
        return counts(cluster, batch).get("succeeded") == 8

    wait_for(are_done, "all of them", PATIENT_SEC)
    said = cluster.tool("scontrol", "show", "job", "--oneliner")
    own = [line for line in said.splitlines() if "/runners/.slurm/jobs/" in line]
    assert own, said
    assert all("NumCPUs=2" in line and "MinMemoryNode=100M" in line for line in own), said
    assert all("Requeue=0" in line and "TimeLimit=00:03:00" in line for line in own)
    nothing_left(cluster)
    found = judge(cluster.lab.witness, cluster.lab.disk, cluster.nodes.values(), steps=8)
    assert not found.faults, found
    assert found.begun == 8
    assert b"/runners/.slurm/jobs/" in kept(cluster)
    assert SECRET.encode() not in kept(cluster)


def test_what_waits_says_why_and_what_is_canceled_leaves_no_job(cluster):
    batch = submit(cluster, 4, 300, {"cpus": CPUS})
    wait_for(lambda: len(runs(cluster)) == 3, "the nodes to be full", PATIENT_SEC)
    waiting = wait_for(
        lambda: [each for each in jobs(cluster) if each["state"] == "PENDING"], "one to wait", PATIENT_SEC
    )[0]
    told = wait_for(
        lambda: (t := explained(cluster, waiting["step"])) and "(Resources)" in t and t, "Slurm's reason", PATIENT_SEC
    )
    assert f"job {waiting['slurm_id']} of Slurm is pending (Resources)" in told
    ours(cluster, "cancel", waiting["step"])
    wait_for(lambda: counts(cluster, batch).get("canceled") == 1, "the waiting one to be over", PATIENT_SEC)
    ours(cluster, "cancel", batch)
    wait_for(lambda: counts(cluster, batch).get("canceled") == 4, "the others to be over", PATIENT_SEC)
    nothing_left(cluster)
    assert len(runs(cluster)) == 3


def test_a_limit_holds_over_jobs_that_wait_and_those_that_begin(cluster):
    """What waits at Slurm has its slot: it may begin at any moment, without asking. Others need not wait for it."""
    run = cluster.lab.witness.command(1.5, KEY)
    limited = [job(f"k{n}", command("s", *run, resources={"cpus": 1}, queue_key=KEY)) for n in range(6)]
    others = [job(f"o{n}", command("s", *cluster.lab.witness.command(0.5), resources={"cpus": 1})) for n in range(3)]
    nodes = ",".join(cluster.nodes)
    cluster.tool("scontrol", "update", f"nodename={nodes}", "state=drain", "reason=test")
    path = cluster.lab.folder / "table.json"
    path.write_bytes(table(*limited, *others))
    batch = ours(cluster, "submit", "--again", str(path)).split()[0]
    ours(cluster, "tick")
    wait_for(lambda: len(cluster.jobs()) == LIMIT + len(others), "all that may begin to be pending", PATIENT_SEC)
    assert len([each for each in jobs(cluster) if "/k" in each["step"]]) == LIMIT
    assert f"{KEY}" in explained(cluster, f"{batch}/k5/s")
    cluster.resume_nodes()
    wait_for(lambda: counts(cluster, batch).get("succeeded") == 9, "all of them", PATIENT_SEC)
    nothing_left(cluster)
    found = judge(cluster.lab.witness, cluster.lab.disk, cluster.nodes.values(), steps=9, limits={KEY: LIMIT})
    assert not found.faults, found
    assert found.peak[f"key {KEY}"] == LIMIT


def test_a_refused_submit_is_no_attempt_and_is_told(cluster):
    batch = submit(cluster, 1, 1, {"partition": "nowhere"})
    told = wait_for(
        lambda: (t := explained(cluster, f"{batch}/j0/s")) and "Invalid partition" in t and t, "why", PATIENT_SEC
    )
    assert "no job of Slurm yet: sbatch: Batch job submission failed: " in told
    assert "asked again" in told
    assert counts(cluster, batch).get("running") == 1
    ours(cluster, "cancel", batch)
    wait_for(lambda: counts(cluster, batch).get("canceled") == 1, "its end", PATIENT_SEC)
    nothing_left(cluster)


def test_whoever_asks_dies_between_sbatch_and_its_note(cluster):
    place = cluster.lab.folder / "bin"
    place.mkdir()
    died = place / "died"
    wrapper = place / "sbatch"
    wrapper.write_text(
        f'#!/bin/sh\n{shutil.which("sbatch")} "$@"; code=$?\n[ -e {died} ] || {{ : > {died}; kill -9 $PPID; }}\nexit $code\n'
    )
    wrapper.chmod(0o755)
    cluster.environment["PATH"] = f"{place}:{os.environ['PATH']}"
    batch = submit(cluster, 1, 1, {"cpus": 1})
    wait_for(lambda: counts(cluster, batch).get("succeeded") == 1, "its end", PATIENT_SEC)
    assert died.exists()
    assert len(cluster.tool("squeue", "--noheader", "--states=all", "--format=%i").splitlines()) == 1
    nothing_left(cluster)


def test_a_second_start_finds_nothing_to_do_and_what_is_taken_away_uses_no_attempt(cluster):
    """One node's job is preempted, one node loses power, one's job an administrator has Slurm start once more, which sbatch was told not to."""
    batch = submit(cluster, 3, 300, {"cpus": CPUS, "partition": "low"}, retry={"max_attempts": 2})
    wait_for(lambda: len(runs(cluster)) == 3, "all to begin", PATIENT_SEC)
    first = jobs(cluster)[0]
    script = cluster.tool("scontrol", "write", "batch_script", first["slurm_id"], "-")
    place = cluster.lab.folder / "script"
    place.write_text(script)
    said = cluster.nodes["n1"].run("/bin/sh", str(place), env=cluster.environment)
    assert "is not to be begun here: another job has" in said.stderr + said.stdout
    on = {each["node"]: each for each in jobs(cluster)}
    preempted, lost, again = (on[node] for node in ("n1", "n2", "n3"))
    cluster.tool("sbatch", "--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=true")
    cluster.lab.witness.befell("cut", "n1")
    cluster.lab.power_cut(cluster.nodes["n2"])
    cluster.tool("scontrol", "update", f"jobid={again['slurm_id']}", "requeue=1")
    cluster.tool("scontrol", "requeue", again["slurm_id"])
    for each in (preempted, lost, again):
        told = wait_for(
            lambda each=each: (t := explained(cluster, each["step"])) and "shut down: again" in t and t,
            "its end",
            PATIENT_SEC,
        )
        assert "(uses up no attempt)" in told
    ours(cluster, "cancel", batch)
    wait_for(lambda: counts(cluster, batch).get("running", 0) == 0, "the others to be over", PATIENT_SEC)
    wait_for(
        lambda: not [line for line in cluster.jobs() if line.split()[0] == again["slurm_id"]],
        "the other start",
        PATIENT_SEC,
    )
    found = cluster.lab.witness.runs()
    assert len({run.run_id for run in found}) == len(found), "no attempt was begun twice"


def test_the_time_limit_of_a_job_uses_an_attempt(cluster):
    batch = submit(cluster, 1, 300, {"time": "1"}, retry={"max_attempts": 1})
    wait_for(lambda: counts(cluster, batch).get("failed") == 1, "its end", PATIENT_SEC)
    told = explained(cluster, f"{batch}/j0/s")
    assert "ended by the time limit of its cluster's job" in told, told
    nothing_left(cluster)


def test_a_job_that_is_canceled_in_its_last_minute_uses_no_attempt(cluster):
    """Slurm tells a job that its time is up as it tells one that it is canceled: by SIGTERM."""
    batch = submit(cluster, 1, 300, {"time": "1"}, retry={"max_attempts": 2})
    wait_for(lambda: runs(cluster), "it to begin", PATIENT_SEC)
    cluster.tool("scancel", jobs(cluster)[0]["slurm_id"])
    told = wait_for(
        lambda: (t := explained(cluster, f"{batch}/j0/s")) and "(uses up no attempt)" in t and t, "its end", PATIENT_SEC
    )
    assert "job_time_limit" not in told
    ours(cluster, "cancel", batch)
    wait_for(lambda: counts(cluster, batch).get("running", 0) == 0, "it to be over", PATIENT_SEC)
