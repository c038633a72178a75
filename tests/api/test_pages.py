"""The pages as they come over the wire: what they say, to whom, and that nothing of it runs."""

import hashlib
import html
import re

import pytest
from harness import TEMP, make_task
from servers import serving, token
from stores import command, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.actions import pause_resume
from parallelhassnes.api.pages import assets
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.layout import SNAPSHOT

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server over two batches, one of them with names and logs that are HTML."""
    root = tmp_path_factory.mktemp("pages")
    ctx = context(root)
    script = f"echo '{EVIL}'; printf '\\033[31mred\\033[0m\\n'; echo '\"><img src=x onerror=alert(1)>' >&2; exit 4"
    batch_id = put(
        ctx,
        table(
            job("bad", shell("s", script, retry={"max_attempts": 1}), command("after", "true", depends_on=["s"])),
            job("good", command("s", "true")),
            experiment=EVIL,
            batch_goal_summary=EVIL,
            labels={"a": EVIL},
        ),
    )
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    with serving(root, "--no-tick") as server:
        yield ctx, batch_id, server.client


def attempt_of(client, batch_id: str, step: str) -> str:
    """The address of the newest attempt of a step."""
    return str(client.get(f"/attempts/{batch_id}/{step}", follow_redirects=True).url.path)


def test_every_page_answers_and_holds_no_markup_of_others(site):
    _, batch_id, client = site
    attempt = attempt_of(client, batch_id, "bad/s")
    addresses = ["/", f"/batches/{batch_id}", f"/batches/{batch_id}/steps", "/submit", "/operate", "/login", attempt]
    addresses += [f"{attempt}?part={part}" for part in ("report", "trajectory", "analysis", "files", "ledger")]
    addresses += [f"{attempt}?file=stdout.log", f"{attempt}/search?file=stdout.log&q=script", f"/?q={EVIL}"]
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["content-type"].startswith("text/html")
        assert EVIL not in answer.text, address
        assert "<img" not in answer.text, address
        assert not re.search(r"<[^>]+\s(on\w+|style)=", answer.text), address
        assert not re.search(r"(src|href)=\"(https?:)?//", answer.text), address
    log = client.get(f"{attempt}?file=stdout.log").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in log
    assert '<span class="t-fg1">red</span>' in log


def test_a_page_that_is_the_same_is_not_sent_again(site):
    _, batch_id, client = site
    for address in ("/", f"/batches/{batch_id}", "/operate"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), address


def test_ids_lead_to_their_pages(site):
    _, batch_id, client = site
    for address, place in (
        ("/batches/latest", f"/batches/{batch_id}"),
        (f"/attempts/{batch_id}", f"/batches/{batch_id}"),
        (f"/attempts/{batch_id}/bad", f"/batches/{batch_id}/steps?job=bad"),
        (f"/attempts/{batch_id}/bad/s/1", attempt_of(client, batch_id, "bad/s")),
    ):
        assert client.get(address).headers["location"] == place
    unknown = client.get("/batches/nightly")
    assert unknown.status_code == 404
    assert "has no batch nightly" in unknown.text
    assert client.get(f"/attempts/{batch_id}/bad/after").status_code == 404


def test_windows_of_a_log_say_where_they_are(site):
    _, batch_id, client = site
    address = f"{attempt_of(client, batch_id, 'bad/s')}/lines?file=stdout.log"
    whole = client.get(address)
    assert (whole.headers["x-start"], whole.headers["x-ended"], whole.headers["x-line"]) == ("0", "1", "3")
    assert whole.headers["x-end"] == whole.headers["x-size"]
    later = client.get(f"{address}&at={len(EVIL) + 1}&number=2")
    assert 'id="L2"' in later.text
    assert 'id="L1"' not in later.text
    assert client.get(f"{address[:-10]}../../../job.json").status_code == 404


def test_an_analysis_leads_to_the_lines_of_its_quotes(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    sweep = {"path": str(make_task(tmp_path)), "agents": [{"name": "nop"}], "environment": TEMP}
    ctx = context(root)
    batch_id = put(ctx, table(sweep=sweep, analysis="rules"))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch", 90)
    with serving(root, "--no-tick") as server:
        steps = server.client.get(f"/v1/batches/{batch_id}/steps").json()["items"]
        for step in (found["step"] for found in steps if found["kind"] in ("trial", "analysis")):
            attempt = attempt_of(server.client, batch_id, step)
            shown = server.client.get(f"{attempt}?part=analysis").text
            assert "by rules" in shown
            links = re.findall(r'href="(/attempts/[^"]*file=[^"]*)"', shown)
            assert links
            for address in links:
                quoted = server.client.get(html.unescape(address).partition("#")[0])
                assert (quoted.status_code, 'class="ln' in quoted.text) == (200, True)


def test_a_server_that_has_started_has_had_its_first_look(root):
    ctx = context(root)
    put(ctx, table(job("j", command("s", "true"))))
    with serving(root, "--no-tick"):
        wait_for((ctx.layout.system / SNAPSHOT).exists, "the look that nobody asked for")


def test_a_long_matrix_comes_in_pages_trouble_first(root):
    ctx = context(root)
    jobs = [job(f"j{n:03}", command("s", "true", queue_key="later")) for n in range(100)]
    fails = shell("s", "exit 1", retry={"max_attempts": 1})
    batch_id = put(ctx, table(*jobs, job("z1", fails), job("z2", fails)))
    pause_resume.pause(ctx, "later")
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    with serving(root, "--no-tick") as server:

        def rows(query: str) -> list[str]:
            shown = server.client.get(f"/batches/{batch_id}{query}").text
            return re.findall(r'<tr data-row id="j-(\w+)">', shown)

        assert rows("")[:3] == ["z1", "z2", "j000"]
        assert (len(rows("")), rows("?number=2"), rows("?number=9")) == (100, ["j098", "j099"], ["j098", "j099"])
        assert rows("?show=trouble") == ["z1", "z2"]
        assert rows("?q=J01") == [f"j01{n}" for n in range(10)]


def test_assets_are_ours_or_recorded():
    recorded = (assets.files("parallelhassnes.api.pages") / "static" / "VENDORED.md").read_text()
    for name, found in assets.every().items():
        if ".min." in name:
            assert f"`{name}`" in recorded
            assert hashlib.sha256(found.content).hexdigest() in recorded


def test_who_may_only_read_is_offered_nothing_else(root):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", command("s", "true"))))
    reader = token(root, "eve", "read")
    with serving(root, "--auth", "token", "--no-tick", token=reader) as server:
        for address in ("/", "/operate", f"/batches/{batch_id}"):
            assert '<form method="post"' not in server.client.get(address).text
        refused = server.client.post("/operate/cancel", data={"target": batch_id})
        assert refused.status_code == 403
        server.client.headers.pop("authorization")
        asked = server.client.get("/", headers={"Accept": "text/html"})
        assert asked.headers["location"].startswith("/login?next=")
