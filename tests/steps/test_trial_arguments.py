"""No value of a variable stands in the arguments of a process: every user of the host may read these."""

from pathlib import Path

import pytest
from harness import fork_worker, make_attempt, make_task, trial_spec, until, wait

from parallelhassnes.steps import registry
from parallelhassnes.steps.trial import image
from parallelhassnes.steps.trial.trial_worker import split

DOCKERFILE = "FROM debian:bookworm-slim\nWORKDIR /app\n"
SECRET = "s3cret-in-arguments-0123456789"


def test_the_arguments_get_the_names():
    command = [
        "exec",
        "-w",
        "/app",
        "-e",
        "MY_KEY=a=b\nc",
        "-e",
        "PATH=/bin",
        "-u",
        "root",
        "main",
        "sh",
        "-c",
        "-e X=1",
    ]
    made, values = split(command)
    assert made == ["exec", "-w", "/app", "-e", "MY_KEY", "-e", "PATH=/bin", "-u", "root", "main", "sh", "-c", "-e X=1"]
    assert values == {"MY_KEY": "a=b\nc"}
    assert split(["up", "-e", "A=b"]) == (["up", "-e", "A=b"], {})


def arguments():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield (folder / "cmdline").read_bytes()
        except OSError:
            continue


@pytest.mark.docker
def test_a_docker_trial_shows_no_value(tmp_path):
    solution = 'echo "len ${#MY_KEY}" > /logs/agent/len.txt; sleep 2'
    task = make_task(tmp_path, solution=solution, **{"environment/Dockerfile": DOCKERFILE})
    environment = {"type": "docker", "env": {"MY_KEY": SECRET}}
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, "oracle", environment))
    pid = fork_worker(attempt)
    try:
        until(lambda: registry.kind("trial").phase(attempt) == "agent", 120)
        running = until(lambda: [each for each in arguments() if b"exec" in each and b"MY_KEY" in each], 60)
        assert not any(SECRET.encode() in each for each in running)
        assert not any(SECRET.encode() in each for each in arguments())
    finally:
        wait(pid)
        for folder in tmp_path.rglob("_system/images"):
            image.remove_unneeded(folder.parent.parent, lambda *_: True)
    said = next(attempt.dir.rglob("len.txt")).read_text()
    assert said == f"len {len(SECRET)}\n"
