"""The routes over a store in which something ran."""

import io
import os
import zipfile

import pytest
from api_checks import is_problem
from harness import TEMP, make_task
from servers import serving, token
from stores import CHECKOUT, SUPPORT, context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.refs import resolve
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server over a batch whose attempts have ended, with who may do everything."""
    root = tmp_path_factory.mktemp("site")
    ctx = context(root)
    batch_id = put(
        ctx,
        table(
            job("good", shell("s", "printf 'one\\ntwo\\n'; ln -s /etc/passwd leak.log; mkfifo pipe")),
            job("bad", shell("s", "exit 3", retry={"max_attempts": 1}), shell("t", "true", depends_on=["s"])),
            experiment="nightly",
        ),
    )
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    text = token(root, "ops", "operate")
    # No tick: each writes anew when it was that this host was well, which some of the answers tell.
    with serving(root, "--no-tick", "--auth", "token", token=text) as server:
        yield ctx, batch_id, server.client


def run_id(ctx, batch_id: str, step: str) -> str:
    return resolve(ctx.layout, f"{batch_id}/{step}/1").attempt.partition("_")[2]


def test_a_table_is_submitted_once(root):
    context(root)
    data = table(job("j", shell("s", "true")))
    with serving(root) as server:
        first = server.client.post("/v1/batches", content=data)
        assert (first.status_code, first.json()["accepted_job_ids"]) == (201, ["j"])
        again = server.client.post("/v1/batches", content=data)
        assert (again.json()["duplicate"], again.json()["batch_id"]) == (True, first.json()["batch_id"])
        other = server.client.post("/v1/batches?again=true", content=data)
        assert other.json()["batch_id"] != first.json()["batch_id"]
        state = lambda: server.client.get(f"/v1/batches/{first.json()['batch_id']}").json()["state"]  # noqa: E731
        wait_for(lambda: state() == "done", "the end of the batch, by the server's own ticks")


def test_every_format_that_submit_takes_is_taken(root):
    context(root)
    with serving(root, "--no-tick") as server:
        for name in ("table.json", "sweep.yaml", "harbor_job.yaml", "launch_table.example.json"):
            text = (CHECKOUT / "examples" / name).read_text().replace("examples/", f"{CHECKOUT}/examples/")
            kind = "application/yaml" if name.endswith("yaml") else "application/json"
            done = server.client.post("/v1/validate", content=text, headers={"Content-Type": kind})
            assert done.status_code == 200, done.text
            assert done.json()["steps"] > 0


def test_every_mistake_of_a_table_comes_at_once(site):
    _, _, client = site
    bad = {"spec_version": "2.0", "jobs": [{"steps": [{"kind": "comand", "command": 3}]}]}
    document = is_problem(client.post("/v1/batches", json=bad), 422)
    assert len(document["errors"]) >= 2
    assert any(e["pointer"] == "/jobs/0/steps/0/kind" for e in document["errors"])


def test_batches_are_listed_filtered_and_paged(root):
    ctx = context(root)
    ids = [put(ctx, table(job("j", shell("s", "true")), experiment=f"e{n}")) for n in range(5)]
    with serving(root, "--no-tick") as server:
        seen, cursor = [], None
        while True:
            more = {"cursor": cursor} if cursor else {}
            shown = server.client.get("/v1/batches", params={"limit": 2, "sort": "created", **more}).json()
            assert shown["total"] == 5
            seen += [line["batch_id"] for line in shown["items"]]
            cursor = shown["next"]
            if cursor is None:
                break
        assert seen == sorted(ids, reverse=True)
        one = server.client.get("/v1/batches", params={"experiment": "e3"}).json()
        assert [line["batch_id"] for line in one["items"]] == [ids[3]]
        assert server.client.get("/v1/batches", params={"state": "done"}).json()["total"] == 0
        is_problem(server.client.get("/v1/batches?cursor=%21%21"), 400)


def test_what_is_polled_has_a_tag(site):
    ctx, batch_id, client = site
    found = run_id(ctx, batch_id, "good/s")
    for path in (
        "/v1/batches",
        "/v1/scoreboards/system",
        "/v1/batches/latest",
        "/v1/batches/latest/scoreboard",
        "/v1/batches/latest/jobs",
        "/v1/batches/latest/steps",
        "/v1/batches/latest/jobs/good",
        "/v1/batches/latest/jobs/good/current",
        "/v1/batches/latest/jobs/good/steps/s",
        "/v1/batches/latest/budget",
        f"/v1/attempts/{found}",
        f"/v1/attempts/{found}/meta",
        f"/v1/attempts/{found}/state",
        f"/v1/attempts/{found}/report",
        f"/v1/attempts/{found}/ledger",
        f"/v1/attempts/{found}/files",
        f"/v1/attempts/{found}/files/stdout.log",
        f"/v1/attempts/{found}/logs",
        "/v1/queue",
        "/v1/limits",
        "/v1/runners",
    ):
        first = client.get(path)
        assert first.status_code == 200, f"{path}: {first.text}"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path


def test_files_come_whole_in_ranges_and_never_through_links(site):
    ctx, batch_id, client = site
    files = f"/v1/attempts/{run_id(ctx, batch_id, 'good/s')}/files"
    assert client.get(f"{files}/stdout.log").content == b"one\ntwo\n"
    for said, status, content, place in (
        ("bytes=0-2", 206, b"one", "bytes 0-2/8"),
        ("bytes=4-", 206, b"two\n", "bytes 4-7/8"),
        ("bytes=-3", 206, b"wo\n", "bytes 5-7/8"),
        ("bytes=6-900", 206, b"o\n", "bytes 6-7/8"),
        (f"Bytes=6-{'9' * 40}", 206, b"o\n", "bytes 6-7/8"),
        ("bytes=5-2", 200, b"one\ntwo\n", None),  # invalid, so left alone (RFC 9110, 14.1.1)
        ("bytes=-900", 206, b"one\ntwo\n", "bytes 0-7/8"),
        ("lines=1-2", 200, b"one\ntwo\n", None),
        ("bytes=0-0,2-2", 200, b"one\ntwo\n", None),
    ):
        part = client.get(f"{files}/stdout.log", headers={"Range": said})
        assert (part.status_code, part.content, part.headers.get("content-range")) == (status, content, place)
    for said in ("bytes=8-", "bytes=-0"):
        refused = client.get(f"{files}/stdout.log", headers={"Range": said})
        is_problem(refused, 416)
        assert refused.headers["content-range"] == "bytes */8"
    tag = client.get(f"{files}/stdout.log").headers["etag"]
    for headers, status in (
        ({"If-Match": f'"x", {tag}'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": '"x"', "If-None-Match": tag}, 412),
        ({"If-None-Match": tag, "Range": "bytes=8-"}, 304),
        ({"If-Range": tag, "Range": "bytes=0-0"}, 206),
        ({"If-Range": f"W/{tag}", "Range": "bytes=0-0"}, 200),
    ):
        assert client.get(f"{files}/stdout.log", headers=headers).status_code == status, headers
    folder = resolve(ctx.layout, f"{batch_id}/good/s/1").folder(ctx.layout)
    links = [p.relative_to(folder).as_posix() for p in folder.rglob("leak.log")]
    assert links
    for path in (*links, "pipe", "nothing", "..%2f..%2fjob.json", "%2fetc%2fpasswd", "stdout.log/x", "a%00b"):
        is_problem(client.get(f"{files}/{path}"), 404)
    html = client.get(f"{files}/stdout.log").headers
    assert html["content-type"].startswith("text/plain")
    assert "sandbox" in html["content-security-policy"]


def test_logs_leave_out_what_links_lead_to(site):
    ctx, batch_id, client = site
    logs = f"/v1/attempts/{run_id(ctx, batch_id, 'good/s')}/logs"
    assert client.get(logs).json()["logs"] == {"stdout.log": "one\ntwo\n"}
    short = client.get(logs, params={"file": "stdout.log", "tail_kb": 1}).json()
    assert (short["logs"], short["cut"]) == ({"stdout.log": "one\ntwo\n"}, [])
    is_problem(client.get(logs, params={"file": "leak.log"}), 404)
    assert "root:" not in client.get(logs).text


def test_an_attempt_as_a_zip(site):
    ctx, batch_id, client = site
    found = resolve(ctx.layout, f"{batch_id}/good/s/1")
    answer = client.get(f"/v1/attempts/{found.attempt}/zip")
    assert answer.headers["content-disposition"] == f'attachment; filename="{found.attempt}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as unpacked:
        assert unpacked.testzip() is None
        assert unpacked.read(f"{found.attempt}/stdout.log") == b"one\ntwo\n"
        inside = {name.partition("/")[2] for name in unpacked.namelist()}
    there = {
        p.relative_to(found.folder(ctx.layout)).as_posix()
        for p in found.folder(ctx.layout).rglob("*")
        if p.is_file() and not p.is_symlink()
    }
    assert inside == there


def test_unknown_ids_are_404_with_the_nearest_one(site):
    _, batch_id, client = site
    near = is_problem(client.get(f"/v1/batches/{batch_id}/jobs/goood"), 404)
    assert near["fix"] == "did you mean good?"
    for path in (
        "batches/x",
        "batches/latest/jobs/x/current",
        "batches/latest/jobs/bad/steps/x",
        "attempts/x",
        "attempts/latest/meta",
    ):
        is_problem(client.get(f"/v1/{path}"), 404)
    is_problem(client.get("/v1/batches/latest/jobs/good/verdict"), 404)
    is_problem(client.get("/v1/batches/..%2f.."), 404)


def test_every_change_stands_in_the_ledger_under_the_tokens_name(root):
    ctx = context(root)
    put(ctx, table(job("j", shell("s", "sleep 100"))))
    text = token(root, "anna", "operate")
    with serving(root, "--no-tick", "--auth", "token", token=text) as server:
        client = server.client
        batch_id = client.post("/v1/batches", content=table(job("k", shell("s", "true")))).json()["batch_id"]
        for method, path in (
            ("post", "batches/latest/pause?reason=lunch"),
            ("post", "batches/latest/resume"),
            ("post", "batches/latest/close"),
            ("post", "batches/latest/reopen"),
            ("put", "batches/latest/priority?priority=5"),
            ("post", "batches/latest/jobs/k/steps/s/cancel"),
            ("post", "batches/latest/jobs/k/retry"),
            ("post", "batches/latest/cancel"),
            ("post", "batches/latest/retry?failed=true"),
        ):
            done = client.request(method, f"/v1/{path}")
            assert done.status_code == 200, f"{path}: {done.text}"
        assert client.put("/v1/batches/latest/budget", json={"usd": 3}).json()["usd_limit"] == 3
        assert client.put("/v1/limits", json={"key": "command", "limit": 2}).json()["changed"]
        assert client.post("/v1/queue/pause", params={"key": "command"}).json()["changed"]
        assert client.post("/v1/runners/local/drain").json()["changed"]
    lines = _events(ctx.layout.batch(batch_id))
    events = [line["event"] for line in lines]
    assert events == [
        "submitted",
        "paused",
        "resumed",
        "closed",
        "reopened",
        "priority",
        "canceled",
        "retry",
        "canceled",
        "retry",
        "budget",
    ]
    assert {line["by"] for line in lines} == {"token:anna"}
    assert lines[1]["reason"] == "lunch"
    system = _events(ctx.layout.system)
    assert {line["by"] for line in system if line["event"] in ("key_limit", "key_paused", "drained")} == {"token:anna"}
    assert "k" in str(lines)


def test_a_person_decides_about_steps_jobs_and_batches(root):
    ctx = context(root)
    gated = shell("s", "true", gate="human")
    batch_id = put(ctx, table(*(job(name, gated) for name in ("a", "b", "c", "d"))))
    ops, reader = token(root, "ops", "operate"), token(root, "sub", "submit")
    with serving(root, "--no-tick", "--auth", "token", token=ops) as server:
        client, place = server.client, f"/v1/batches/{batch_id}"
        board = client.get(f"{place}/scoreboard").json()
        assert [line["step"] for line in board["gates"]] == ["a/s", "b/s", "c/s", "d/s"]
        assert [group["count"] for group in board["blocked"]] == [4]
        for path in ("jobs/a/steps/s/approve", "jobs/a/approve", "approve", "reject?reason=no"):
            refused = client.post(f"{place}/{path}", headers={"Authorization": f"Bearer {reader}"})
            is_problem(refused, 403)
        is_problem(client.post(f"{place}/jobs/a/reject"), 422)
        is_problem(client.post(f"{place}/reject?reason=%20"), 422)
        assert client.post(f"{place}/jobs/a/steps/s/approve").json()["steps"] == ["a/s"]
        assert client.post(f"{place}/jobs/b/approve").json()["steps"] == ["b/s"]
        assert client.post(f"{place}/jobs/c/reject?reason=late").json()["steps"] == ["c/s"]
        assert client.post(f"{place}/reject?reason=late").json()["steps"] == ["d/s"]
        assert client.get(f"{place}/scoreboard").json()["gates"] == []
    assert {
        line["by"] for line in _events(ctx.layout.batch(batch_id)) if line["event"] in ("approved", "rejected")
    } == {"token:ops"}


def test_budgets_over_all_batches_are_shown_and_raised(root):
    ctx = context(root, "[budgets.keys.command]\nusd = 5\n")
    put(ctx, table(job("j", shell("s", "true")), experiment="e"))
    ops, reader = token(root, "ops", "operate"), token(root, "sub", "submit")
    with serving(root, "--no-tick", "--auth", "token", token=ops) as server:
        client, wanted = server.client, {"scope": "key", "name": "command", "usd": 7.5}
        is_problem(client.put("/v1/budgets", json=wanted, headers={"Authorization": f"Bearer {reader}"}), 403)
        is_problem(client.put("/v1/budgets", json={**wanted, "name": "comand"}), 404)
        is_problem(client.put("/v1/budgets", json={**wanted, "usd": -1}), 422)
        is_problem(client.put("/v1/budgets", json={**wanted, "dollars": 1}), 422)
        line = client.put("/v1/budgets", json=wanted).json()
        assert (line["usd_limit"], line["tokens_limit"], line["changed"]) == (7.5, None, True)
        client.put("/v1/budgets", json={"scope": "experiment", "name": "e", "tokens": 9})
        shown = client.get("/v1/budgets")
        assert [(b["scope"], b["name"], b["usd_limit"], b["tokens_limit"]) for b in shown.json()["items"]] == [
            ("key", "command", 7.5, None),
            ("experiment", "e", None, 9),
        ]
        assert client.get("/v1/budgets", headers={"If-None-Match": shown.headers["etag"]}).status_code == 304
    assert {line["by"] for line in _events(ctx.layout.system) if line["event"] == "budget"} == {"token:ops"}


def _events(folder) -> list[dict]:
    return [line for _, line in ledger.read(folder)]


def test_a_cancel_ends_a_live_attempt(root):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", shell("s", "echo begun; sleep 100"))))
    with serving(root) as server:

        def log():
            return server.client.get("/v1/batches/latest/jobs/j/steps/s").json()["attempts"]

        wait_for(lambda: log() and log()[0]["status"] == "running", "the attempt")
        found = run_id(ctx, batch_id, "j/s")
        assert server.client.post(f"/v1/attempts/{found}/cancel").json()["attempts"]
        wait_for(lambda: server.client.get(f"/v1/attempts/{found}/state").json()["status"] == "canceled", "its end")
        wait_for(lambda: idle(ctx), "the end")


def test_a_look_changes_nothing(site):
    ctx, _, client = site
    before = _snapshot(ctx)
    for path in (
        "/v1/batches",
        "/v1/batches/latest/scoreboard",
        "/v1/batches/latest/steps",
        "/v1/queue",
        "/v1/batches/latest/explain",
    ):
        assert client.get(path).status_code == 200
    assert _snapshot(ctx) == before


def _snapshot(ctx) -> dict[str, int]:
    """Every file of the batches with its time of change."""
    return {
        str(path): os.lstat(path).st_mtime_ns
        for batch_id in ctx.layout.batch_ids()
        for path in ctx.layout.batch(batch_id).rglob("*")
        if path.name not in batches.DERIVED
    }


def test_the_openapi_document_is_complete(site):
    _, _, client = site
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), path
            assert operation.get("description"), f"{method} {path} says nothing"
            for status, answer in operation["responses"].items():
                if status[0] in "45":
                    assert answer == {"$ref": f"#/components/responses/Problem{status}"}, path
            if path != "/health":
                assert operation.get("security"), f"{method} {path}"
    for answer in document["components"]["responses"].values():
        assert list(answer["content"]) == ["application/problem+json"]


def test_metrics_are_prometheus_text(site):
    _, _, client = site
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'parallelhassnes_steps{state="succeeded"} 1.0',
        'parallelhassnes_steps{state="failed"} 1.0',
        'parallelhassnes_batches{state="attention"} 1.0',
        "parallelhassnes_live_attempts 0.0",
        'parallelhassnes_runner_draining{runner="local"} 0.0',
    ):
        assert line in lines, answer.text
    assert "# TYPE parallelhassnes_steps gauge" in lines


def test_results_of_trials_are_grouped_compared_and_their_failures_too(root, tmp_path):
    ctx = context(root)
    task = make_task(tmp_path, "t")
    put(
        ctx,
        table(
            job(
                "j",
                *[
                    {
                        "step_id": name,
                        "kind": "trial",
                        "task": {"path": str(task)},
                        "agent": {"name": name},
                        "environment": TEMP,
                    }
                    for name in ("oracle", "nop")
                ],
                shell("f", "exit 3", retry={"max_attempts": 1}),
            ),
            experiment="e",
        ),
    )
    paths = SUPPORT
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never", env=paths)
    with serving(root, "--no-tick") as server:
        client = server.client
        groups = client.get("/v1/results", params={"batch": "latest"}).json()["groups"]
        assert len(groups) == 2
        assert client.get("/v1/results", params={"experiment": "e", "by": "task"}).json()["by"] == ["task"]
        assert len(client.get("/v1/trials").json()["trials"]) == 2
        assert len(client.get("/v1/batches/latest/analyses").json()["trials"]) == 2
        pair = client.get("/v1/compare", params={"a": "latest@oracle", "b": "latest@nop"})
        assert pair.status_code == 200, pair.text
        assert client.get("/v1/errors").json()["attempts"] == 1
        is_problem(client.get("/v1/results", params={"batch": "nope"}), 404)
        is_problem(client.get("/v1/results", params={"by": "colour"}), 400)
        is_problem(client.get("/v1/compare", params={"a": "latest@oracle", "b": "x"}), 404)
        known = client.get("/v1/results", headers={"If-None-Match": client.get("/v1/results").headers["etag"]})
        assert known.status_code == 304
