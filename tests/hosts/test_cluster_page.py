"""The commands of docs/cluster.md, as they stand there: from nothing to a sweep with verdicts, in the sandbox, on three Slurm nodes."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from stores import CHECKOUT, wait_for

from parallelhassnes.store.layout import Layout
from tests.hosts.cluster import NODES, Cluster
from tests.hosts.lab import Lab

BROKEN = {"broken-oracle": True, "config-repair": False, "greet-script": False, "hello": False, "leap-years": False}
"""Besides ``flaky-tests``, whose verdict is a matter of chance."""
pytestmark = [pytest.mark.timeout(240), pytest.mark.hosts, pytest.mark.slurm]


def commands(root, secrets):
    """The page's ten lines, by their numbers, for another root."""
    page = (CHECKOUT / "docs" / "cluster.md").read_text()
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    text = block[1].replace("/shared/evals", str(root)).replace("~/my/secrets.env", str(secrets))
    lines = [re.sub(r"\s+# .*", "", line) for line in text.splitlines()]
    assert len(lines) == 11, lines
    return lines


def test_a_sweep_with_verdicts(tmp_path):
    with Lab("same") as lab, Cluster(lab) as cluster:
        root = lab.folder / "evals"
        secrets = lab.folder / "secrets.env"
        secrets.write_text("MY_KEY=never-in-the-controllers-state-77aa\n")
        sweep = yaml.safe_load((CHECKOUT / "examples" / "sweep.yaml").read_text())
        del sweep["environment"]
        table = json.dumps({"sweep": {**sweep, "path": str(CHECKOUT / "examples" / "tasks")}})
        folder = Path(sys.executable).parent
        env = {**cluster.environment, "PATH": f"{folder}:{os.environ['PATH']}"}

        def shell(*lines):
            return cluster.login.run("sh", "-ec", "\n".join(lines), env=env, timeout_sec=120).stdout

        lines = commands(root, secrets)
        shell(*lines[:5])
        (root / "table.json").write_text(table)
        shell(lines[1], *lines[5:8])
        found = wait_for(lambda: over(shell, lines), "the sweep and its verdicts", 150)
        verdicts = {job["job_id"].removeprefix("parallelhassnes-"): job["verdict"] for job in found["jobs"]}
        assert {name: verdicts[name]["task_broken"] for name in BROKEN} == BROKEN
        assert all(verdict["scored"] == 3 for verdict in verdicts.values()), verdicts
        assert {each["host"] for each in states(root)} - {"login"} <= set(NODES)
        assert len({each["host"] for each in states(root)} & set(NODES)) >= 2
        shell(lines[1], lines[10])
        wait_for(lambda: not cluster.jobs(), "the pilots to end", 60)
        kept = b"".join(path.read_bytes() for path in (cluster.folder / "state").rglob("*") if path.is_file())
        assert b"77aa" not in kept


def over(shell, lines):
    """The scoreboard of the batch, once nothing of it is to run any more."""
    assert "live" in shell(lines[1], f"{lines[8]} --quick")
    said = json.loads(shell(lines[1], f"{lines[9]} --json || true"))
    return None if {"running", "ready", "blocked"} & {name for name, count in said["counts"].items() if count} else said


def states(root):
    return [json.loads(path.read_text()) for path in Layout(root).runs.glob("*/*/steps/*/attempts/*/state.json")]
