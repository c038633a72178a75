"""``gate: human``: nothing starts before its approval, and a decision survives whatever dies."""

import json

import pytest
from stores import context, idle, job, program, put, shell, states, table, wait_for

from parallelhassnes.actions import approve
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.job_state import JobState
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import atomic
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import tickets
from parallelhassnes.views.explain import explain

GATED = table(
    job(
        "release",
        shell("build", "true"),
        shell("publish", "true", depends_on=["build"], gate="human"),
        shell("tell", "true", depends_on=["publish"]),
    ),
    job("other", shell("free", "true", gate="human")),
)


@pytest.fixture
def built(root):
    """A batch whose first step has run; its id."""
    ctx = context(root)
    batch_id = put(ctx, GATED)
    program(root, "tick", "--until-idle", "--fail-on", "never")
    assert states(ctx, batch_id) == {"release/build": ["succeeded"]}
    return ctx, batch_id


def said(ctx, batch_id, step):
    (found,) = explain(ctx, f"{batch_id}/{step}").steps
    return found.state, found.why[0]


def test_it_waits_and_says_for_whom(built):
    ctx, batch_id = built
    state, why = said(ctx, batch_id, "release/publish")
    assert state == "blocked"
    assert f"approve or reject {batch_id}/release/publish" in why
    assert said(ctx, batch_id, "release/tell")[1].endswith("waiting for release/publish")


def test_a_step_and_what_follows_run_once_it_is_approved(built):
    ctx, batch_id = built
    done = program(ctx.layout.root, "approve", f"{batch_id}/release/publish", "--json")
    assert json.loads(done.stdout)["steps"] == ["release/publish"]
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch_id) == {
        "release/build": ["succeeded"],
        "release/publish": ["succeeded"],
        "release/tell": ["succeeded"],
    }
    (line,) = [event for _, event in ledger.read(ctx.layout.batch(batch_id)) if event["event"] == "approved"]
    assert line["steps"] == ["release/publish"]
    assert "@" in line["by"]
    with pytest.raises(UserError, match="has started already"):
        approve.reject(ctx, f"{batch_id}/release/publish", "too late")


def test_a_batch_is_approved_where_it_waits(built):
    ctx, batch_id = built
    assert approve.reject(ctx, f"{batch_id}/other", "no").steps == ["other/free"]
    done = program(ctx.layout.root, "approve", batch_id, "--json")
    assert json.loads(done.stdout)["steps"] == ["release/publish"]
    wait_for(lambda: idle(ctx), "the batch")
    assert "other/free" not in states(ctx, batch_id)
    assert program(ctx.layout.root, "approve", batch_id).stdout.startswith("nothing of")


def test_a_rejection_holds_until_it_is_taken_back(built):
    ctx, batch_id = built
    program(ctx.layout.root, "reject", f"{batch_id}/release/publish", "--reason", "not on a Friday")
    rebuild(ctx)
    program(ctx.layout.root, "tick", "--until-idle", "--fail-on", "never")
    assert said(ctx, batch_id, "release/publish")[0] == "canceled"
    assert "not on a Friday" in said(ctx, batch_id, "release/publish")[1]
    assert "blocked for good" in said(ctx, batch_id, "release/tell")[1]
    program(ctx.layout.root, "approve", f"{batch_id}/release/publish")
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch_id)["release/tell"] == ["succeeded"]


def test_an_early_approval_is_kept(root):
    ctx = context(root)
    batch_id = put(ctx, GATED)
    assert approve.approve(ctx, f"{batch_id}/release/publish").steps == ["release/publish"]
    program(root, "tick", "--until-idle", "--fail-on", "never")
    assert states(ctx, batch_id)["release/tell"] == ["succeeded"]


def test_a_crash_before_the_decision_leaves_it_undecided(built):
    """The ticket is there and the decision is not: the next pass drops the ticket, and the step can be approved."""
    ctx, batch_id = built
    book = JobState(ctx, batch_id)
    release = book.job("release")
    book.put_ticket(release, release.step("publish"))
    program(ctx.layout.root, "tick", "--until-idle", "--fail-on", "never")
    assert "release/publish" not in states(ctx, batch_id)
    wait_for(lambda: not list(tickets.ready_folders(ctx.layout)), "its folder to go")
    approve.approve(ctx, f"{batch_id}/release/publish")
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch_id)["release/publish"] == ["succeeded"]


def test_a_crash_after_the_decision_leaves_it_decided(built):
    """What is written last is the ledger's line; without it, and without the queue, the step starts."""
    ctx, batch_id = built
    book = JobState(ctx, batch_id)
    word = approve.said("read it")
    book.decide_gate("release", "publish", word, approved=True)
    assert atomic.read_json(ctx.layout.job(batch_id, "release") / "overrides.json")["approved"]
    rebuild(ctx)
    program(ctx.layout.root, "tick", "--until-idle", "--fail-on", "never")
    assert states(ctx, batch_id)["release/tell"] == ["succeeded"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["approve", "latest/release/build"], "waits for nobody"),
        (["approve", "latest/release/publsh"], "did you mean publish?"),
        (["reject", "latest", "--reason", " "], "needs a reason"),
    ],
)
def test_refusals_are_one_line(built, arguments, message):
    ctx, _ = built
    done = program(ctx.layout.root, *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
