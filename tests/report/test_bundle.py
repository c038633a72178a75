"""A bundle: whole without the store and without network, of the trials that were chosen, safe with any text."""

import base64
import html
import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
import scored
import stores
from browsers import accessibility_problems, page, running
from harness import TEMP, make_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import serving
from stores import program

from parallelhassnes.report import page as report_page
from parallelhassnes.report import transcripts, write
from parallelhassnes.report.gather import gather
from parallelhassnes.results import collect
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps.trial_data.trial_files import TrialFiles
from parallelhassnes.store import batches

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two batches, one of whose trials has left text of the worst kind."""
    root = tmp_path_factory.mktemp("bundled") / "root"
    root.mkdir()
    made = scored.make(root)
    row = next(row for row in rows_of(made) if row.agent == "ScriptedAgent" and not row.facts.passed)
    turn = {"source": EVIL, "message": f"{EVIL}\x1b[31mred\x1b[0m", "reasoning_content": EVIL}
    turn |= {"tool_calls": [{"function_name": EVIL, "arguments": {"command": EVIL}}]}
    turn |= {"observation": {"results": [{"content": EVIL}, None, 3]}, "metrics": []}
    turn["observation"]["results"].append({"content": [{"type": "image", "source": {"path": "images/1.png"}}]})
    put_in(root / row.attempt, "trial/agent/trajectory.json", json.dumps({"agent": {"name": EVIL}, "steps": [turn, 7]}))
    put_in(root / row.attempt, "trial/agent/images/1.png", "")
    (root / row.attempt / "trial/agent/images/1.png").write_bytes(PNG)
    put_in(root / row.attempt, "trial/exception.txt", EVIL + "x" * (100 << 10) + "the end")
    return made


def put_in(attempt: Path, name: str, text: str) -> None:
    path = attempt / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    path.unlink(missing_ok=True)
    path.write_text(text)


def rows_of(made: scored.Scored) -> list:
    return collect.read(made.ctx.layout, collect.choose(made.ctx.layout, experiment="nightly"))


def links_of(file: Path) -> list[str]:
    return [unquote(link) for link in re.findall(r'<a href="([^"]*)"', file.read_text())]


@pytest.mark.parametrize("which", transcripts.WHICH)
def test_every_link_leads_to_something_in_the_bundle(store, tmp_path, which):
    out = tmp_path / "b"
    chosen = collect.choose(store.ctx.layout, experiment="nightly")
    done = write.bundle(store.ctx.layout, chosen, out, which)
    rows = [row for row in rows_of(store) if which != "failed" or not row.facts.passed]
    if which == "sample":  # of six that passed by oracle
        rows = rows[1:]
    assert done.transcripts == len(list((out / "trials").iterdir())) == len(rows)
    assert json.loads((out / "bundle.json").read_text())["trials"] == which
    for file in (out / "index.html", *(out / "trials").iterdir()):
        text = file.read_text()
        assert "<script" not in text
        assert not re.search(r"<[^>]+\son\w+=", text)
        assert "\x1b" not in text
        for link in links_of(file):
            place, _, anchor = link.partition("#")
            target = (file.parent / place).resolve() if place else file
            assert target.is_relative_to(out), link
            assert target.is_file(), link
            assert not anchor or f'id="{anchor}"' in target.read_text(), link
    whole = "".join(file.read_text() for file in (out / "trials").iterdir())
    assert "&lt;script&gt;alert(1)" in whole
    assert "the end" in whole
    assert str(store.ctx.layout.root) not in whole


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([EVIL, "", "agent", "\ud800", "\x1b[1m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "tool_calls", "observation", "results", "metrics", "x"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(ODD, max_size=3) | ODD, agent=ODD, summary=ODD)
def test_whatever_stands_in_a_trajectory_and_a_report_it_is_a_page(store, tmp_path, steps, agent, summary):
    layout = store.ctx.layout
    row = rows_of(store)[-1]
    copy = layout.root / "copied" / row.attempt.removeprefix("runs/")
    put_in(copy, "trial/agent/trajectory.json", json.dumps({"agent": agent, "steps": steps}))
    put_in(copy, "final.json", json.dumps({"summary": summary}))
    trial = TrialFiles(copy, batches.read_job(layout.job(row.batch_id, row.job_id)).step(row.facts.step_id))
    text = report_page.transcript(transcripts.of_files(1, row, trial), EVIL)
    assert "<script" not in text
    assert "<img" not in text
    assert "\x1b" not in text


def test_pictures_stand_in_the_page_as_far_as_the_bundle_has_room(store):
    layout = store.ctx.layout
    row = rows_of(store)[-1]
    copy = layout.root / "drawn" / row.attempt.removeprefix("runs/")
    parts = [
        {"type": "image", "source": {"path": name}} for name in ("images/a.png", "images/b.png", "images/evil.png")
    ]
    steps = [{"source": "agent", "observation": {"results": [{"content": parts}]}}]
    put_in(copy, "trial/agent/trajectory.json", json.dumps({"steps": steps}))
    for name in ("a", "b", "evil"):
        put_in(copy, f"trial/agent/images/{name}.png", EVIL)
        if name != "evil":
            (copy / f"trial/agent/images/{name}.png").write_bytes(PNG)
    trial = TrialFiles(copy, batches.read_job(layout.job(row.batch_id, row.job_id)).step(row.facts.step_id))
    room = transcripts.PictureRoom(len(PNG) + 1)
    text = report_page.transcript(transcripts.of_files(1, row, trial, room), "t")
    assert re.findall(r'<img src="([^"]*)"', text) == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    assert "images/b.png is left out: a bundle holds 50.0 MB of pictures" in text
    assert "[image images/evil.png: is no PNG" in text
    assert "alert" not in text


def test_what_is_not_sealed_has_not_been_looked_through_and_stays_where_it_is(store):
    layout, rows = store.ctx.layout, rows_of(store)
    live = replace(rows[0], facts=replace(rows[0].facts, attempt=f"{rows[0].facts.attempt}-not-there"))
    none = replace(rows[1], facts=replace(rows[1].facts, attempt=None))
    assert transcripts.chosen(layout, [live, none, rows[2]], "all") == [rows[2]]


def test_a_sample_has_some_of_each(store):
    layout, rows = store.ctx.layout, rows_of(store)
    many = [replace(row) for row in rows for _ in range(20)]
    found = transcripts.chosen(layout, many, "sample")
    groups = {(transcripts.who(row), bool(row.facts.passed)) for row in rows}
    assert len(found) == transcripts.SAMPLE * len(groups)
    assert {(transcripts.who(row), bool(row.facts.passed)) for row in found} == groups


def test_the_command_writes_a_folder_or_a_zip_and_replaces_only_what_is_its_own(store, tmp_path):
    root = store.ctx.layout.root
    said = scored.document(program(root, "report", store.first, "--bundle", str(tmp_path / "b.zip"), "--json").stdout)
    assert said["format"] == "bundle"
    with zipfile.ZipFile(tmp_path / "b.zip") as found:
        assert {"index.html", "bundle.json", "trials/1.html"} <= set(found.namelist())
        assert len(found.namelist()) == 2 + said["transcripts"]
    for trials in ("all", "sample"):
        program(root, "report", store.first, "--bundle", str(tmp_path / "b"), "--trials", trials)
        assert json.loads((tmp_path / "b" / "bundle.json").read_text())["trials"] == trials
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.zip"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    for arguments, why in (
        (["--bundle", str(tmp_path / "mine")], "is there already and is no bundle"),
        (["--bundle", "x", "--markdown"], "has a page of its own"),
        (["--trials", "all"], "add --bundle PATH"),
        (["--bundle", "x", "--trials", "fialed"], "did you mean failed?"),
    ):
        refused = program(root, "report", store.first, *arguments, check=False)
        assert (refused.returncode, why in refused.stderr) == (2, True), refused.stderr
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"


def test_the_server_gives_reports_and_tables_as_files(store):
    with serving(store.ctx.layout.root, "--no-tick") as server:
        shown = server.client.get(f"/batches/{store.first}").text
        links = [link.replace("&amp;", "&") for link in re.findall(r'href="(/v1/[^"]+)" download', shown)]
        assert len(links) == 4
        for link in (*links, f"/v1/results?batch={store.first}&format=csv", "/v1/report?format=markdown"):
            answer = server.client.get(link)
            assert answer.status_code == 200, link
            assert answer.headers["content-disposition"].startswith("attachment; filename="), link
            assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox", link
            if "zip" in link:
                with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
                    assert found.testzip() is None
                    assert "index.html" in found.namelist()
            if "format=csv" in link and "trials" in link:
                assert len(answer.text.splitlines()) == 1 + sum(row.batch_id == store.first for row in rows_of(store))
        assert server.client.get("/v1/report", params={"batch": "nosuch"}).status_code == 404
        assert (
            gather(store.ctx.layout, collect.choose(store.ctx.layout, store.first)).title
            in server.client.get(links[0]).text
        )


def test_many_who_ask_for_figures_at_once_are_told_to_ask_again_and_leave_the_server_free(store):
    with serving(store.ctx.layout.root, "--no-tick") as server, ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(server.client.get, "/v1/report", params={"format": form}) for form in ("html", "zip") * 6]
        answers = [each.result() for each in asked]
        assert {answer.status_code for answer in answers} == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert "other reports are being made" in answer.json()["detail"]
                assert int(answer.headers["retry-after"]) > 0
        assert server.client.get("/v1/report").status_code == 200  # the turn is given back


def test_a_secret_that_a_trial_wrote_everywhere_is_in_no_file_of_a_bundle(root, tmp_path, monkeypatch):
    secret = 'l3aked-"s3cret"-0123456789'
    monkeypatch.setenv("LEAKED_KEY", secret)
    task = make_task(tmp_path, test='echo "tests see $LEAKED_KEY"; echo 0 > /logs/verifier/reward.txt')
    agents = [{"import_path": "leaky_agent:LeakyAgent"}]
    sweep = {"path": str(task), "agents": agents, "environment": TEMP}
    ctx = stores.context(root)
    batch_id = stores.put(ctx, stores.table(sweep=sweep, secrets=["LEAKED_KEY"], retry={"max_attempts": 1}))
    stores.wait_for(lambda: (tick(ctx), stores.idle(ctx))[1], "the batch", 90)
    program(root, "report", batch_id, "--bundle", str(tmp_path / "b"), "--trials", "all")
    program(root, "report", batch_id, "--bundle", str(tmp_path / "b.zip"), "--trials", "all")
    files = {path.name: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    with zipfile.ZipFile(tmp_path / "b.zip") as made:
        files |= {f"zip/{name}": made.read(name) for name in made.namelist()}
    transcript = files["1.html"].decode()
    assert transcript.count("[REDACTED:LEAKED_KEY]") >= 8, "it is the transcript of what was said"
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]*)"', transcript)
    files["picture"] = base64.b64decode(picture)
    assert files["picture"].startswith(PNG)
    for name, data in files.items():
        text = html.unescape(data.decode("utf-8", "replace"))
        for form in (secret, json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()[:-4]):
            assert form not in text, name


@pytest.mark.browser
@pytest.mark.timeout(200)
def test_a_disk_shows_it_to_everybody(store, tmp_path):
    out = tmp_path / "b"
    write.bundle(store.ctx.layout, collect.choose(store.ctx.layout, experiment="nightly"), out, "failed")
    row = next(path for path in (out / "trials").iterdir() if "the end" in path.read_text())
    with running(tmp_path / "home") as browser:
        for options in ({"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}):
            with page(browser, out.as_uri(), bypass_csp=True, **options) as shown:
                shown.goto((out / "index.html").as_uri())
                shown.locator(f"#transcripts a[href='trials/{row.name}']").click()
                shown.get_by_text("the end").wait_for()
                assert shown.evaluate("[...document.images].map((i) => i.naturalWidth)") == [1]
                assert accessibility_problems(shown) == []
                assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
                shown.locator("header a").click()
                assert shown.url.endswith("index.html#transcripts")
                assert accessibility_problems(shown) == []
