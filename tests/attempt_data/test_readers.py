"""Readers pass over a batch that cannot be read, and name it; one of the earlier ParallelHassnes is shown as what it is."""

import json

import pytest
from servers import serving
from stores import command, context, job, program, put, table

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule.rebuild import rebuild

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def store(root):
    """A batch that has ended and one that is cut."""
    ctx = context(root, "durable = false\n")
    good = put(ctx, table(job("g", command("s", "true")), experiment="ours"))
    cut = put(ctx, table(job("c", command("s", "true")), experiment="ours"))
    program(root, "tick", "--until-idle")
    path = ctx.layout.batch(cut) / "batch_meta.json"
    path.write_bytes(path.read_bytes()[:100])
    return ctx, good, path


def test_each_reader_names_a_cut_batch_and_goes_on(store):
    ctx, good, path = store
    root = ctx.layout.root
    for asked in (["results"], ["results", "--trials"], ["errors"], ["results", "-E", "ours"]):
        done = program(root, *asked, "--json")
        (line,) = json.loads(done.stdout)["passed_over"]
        assert str(path) in line
        assert f"passed over {line}" in done.stderr, asked
    done = program(root, "report", "-E", "ours", "--out", str(root / "r.html"), check=False)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stderr
    board = program(root, "scoreboard", "--json")
    assert str(path) in next(b for b in json.loads(board.stdout)["batches"] if b["batch_id"] != good)["held"]
    whole = program(root, "audit", "verify", "--json", check=False)
    assert whole.returncode == 1
    assert any(path.parent.name in problem["place"] for problem in json.loads(whole.stdout)["problems"])
    assert program(root, "audit", "verify", good).returncode == 0
    doctor = program(root, "doctor", "--json", check=False)
    assert doctor.returncode == 1
    (check,) = (c for c in json.loads(doctor.stdout)["checks"] if c["name"] == f"batch {path.parent.name}")
    assert check["state"] == "trouble"
    assert "put the file back" in check["text"]
    with serving(root, "--no-tick") as server:
        for place in ("/", "/v1/results", "/v1/errors", "/v1/scoreboards/system"):
            answer = server.client.get(place)
            assert answer.status_code == 200, place
            assert path.parent.name in answer.text, place
    named = program(root, "results", path.parent.name, check=False)
    assert (named.returncode, str(path) in named.stderr) == (2, True), named.stderr


def earlier_batch(runs):
    """A batch as the earlier ParallelHassnes left it: two jobs, an attempt that succeeded, one that failed, one without an end."""
    folder = runs / "batch_20260118T101500Z_0a1b2c3d"
    steps = [
        ("job_0001", "draft", "succeeded"),
        ("job_0001", "review", "failed"),
        ("job_0002", "draft", "running"),
        ("job_0002", "review", ""),
    ]
    for job_id, step_id, status in steps:
        place = folder / job_id / "steps" / step_id / "attempts"
        place.mkdir(parents=True)
        if status:
            run = place / "20260118T101600Z_run_20260118T101600Z_00ff00ff"
            run.mkdir()
            state = {"status": status, "started_at": "2026-01-18T10:16:00Z", "ended_at": "2026-01-18T10:17:00Z"}
            (run / "state.json").write_text(json.dumps(state))
            (run / "final.json").write_text(json.dumps({"status": status, "summary": f"{step_id} it is"}))
    jobs = [
        {"job_id": name, "steps": [{"step_id": "draft"}, {"step_id": "review", "depends_on": ["draft"]}]}
        for name in ("job_0001", "job_0002")
    ]
    document = {
        "batch_id": folder.name,
        "submitted_at": "2026-01-18T10:15:00Z",
        "launch_table_sha256": "0" * 64,
        "batch_goal_summary": "an audit",
        "effective_defaults": {},
        "jobs": jobs,
    }
    (folder / "batch_meta.json").write_text(json.dumps(document))
    return folder


def test_a_batch_of_the_earlier_project_is_shown_read_only_and_counted_nowhere(root):
    ctx = context(root, "durable = false\n")
    folder = earlier_batch(ctx.layout.runs)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    good = put(ctx, table(job("g", command("s", "true"))))
    program(root, "tick", "--until-idle")
    rebuild(ctx)
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    (line,) = (b for b in board["batches"] if b["batch_id"] == folder.name)
    assert (line["jobs_total"], line["steps_total"]) == (2, 4)
    counts = line["counts"]
    assert (counts["succeeded"], counts["failed"], counts["lost"], counts["running"]) == (1, 1, 1, 0)
    assert "earlier ParallelHassnes" in line["held"]
    shown = json.loads(program(root, "show", folder.name, "--json").stdout)
    assert {s["step"]: s["state"] for s in shown["steps"]}["job_0001/review"] == "failed"
    assert "review it is" in program(root, "scoreboard", folder.name).stdout
    done = program(root, "results", "--json")
    assert "is a batch of the earlier ParallelHassnes" in json.loads(done.stdout)["passed_over"][0]
    audit = verify(ctx.layout)
    assert (audit.ok, [note.what for note in audit.notes if note.place == folder.name]) == (True, ["earlier"])
    assert program(root, "audit", "verify", good).returncode == 0
    doctor = json.loads(program(root, "doctor", "--json", check=False).stdout)
    (check,) = (c for c in doctor["checks"] if folder.name in c["name"])
    assert check["state"] == "note"
    with serving(root, "--no-tick") as server:
        for place in ("/", f"/batches/{folder.name}", f"/v1/batches/{folder.name}/scoreboard", "/v1/results"):
            answer = server.client.get(place)
            assert answer.status_code == 200, place
            assert folder.name in answer.text, place
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
