"""Pilots of a real Slurm: what is submitted, what is kept of it, what is shown, and how they end. Runners themselves: ``tests/hosts``."""

import json
import subprocess
import sys
import time

import pytest
from stores import context, program, wait_for

from parallelhassnes.execute import slurm
from tests.hosts.cluster import NODES, Cluster
from tests.hosts.lab import Lab

pytestmark = pytest.mark.timeout(120)
SECRET = "value-that-nobody-keeps"


@pytest.fixture
def cluster():
    with Lab() as lab, Cluster(lab) as made:
        yield made


def ask(cluster, *arguments, check=True, **env):
    done = cluster.login.ours(*arguments, root=cluster.lab.root, env=cluster.environment | env, check=check)
    return done if not check else done.stdout


def shown(cluster):
    return json.loads(ask(cluster, "runners", "--quick", "--json"))["slurm"]


@pytest.mark.hosts
@pytest.mark.slurm
def test_pilots_are_submitted_once_each_and_shown_with_why_they_wait_and_nothing_of_the_environment_is_kept(cluster):
    busy = ("sbatch", "--parsable", "--export=NIL", "-o", "/dev/null", "--exclusive", "--wrap", "sleep 600")
    for _ in NODES:
        cluster.login.run(*busy, env=cluster.environment)
    wait_for(lambda: sum("RUNNING" in line for line in cluster.jobs()) == 3, "the nodes to be busy")
    said = json.loads(ask(cluster, "pilot", "slurm", "-N", "2", "--time", "10", "--json", OPENAI_API_KEY=SECRET))
    pilots = wait_for(lambda: [p for p in shown(cluster)["pilots"] if p["reason"] not in ("", "None")], "a reason")
    assert {p["job_id"] for p in pilots} <= {p["job_id"] for p in said["pilots"]}
    assert {p["state"] for p in pilots} == {"PENDING"}
    assert pilots[0]["reason"] in ("Resources", "Priority", "Nodes required for job are DOWN, DRAINED or reserved")
    text = ask(cluster, "runners", "--quick")
    assert f"job {pilots[0]['job_id']}: pending ({pilots[0]['reason']})" in text
    state = cluster.folder / "state"
    # What a controller was given in its last seconds it knows nothing of when it is back.
    names = [f"/{p['pilot']}.log".encode() for p in said["pilots"]]
    job_state = state / "job_state"
    wait_for(lambda: job_state.exists() and all(n in job_state.read_bytes() for n in names), "its state on disk")
    kept = [path for path in state.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
    cluster.kill_controller()
    began = time.monotonic()
    told = cluster.login.ours("runners", "--quick", root=cluster.lab.root, env=cluster.environment)
    assert time.monotonic() - began < slurm.ASK_SEC + 4
    assert "Slurm does not answer" in told.stderr
    cluster.start_controller()
    wait_for(lambda: shown(cluster)["answers"], "the controller")
    said = json.loads(ask(cluster, "pilot", "slurm", "--cancel", "--json"))
    assert len(said["jobs"]) == 2
    assert {p["state"] for p in shown(cluster)["pilots"]} == {"OVER"}


@pytest.mark.hosts
@pytest.mark.slurm
def test_what_slurm_refuses_is_one_line_and_leaves_nothing(cluster):
    refused = ask(cluster, "pilot", "slurm", "--partition", "nowhere", check=False)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("sbatch: Batch job submission failed: ")
    assert "partition" in refused.stderr
    assert not list(cluster.lab.disk.glob("runners/.pilots/*.json"))


def test_a_dry_run_prints_a_script_that_a_shell_takes_and_holds_no_secret(root):
    context(root)
    said = program(root, "pilot", "slurm", "--dry-run", "--cpus", "2", "--json", env={"OPENAI_API_KEY": SECRET})
    done = json.loads(said.stdout)
    assert not done["pilots"]
    assert {"--no-requeue", "--export=NIL", "--nodes=1", "--cpus-per-task=2"} <= set(done["command"])
    assert SECRET not in said.stdout
    assert subprocess.run(["sh", "-n"], input=done["script"], text=True).returncode == 0
    assert f"exec {sys.executable} -m parallelhassnes runner --root {root} --idle=120" in done["script"]
    assert not (root / "runners" / ".pilots").exists()


def test_without_slurm_one_line_says_so(root):
    context(root)
    refused = program(root, "pilot", "slurm", env={"PATH": "/nowhere"}, check=False)
    assert refused.returncode == 2
    assert refused.stderr == "there is no program sbatch; run this where Slurm's commands are, as on a login node\n"
    assert not list(root.glob("runners/.pilots/*"))


def test_a_program_of_slurm_that_may_not_be_run_is_named_in_one_line(root, tmp_path):
    context(root)
    (tmp_path / "sbatch").write_text(f"#!{tmp_path}\n")  # a folder is executed by nobody, root included
    (tmp_path / "sbatch").chmod(0o755)
    refused = program(root, "pilot", "slurm", env={"PATH": str(tmp_path)}, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("the program sbatch cannot be run: Permission denied; ")
    assert refused.stderr.count("\n") == 1


def test_times_of_slurm_are_read():
    read = [slurm.seconds(text) for text in ("0:45", "10:00", "1:00:00", "2-03:04:05", "UNLIMITED", "INVALID", "")]
    assert read == [45, 600, 3600, 2 * 86_400 + 3 * 3600 + 4 * 60 + 5, None, None, None]
