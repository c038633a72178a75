"""A store that is moved, or copied elsewhere, works there: nothing that it needs names the place where it was."""

import contextlib
import json
import shutil

import pytest
from stores import context, job, program, put, shell, states, table

from parallelhassnes.admin.audit import verify
from parallelhassnes.schedule.context import open_context
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import batches

TABLE = table(
    job("a", shell("ok", "echo done"), shell("gated", "true", depends_on=["ok"], gate="human")),
    job("b", shell("bad", "exit 3", retry={"max_attempts": 1}), shell("after", "true", depends_on=["bad"])),
    job("c", shell("unlucky", "kill -9 $$", retry={"max_attempts": 2, "backoff_sec": 0.01})),
)


@pytest.fixture
def was(tmp_path):
    """A store in which something of everything has happened, and its batch."""
    root = tmp_path / "was-here"
    root.mkdir()
    ctx = context(root)
    batch_id = put(ctx, TABLE)
    program(root, "tick", "--until-idle", "--fail-on", "never")
    program(root, "scoreboard")
    program(root, "scoreboard", batch_id)
    return root, batch_id


@pytest.fixture
def submitted_inside(tmp_path):
    """As ``was``, but the table was submitted in the root, and its steps work below it."""
    root = tmp_path / "was-here"
    (root / "work").mkdir(parents=True)
    (root / "table.json").write_bytes(
        table(
            job(
                "a",
                shell("ok", "true", working_directory="work"),
                shell("there", "pwd", working_directory="work", depends_on=["ok"], gate="human"),
            ),
            job("b", {"step_id": "s", "prompt": "{root}/x is text, so is {{ '{root}' }}", "working_directory": "work"}),
        )
    )
    context(root)
    batch_id = program(root, "submit", "table.json", cwd=root).stdout.strip()
    program(root, "tick", "--until-idle", "--fail-on", "never", "--no-codex")
    return root, batch_id


def test_what_lies_below_the_root_moves_with_it(submitted_inside, tmp_path):
    root, batch_id = submitted_inside
    assert naming(root, str(root)) == set()
    ctx = open_context(root)
    step = batches.read_job(ctx.layout.job(batch_id, "b")).steps[0]
    assert step.spec["prompt"] == "{root}/x is text, so is {{ '{root}' }}"
    assert step.spec["working_directory"] == str(root / "work")
    there = tmp_path / "elsewhere"
    root.rename(there)
    program(there, "approve", f"{batch_id}/a/there")
    program(there, "tick", "--until-idle", "--fail-on", "never", "--no-codex")
    assert program(there, "logs", f"{batch_id}/a/there").stdout.splitlines()[-1] == str(there / "work")
    ctx = open_context(there)
    assert verify.verify(ctx.layout).problems == []
    assert batches.read_batch(ctx.layout.batch(batch_id)).base_dirs == (str(there),)
    new = json.loads(program(there, "rerun", batch_id, "--all", "--json").stdout)["batch_id"]
    assert batches.read_job(ctx.layout.job(new, "b")).steps[0].spec["working_directory"] == str(there / "work")


def naming(root, text):
    """Files below runs/ and runners/ that hold a text; the last supervisor may still remove its wish for a pass."""
    found = set()
    for folder in ("runs", "runners"):
        for path in (root / folder).rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and text.encode() in path.read_bytes():
                    found.add(path.relative_to(root).as_posix())
    return found


def test_no_file_names_the_place_of_the_store(was):
    root, _ = was
    assert naming(root, str(root)) == set()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_it_goes_on_elsewhere(was, tmp_path, how):
    root, batch_id = was
    there = tmp_path / "elsewhere" / "deep"
    if how == "moved":
        there.parent.mkdir()
        root.rename(there)
    else:
        shutil.copytree(root, there, symlinks=True)
        shutil.rmtree(root)
    program(there, "tick", "--until-idle", "--fail-on", "never")
    board = json.loads(program(there, "scoreboard", batch_id, "--json").stdout)
    assert board["batch_id"] == batch_id
    program(there, "approve", f"{batch_id}/a/gated")
    program(there, "retry", f"{batch_id}/b/bad")
    program(there, "tick", "--until-idle", "--fail-on", "never")
    ctx = open_context(there)
    assert states(ctx, batch_id) == {
        "a/ok": ["succeeded"],
        "a/gated": ["succeeded"],
        "b/bad": ["failed", "failed"],
        "c/unlucky": ["failed"],
    }
    assert verify.verify(ctx.layout).problems == []
    new = json.loads(program(there, "rerun", batch_id, "--failed", "--json").stdout)["batch_id"]
    program(there, "tick", "--until-idle", "--fail-on", "never")
    assert states(ctx, new)["a/gated"] == ["succeeded"]
    rebuild(ctx)
    program(there, "tick", "--until-idle", "--fail-on", "never")
    assert verify.verify(ctx.layout).problems == []
    assert not root.exists()
