"""Sweeping where Docker is absent, down or slow."""

import pytest
from harness import TEMP, make_attempt, make_task, trial_spec

from parallelhassnes.steps import registry
from parallelhassnes.steps.trial import leftovers, trial_paths


def attempt_in(tmp_path, environment):
    return make_attempt(tmp_path, "trial", trial_spec(make_task(tmp_path), "nop", environment))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program called docker, in front of any other."""

    def write(body):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "docker").write_text(f"#!/bin/sh\n{body}\n")
        (folder / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return write


def test_docker_is_not_asked_about_trials_elsewhere(tmp_path, program):
    program(f"touch {tmp_path}/asked")
    assert registry.kind("trial").sweep(attempt_in(tmp_path, TEMP)) == []
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("body", ["exit 1", "exec sleep 30", "printf 'x\\377\\tno__\\n\\t\\n'"])
def test_a_docker_that_does_not_work(tmp_path, program, monkeypatch, body):
    monkeypatch.setattr(leftovers, "CALL_SEC", 0.3)
    program(body)
    assert registry.kind("trial").sweep(attempt_in(tmp_path, {"type": "docker"})) == []


def test_no_docker_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert registry.kind("trial").sweep(attempt_in(tmp_path, {"type": "docker"})) == []


@pytest.mark.parametrize(("trial", "prefix"), [("hello__ab12", "hello__ab12__"), ("-x", "0-x__"), ("A.b", "a-b__")])
def test_projects_are_named_as_harbor_names_them(trial, prefix):
    from harbor.environments.docker.docker import _sanitize_docker_compose_project_name

    assert leftovers.project_prefix(trial) == prefix
    assert _sanitize_docker_compose_project_name(f"{trial}__env") == f"{prefix}env"


def test_an_image_that_a_dead_trial_was_converting_is_removed_and_others_stay(tmp_path):
    shared = tmp_path / "sif"
    shared.mkdir()
    kwargs = {"singularity_image_cache_dir": str(shared)}
    attempt = attempt_in(tmp_path, {"type": "singularity", "kwargs": kwargs})
    kept = ["debian_12.sif", "debian_12.sif.lock", "debian_12.sif.tmp.another__ab12__env"]
    for name in (*kept, f"debian_12.sif.tmp.{trial_paths.trial_name(attempt)}__env"):
        (shared / name).touch()
    assert len(registry.kind("trial").sweep(attempt)) == 1
    assert sorted(path.name for path in shared.iterdir()) == kept
