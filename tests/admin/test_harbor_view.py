"""A batch of real trials, exported, in Harbor's own tools."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from harness import make_attempt, make_task, run, trial_spec

from parallelhassnes.admin import harbor_view
from parallelhassnes.errors import UserError
from parallelhassnes.plan import JobSpec, StepSpec

pytestmark = pytest.mark.harbor

SUPPORT = Path(__file__).parents[1] / "support"
HARBOR = Path(sys.executable).with_name("harbor")


def environment(tmp_path):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": str(SUPPORT),
        "HARBOR_TELEMETRY": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def make_batch(tmp_path, specs, *, unfinished=()):
    """Run each trial; returns the batch's directory and the attempts."""
    attempts = [make_attempt(tmp_path, "trial", spec, step_id=f"t{i}") for i, spec in enumerate(specs)]
    steps = [attempt.step for attempt in attempts]
    steps += [StepSpec(step_id=f"u{i}", kind="trial", queue_key="k", spec=s) for i, s in enumerate(unfinished)]
    job_dir = attempts[0].job_dir
    job = JobSpec(batch_id="batch", job_id="job", steps=tuple(steps))
    (job_dir / "job.json").write_text(job.model_dump_json())
    for attempt in attempts:
        run(attempt)
    return job_dir.parent, attempts


def resume(tmp_path, job):
    done = subprocess.run(
        [HARBOR, "job", "resume", "-p", job],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=90,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def snapshot(folder):
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def test_resume_finds_nothing_to_do_and_the_viewer_shows_every_trial(tmp_path):
    pairs = [(make_task(tmp_path, name), a) for name in ("one", "two") for a in ("oracle", "oracle", "nop")]
    batch, _ = make_batch(tmp_path, [trial_spec(task, agent) for task, agent in pairs])
    stored = snapshot(batch)
    target = tmp_path / "view"
    made = harbor_view.export(batch, target)
    assert made == harbor_view.Export((target / "batch",), 6, ())
    result = json.loads((target / "batch" / "result.json").read_text())
    assert result["n_total_trials"] == 6
    names = sorted(p.name for p in (target / "batch").iterdir() if p.is_dir())
    before = snapshot(target)
    resume(tmp_path, target / "batch")
    after = snapshot(target)
    trials = {k for k in before if k.count("/") > 1}
    assert {k: after[k] for k in trials} == {k: before[k] for k in trials}
    assert sorted(p.name for p in (target / "batch").iterdir() if p.is_dir()) == names
    assert json.loads((target / "batch" / "result.json").read_text())["n_total_trials"] == 6
    assert snapshot(batch) == stored
    check_viewer(tmp_path, target, names)


def check_viewer(tmp_path, target, names):
    viewer = subprocess.Popen(
        [HARBOR, "view", target, "--port", "0", "--host", "127.0.0.1", "--no-build"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        port = port_of(viewer)
        jobs = get(port, "jobs")
        assert [job["name"] for job in jobs["items"]] == ["batch"]
        assert jobs["items"][0]["n_total_trials"] == 6
        for name in names:
            trial = get(port, f"jobs/batch/trials/{name}")
            assert trial["trial_name"] == name
            shown = get(port, f"jobs/batch/trials/{name}/files/verifier/reward.txt")
            assert shown in (0, 1)
    finally:
        viewer.terminate()
        viewer.communicate(timeout=30)


def port_of(viewer):
    """The port that it has taken; by then it answers."""
    said = []
    for line in viewer.stdout:
        said.append(line)
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    pytest.fail("".join(said))


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=60) as answer:
        return json.load(answer)


def test_what_is_no_rectangle_becomes_several_jobs(tmp_path):
    one, two = make_task(tmp_path, "one"), make_task(tmp_path, "two")
    specs = [trial_spec(one), trial_spec(one, "nop"), trial_spec(two), trial_spec(two, timeout_multiplier=2)]
    batch, _ = make_batch(tmp_path, specs, unfinished=[trial_spec(two)])
    made = harbor_view.export(batch, tmp_path / "view")
    assert [job.name for job in made.jobs] == ["batch-1", "batch-2", "batch-3"]
    assert made.trials == 4
    assert made.skipped == ("job/u0: no attempt has a result",)
    for job in made.jobs:
        resume(tmp_path, job)
    assert len(list((tmp_path / "view").glob("*/*/result.json"))) == 4


def test_nothing_is_overwritten_and_nothing_half_made(tmp_path):
    task = make_task(tmp_path)
    batch, _ = make_batch(tmp_path, [trial_spec(task)])
    harbor_view.export(batch, tmp_path / "view")
    with pytest.raises(UserError, match="exists already; remove it"):
        harbor_view.export(batch, tmp_path / "view")
    task.rename(tmp_path / "gone")
    with pytest.raises(UserError, match="Harbor cannot plan the job batch"):
        harbor_view.export(batch, tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_batch_without_results(tmp_path):
    (tmp_path / "batch").mkdir()
    with pytest.raises(UserError, match="no trial of batch has a result yet"):
        harbor_view.export(tmp_path / "batch", tmp_path / "view")
