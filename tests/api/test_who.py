"""Whom a server lets in without a token: processes of its own user, and nothing of an attempt, of another user or of a proxy."""

import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
from harness import make_task
from servers import serving
from stores import attempt_dirs, context, job, program, put, python, shell, started, table, wait_for

from parallelhassnes.api import serve
from parallelhassnes.api.http import peers
from parallelhassnes.config import ApiConfig

ATTACK = table(job("evil", shell("s", "touch /tmp/never-made-by-a-trial")))
MARK = "PARALLELHASSNES_RUN_ID=0123456789ab"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("who")
    with serving(root, "--no-tick") as server:
        yield root, server


def posting(url: str) -> list[str]:
    """The command line of a client that submits a command, and prints what it is told and the status."""
    return ["curl", "-sg", "-w", " %{http_code}", "--data-binary", ATTACK.decode(), f"{url}/v1/batches"]


def said_to(*argv: str) -> tuple[int, str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    body, _, status = done.stdout.rpartition(" ")
    assert status.isdecimal(), done
    return int(status), body


def nothing_was_made(root) -> bool:
    return not list(root.glob("runs/batch*")) and not list(root.glob("runs/_queue/incoming/[!.]*"))


def test_the_servers_own_user_needs_no_token_and_stands_in_the_ledger(root):
    ctx = context(root)
    with serving(root, "--no-tick") as server:
        status, body = said_to(*posting(server.url))
        assert status == 201, body
        batch_id = json.loads(body)["batch_id"]
        assert server.client.post(f"/v1/batches/{batch_id}/pause", params={"reason": "r"}).is_success
        lines = (ctx.layout.batch(batch_id) / "ledger.jsonl").read_text().splitlines()
        paused = next(line for line in map(json.loads, lines) if line["event"] == "paused")
        assert paused["by"].endswith(f"@{os.uname().nodename}")
        assert not paused["by"].startswith(("token:", "anybody"))


def as_another_user(*argv: str) -> list[str]:
    return ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *argv]


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (("env", MARK), "belongs to an attempt"),
        (("env", MARK, "sh", "-c", 'env -u PARALLELHASSNES_RUN_ID "$@"; true', "sh"), "belongs to an attempt"),
        (("unshare", "--user", "--map-root-user"), "has a user namespace of its own"),
        (("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"), "namespace of its own"),
    ],
)
@pytest.mark.namespaces
def test_what_is_marked_or_shut_in_needs_a_token(served, before, why):
    root, server = served
    status, body = said_to(*before, *posting(server.url))
    assert (status, why in body) == (401, True), body
    assert nothing_was_made(root)


def test_a_process_with_another_root_needs_a_token(served, tmp_path):
    """As a container that shares the host's network and process ids."""
    if os.geteuid():
        pytest.skip("only root can change the root folder without namespaces")
    _, server = served
    host, port = server.url.removeprefix("http://").split(":")
    (tmp_path / "etc").mkdir()
    code = (
        "import os, socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); os.chroot(sys.argv[3]);"
        r"s.sendall(b'GET /v1/batches HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');"
        "print(b''.join(iter(lambda: s.recv(1000), b'')).decode())"
    )
    done = python(code, host, port, tmp_path, check=False)
    assert done.stdout.startswith("HTTP/1.1 401 "), done
    assert "a root folder of its own" in done.stdout


def test_another_user_needs_a_token(served):
    if os.geteuid():
        pytest.skip("only root can become another user")
    root, server = served
    status, body = said_to(*as_another_user(*posting(server.url)))
    assert (status, "it comes from another user" in body) == (401, True), body
    assert nothing_was_made(root)


@pytest.mark.parametrize("header", ["X-Forwarded-For: 10.0.0.7", "Forwarded: for=10.0.0.7", "Via: 1.1 proxy"])
def test_what_comes_through_a_proxy_needs_a_token(served, header):
    _, server = served
    status, body = said_to(*posting(server.url), "-H", header)
    assert (status, "it comes through a proxy" in body) == (401, True), body


def test_a_socket_shared_with_an_attempt_needs_a_token(served):
    """A process outside that holds the attempt's socket, too, does not speak for it."""
    _, server = served
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as shared:
        child = subprocess.Popen(
            ["sleep", "60"], pass_fds=[shared.fileno()], env={"PARALLELHASSNES_RUN_ID": "x"} | os.environ
        )
        try:
            environ = f"/proc/{child.pid}/environ"
            wait_for(lambda: b"RUN_ID" in Path(environ).read_bytes(), "the child's start")
            shared.sendall(b"GET /v1/batches HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert shared.recv(100).startswith(b"HTTP/1.1 401 ")
        finally:
            child.kill()
            child.wait()


def test_commands_of_an_attempt_need_a_token_however_they_hide(root):
    """The mark is taken off, and the parent gone: the supervisor is above it all the same."""
    ctx = context(root)
    with serving(root) as server:
        script = f"""
for before in "env" "env -i PATH=$PATH"; do $before curl -s -o /dev/null -w '%{{http_code}}\\n' {server.url}/v1/batches; done
(setsid env -i PATH=$PATH sh -c 'sleep 0.3; curl -s -o /dev/null -w "%{{http_code}}\\n" {server.url}/v1/batches >late' &)
while [ ! -s late ]; do sleep 0.05; done; cat late
"""
        batch_id = put(ctx, table(job("j", shell("s", script))))
        server.client.post("/v1/tick")
        (folder,) = wait_for(lambda: list(attempt_dirs(ctx, batch_id)), "the attempt")
        wait_for((folder / "seal.json").exists, "the seal")
        assert (folder / "stdout.log").read_text().split() == ["401", "401", "401"]


@pytest.mark.parametrize(
    "engine",
    [pytest.param("bubblewrap", marks=pytest.mark.bubblewrap), pytest.param("unshare", marks=pytest.mark.namespaces)],
)
@pytest.mark.parametrize(("network", "said"), [("host", "401401"), ("private", "000000")])
def test_a_trial_cannot_have_the_server_run_a_command(root, tmp_path, engine, network, said):
    """It posts a command step to the server's address, from inside of its sandbox."""
    ctx = context(root)
    evil = tmp_path / f"evil-{engine}"
    data = table(job("evil", shell("s", f"touch {evil}"))).decode()
    with serving(root) as server:
        solution = f"""
curl -s -m 20 -o /logs/agent/said -w '%{{http_code}}' --data-binary '{data}' {server.url}/v1/batches >/logs/agent/status
env -i PATH=$PATH curl -s -m 20 -o /dev/null -w '%{{http_code}}' --data-binary '{data}' {server.url}/v1/batches >>/logs/agent/status
touch /app/out
"""
        task = make_task(tmp_path, f"attack-{engine}", solution=solution)
        environment = {"type": "sandbox", "kwargs": {"engine": engine, "network": network}}
        step = {
            "step_id": "t",
            "kind": "trial",
            "task": {"path": str(task)},
            "agent": {"name": "oracle"},
            "environment": environment,
        }
        batch_id = put(ctx, table(job("j", step)))
        server.client.post("/v1/tick")
        (folder,) = wait_for(lambda: list(attempt_dirs(ctx, batch_id)), "the attempt")
        wait_for((folder / "seal.json").exists, "the seal")
        (status,) = folder.glob("trial/**/agent/status")
        assert status.read_text() == said  # refused by the server, or not even reached
        assert server.client.get("/v1/batches").json()["items"][0]["batch_id"] == batch_id
        assert len(server.client.get("/v1/batches").json()["items"]) == 1
        assert not evil.exists()


def test_a_socket_in_the_file_system_is_for_its_user_alone(root, tmp_path):
    context(root)
    path = tmp_path / "api.sock"
    process = started(root, "api", "--unix-socket", str(path), "--no-tick")
    try:
        said = process.stdout.readline() + process.stdout.readline()
        assert f" at {path};" in said
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        ask = ["curl", "-s", "-w", " %{http_code}", "--unix-socket", str(path), "http://localhost/v1/batches"]
        assert said_to(*ask)[0] == 200
        status, body = said_to("env", MARK, *ask)
        assert (status, "belongs to an attempt" in body) == (401, True)
        status, body = said_to("unshare", "--user", "--map-root-user", "--pid", "--fork", *ask)
        assert (status, "namespace" in body or "cannot be seen" in body) == (401, True)
        if not os.geteuid():  # also where the file's mode would let them
            for parent in (path, *path.parents[:-1]):
                parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o007)
            status, body = said_to(*as_another_user(*ask))
            assert (status, "another user" in body) == (401, True)
        second = program(root, "api", "--unix-socket", str(path), check=False)
        assert second.stderr == f"{path}: another server listens there; choose another --unix-socket\n"
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert not path.exists()


def test_the_socket_of_a_server_that_was_killed_is_taken_over(root, tmp_path):
    context(root, f'[api]\nunix_socket = "{tmp_path}/api.sock"\n')
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))
    with serving_at(root, tmp_path / "api.sock") as client:
        assert client.get("/v1/batches").status_code == 200


class serving_at:  # noqa: N801 - used as a function
    """A server at the configured socket."""

    def __init__(self, root, path):
        self.process = started(root, "api", "--json", "--no-tick")
        self.path = path

    def __enter__(self) -> httpx.Client:
        assert json.loads(self.process.stdout.readline())["unix_socket"] == str(self.path)
        self.client = httpx.Client(transport=httpx.HTTPTransport(uds=str(self.path)), base_url="http://localhost")
        return self.client

    def __exit__(self, *_):
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("toml", "arguments"),
    [("", ["--auth", "token"]), ('[api]\nhosts = ["runs.example.org"]\n', []), ("", ["--host", "0.0.0.0"])],
)
def test_where_only_tokens_count_the_first_start_makes_one_and_shows_it_once(root, toml, arguments):
    context(root, toml)
    process = started(root, "api", "--port", "0", "--no-tick", "--json", *arguments)
    try:
        said = json.loads(process.stdout.readline())
        assert said["auth"] == "token"
        assert said["login"] == f"{said['url']}/login#token={said['token']}"
        url = said["url"].replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/batches").status_code == 401
        mine = {"Authorization": f"Bearer {said['token']}"}
        assert httpx.get(f"{url}/v1/batches", headers=mine).status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert [t["name"] for t in json.loads(program(root, "token", "list", "--json").stdout)["tokens"]] == ["first"]
    with serving(root, "--no-tick", *arguments) as again:
        assert again.client.get("/v1/batches").status_code == 401


def test_everybody_is_let_in_only_where_that_is_said(root):
    context(root, '[api]\nauth = "none"\n')
    with serving(root, "--no-tick") as server:
        assert said_to("env", MARK, *posting(server.url))[0] == 201
        if not os.geteuid():
            assert said_to(*as_another_user(*posting(server.url)))[0] in (200, 201)


def test_a_system_that_cannot_tell_asks_for_tokens(monkeypatch):
    one, other = socket.socketpair()
    with one, other:
        peer = peers.Peer(one)
        assert peer.user() == os.geteuid()
        monkeypatch.setattr(peers, "CAN_TELL", False)
        assert peer.stranger(set) == "this system does not tell whose connection it is"
    monkeypatch.setattr(serve, "CAN_TELL", False)
    assert serve._default(ApiConfig()) == "token"
