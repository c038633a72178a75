"""Paths of the root that stand in documents move with it: whole, within arguments, and as names of locks."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import command, context, job, put, states, table, wait_for

from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import batches, rooted
from parallelhassnes.store.layout import Layout

OLD, NEW = Path("/srv/evals"), Path("/mnt/elsewhere")


def moved(text):
    return rooted.unfold(json.loads(rooted.dumps({"text": text}, OLD)), NEW)["text"]


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("/srv/evals", "/mnt/elsewhere"),
        ("/srv/evals/in", "/mnt/elsewhere/in"),
        ("--in=/srv/evals/in", "--in=/mnt/elsewhere/in"),
        ("--in=/srv/evals", "--in=/mnt/elsewhere"),
        ("PATH=/srv/evals/bin:/usr/bin:/srv/evals", "PATH=/mnt/elsewhere/bin:/usr/bin:/mnt/elsewhere"),
        ("-I/srv/evals/include", "-I/mnt/elsewhere/include"),
        ("cc -L/srv/evals/lib a.c", "cc -L/mnt/elsewhere/lib a.c"),
        ("file:///srv/evals/a", "file:///mnt/elsewhere/a"),
        ("cat '/srv/evals/a b' >/srv/evals/c", "cat '/mnt/elsewhere/a b' >/mnt/elsewhere/c"),
        ("{root}/x --in=/srv/evals/{root}", "{root}/x --in=/mnt/elsewhere/{root}"),
        ("--in={{root}}:/srv/evals", "--in={{root}}:/mnt/elsewhere"),
        ("/srv/evals-old/x", "/srv/evals-old/x"),
        ("--in=/srv/evals-old", "--in=/srv/evals-old"),
        ("--in=/srv/evals.bak/x", "--in=/srv/evals.bak/x"),
        ("--in=/data/srv/evals/x", "--in=/data/srv/evals/x"),
        ("http://host/srv/evals/x", "http://host/srv/evals/x"),
    ],
)
def test_where_a_path_stands(text, then):
    assert moved(text) == then


@given(
    st.lists(st.sampled_from(["/srv/evals", "{root}", "{", "{{root}", "root}", "/", "=", "a", " ", "-I", ":", "://"]))
)
def test_what_is_not_moved_is_read_as_it_was(parts):
    document = {"texts": ["".join(parts), "".join(parts[::-1])]}
    assert rooted.unfold(json.loads(rooted.dumps(document, OLD)), OLD) == document


def test_what_earlier_versions_wrote_is_read_and_written_as_then():
    document = {"at": "/srv/evals/in", "text": "{root} stays, {root}/x too"}
    written = json.loads(rooted.dumps(document, OLD))
    assert written == {"at": "{root}/in", "text": "{{root} stays, {root}/x too", "rooted": True}
    assert rooted.unfold(written, OLD) == document


def test_an_argument_of_a_moved_store_names_the_new_place(tmp_path):
    root = tmp_path / "old"
    root.mkdir()
    (root / "in").write_text("here")
    ctx = context(root)
    script = 'cat "${1#--in=}" >"$2"'
    step = command("s", "sh", "-c", script, "sh", f"--in={root}/in", f"{root}/out")
    batch = put(ctx, table(job("j", step)))
    root.rename(tmp_path / "new")
    there = context(tmp_path / "new")
    job_dir = there.layout.job(batch, "j")
    assert json.loads((job_dir / "job.json").read_text())["rooted"] == rooted.WITHIN
    assert batches.read_job(job_dir).step("s").spec["command"][4] == f"--in={tmp_path}/new/in"
    tick(there)
    wait_for(lambda: states(there, batch) == {"j/s": ["succeeded"]}, "the step", 20)
    assert (tmp_path / "new" / "out").read_text() == "here"


def test_the_lock_of_a_folder_is_the_same_wherever_the_root_is(tmp_path):
    names = []
    for place in ("here", "there"):
        (tmp_path / place / "work").mkdir(parents=True)
        layout = Layout(tmp_path / place)
        names.append(layout.directory_lock(tmp_path / place / "work").name)
        assert layout.directory_lock(tmp_path / place / "work" / ".." / "work").name == names[-1]
        assert layout.directory_lock(tmp_path / place).name != names[-1]
        assert layout.directory_lock(tmp_path / "work").name != names[-1]
    assert names[0] == names[1]
