"""The examples of the OpenAPI document: what a real server is sent, and what it answers.

``make examples`` (``python -m tests.support.api_examples``) writes them anew into ``parallelhassnes/api/examples.json``; a test
asks the same and compares. Names of folders and of this machine are replaced; nothing else is touched.
"""

import fcntl
import io
import json
import os
import platform
import re
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
from servers import Server, serving, token
from stores import CHECKOUT, context, wait_for

FILE = CHECKOUT / "parallelhassnes/api/examples.json"
TOML = 'environment = "sandbox"\n[api]\ntick_sec = 3600\nmax_body_mb = 1\nmax_upload_mb = 1\n'
TABLE = {
    "keep_workspace": True,
    "spec_version": "2.0",
    "experiment": "nightly",
    "jobs": [
        {
            "job_id": "hello",
            "steps": [
                {"step_id": "oracle", "kind": "trial", "task": {"path": "tasks/hello"}, "agent": {"name": "oracle"}},
                {"step_id": "nop", "kind": "trial", "task": {"path": "tasks/hello"}, "agent": {"name": "nop"}},
                {"step_id": "analysis", "kind": "analysis", "engine": "rules", "depends_on": ["nop"]},
                {"step_id": "verdict", "kind": "verdict"},
            ],
        },
        {
            "job_id": "deploy",
            "steps": [
                {
                    "step_id": "check",
                    "kind": "command",
                    "command": ["sh", "-c", "echo no space left; exit 1"],
                    "retry": {"max_attempts": 1},
                },
                {"step_id": "build", "kind": "command", "command": ["true"], "gate": "human"},
                {"step_id": "ship", "kind": "command", "command": ["true"], "gate": "human"},
                {"step_id": "watch", "kind": "command", "command": ["sleep", "1000"]},
            ],
        },
    ],
}
GATED = {
    "spec_version": "2.0",
    "jobs": [
        {"job_id": "deploy", "steps": [{"step_id": "ship", "kind": "command", "command": ["true"], "gate": "human"}]}
    ],
}
YAML = """experiment: nightly
sweep:
  path: tasks
  agents: [{name: oracle, n_trials: 2}, {name: nop}]
"""
MANY = {"POST /v1/tasks": "file", "POST /api/upload/batch": "files"}
"""Which field takes several files."""
KEY = "sk-or-v1-example"

type Examples = dict[str, dict[str, Any]]


class Recorder:
    """Args:
    client: of the server that is asked.
    """

    def __init__(self, client: httpx.Client) -> None:
        self.client, self.examples = client, dict[str, dict[str, Any]]()

    def ask_in_yaml(self, what: str, text: str, **query: Any) -> None:
        """Send the same in YAML; it has to be taken."""
        method, path = what.split()
        headers = {"Content-Type": "application/yaml"}
        answer = self.client.request(method, path, content=text, headers=headers, params=query)
        assert answer.status_code < 300, answer.text
        self.examples[what]["yaml"] = text

    def ask(
        self, what: str, json: Any = None, form: Any = None, files: Any = None, query: Any = None, **names: str
    ) -> Any:
        """Ask ``METHOD /path/{name}`` and keep what was sent and answered; the answer."""
        method, path = what.split()
        sent = {"json": json, "data": form, "files": files, "params": query}
        answer = self.client.request(method, path.format(**names), **{k: v for k, v in sent.items() if v})
        assert answer.status_code < 300, f"{what}: {answer.text}"
        kept = self.examples.setdefault(what, {})
        if json:
            kept["body"] = json
        if form or files:
            named: dict[str, Any] = {name: file[0] for name, file in files or []}
            if what in MANY:
                named[MANY[what]] = [named[MANY[what]]]
            kept["body"] = named | (form or {})
        if answer.headers["content-type"] == "application/json":
            kept["answer"] = answer.json()
            return kept["answer"]
        return answer.text

    def fail(self, status: int, answer: httpx.Response) -> None:
        """Keep the answer as the example of its status."""
        assert answer.status_code == status, answer.text
        self.examples.setdefault("errors", {})[str(status)] = answer.json()


@contextmanager
def _store(root: Path) -> Iterator[Server]:
    """A server over a root with two tasks."""
    context(root, TOML)
    for name in ("hello", "leap-years"):
        shutil.copytree(CHECKOUT / "examples/tasks" / name, root / "tasks" / name)
    text = token(root, "anna", "operate")
    with serving(root, "--auth", "token", token=text) as server:
        yield server


def record(root: Path) -> Examples:
    """Ask one thing after the other."""
    with _store(root) as server:
        made = Recorder(server.client)
        batch = made.ask("POST /v1/batches", TABLE)["batch_id"]
        made.ask("POST /v1/validate", TABLE)
        made.ask_in_yaml("POST /v1/validate", YAML)
        made.ask("POST /v1/tick", query={"concurrency": 4})
        _wait(made, batch, 1)
        _operate(made, batch)
        _look(made, batch)
        _earlier(made, batch)
        _fail(made, server, batch, root)
        made.ask_in_yaml("POST /v1/batches", YAML)
        server.client.post("/v1/batches/latest/cancel")
        wait_for(lambda: server.client.get("/v1/queue").json()["live"] == 0, "the end")
    return _neutral(made.examples, root)


def _wait(made: Recorder, batch: str, left: int) -> None:
    """Until so many of its steps run or could."""
    query = {"state": ["ready", "running"]}
    steps = f"/v1/batches/{batch}/steps"
    wait_for(lambda: made.client.get(steps, params=query).json()["total"] == left, "its steps")


def _operate(made: Recorder, batch: str) -> None:
    ask, b = made.ask, "/v1/batches/{batch}"
    step = f"{b}/jobs/{{job}}/steps/{{step}}"
    names = {"batch": batch, "job": "deploy", "step": "build"}
    query = {"reason": "the disk is full"}
    ask(f"POST {b}/pause", query=query, **names)
    ask(f"POST {b}/resume", **names)
    ask(f"POST {b}/close", query=query, **names)
    ask(f"POST {b}/reopen", **names)
    ask(f"PUT {b}/priority", query={"priority": 10}, **names)
    ask(f"PUT {b}/budget", {"usd": 20.0, "tokens": 5_000_000}, **names)
    for path in (b, f"{b}/jobs/{{job}}", step):
        ask(f"PUT {path}/cap", query={"max-cost-usd": 2}, batch=batch, job="hello", step="oracle")
    ask(f"POST {step}/reject", query=query, **names)
    ask(f"POST {step}/approve", **{**names, "step": "ship"})
    ask("POST /v1/queue/pause", query={"key": "command"} | query)
    ask("POST /v1/queue/resume", query={"key": "command"})
    ask("PUT /v1/limits", {"key": "agent:oracle", "limit": 2, "reason": "others need the host"})
    ask("PUT /v1/budgets", {"scope": "experiment", "name": "nightly", "usd": 100.0, "reason": "more models"})
    ask("POST /v1/runners/{runner}/drain", query=query, runner="local")
    ask("POST /v1/runners/{runner}/undrain", runner="local")
    ask("POST /v1/tasks", files=[("file", ("leap-years.tar.gz", _packed("leap-years")))])


def _look(made: Recorder, batch: str) -> None:
    ask, b = made.ask, "/v1/batches/{batch}"
    names = {"batch": batch, "job": "hello", "step": "oracle"}
    _wait(made, batch, 1)  # what was approved has run, too
    for path in (
        "/health",
        "/v1/batches",
        "/v1/scoreboards/system",
        "/v1/queue",
        "/v1/limits",
        "/v1/budgets",
        "/v1/runners",
        "/v1/results",
        "/v1/trials",
        "/v1/errors",
    ):
        ask(f"GET {path}")
    for path in (
        "",
        "/scoreboard",
        "/explain",
        "/budget",
        "/jobs",
        "/steps",
        "/analyses",
        "/jobs/{job}",
        "/jobs/{job}/current",
        "/jobs/{job}/current.json",
        "/jobs/{job}/verdict",
        "/jobs/{job}/steps/{step}",
        "/jobs/{job}/steps/{step}/explain",
    ):
        ask(f"GET {b}{path}", **names)
    ask("GET /v1/compare", query={"a": f"{batch}@oracle", "b": f"{batch}@nop"})
    task = ask("GET /v1/tasks")["items"][0]["sha256"]
    ask("GET /v1/tasks/{sha256}", sha256=task[:12])
    current = made.examples[f"GET {b}/jobs/{{job}}/current"]["answer"]
    names["attempt"] = current["steps"]["oracle"]["run_id"]
    for path in ("", "/meta", "/state", "/report", "/ledger", "/files", "/logs"):
        ask(f"GET /v1/attempts/{{attempt}}{path}", **names)
    (live,) = made.client.get(f"/v1/batches/{batch}/steps", params={"state": "running"}).json()["items"]
    ask("POST /v1/attempts/{attempt}/cancel", attempt=live["attempt"].rpartition("_")[2])
    _wait(made, batch, 0)
    step = f"{b}/jobs/{{job}}/steps/{{step}}"
    check = {"batch": batch, "job": "deploy", "step": "check"}
    ask(f"POST {step}/retry", **check)
    ask(f"POST {step}/cancel", **check)
    ask(f"POST {b}/jobs/{{job}}/retry", query={"failed": True}, **check)
    ask(f"POST {b}/jobs/{{job}}/cancel", **check)
    ask(f"POST {b}/retry", query={"failed": True}, **check)
    ask(f"POST {b}/cancel", query={"reason": "wrong model"}, **check)
    _wait(made, batch, 0)
    again = ask(f"POST {b}/regrade", {"verifier": ["tasks"]}, **check)["batch_id"]
    made.client.post(f"/v1/batches/{again}/cancel")
    ask(f"GET {b}/regrade", batch=again)
    ask(f"POST {b}/rerun", query={"what": "failed"}, **check)
    made.client.post("/v1/batches/latest/cancel")
    for verb in ("approve", "reject"):
        for path in (f"{b}/{verb}", f"{b}/jobs/{{job}}/{verb}"):
            waits = made.client.post("/v1/batches?again=true", json=GATED).json()["batch_id"]
            ask(f"POST {path}", query={"reason": "reviewed"}, batch=waits, job="deploy")


def _earlier(made: Recorder, batch: str) -> None:
    ask = made.ask
    named = {"batch": batch, "job": "deploy", "step": "check"}
    where = {"batch_id": batch, "job_id": "hello", "step_id": "oracle"}
    run = made.client.get(f"/v1/batches/{batch}/jobs/hello/current").json()["steps"]["oracle"]["run_id"]
    ask("GET /v1/attempts/resolve", query={**where, "run_id": run})
    ask("POST /v1/attempts/cancel", query={**where, "run_id": run})
    for verb in ("force-retry", "requeue", "mark-failed"):
        ask(f"POST /v1/batches/{{batch}}/jobs/{{job}}/steps/{{step}}/{verb}", **named)

    archive = ("file", ("hello.tar.gz", _packed("hello")))
    task_id = ask("POST /tasks/upload", files=[archive])["task_id"]
    pairs = [{"agent": "oracle", "n_trials": 1}, {"agent": "nop", "n_trials": 1}]
    sweep = {"task_id": task_id, "configs": pairs, "user": "anna", "experiment_id": "smoke"}
    ask("POST /tasks/sweep", sweep)
    names = {"task_id": task_id, "index": "0", "trial_id": f"{task_id}-0", "experiment_id": "smoke"}
    done = lambda: made.client.get(f"/tasks/{task_id}").json()["status"] == "completed"  # noqa: E731
    wait_for(done, "the sweep")
    for path in (
        "/tasks",
        "/tasks/{task_id}",
        "/tasks/{task_id}/trials/{index}",
        "/trials/{trial_id}/logs",
        "/trials/{trial_id}/logs/structured",
        "/trials/{trial_id}/result",
        "/trials/{trial_id}/files",
        "/tasks/{task_id}/files",
        "/experiments/{experiment_id}/share",
    ):
        ask(f"GET {path}", **names)
    ask("GET /tasks/{task_id}/files/{path}", path="task.toml", **names)
    begun = ask("POST /tasks/upload/init", {"name": "hello", "content_hash": "0" * 64})
    made.client.put(begun["upload_url"], content=archive[1][1])
    ended = {name: begun[name] for name in ("task_id", "name", "version", "content_hash")}
    ask("POST /tasks/upload/complete", ended | {"register_task": True, "user": "anna"})
    ask("POST /trials/import/init", {"task_id": task_id, "experiment_id": "smoke", "trial": {"agent": "oracle"}})
    ask("POST /tasks/cancel", {"task_ids": [task_id]})
    ask("PATCH /experiments/{experiment_id}", {"name": "Smoke test"}, **names)
    ask("DELETE /tasks/{task_id}", **names)
    other = ask("POST /tasks/upload", files=[archive])["task_id"]
    made.client.post("/tasks/sweep", json={**sweep, "task_id": other})
    ask("DELETE /experiments/{experiment_id}", **names)

    _harbor(made)
    form = {"harness": "harbor", "model": "oracle", "openrouter_key": KEY, "n_runs": 2}
    job_id = ask("POST /api/upload", form=form, files=[archive])["job_id"]
    # A run that could not start at once waits for a process that has the key: for a tick of the server.
    look = lambda: made.client.post("/v1/tick") and made.client.get(f"/api/jobs/{job_id}").json()  # noqa: E731
    wait_for(lambda: look()["status"] == "completed", "the runs")
    ask("GET /api/jobs")
    ask("GET /api/jobs/{job_id}", job_id=job_id)
    ask("POST /api/jobs/{job_id}/key", form={"openrouter_key": KEY}, job_id=job_id)
    ask("POST /api/upload/batch", form=form, files=[("files", archive[1])])


def _harbor(made: Recorder) -> None:
    """What Harbor's own client asks."""
    ask = made.ask
    config = {"job_name": "nightly", "tasks": [{"path": "tasks/hello"}], "agents": [{"name": "oracle"}]}
    job = ask("POST /harbor/jobs/submit", {"config": config})["job_id"]
    look = lambda: made.client.get(f"/harbor/jobs/{job}").json()["job"]["state"] == "finished"  # noqa: E731
    wait_for(look, "the job")
    (rollout,) = ask("GET /harbor/rollouts", query={"job_ids": [job]})["items"]
    ask("GET /harbor/jobs", query={"name": "nightly"})
    ask("GET /harbor/jobs/{job_id}", job_id=job)
    ask("GET /harbor/rollouts/{rollout_id}", rollout_id=rollout["id"])
    for verb, body in (("pause", None), ("resume", None), ("cancel", {"force": True})):
        ask(f"POST /harbor/jobs/{{job_id}}/{verb}", body, job_id=job)
    ask("POST /harbor/rollouts/{rollout_id}/cancel", {"force": True}, rollout_id=rollout["id"])
    ask("POST /harbor/rollouts/{rollout_id}/retry", rollout_id=rollout["id"])


def _fail(made: Recorder, server: Server, batch: str, root: Path) -> None:
    client, fail = server.client, made.fail
    run_id = client.get(f"/v1/batches/{batch}/jobs/hello/current").json()["steps"]["nop"]["run_id"]
    reader = {"Authorization": f"Bearer {token(root, 'bob', 'read')}"}
    wrong = {"Authorization": "Bearer phs_wrong"}
    fail(400, client.get("/v1/batches", params={"cursor": "3"}))
    fail(401, httpx.get(f"{server.url}/v1/batches"))
    fail(403, client.post("/v1/tick", headers=reader))
    fail(404, client.get(f"/v1/batches/{batch}/jobs/helo"))
    fail(409, client.post(f"/v1/batches/{batch}/jobs/hello/steps/nop/requeue", params={"runner_id": "elsewhere"}))
    fail(413, client.post("/v1/batches", content=b" " * (2 << 20)))
    fail(412, client.post(f"/v1/batches/{batch}/pause", headers={"If-Match": '"another"'}))
    fail(416, client.get(f"/v1/attempts/{run_id}/files/meta.json", headers={"Range": "bytes=900000-"}))
    fail(421, client.get("/health", headers={"Host": "evals.example.org"}))
    fail(
        422,
        client.post(
            "/v1/batches", json={"spec_version": "2.0", "jobs": [{"steps": [{"kind": "comand", "command": 3}]}]}
        ),
    )
    for _ in range(11):
        refused = client.get("/v1/batches", headers=wrong)
    fail(429, refused)
    fail(503, _unanswered(server))
    unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    fail(507, client.post(f"/v1/batches/{batch}/pause"))
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)


def _unanswered(server: Server) -> httpx.Response:
    """The answer to a tick whose process is killed at it."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()}
    (ticker,) = [int(pid) for pid, said in commands.items() if b" ticker of " in said]
    os.kill(ticker, signal.SIGSTOP)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(server.client.post("/v1/tick")))
    with Path(f"/proc/{ticker}/fd/0").open("rb", buffering=0) as told:
        before = _unread(told)
        asking.start()
        wait_for(lambda: _unread(told) > before, "the tick to be asked for")
    os.kill(ticker, signal.SIGKILL)
    asking.join()
    return answers[0]


def _unread(pipe: IO[bytes]) -> int:
    """Bytes that nobody has read yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


def _packed(name: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.add(CHECKOUT / "examples/tasks" / name, arcname=name)
    return made.getvalue()


# --- what is this machine's and this run's ------------------------------------------------------------


def _neutral(examples: Examples, root: Path) -> Examples:
    text = json.dumps(examples)
    for own, shown in (
        (str(root), "/srv/evals"),
        (str(CHECKOUT), "/opt/parallelhassnes"),
        (platform.node(), "evals-1"),
    ):
        text = text.replace(own, shown)
    text = re.sub(r"phs_[\w-]{20,}", "TOKEN", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8765", text))
    neutral: Examples = json.loads(text)
    return neutral


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = record(Path(folder))
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
