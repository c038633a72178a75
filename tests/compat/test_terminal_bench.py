"""The Terminal-Bench Harbor runner's clients: a task, a key that is nowhere but where it is used, n runs."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from api_checks import is_problem
from archives import zipped
from harness import make_task
from servers import serving
from stores import SUPPORT, context, idle, wait_for

from parallelhassnes.actions import pause_resume

TEMP = 'environment = "key_environment:KeyEnvironment"\nconcurrency = 1\n[api]\ntick_sec = 0.5\n'
KEY = f"sk-or-{'0123456789abcdef' * 2}"


def send(client, task: Path, **more):
    form = {"harness": "terminus", "model": "oracle", "openrouter_key": KEY, "n_runs": "2", **more}
    return client.post("/api/upload", data=form, files={"file": (f"{task.name}.zip", zipped(task))})


def files_with_the_key(root: Path) -> list[str]:
    found = []
    for path in root.rglob("*"):
        # A pass that just ends takes back what it has left for others.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and KEY.encode() in path.read_bytes():
                found.append(str(path))
    return found


def test_the_key_is_where_it_is_used_and_the_rest_waits_for_it(root, tmp_path):
    ctx = context(root, TEMP)
    gate = tmp_path / "go"
    task = make_task(tmp_path, "greet", solution=f"while [ ! -e {gate} ]; do sleep 0.05; done; echo hi > /app/out")
    seen = tmp_path / "seen"
    (task / "environment/where.txt").write_text(str(seen))
    with serving(root, env=SUPPORT) as server:
        answer = send(server.client, task)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["runs_queued"]) == ("queued", 2)
        job_id = answer.json()["job_id"]
        wait_for(lambda: seen.exists() and seen.read_text() == KEY, "the first run")
        job = server.client.get(f"/api/jobs/{job_id}").json()
        assert (job["task_name"], job["status"], job["harness"]) == ("greet", "running", "terminus")
        assert [run["status"] for run in job["runs"]] == ["running", "pending"]
        is_problem(server.client.get(f"/api/jobs/{job_id}/runs/3/logs/stream"), 404)
        server.end(signal.SIGKILL)
    # The first run goes on without the server; its supervisor may start the second, unless that is dead, too.
    state = next(root.glob("runs/*/*/steps/run-1/attempts/*/state.json"))
    os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
    gate.touch()
    with serving(root, env=SUPPORT) as server:

        def job():
            return server.client.get(f"/api/jobs/{job_id}").json()

        wait_for(lambda: "give it again" in job()["message"], "the job's word that it waits")
        assert all(run["status"] == "pending" for run in job()["runs"][1:])
        given = server.client.post(f"/api/jobs/{job_id}/key", data={"openrouter_key": KEY})
        assert given.status_code == 200, given.text
        with server.client.stream("GET", f"/api/jobs/{job_id}/runs/2/logs/stream") as stream:
            lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
        assert any("source" in json.loads(line[6:]) for line in lines)
        wait_for(lambda: job()["status"] == "completed", "all runs")
        assert [run["tests_passed"] for run in job()["runs"]] == [1, 1]
        assert [found["id"] for found in server.client.get("/api/jobs").json()] == [job_id]
    wait_for(lambda: idle(ctx), "the end")
    assert files_with_the_key(root) == []
    assert any("key [REDACTED:" in path.read_text() for path in root.rglob("stdout.log"))


def test_what_is_sent_wrong_is_told(root, tmp_path):
    pause_resume.drain(context(root))  # nothing of what is right here is to run
    task = make_task(tmp_path, "greet")
    with serving(root) as server:
        for wrong in ({"harness": "other"}, {"n_runs": "0"}, {"n_runs": "101"}, {"openrouter_key": ""}, {"model": ""}):
            is_problem(send(server.client, task, **wrong), 422)
        is_problem(server.client.get("/api/jobs/x"), 404)
        form = {"harness": "harbor", "model": "nop", "openrouter_key": KEY, "n_runs": "1"}
        archives = [("files", ("greet.zip", zipped(task))), ("files", ("bad.zip", b"PK no"))]
        both = server.client.post("/api/upload/batch", data=form, files=archives).json()
        assert [answer["status"] for answer in both] == ["queued", "failed"]
    with serving(root, "--no-tick") as server:
        assert "no place to keep a key" in is_problem(send(server.client, task), 409)["detail"]


@pytest.mark.parametrize("name", ["PARALLELHASSNES_LENT_x"])
def test_a_lent_secret_is_forgotten_by_whom_it_does_not_concern(name):
    from parallelhassnes.schedule import ephemeral_secrets

    ephemeral_secrets.lend(name, "v")
    ephemeral_secrets.lend(f"{name}2", "w")
    ephemeral_secrets.keep_only({name})
    assert ephemeral_secrets.known() == {name: "v"}
    ephemeral_secrets.keep_only(())
    assert ephemeral_secrets.known() == {}
