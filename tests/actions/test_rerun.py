"""``rerun``: a new batch with the old one's results, whole after any crash, and verified by the audit."""

import json
import os

import pytest
from stores import context, job, program, put, read, shell, states, table

from parallelhassnes.actions import table_edits
from parallelhassnes.actions.stored.rerun import rerun
from parallelhassnes.admin.audit import verify
from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.schedule import ingest
from parallelhassnes.schedule.additions import carry_over
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.views.batch_scoreboard import batch_scoreboard


@pytest.fixture
def ran(root):
    """A batch of which one job succeeded and another failed half-way; its id."""
    ctx = context(root)
    flag = root / "flag"
    data = table(
        job("good", shell("a", "true")),
        job(
            "bad",
            shell("a", "true"),
            shell("b", f"test -e {flag}", depends_on=["a"]),
            shell("c", "true", depends_on=["b", "good/a"]),
        ),
        experiment="night",
    )
    batch_id = put(ctx, data)
    program(root, "tick", "--until-idle", "--fail-on", "never")
    flag.touch()
    return ctx, batch_id


def drive(ctx):
    program(ctx.layout.root, "tick", "--until-idle", "--fail-on", "never")


def test_what_failed_runs_again_and_what_succeeded_stands(ran):
    ctx, old = ran
    said = json.loads(program(ctx.layout.root, "rerun", old, "--failed", "--json").stdout)
    new = said["batch_id"]
    assert (said["rerun_of"], said["carried"], said["steps"]) == (old, 2, 2)
    drive(ctx)
    assert states(ctx, new) == {
        "good/a": ["succeeded"],
        "bad/a": ["succeeded"],
        "bad/b": ["succeeded"],
        "bad/c": ["succeeded"],
    }
    assert batches.read_batch(ctx.layout.batch(new)).rerun_of == old
    assert [e["batch_id"] for _, e in ledger.read(ctx.layout.batch(old)) if e["event"] == "rerun"] == [new]
    (before,) = ctx.layout.step(old, "good", "a").glob("attempts/*_*")
    (after,) = ctx.layout.step(new, "good", "a").glob("attempts/*_*")
    assert (before / "seal.json").read_bytes() == (after / "seal.json").read_bytes()
    assert verify.verify(ctx.layout).problems == []
    board = batch_scoreboard(ctx.layout, new)
    assert (board.state, board.attempts) == ("done", 2)


def test_missing_leaves_failures_as_they_are(ran):
    ctx, old = ran
    new = rerun(ctx, old, "missing").batch_id
    drive(ctx)
    assert states(ctx, new) == {"good/a": ["succeeded"], "bad/a": ["succeeded"], "bad/b": ["failed"]}
    program(ctx.layout.root, "retry", f"{new}/bad/b")
    drive(ctx)
    assert states(ctx, new)["bad/c"] == ["succeeded"]
    assert states(ctx, new)["bad/b"] == ["failed", "succeeded"]
    assert states(ctx, old)["bad/b"] == ["failed"]
    assert verify.verify(ctx.layout).problems == []


def test_all_with_edits(ran):
    ctx, old = ran
    new = rerun(ctx, old, "all", ["experiment=day", "jobs.bad.steps.b.timeout_sec=700", "/jobs/0/labels/x=1.5e"])
    drive(ctx)
    assert len(states(ctx, new.batch_id)) == 4
    batch_dir = ctx.layout.batch(new.batch_id)
    assert batches.read_batch(batch_dir).experiment == "day"
    assert batches.read_job(batch_dir / "bad").step("b").timeout_sec == 700
    assert batches.read_job(batch_dir / "good").labels == {"x": "1.5e"}


def test_nothing_to_do_makes_nothing(ran):
    ctx, old = ran
    new = rerun(ctx, old, "failed").batch_id
    drive(ctx)
    assert rerun(ctx, new, "failed").batch_id is None
    assert len(ctx.layout.batch_ids()) == 2


def test_everything_derived_is_made_again(ran):
    ctx, old = ran
    new = rerun(ctx, old, "failed").batch_id
    rebuild(ctx)
    drive(ctx)
    assert states(ctx, new)["bad/c"] == ["succeeded"]
    lines = [e["event"] for _, e in ledger.read(ctx.layout.batch(new))]
    assert lines.count("carried") == 2
    assert lines.count("ended") == 2


def test_a_crash_while_taking_over_is_made_good(ran, monkeypatch):
    """The submitter dies after the first attempt was taken over; the next tick completes the same batch."""
    ctx, old = ran
    pid = os.fork()
    if not pid:
        real, calls = carry_over.attempts.adopt, []

        def adopt(*arguments, **named):
            calls.append(1)
            if len(calls) == 2:
                os._exit(9)
            return real(*arguments, **named)

        try:
            carry_over.attempts.adopt = adopt
            rerun(ctx, old, "failed")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert ctx.layout.batch_ids() == [old]
    (companion,) = ctx.layout.incoming.glob(f"*{ingest.COMPANION}")
    new = read(companion)["batch_id"]
    drive(ctx)
    assert states(ctx, new) == {
        "good/a": ["succeeded"],
        "bad/a": ["succeeded"],
        "bad/b": ["succeeded"],
        "bad/c": ["succeeded"],
    }
    assert verify.verify(ctx.layout).problems == []


def test_a_batch_that_goes_on_is_refused(root):
    ctx = context(root)
    old = put(ctx, table(job("j", shell("a", "true"))))
    with pytest.raises(UserError, match="is not over: 1 step "):
        rerun(ctx, old, "failed")
    assert rerun(ctx, old, "all").batch_id


def test_an_edit_that_breaks_the_table_is_refused(ran):
    ctx, old = ran
    with pytest.raises(InvalidInput, match="unknown key 'concurency'; did you mean 'concurrency'"):
        rerun(ctx, old, "failed", ["concurency=2"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("model", "is not key=value"),
        ("jobs.bd.model=x", "did you mean bad?"),
        ("jobs.7.model=x", "counted from 0"),
        ("experiment.x=1", "has no parts"),
        ("experiment.x.y=1", "has no parts"),
    ],
)
def test_edits_that_lead_nowhere(edit, message):
    document = {"experiment": "e", "jobs": [{"job_id": "bad"}]}
    with pytest.raises(UserError) as error:
        table_edits.apply(document, [edit])
    assert message in str(error.value)


def test_an_empty_value_removes():
    document = {"model": "x", "jobs": [{"job_id": "a"}, {"job_id": "b"}]}
    table_edits.apply(document, ["model=", "jobs.a=", "absent="])
    assert document == {"jobs": [{"job_id": "b"}]}


def test_one_of_the_three_is_needed(ran):
    ctx, old = ran
    done = program(ctx.layout.root, "rerun", old, check=False)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
