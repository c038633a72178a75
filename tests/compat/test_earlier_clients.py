"""Programs made for earlier servers find theirs here."""

import json
import os
import re

import harbor_jobs
import models
import pytest
from api_checks import is_problem
from archives import tarred
from harness import make_task
from oddish_clients import OddishClient
from servers import serving
from stores import context, idle, job, program, put, shell, states, table, wait_for

from parallelhassnes.cli.commands import EARLIER
from parallelhassnes.schedule.tick import tick

TEMP = 'environment = "temp_environment:TempEnvironment"\n'


# --- Oddish -------------------------------------------------------------------------------------------


TIMED = "[environment]\nbuild_timeout_sec = 60.0\n"
"""Without it 0.1.10 refuses a task."""


@pytest.fixture
def oddish(request, tmp_path):
    return OddishClient(request.param, tmp_path)


@pytest.mark.oddish
@pytest.mark.timeout(400)
@pytest.mark.parametrize("oddish", ["oddish", "oddish-0.1.10"], indirect=True)
def test_the_oddish_command_line_runs_watches_and_cleans_a_sweep(root, tmp_path, oddish):
    ctx = context(root, TEMP)
    make_task(tmp_path / "set", "hello", toml=TIMED)
    make_task(tmp_path / "set", "world", solution="exit 0", toml=TIMED)
    (tmp_path / "sweep.yaml").write_text(
        "agents:\n- {name: oracle, model_name: default, n_trials: 2}\n- {name: nop, model_name: default}\npriority: high\n"
    )
    clean = "clean" if oddish.name == "oddish" else "delete"
    with oddish.served(root) as server:
        said = oddish("run", "set", "-c", "sweep.yaml", "--experiment", "nightly")
        assert "2 tasks submitted!" in said
        assert "Total trials: 6" in said
        watched = oddish("status", "--experiment", "nightly", "--watch")
        assert watched.count("3/3 completed") >= 2
        assert "2/2 tasks done, 2✓/4✗" in watched
        one = oddish("run", "set/hello", "-a", "oracle", "--n-trials", "1", "--experiment", "single")
        assert re.search(r"0 +│ oracle .* success", one)
        tasks = server.client.get("/tasks", params={"experiment_id": "nightly"}).json()
        hello = next(task for task in tasks if task["name"] == "hello")
        assert (hello["user"], hello["priority"], hello["verdict_status"]) == ("anna", "high", "success")
        assert [trial["reward"] for trial in hello["trials"]] == [1, 1, 0]
        shown = oddish("status", hello["id"])
        assert re.search("2 passed, 1 failed|2 perfect, 1 zero", shown), shown
        assert "1/3" in shown
        trial = server.client.get(f"/tasks/{hello['id']}/trials/0").json()
        assert trial == hello["trials"][0]
        assert "trial/trial.log" in server.client.get(f"/trials/{trial['id']}/logs").json()["logs"]
        assert server.client.get(f"/trials/{trial['id']}/result").json()["trial_name"]
        assert "is canceled" in oddish(clean, hello["id"], input="y\n")
        is_problem(server.client.get(f"/tasks/{hello['id']}"), 404)
        assert "canceled: 1 task;" in oddish(clean, "--experiment", "nightly", input="y\n")
        named = server.client.patch("/experiments/single", json={"name": " One of a kind "})
        assert named.json() == {"id": "single", "name": "One of a kind"}
        assert "Name: One of a kind" in oddish("status", "--experiment", "single")
        assert server.client.get("/experiments/single/share").json()["public_token"] is None
        public = oddish.called("run", "set/hello", "-a", "oracle", "--publish")
        assert (public.returncode, "no experiment is public here" in public.stdout + public.stderr) == (1, True)
    assert len(ctx.layout.batch_ids()) == 3  # nothing under runs/ was deleted
    events = [
        json.loads(line)
        for line in (ctx.layout.batch(ctx.layout.batch_ids()[0]) / "ledger.jsonl").read_text().splitlines()
    ]
    assert {e["by"] for e in events if e["event"] in ("submitted", "canceled", "closed")} == {"token:oddish"}


@pytest.mark.oddish
@pytest.mark.timeout(400)
@pytest.mark.parametrize("oddish", ["oddish-0.1.10"], indirect=True)
def test_oddish_appends_pulls_cancels_and_uploads_a_job(root, tmp_path, oddish):
    ctx = context(root, TEMP)
    task = make_task(tmp_path / "set", "hello", toml=TIMED)
    harbor_jobs.tasks(tmp_path)
    harbor_jobs.end(harbor_jobs.start(tmp_path, "past", "-a", "oracle"))
    with oddish.served(root) as server:
        sent = json.loads(oddish("upload", "set/hello", "--json"))["tasks"][0]["id"]
        made = json.loads(oddish("run", "--task", sent, "-a", "oracle", "--experiment", "first", "--json"))["tasks"][0]
        assert made["id"] == sent
        for _ in range(2):  # the same again is more, as there
            oddish("run", "--task", sent, "-a", "nop", "--experiment", "second")
        found = server.client.get(f"/tasks/{sent}").json()
        assert [(trial["agent"], trial["experiment_id"]) for trial in found["trials"]] == [
            ("oracle", "first"),
            ("nop", "second"),
            ("nop", "second"),
        ]
        (one,) = server.client.get("/tasks", params={"experiment_id": "second"}).json()
        assert [trial["id"] for trial in one["trials"]] == [f"{sent}-1", f"{sent}-2"]
        assert oddish("pull", sent, "--include-task-files", "--structured", "--out", "got")
        got = tmp_path / "got"
        for trial in found["trials"]:
            place = got / "trials" / trial["id"]
            (folder,) = [
                f for f in ctx.layout.runs.glob("*/*/steps/*/attempts/*/trial") if trial_name(place) == trial_name(f)
            ]
            for path in (path for path in folder.rglob("*") if path.is_file()):
                assert (place / path.relative_to(folder)).read_bytes() == path.read_bytes(), path
            assert "trial.log" in (place / "logs.txt").read_text()
            assert json.loads((place / "logs_structured.json").read_text())["trial_id"] == trial["id"]
            assert not (place / "_pull_errors").exists()
        for path in (path for path in task.rglob("*") if path.is_file()):
            assert (got / "tasks" / sent / "files" / path.relative_to(task)).read_text() == path.read_text()
        is_problem(server.client.get(f"/trials/{sent}-0/files/../../../meta.json"), 404)
        is_problem(server.client.get(f"/trials/{sent}-0/files/%2e%2e/%2e%2e/meta.json"), 404)
        assert "No active runs found" in oddish("cancel", sent, "--force")
        slow = make_task(tmp_path / "set", "slow", solution="sleep 100", toml=TIMED)
        waits = json.loads(oddish("run", str(slow), "-a", "oracle", "--background", "--json"))["tasks"][0]["id"]
        wait_for(lambda: server.client.get(f"/tasks/{waits}").json()["status"] == "running", "its trial")
        assert "Trials stopped: " in oddish("cancel", waits, "--force")
        assert "not found" in oddish.called("cancel", "nope-0123456789ab01234567", "--force").stdout
        done = json.loads(oddish("upload", "jobs/past", "--task", sent, "--experiment", "of-old", "-q", "--json"))
        assert [trial["status"] for trial in done["trials"]] == ["imported"] * 2
        again = json.loads(oddish("upload", "jobs/past", "--task", sent, "--experiment", "of-old", "-q", "--json"))
        assert [trial["status"] for trial in again["trials"]] == ["imported"] * 2
        bare = oddish.called("upload", "jobs/past", "--task", sent, "--skip-artifacts")
        assert "leave --skip-artifacts out" in bare.stdout + bare.stderr
        wait_for(lambda: idle(ctx), "the end")
    results = json.loads(program(root, "results", "--experiment", "of-old", "--by", "agent", "--json").stdout)
    assert [(group["scored"], group["passes"]) for group in results["groups"]] == [(2, 1)]
    assert os.listdir(ctx.layout.system / "oddish_uploads") == []


def trial_name(folder):
    return json.loads((folder / "result.json").read_text())["trial_name"]


def test_what_an_oddish_client_sends_wrong_is_told(root):
    context(root)
    with serving(root, "--no-tick") as server:
        bad = {"task_id": "nope-0123456789ab01234567", "configs": [{"agent": "oracle"}], "user": "a"}
        is_problem(server.client.post("/tasks/sweep", json=bad), 404)
        is_problem(server.client.post("/tasks/sweep", json={**bad, "configs": []}), 422)
        is_problem(server.client.post("/tasks/sweep", json={**bad, "publish": True}), 422)
        is_problem(server.client.get("/tasks/x"), 404)
        is_problem(server.client.get("/trials/x-0/logs"), 404)
        is_problem(server.client.delete("/experiments/x"), 404)
        is_problem(server.client.patch("/experiments/x", json={"name": "y"}), 404)
        is_problem(server.client.patch("/experiments/x", json={"name": " "}), 422)
        assert server.client.get("/tasks").json() == []


def test_the_same_oddish_sweep_of_another_upload_is_another_batch(root, tmp_path):
    context(root)
    task = make_task(tmp_path, "hello")
    with serving(root, "--no-tick") as server:
        ids = []
        for _ in range(2):
            uploaded = server.client.post("/tasks/upload", files={"file": ("hello.tar.gz", tarred(task))})
            ids.append(uploaded.json()["task_id"])
            sweep = {"task_id": ids[-1], "configs": [{"agent": "oracle"}], "github_username": "anna"}
            for _ in range(2):  # as a client does that lost the answer
                assert server.client.post("/tasks/sweep", json=sweep).json()["id"] == ids[-1]
        shown = [task["id"] for task in server.client.get("/tasks").json()]
        assert sorted(shown) == sorted(ids)


# --- the earlier ParallelHassnes ----------------------------------------------------------------------


def test_the_calls_of_the_earlier_parallelhassnes(root):
    ctx = context(root, "[api]\ntick_sec = 3600\n")
    with serving(root) as server:
        client = server.client
        assert client.get("/health").json()["ok"] is True
        sent = json.loads(table(job("j", shell("s", "echo one; echo two"), shell("late", "sleep 100"))))
        made = client.post("/v1/batches", json=sent).json()
        batch_id = made["batch_id"]
        assert made["accepted_job_ids"] == ["j"]
        assert client.post("/v1/tick?concurrency=4").json()["ok"] is True
        step = ctx.layout.step(batch_id, "j", "s")
        wait_for(lambda: list(step.glob("attempts/*/seal.json")), "the first step")
        client.post("/v1/tick")
        assert client.get("/v1/scoreboards/system").json()["batches"][0]["batch_id"] == batch_id
        board = client.get(f"/v1/batches/{batch_id}/scoreboard").json()
        assert board["jobs"][0]["job_id"] == "j"
        steps = wait_for(lambda: client.get(f"/v1/batches/{batch_id}/jobs/j/current").json()["steps"], "its state")
        named = {"batch_id": batch_id, "job_id": "j", "step_id": "s", "run_id": steps["s"]["run_id"]}
        folder = client.get("/v1/attempts/resolve", params=named).json()["attempt_dir"]
        assert os.path.isdir(folder)
        final = client.get("/v1/attempts/artifact", params={**named, "name": "final.json"})
        assert final.json()["status"]
        assert (
            client.get("/v1/attempts/artifact", params={"attempt_dir": folder, "name": "stdout.log"}).text
            == "one\ntwo\n"
        )
        is_problem(client.get("/v1/attempts/artifact", params={"attempt_dir": folder, "name": "../../x"}), 404)
        is_problem(client.get("/v1/attempts/artifact", params={"attempt_dir": "/etc", "name": "passwd"}), 404)
        assert client.get("/v1/attempts/events", params={**named, "lines": 1}).text == "two\n"
        assert client.get("/v1/attempts/events", params={**named, "follow": True}).text == "one\ntwo\n"
        place = f"/v1/batches/{batch_id}/jobs/j/steps"
        assert client.post(f"{place}/s/force-retry").json()["ok"]
        wait_for(lambda: len(list(step.glob("attempts/*/seal.json"))) == 2, "the second attempt")
        late = list(ctx.layout.step(batch_id, "j", "late").glob("attempts/*"))[0]  # noqa: RUF015
        assert client.post("/v1/attempts/cancel", params={"attempt_dir": str(late)}).json()["attempts"]
        wait_for((late / "seal.json").exists, "the end of the canceled one")
        assert client.post(f"{place}/late/mark-failed?reason=no").json()["overrides_path"]
        is_problem(client.post(f"{place}/s/requeue?runner_id=elsewhere"), 409)
        assert client.post(f"{place}/s/requeue").json()["overrides"]["retries"]
        is_problem(client.get("/v1/attempts/resolve"), 404)
        wait_for(lambda: idle(ctx), "the end")
    assert put(ctx, table(job("x", shell("s", "true"))))


@pytest.mark.codex
def test_the_earlier_calls_find_what_the_real_codex_left(root, tmp_path):
    ctx = context(root, 'secrets = ["OPENAI_BASE_URL", "OPENAI_API_KEY"]\n')
    report = {"schema_version": "1.0.0", "status": "ok", "summary": "Done.", "files_read": [], "files_written": ["a"]}
    sent = {
        "working_root": str(root),
        "execution_policy": {"skip_git_repo_check": True},
        "jobs": [{"job_id": "j", "working_directory": ".", "steps": [{"step_id": "s", "prompt": "Go."}]}],
    }
    with models.serving(tmp_path / "model", models.answer({**report, "artifacts": []})) as model:
        batch_id = put(ctx, json.dumps(sent).encode())
        program(root, "tick", "--until-idle", env=models.provider(model.url))
    with serving(root, "--no-tick") as server:
        client = server.client
        step = client.get(f"/v1/batches/{batch_id}/jobs/j/current").json()["steps"]["s"]
        latest = step["latest"]
        assert step["latest_successful"] == latest
        assert step["by_run_id"][latest["run_id"]]["status"] == "succeeded"
        assert latest["codex_thread_id"]
        assert os.path.isdir(latest["resume_base_dir"])
        named = {"attempt_dir": latest["attempt_dir"]}
        events = client.get("/v1/attempts/events", params=named).text.splitlines()
        assert json.loads(events[0]) == {"type": "thread.started", "thread_id": latest["codex_thread_id"]}
        got = client.get("/v1/attempts/artifact", params={**named, "name": "codex.events.jsonl"}).text
        assert got.splitlines() == events
        handoff = client.get("/v1/attempts/artifact", params={**named, "name": "handoff.json"}).json()
        assert {name: handoff[name] for name in report} == report
        assert os.path.isfile(handoff["final_json_path"])
        is_problem(client.get("/v1/attempts/artifact", params={**named, "name": "git_diff.patch"}), 404)


@pytest.mark.parametrize("marked", [True, False])
def test_mark_failed_keeps_an_ended_step_from_running_again_by_itself(root, marked):
    """``sum`` speaks of others' ends, so it runs again after one of them has ended anew."""
    ctx = context(root)
    batch = put(ctx, table(job("j", shell("s", "true"), shell("sum", "exit 1", depends_on=["s"], after="end"))))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch")
    if marked:
        said = json.loads(program(root, "mark-failed", batch, "j", "sum", "--reason", "no", "--json").stdout)
        assert said["steps"] == ["j/sum"]
        assert program(root, "mark-failed", batch, "j", "sum").stdout.startswith("nothing to cancel")
    program(root, "retry", f"{batch}/j/s")
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the retry")
    assert states(ctx, batch) == {"j/s": ["succeeded"] * 2, "j/sum": ["failed"] * (1 if marked else 2)}
    (row,) = [
        s
        for s in json.loads(program(root, "show", f"{batch}/j", "--json").stdout)["steps"]
        if s["step"].endswith("sum")
    ]
    assert row["state"] == "failed"
    program(root, "force-retry", batch, "j", "sum")
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the word of an operator")
    assert len(states(ctx, batch)["j/sum"]) == (2 if marked else 3)


def test_its_commands_work_or_say_their_new_name(root):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", shell("s", "exit 1"))))
    program(root, "tick", "--until-idle", "--fail-on", "never")
    for line in ("force-retry", "requeue"):
        program(root, line, batch_id, "j", "s")
    program(root, "mark-failed", batch_id, "j", "s", "--reason", "no")
    program(root, "close-batch", batch_id)
    said = (ctx.layout.batch(batch_id) / "ledger.jsonl").read_text()
    assert {"retry", "closed"} <= {json.loads(line)["event"] for line in said.splitlines()}
    for name in EARLIER:
        said = program(root, name, check=False)
        assert said.returncode == 2, name
        assert name == "close-batch" or "is a command of the earlier ParallelHassnes" in said.stderr, said.stderr
