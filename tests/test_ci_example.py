"""The workflow of examples/ci: its steps run as written, and it finds a broken task."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from stores import CHECKOUT, environment

WORKFLOW = CHECKOUT / "examples" / "ci" / "github-actions.yaml"


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load(WORKFLOW.read_text())


def script(workflow, name):
    (step,) = [step for step in workflow["jobs"]["trials"]["steps"] if step.get("name") == name]
    return step["run"]


def test_nothing_from_outside_is_put_into_a_script(workflow):
    for step in workflow["jobs"]["trials"]["steps"]:
        assert "${{" not in step.get("run", "")
    assert not re.search(r"https?://|index", WORKFLOW.read_text())


@pytest.mark.namespaces
@pytest.mark.timeout(200)
def test_its_steps_run_as_written(workflow, tmp_path):
    program = tmp_path / "bin" / "parallelhassnes"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m parallelhassnes "$@"\n')
    program.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    place = tmp_path / "checkout"
    place.mkdir()
    (place / "examples").symlink_to(CHECKOUT / "examples")
    env = environment(
        {
            **workflow["env"],
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "ENVIRONMENT": "sandbox",
            "TRIALS": "1",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md"),
        }
    )

    def run(name, **more):
        return subprocess.run(
            ["bash", "-e", "-c", script(workflow, name)],
            cwd=place,
            env=env | more,
            capture_output=True,
            text=True,
            timeout=90,
        )

    done = run("Run")
    assert done.returncode == 0, done.stderr
    told = json.loads((place / "run.json").read_text())
    assert told["experiment"].startswith("ci-")
    assert told["exit_code"] == 0
    assert told["report"] == str(place / "report.html")
    assert (place / "report.html").read_text().startswith("<!doctype html>")
    assert {
        t["task"].rpartition("/")[2]: (t["n"], t["scored"], t["passes"], t["task_quality"]) for t in told["tasks"]
    } == {"hello": (2, 2, 1, "good"), "leap-years": (2, 2, 1, "good")}
    assert told["totals"]["oracle"]["passes"] == 2
    checked = run("Refuse broken tasks")
    assert (checked.returncode, checked.stdout.count("good")) == (0, 2)
    assert run("Summary").returncode == 0
    assert "| oracle |" in (tmp_path / "step.md").read_text()
    assert run("Run", TASKS="examples/tasks/broken-oracle").returncode == 0
    assert run("Refuse broken tasks").returncode == 1
