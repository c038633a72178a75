"""``rerun`` of a batch that was added to: the new one has those steps, taken over or run again, through any number of reruns."""

import json
import os
import shutil

import pytest
from harness import make_task
from stores import SUPPORT, context, idle, program, put, read, states, wait_for

from parallelhassnes.actions.analyze import analyze
from parallelhassnes.actions.append import append
from parallelhassnes.actions.stored.rerun import rerun
from parallelhassnes.admin.audit import verify
from parallelhassnes.schedule import ingest
from parallelhassnes.schedule.additions import carry_over
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import additions, batches
from parallelhassnes.tables.model import AnalysisPart
from parallelhassnes.views.batch_scoreboard import batch_scoreboard

OK, BAD = ["succeeded"], ["failed"]
TABLE = {"hello/nop.1": OK, "hello/oracle.1": OK, "hello/oracle.1.rules": OK, "hello/nop.1.rules": OK}
APPENDED = {"hello/oracle.2": OK, "hello/oracle.2.rules": OK}
ANALYZED = {"hello/oracle.1.api": BAD, "hello/oracle.2.api": BAD}


@pytest.fixture(scope="module", autouse=True)
def environments():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
        yield


@pytest.fixture(scope="module")
def grown(tmp_path_factory, environments):
    """A batch of analysed trials by oracle and nop; another of oracle was appended, then analyses of both that fail were added."""
    root = tmp_path_factory.mktemp("grown") / "root"
    root.mkdir()
    ctx = context(root, "[retry]\nmax_attempts = 1\n")
    sweep = {
        "path": str(make_task(root)),
        "agents": [{"name": "oracle"}, {"name": "nop"}],
        "environment": "temp_environment:TempEnvironment",
    }
    table = {"spec_version": "2.0", "analysis": "rules", "sweep": sweep}
    batch = put(ctx, json.dumps(table).encode())
    settle(ctx)
    append(ctx, batch, 1, ["oracle"])
    settle(ctx)
    part = AnalysisPart(engine="api", model="m", base_url="http://127.0.0.1:9/v1")
    for trial in ("oracle.1", "oracle.2"):
        analyze(ctx, f"{batch}/hello/{trial}", [part])
    settle(ctx)
    assert of(ctx, batch) == TABLE | APPENDED | ANALYZED
    return ctx, batch


def settle(ctx):
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch to end")


def of(ctx, batch):
    """Statuses of all steps but the verdict, which is made anew whenever something about it has ended."""
    return {step: found for step, found in states(ctx, batch).items() if step != "hello/verdict"}


def attempt_of(ctx, batch, step_id):
    return max((ctx.layout.step(batch, "hello", step_id) / "attempts").iterdir()).name


def whole(ctx, batch):
    """Nothing of the batch is wrong, and everything derived is made again equal."""
    assert verify.verify(ctx.layout).problems == []
    board = batch_scoreboard(ctx.layout, batch)
    assert sum(board.counts.model_dump().values()) == board.steps_total
    job_dir = ctx.layout.job(batch, "hello")
    before = read(job_dir / "current.json"), read(job_dir.parent / "index.json")
    rebuild(ctx)
    assert (read(job_dir / "current.json"), read(job_dir.parent / "index.json")) == before
    assert idle(ctx)
    return board


def test_what_succeeded_is_taken_over_and_what_failed_runs_also_of_what_was_added(grown):
    ctx, old = grown
    done = rerun(ctx, old, "failed")
    assert (done.carried, done.steps, done.warnings) == (7, 2, [])
    settle(ctx)
    assert of(ctx, done.batch_id) == TABLE | APPENDED | ANALYZED
    for step_id, same in (("oracle.2", True), ("oracle.2.rules", True), ("oracle.2.api", False)):
        taken_over = attempt_of(ctx, old, step_id) == attempt_of(ctx, done.batch_id, step_id)
        assert taken_over == same, step_id
    board = whole(ctx, done.batch_id)
    assert (board.steps_total, board.counts.succeeded, board.counts.failed) == (9, 7, 2)
    verdict = read(ctx.layout.job(done.batch_id, "hello") / "verdict.json")
    assert (verdict["counts"]["n"], verdict["counts"]["passes"]) == (3, 2)
    assert append(ctx, done.batch_id, 1, ["oracle"]).trials == ["hello/oracle.3"]
    settle(ctx)
    again = rerun(ctx, done.batch_id, "missing")
    assert again.batch_id is None, "everything has ended"
    again = rerun(ctx, done.batch_id, "all")
    settle(ctx)
    assert of(ctx, again.batch_id) == TABLE | APPENDED | ANALYZED | {
        "hello/oracle.3": OK,
        "hello/oracle.3.rules": OK,
        "hello/oracle.3.api": BAD,
    }
    whole(ctx, again.batch_id)


def test_an_edit_changes_what_was_added_like_the_table(grown):
    ctx, old = grown
    done = rerun(ctx, old, "all", ["analysis=", "sweep.timeout_minutes=2"])
    settle(ctx)
    assert of(ctx, done.batch_id) == ANALYZED | {f"hello/{step}": OK for step in ("oracle.1", "oracle.2", "nop.1")}
    config = {
        batch: batches.read_job(ctx.layout.job(batch, "hello")).step("oracle.2").spec["config"]
        for batch in (old, done.batch_id)
    }
    assert config[old] != config[done.batch_id]
    job = batches.read_job(ctx.layout.job(done.batch_id, "hello"))
    assert job.step("oracle.1").spec["config"] == config[done.batch_id]
    assert job.step("oracle.2").spec["repeat"] == 2
    whole(ctx, done.batch_id)


def test_what_the_edited_table_has_itself_is_not_added_again(grown):
    ctx, old = grown
    done = rerun(ctx, old, "failed", ["sweep.agents.0.n_trials=2"])
    settle(ctx)
    assert (done.carried, done.steps) == (7, 2)
    job_dir = ctx.layout.job(done.batch_id, "hello")
    added = [step.step_id for name in additions.names(job_dir) for step in additions.read(job_dir, name).steps]
    assert added == ["oracle.1.api", "oracle.2.api"]
    assert of(ctx, done.batch_id) == TABLE | APPENDED | ANALYZED
    whole(ctx, done.batch_id)


def test_what_has_nothing_to_be_about_is_left_out_and_said(grown):
    ctx, old = grown
    said = program(ctx.layout.root, "rerun", old, "--all", "--edit", 'sweep.agents=[{"name":"nop"}]').stderr
    assert [line.split(" was ")[0] for line in said.splitlines() if line.startswith("note: ")] == [
        f"note: hello/{step}" for step in ("oracle.2", "oracle.2.rules", "oracle.1.api", "oracle.2.api")
    ]
    settle(ctx)
    batch = ctx.layout.batch_ids()[-1]
    assert of(ctx, batch) == {"hello/nop.1": OK, "hello/nop.1.rules": OK}
    whole(ctx, batch)


def test_a_crash_on_the_way_is_made_good(grown):
    """The submitter dies when all that was added is written and the first attempt taken over; the next tick does it again."""
    ctx, old = grown
    pid = os.fork()
    if not pid:
        try:
            carry_over.publish = lambda *_: os._exit(9)
            rerun(ctx, old, "failed")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    (companion,) = ctx.layout.incoming.glob(f"*{ingest.COMPANION}")
    new = read(companion)["batch_id"]
    settle(ctx)
    assert of(ctx, new) == TABLE | APPENDED | ANALYZED
    whole(ctx, new)


def test_what_was_added_moves_with_the_store(grown, tmp_path):
    """The task lies below the root: an appended trial finds it where the root is then."""
    ctx, old = grown
    job_dir = ctx.layout.job(old, "hello")
    (added, *_) = (job_dir / "additions").iterdir()
    assert str(ctx.layout.root) not in added.read_text()
    moved = shutil.copytree(
        ctx.layout.root, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("_*")
    )  # a supervisor that has just settled may still write into those
    step = batches.read_job(moved / "runs" / old / "hello").step("oracle.2")
    assert step.spec["config"]["task"]["path"] == str(moved / "hello")
