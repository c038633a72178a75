"""Pilots on three Slurm nodes: jobs that become runners, do the work, lose a node and the controller, and end by themselves."""

import json

import pytest
from stores import wait_for

from tests.hosts.cluster import NODES, Cluster
from tests.hosts.judge import judge
from tests.hosts.lab import Lab
from tests.hosts.scenarios import KEY, LIMIT, LIMITS, MODEL, TOML, is_at_rest

pytestmark = [pytest.mark.timeout(240), pytest.mark.hosts, pytest.mark.slurm]
STEPS = 30
TRIALS = 6


@pytest.fixture
def cluster():
    with Lab("same", TOML) as lab, Cluster(lab) as made:
        yield made


def ours(cluster, *arguments):
    return cluster.login.ours(*arguments, root=cluster.lab.root, env=cluster.environment, timeout_sec=90).stdout


def ran(cluster):
    return len({run.step for run in cluster.lab.witness.runs() if run.ended is not None})


def began(cluster):
    """Start pilots, find out with the login node what the file system does, and submit."""
    ours(cluster, "pilot", "slurm", "-N", "3", "--time", "30", "--idle", "12")
    ours(cluster, "doctor", "--hosts")
    cluster.lab.submit(cluster.login, STEPS, 0.5, key=KEY)


def is_over(cluster):
    cluster.resume_nodes()
    return ran(cluster) >= STEPS and not cluster.jobs()


def test_pilots_do_the_work_while_the_controller_is_killed_and_are_gone_without_work(cluster):
    began(cluster)
    wait_for(lambda: ran(cluster) >= 5, "some to end", 90)
    said = json.loads(ours(cluster, "runners", "--quick", "--json"))
    at_work = {each["name"]: each for each in said["runners"] if each["job_id"]}
    assert set(at_work) <= set(NODES)
    assert {each["job_id"] for each in at_work.values()} <= {pilot["job_id"] for pilot in said["slurm"]["pilots"]}
    assert {each["capacity"] for each in at_work.values()} == {8}
    assert all(0 < each["left_sec"] <= 1800 for each in at_work.values())
    cluster.kill_controller()
    wait_for(lambda: ran(cluster) >= 20, "others to go on without it", 90)
    cluster.start_controller()
    wait_for(lambda: is_over(cluster), "the end of the work, and of the jobs", 90)
    found = judge(cluster.lab.witness, cluster.lab.disk, cluster.nodes.values(), steps=STEPS, limits={KEY: LIMIT})
    assert not found.faults, found
    assert found.begun == STEPS
    assert len(found.by_host) >= 2


@pytest.mark.bubblewrap
def test_two_hundred_steps_and_trials_while_everything_befalls_the_cluster(cluster):
    """The controller is killed and back, one node loses power, a pilot's time is up, one is started once more, the one in its place preempted."""
    ours(cluster, "pilot", "slurm", "-N", "3", "--time", "240", "--idle", "30")
    ours(cluster, "doctor", "--hosts")
    lab, lost = cluster.lab, cluster.nodes["n2"]
    on = {each["node"]: each["job_id"] for each in pilots(cluster)}
    cluster.tool("scontrol", "update", f"jobid={on['n3']}", "timelimit=1")
    lab.submit(cluster.login, 40, 0.3, key=KEY)
    lab.submit(cluster.login, 160, 0.3)
    lab.submit_trials(cluster.login, TRIALS, 0.3, MODEL)
    wait_for(lambda: ran(cluster) >= 20, "some to end", 90)
    cluster.kill_controller()
    wait_for(lambda: ran(cluster) >= 50, "others to go on without it", 90)
    cluster.start_controller()
    cluster.resume_nodes()
    cluster.tool("scontrol", "update", f"jobid={on['n1']}", "requeue=1")
    cluster.tool("scontrol", "requeue", on["n1"])
    ours(cluster, "pilot", "slurm", "-N", "2", "--time", "240", "--idle", "30")
    lab.power_cut(lost)
    wait_for(lambda: ran(cluster) >= 90, "others to go on without a node", 90)
    cluster.tool("sbatch", "--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    wait_for(lambda: ran(cluster) == 200 + TRIALS, "all to end", 90)
    wait_for(lambda: is_at_rest(lab), "the store to be at rest", 60)
    wait_for(lambda: on["n3"] not in {line.split()[0] for line in cluster.jobs()}, "the end of its time", 90)
    ours(cluster, "pilot", "slurm", "--cancel")
    nodes = [node for node in cluster.nodes.values() if node is not lost]
    wait_for(lambda: not any("runner" in line for node in nodes for line in node.programs()), "the runners to end", 60)
    found = judge(lab.witness, lab.disk, nodes, steps=200 + TRIALS + 1, limits=LIMITS)
    assert not found.faults, found
    assert found.peak[f"key {MODEL}"] > 1, "trials ran beside each other"


def test_a_node_is_lost(cluster):
    began(cluster)
    wait_for(lambda: ran(cluster) >= 5, "some to end", 90)
    busy = {run.host for run in cluster.lab.witness.runs() if run.ended is None} or {"n1"}
    lost = cluster.nodes[min(busy & set(NODES))]
    cluster.lab.power_cut(lost)
    wait_for(lambda: ran(cluster) >= STEPS, "the others to do it all", 120)
    ours(cluster, "pilot", "slurm", "--cancel")
    nodes = [node for node in cluster.nodes.values() if node is not lost]
    wait_for(lambda: not any("runner" in line for node in nodes for line in node.programs()), "the runners to end", 60)
    found = judge(cluster.lab.witness, cluster.lab.disk, nodes, steps=STEPS, limits={KEY: LIMIT})
    assert not found.faults, found


def pilots(cluster):
    return json.loads(ours(cluster, "runners", "--quick", "--json"))["slurm"]["pilots"]


def test_pilots_are_preempted_and_not_requeued(cluster):
    began(cluster)
    wait_for(lambda: ran(cluster) >= 5, "some to end", 90)
    on = {each["node"]: each["job_id"] for each in pilots(cluster)}
    assert set(on) == set(NODES)
    cluster.tool("sbatch", "--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    refused = cluster.tool("scontrol", "requeue", on["n2"], check=False)
    assert refused == ""
    wait_for(
        lambda: "PREEMPTED" in cluster.tool("squeue", "--noheader", "--states=all", "-j", on["n1"], "-o", "%T"),
        "it",
        30,
    )
    wait_for(lambda: ran(cluster) >= STEPS, "the others to do it all", 120)
    assert cluster.tool("squeue", "--noheader", "--states=all", "-j", on["n2"], "-o", "%T") in ("RUNNING", "COMPLETED")
    wait_for(lambda: not cluster.jobs(), "the end of the jobs", 60)
    found = judge(cluster.lab.witness, cluster.lab.disk, cluster.nodes.values(), steps=STEPS, limits={KEY: LIMIT})
    assert not found.faults, found


def test_the_end_of_a_pilots_time_uses_no_attempt(cluster):
    ours(cluster, "pilot", "slurm", "--cpus", "1", "--time", "1", "--idle", "100")
    ours(cluster, "doctor", "--hosts")
    ours(cluster, "drain", "login", "--reason", "test")
    batch = cluster.lab.submit(cluster.login, 1, 300.0, retry={"max_attempts": 2})
    wait_for(lambda: [run for run in cluster.lab.witness.runs() if run.host in NODES], "it to begin", 60)
    told = wait_for(lambda: (t := ours(cluster, "explain", batch)) and "shut down: again" in t and t, "its end", 90)
    assert "(uses up no attempt)" in told
    wait_for(lambda: not cluster.jobs(), "the end of the job", 30)
    over = cluster.tool("squeue", "--noheader", "--states=all", "-o", "%T").split()
    assert over == ["COMPLETED"], "it ended by itself, before Slurm had to end it"
