"""Behind nginx, below a path of its own: pages, logins, streams, ranges; whether it takes the path off or leaves it on."""

import json
import os
import re
import shutil
import socket
import subprocess
from typing import NamedTuple

import httpx
import pytest
from api_checks import is_problem
from servers import kept_port, serving, token
from stores import attempt_dirs, context, idle, job, program, put, shell, table, wait_for
from test_server import bearer

pytestmark = pytest.mark.nginx

CONFIG = """
daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/pid; {user}
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; proxy_buffering off;
  server {{ listen 127.0.0.1:{left_on}; location /evals/runs/ {{ proxy_pass {url}; proxy_set_header X-Forwarded-Proto $scheme; {more} }} }}
  server {{ listen 127.0.0.1:{taken_off}; location /evals/runs/ {{ proxy_pass {url}/; proxy_set_header X-Forwarded-Proto https; {more} }} }}
}}
"""
PREFIX = "/evals/runs"


class Behind(NamedTuple):
    """A server behind nginx."""

    root: str
    batch_id: str
    run_id: str
    direct: str
    tokens: dict[str, str]
    urls: dict[str, str]


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    root, folder = tmp_path_factory.mktemp("behind"), tmp_path_factory.mktemp("nginx")
    ctx = context(root, f'[api]\nhosts = ["runs.example.org"]\nroot_path = "{PREFIX}"\n')
    batch_id = put(ctx, table(job("j", shell("s", "echo one; echo two"))))
    program(root, "tick", "--until-idle")
    wait_for(lambda: idle(ctx), "the end")
    (attempt,) = attempt_dirs(ctx, batch_id)
    tokens = {role: token(root, role, role) for role in ("read", "operate")}
    with serving(root, "--no-tick") as server, kept_port() as one, kept_port() as other:
        config = folder / "nginx.conf"
        user = "user root;" if not os.geteuid() else ""
        more = "proxy_http_version 1.1;"
        config.write_text(
            CONFIG.format(folder=folder, user=user, url=server.url, left_on=one, taken_off=other, more=more)
        )
        with open(folder / "said", "w") as said:
            process = subprocess.Popen(
                [
                    shutil.which("nginx") or "/usr/sbin/nginx",
                    "-p",
                    str(folder),
                    "-e",
                    f"{folder}/error.log",
                    "-c",
                    str(config),
                ],
                stderr=said,
            )
        try:
            for port in (one, other):
                wait_for(lambda port=port: process.poll() is None and _answers(port), "nginx", 20)
            urls = {"left on": f"http://127.0.0.1:{one}", "taken off": f"http://127.0.0.1:{other}"}
            yield Behind(root, batch_id, attempt.name.partition("_")[2], server.url, tokens, urls)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _answers(port: str) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", int(port))) == 0


@pytest.fixture(params=["left on", "taken off"])
def browser(behind, request):
    """A browser that has logged in, by way of where it was sent."""
    page = {"Accept": "text/html"}
    with httpx.Client(base_url=behind.urls[request.param], timeout=60, headers=page) as client:
        sent = client.get(f"{PREFIX}/batches/{behind.batch_id}")
        assert (sent.status_code, sent.headers["location"]) == (303, f"{PREFIX}/login?next=/batches/{behind.batch_id}")
        assert client.get(sent.headers["location"]).status_code == 200
        form = {"token": behind.tokens["operate"], "next": f"/batches/{behind.batch_id}"}
        done = client.post(f"{PREFIX}/login", data=form)
        assert (done.status_code, done.headers["location"]) == (303, f"{PREFIX}/batches/{behind.batch_id}")
        cookie = done.headers["set-cookie"].lower()
        assert f"path={PREFIX}" in cookie
        assert ("; secure" in cookie) == (request.param == "taken off")
        if "; secure" in cookie:  # httpx keeps it for TLS alone
            client.headers["Cookie"] = done.headers["set-cookie"].split(";")[0]
        yield client


def test_every_link_of_every_page_leads_below_the_prefix(behind, browser):
    seen, left = set(), [f"{PREFIX}/"]
    while left:
        place = left.pop()
        seen.add(place)
        answer = browser.get(place)
        assert answer.status_code == 200, place
        if "text/html" not in answer.headers["content-type"]:
            continue
        found = re.findall(r'(href|src|action|data-events|data-address)="([^"#?]*)', answer.text)
        for attribute, target in found:
            if target:
                assert target.startswith(f"{PREFIX}/"), f"{place}: {attribute}={target}"
            if target and attribute in ("href", "src") and target not in seen and "/zip" not in target:
                left.append(target)
    assert any("/attempts/" in place for place in seen)
    assert any("/static/" in place for place in seen)
    assert len(seen) > 10


def test_a_change_from_a_page_goes_back_to_the_page(behind, browser):
    page = browser.get(f"{PREFIX}/batches/{behind.batch_id}").text
    csrf = re.search(r'name="csrf_token" value="([0-9a-f]+)"', page)[1]
    back = re.search(r'name="back" value="([^"]+)"', page)[1]
    form = {"csrf_token": csrf, "target": behind.batch_id, "back": back, "reason": "r"}
    for word in ("pause", "resume"):
        done = browser.post(f"{PREFIX}/operate/{word}", data=form)
        assert done.status_code == 303
        assert done.headers["location"].startswith(f"{PREFIX}/batches/{behind.batch_id}")
    done = browser.post(f"{PREFIX}/logout", data={"csrf_token": csrf})
    assert done.headers["location"] == f"{PREFIX}/login"
    assert browser.get(f"{PREFIX}/").status_code == 303


@pytest.mark.parametrize("way", ["left on", "taken off"])
def test_streams_ranges_heads_and_the_document_come_through(behind, way):
    file = f"{PREFIX}/v1/attempts/{behind.run_id}/files/stdout.log"
    with httpx.Client(base_url=behind.urls[way], headers=bearer(behind.tokens["read"]), timeout=60) as client:
        assert client.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]
        part = client.get(file, headers={"Range": "bytes=4-"})
        assert (part.status_code, part.text, part.headers["content-range"]) == (206, "two\n", "bytes 4-7/8")
        head = client.head(file, headers={"Range": "bytes=4-"})
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "8", b"")
        tag = head.headers["etag"]
        assert client.get(file, headers={"If-Match": tag}).status_code == 200
        is_problem(client.get(file, headers={"If-Match": '"other"'}), 412)
        with client.stream("GET", f"{PREFIX}/v1/events?batch={behind.batch_id}&from=start") as events:
            assert events.status_code == 200
            first = next(iter(events.iter_text()))
            assert first
        logs = client.get(f"{PREFIX}/v1/attempts/{behind.run_id}/logs/stream").text
        assert "event: end" in logs


def test_nobody_is_let_in_for_coming_from_this_host(behind):
    """nginx runs as the server's own user here."""
    for url in behind.urls.values():
        is_problem(httpx.get(f"{url}{PREFIX}/v1/batches"), 401)
        table_ = json.loads(table(job("evil", shell("s", "true"))))
        is_problem(httpx.post(f"{url}{PREFIX}/v1/batches", json=table_), 401)
    is_problem(httpx.get(f"{behind.direct}/v1/batches"), 401)
