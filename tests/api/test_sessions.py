"""How long somebody stays let in: logging out, revoking, expiry and scopes, at every server of the root, in streams too."""

import contextlib
import json
import threading
import time

import httpx
import pytest
from api_checks import is_problem
from servers import serving, token
from stores import context, program, wait_for
from test_server import bearer, csrf_of

from parallelhassnes.admin import tokens
from parallelhassnes.api.http.auth import scope_of


@pytest.fixture
def logged_in():
    """Makes browsers that have logged in with a token."""
    with contextlib.ExitStack() as browsers:

        def log_in(server, text: str) -> httpx.Client:
            browser = browsers.enter_context(httpx.Client(base_url=server.url, timeout=60))
            assert browser.post("/login", data={"token": text}).status_code == 303
            return browser

        yield log_in


def test_logging_out_ends_the_session_at_every_server_and_a_kept_cookie_is_none(root, logged_in):
    context(root)
    text = token(root, "me", "operate")
    with serving(root, "--no-tick", "--auth", "token") as one, serving(root, "--no-tick", "--auth", "token") as other:
        browser, second = logged_in(one, text), logged_in(one, text)
        kept = dict(browser.cookies)
        for server in (one, other):
            assert httpx.get(f"{server.url}/v1/batches", cookies=kept).status_code == 200
        done = httpx.post(f"{other.url}/logout", cookies=kept, data={"csrf_token": csrf_of(browser)})
        assert done.status_code == 303
        for server in (one, other):
            is_problem(httpx.get(f"{server.url}/v1/batches", cookies=kept), 401)
        assert second.get("/v1/batches").status_code == 200, "another session of the same token"


def test_a_session_outlives_its_server_and_is_not_on_disk_as_it_is(root, logged_in):
    context(root)
    text = token(root, "me", "read")
    with serving(root, "--no-tick", "--auth", "token") as server:
        kept = dict(logged_in(server, text).cookies)
    (value,) = kept.values()
    folder = root / "runs/_system/sessions"
    assert not any(value in path.name + path.read_text() for path in folder.iterdir())
    with serving(root, "--no-tick", "--auth", "token") as server:
        assert httpx.get(f"{server.url}/v1/batches", cookies=kept).status_code == 200
        (path,) = folder.iterdir()
        path.write_text(path.read_text().replace('"expires_at":"2', '"expires_at":"1'))
        is_problem(httpx.get(f"{server.url}/v1/batches", cookies=kept), 401)
        logged_in(server, text)
        assert path not in folder.iterdir()


def listen(url: str, **how) -> tuple[threading.Thread, list[object]]:
    """Read a stream to its end in a thread; what is said of how it ended."""
    said: list[object] = []

    def read() -> None:
        try:
            with httpx.Client(timeout=60, **how) as client, client.stream("GET", f"{url}/v1/events") as answer:
                said.append(answer.status_code)
                for _ in answer.iter_raw():
                    pass
                said.append("whole")
        except httpx.HTTPError as error:  # not even ended
            said.append(repr(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_for(lambda: said, "the stream's beginning")
    return thread, said


@pytest.mark.parametrize("way", ["revoked", "logged out", "expired"])
def test_a_stream_ends_with_the_token_or_the_session_it_was_asked_for_by(root, logged_in, way):
    ctx = context(root)
    mine, others = token(root, "me", "operate"), token(root, "other", "read")
    with serving(root, "--no-tick", "--auth", "token") as server:
        browser = logged_in(server, mine)
        how = {"cookies": dict(browser.cookies)} if way == "logged out" else {"headers": bearer(mine)}
        stream, said = listen(server.url, **how)
        other, others_said = listen(server.url, headers=bearer(others))
        time.sleep(1.2)  # beyond what an answer takes that is not looked at
        assert said == [200]
        if way == "revoked":
            program(root, "token", "revoke", "me")
        elif way == "logged out":
            browser.post("/logout", data={"csrf_token": csrf_of(browser)})
        else:
            path = ctx.layout.tokens / "me.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": "2020-01-01T00:00:00Z"}))
        stream.join(timeout=20)
        assert said == [200, "whole"]
        assert other.is_alive()
        assert others_said == [200]
    other.join(timeout=60)


def test_tokens_expire_and_say_so(root):
    ctx = context(root)
    made = json.loads(program(root, "token", "create", "ci", "--expires", "30d", "--json").stdout)
    left = tokens.parse_time(made["expires_at"]) - time.time()
    assert 30 * 86_400 - 60 < left <= 30 * 86_400
    for text in ("0d", "30", "d", "-1d", "1y", "999999w"):
        wrong = program(root, "token", "create", "x", f"--expires={text}", check=False)
        assert (wrong.returncode, wrong.stderr) == (2, f"--expires {text}: is not a time span; write 12h, 30d or 8w\n")
    with serving(root, "--no-tick", "--auth", "token") as server:
        mine = bearer(made["token"])
        assert server.client.get("/v1/batches", headers=mine).status_code == 200
        path = ctx.layout.tokens / "ci.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": "2020-01-01T00:00:00Z"}))
        said = is_problem(server.client.get("/v1/batches", headers=mine), 401)["detail"]
        assert said.startswith("token ci has expired at 2020-01-01T00:00:00Z")
        refused = server.client.post("/login", data={"token": made["token"]}, headers={"Accept": "text/html"})
        assert "token ci has expired" in refused.text
    assert "expired 2020-01-01T00:00:00Z" in program(root, "token", "list").stdout


def test_a_token_with_scopes_is_for_those_parts_alone(root):
    context(root)
    made = program(root, "token", "create", "scrape", "--scope", "metrics", "--scope", "results", "--json")
    mine = bearer(json.loads(made.stdout)["token"])
    wrong = program(root, "token", "create", "x", "--scope", "metric", check=False)
    assert wrong.stderr == "there is no scope metric; did you mean metrics?\n"
    with serving(root, "--no-tick", "--auth", "token") as server:
        for path, status in (
            ("/metrics", 200),
            ("/v1/results", 200),
            ("/health", 503),
            ("/v1/batches", 403),
            ("/v1/queue", 403),
            ("/v1/events", 403),
            ("/", 403),
            ("/tasks", 403),
        ):
            assert server.client.get(path, headers=mine).status_code == status, path
        said = is_problem(server.client.get("/v1/queue", headers=mine), 403)["detail"]
        assert said == "token scrape is for metrics, results, not for queue"
        document = server.client.get("/openapi.json", headers=mine).json()
        parts = {scope_of(way.get("tags", [])) for ways in document["paths"].values() for way in ways.values()}
        assert parts | {"pages"} == set(tokens.SCOPES)


def test_the_cookie_goes_over_tls_alone_where_the_login_came_that_way(root):
    context(root)
    text = token(root, "me", "read")
    with serving(root, "--no-tick", "--auth", "token") as server:
        plain = server.client.post("/login", data={"token": text})
        assert "secure" not in plain.headers["set-cookie"].lower()
        proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.7"}
        behind = server.client.post("/login", data={"token": text}, headers=proxied)
        assert "; secure" in behind.headers["set-cookie"].lower()


def test_clients_behind_a_proxy_are_told_apart(root):
    context(root)
    with serving(root, "--no-tick", "--auth", "token") as server:

        def tried(client: str) -> int:
            headers = bearer("phs_wrong") | {"X-Forwarded-For": f"1.2.3.4, {client}"}
            return server.client.get("/v1/batches", headers=headers).status_code

        assert [tried("10.0.0.7") for _ in range(12)] == [401] * 10 + [429] * 2
        assert tried("10.0.0.8") == 401
    context(root, "[api]\nproxies = []\n")
    with serving(root, "--no-tick", "--auth", "token") as server:
        assert [tried(f"10.0.0.{n}") for n in range(12)] == [401] * 10 + [429] * 2
