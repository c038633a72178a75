"""A real server: where it listens, whom it lets in, how it refuses, how it ends."""

import json
import re
import signal
import subprocess

import httpx
import pytest
from api_checks import is_problem
from servers import serving, token
from stores import context, job, program, put, shell, started, table, wait_for

from parallelhassnes.admin import tokens
from parallelhassnes.errors import UserError
from parallelhassnes.store import process_identity


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with one token of each role, and the tokens."""
    root = tmp_path_factory.mktemp("guarded")
    context(root)
    tokens = {role: token(root, f"t-{role}", role) for role in ("read", "submit", "operate")}
    with serving(root, "--auth", "token") as server:
        yield root, server, tokens


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_it_answers_and_ends_on_a_signal(root):
    with serving(root, "--no-tick") as server:
        assert server.client.get("/health").json()["ticking"] is False
        assert is_problem(server.client.post("/v1/tick"), 409)["detail"].startswith("this server does not tick")
        server.end(signal.SIGINT)
        assert server.process.returncode == 0


def test_it_ticks_in_a_process_of_its_own_that_ends_with_it(root):
    ctx = context(root, "[api]\ntick_sec = 3600\n")
    with serving(root) as server:
        wait_for((ctx.layout.runners / "local" / "health.json").exists, "the tick at the start")
        batch_id = put(ctx, table(job("j", shell("s", "echo done"))))
        ticked = server.client.post("/v1/tick", params={"concurrency": 1}).json()
        assert [name.split("/")[:3] for name in ticked["launched"]] == [[batch_id, "j", "s"]]
        attempt = ticked["launched"][0].split("/")[-1]
        folder = ctx.layout.step(batch_id, "j", "s") / "attempts" / attempt
        wait_for((folder / "seal.json").exists, "the seal")
        supervisor = json.loads((folder / "state.json").read_text())["pid"]
        assert supervisor != server.process.pid
        children = _children(server.process.pid)
        assert len(children) == 1
        server.end(signal.SIGKILL)
        wait_for(lambda: not process_identity.is_alive(children[0], None), "the end of the ticking process")


def _children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def test_a_ticking_process_that_dies_is_started_again(root):
    context(root)
    with serving(root) as server:
        assert server.client.post("/v1/tick").status_code == 200
        (child,) = _children(server.process.pid)
        subprocess.run(["kill", "-9", str(child)], check=True)
        wait_for(lambda: server.client.post("/v1/tick").status_code == 200, "a tick")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--host", "0.0.0.0", "--auth", "none"],
            "0.0.0.0 can be reached from other hosts, and anybody there could do anything; use --auth token",
        ),
        (
            ["--host", "192.0.2.1", "--auth", "none"],
            "192.0.2.1 can be reached from other hosts, and anybody there could do anything; use --auth token",
        ),
        (["--auth", "tokens"], "--auth tokens: is not known; use user, token or none"),
        (
            ["--unix-socket", "/dev/null/x"],
            "cannot listen on /dev/null/x: Not a directory; choose another --unix-socket",
        ),
    ],
)
def test_what_would_expose_the_store_is_refused_in_one_line(root, arguments, says):
    done = program(root, "api", "--port", "0", *arguments, check=False)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, says, "")


def test_a_taken_port_is_one_line(root):
    with serving(root) as server:
        port = server.url.rpartition(":")[2]
        done = program(root, "api", "--port", port, check=False)
        assert done.returncode == 2
        assert (
            done.stderr
            == f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --port or --host\n"
        )


def test_tokens_are_kept_hashed_and_refused_when_revoked(root):
    context(root)
    text = token(root, "ci", "submit")
    assert text not in (root / "runs/_system/tokens/ci.json").read_text()
    taken = program(root, "token", "create", "ci", check=False)
    assert taken.stderr == "there is a token ci already; choose another name, or revoke it\n"
    with serving(root, token=text) as server:
        assert server.client.get("/openapi.json").status_code == 200
        program(root, "token", "revoke", "ci")
        is_problem(server.client.get("/openapi.json"), 401)
    assert json.loads(program(root, "token", "list", "--json").stdout)["tokens"] == []
    wrong = program(root, "token", "revoke", "cj", check=False)
    assert (wrong.returncode, wrong.stderr) == (2, "there is no token cj; there are none\n")
    ledger = (root / "runs/_system/ledger.jsonl").read_text()
    assert '"event":"token_created"' in ledger
    assert '"event":"token_revoked"' in ledger


def test_two_names_that_are_one_file_somewhere_are_one_token(root):
    ctx = context(root)
    tokens.create(ctx, "Ann", "read")
    for name in ("Ann", "ann", "ann."):
        with pytest.raises(UserError, match="there is a token Ann already"):
            tokens.create(ctx, name, "read")


def test_who_has_no_token_gets_in_nowhere(guarded):
    _, server, _ = guarded
    paths = httpx.get(f"{server.url}/openapi.json", headers=bearer(guarded[2]["read"])).json()
    for path, operations in paths["paths"].items():
        for method in operations:
            if path == "/health":
                continue
            answer = httpx.request(method, server.url + re.sub(r"\{.*?\}", "x", path))
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_roles(guarded):
    _, server, tokens = guarded
    for role, status in (("read", 403), ("submit", 403), ("operate", 200)):
        answer = httpx.post(f"{server.url}/v1/tick", headers=bearer(tokens[role]))
        assert answer.status_code == status, answer.text
    is_problem(httpx.post(f"{server.url}/v1/tick", headers=bearer(tokens["read"])), 403)


def test_foreign_hosts_and_pages_are_refused(guarded):
    _, server, tokens = guarded
    is_problem(httpx.get(f"{server.url}/health", headers={"Host": "evil.example"}), 421)
    is_problem(httpx.get(f"{server.url}/health", headers={"Host": "[bad"}), 421)
    form = {"token": tokens["operate"]}
    for foreign in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        is_problem(httpx.post(f"{server.url}/login", data=form, headers=foreign), 403)


def test_a_foreign_page_changes_nothing_where_no_token_is_needed(root):
    with serving(root) as server:
        is_problem(server.client.post("/v1/tick", headers={"Origin": "http://evil.example"}), 403)
        assert server.client.post("/v1/tick", headers={"Origin": server.url}).status_code == 200


def test_login_by_cookie_needs_the_csrf_token_for_changes(guarded):
    _, server, tokens = guarded
    page = {"Accept": "text/html"}
    with httpx.Client(base_url=server.url, timeout=60) as browser:
        to_login = browser.get("/openapi.json?a=b", headers=page)
        assert (to_login.status_code, to_login.headers["location"]) == (303, "/login?next=/openapi.json%3Fa%3Db")
        done = browser.post("/login", data={"token": tokens["operate"], "next": "//evil.example"})
        assert (done.status_code, done.headers["location"]) == (303, "/")
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert tokens["operate"] not in cookie
        assert browser.get("/openapi.json").status_code == 200
        is_problem(browser.post("/v1/tick"), 403)
        is_problem(browser.post("/v1/tick", headers={"X-CSRF-Token": "wrong"}), 403)
        csrf = csrf_of(browser)
        assert browser.post("/v1/tick", headers={"X-CSRF-Token": csrf}).status_code == 200
        assert browser.post("/v1/tick", data={"csrf_token": csrf}).status_code == 200
        assert browser.post("/logout", data={"csrf_token": csrf}).status_code == 303
        assert browser.get("/openapi.json").status_code == 401


def csrf_of(browser: httpx.Client) -> str:
    """What the session's pages send with their changes."""
    return re.search(r'name="csrf_token" value="([0-9a-f]+)"', browser.get("/operate").text)[1]


def test_a_forged_cookie_is_none(guarded):
    root, server, _ = guarded
    name = (root / "runs/_system/store_id").read_text().strip()
    for value in ("", "x", "WyJ0Il0.aaaa.bbbb", '"', "../tokens/t-operate"):
        headers = {"Cookie": f"parallelhassnes_{name}={value}"}
        assert httpx.get(f"{server.url}/openapi.json", headers=headers).status_code == 401


def test_failed_logins_are_slowed_down_and_right_tokens_go_on(root):
    context(root)
    text = token(root, "me", "read")
    with serving(root) as server:
        answers = [server.client.post("/login", data={"token": "wrong"}) for _ in range(12)]
        assert [a.status_code for a in answers] == [401] * 10 + [429] * 2
        assert 0 < int(answers[-1].headers["retry-after"]) <= 61
        assert server.client.post("/login", data={"token": text}).status_code == 303
        assert server.client.get("/openapi.json", headers=bearer("wrong")).status_code == 429
        assert server.client.get("/openapi.json", headers=bearer(text)).status_code == 200


def test_a_large_body_is_refused_before_it_is_read(root):
    context(root, "[api]\nmax_body_mb = 1\n")

    def unannounced():
        for _ in range(64):
            yield b"x" * 65536

    with serving(root) as server:
        is_problem(server.client.post("/v1/batches", content=unannounced()), 413)
        refused = server.client.post("/v1/tick", content=b"x" * (2 << 20))
        assert "larger than 1 MiB" in is_problem(refused, 413)["detail"]


def test_the_start_message_says_what_is_exposed(root):
    context(root)
    token(root, "ops", "operate")
    process = started(root, "api", "--port", "0", "--host", "0.0.0.0")
    try:
        said = "".join(process.stdout.readline() for _ in range(7))
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert re.match(r"ParallelHassnes \S+ at http://0.0.0.0:\d+; Ctrl-C ends it", said)
    for part in (
        str(root),
        "holders of a token: ops (operate)",
        "Authorization: Bearer TOKEN",
        "/login",
        "plain HTTP",
        "every 10 s",
    ):
        assert part in said
