"""Loops of a solver and its critic: rounds in their order, whatever dies, and an end that is told."""

import json
import signal

import pytest
from stores import context, idle, job, program, put, shell, started, states, table, wait_for

from parallelhassnes.admin.audit import verify
from parallelhassnes.execute import processes
from parallelhassnes.schedule.job_state import JobState
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import attempts, currents
from parallelhassnes.store.evidence import ledger
from parallelhassnes.views.explain import explain

SOLVE = "echo x >> {0}/work; echo solve >> {0}/order"
JUDGE = """echo judge >> {0}/order
n=$(wc -l < {0}/work)
if [ "$n" -ge {1} ]; then word=accept; else word=again; fi
printf '{{"summary":"%s %s"}}' $word $n > $PARALLELHASSNES_REPORT"""


def loop(root, good_at, rounds=5, until="report.summary.startswith('accept')", **solver):
    """A job whose critic accepts the work once the solver has run so many times, and what waits for it."""
    return job(
        "j",
        shell("solve", SOLVE.format(root), **solver),
        shell("judge", JUDGE.format(root, good_at), loop={"step_id": "solve", "max_rounds": rounds, "until": until}),
        shell("after", f"echo after >> {root}/order", depends_on=["solve"]),
    )


def drive(root, *more):
    program(root, "tick", "--until-idle", "--fail-on", "never", *more)


def order(root):
    return (root / "order").read_text().split()


def why(ctx, batch_id, step="judge"):
    (found,) = explain(ctx, f"{batch_id}/j/{step}").steps
    return found.state, " | ".join(found.why)


@pytest.mark.parametrize("rounds", [1, 3])
def test_they_take_turns_until_the_critic_is_satisfied(root, rounds):
    ctx = context(root)
    batch_id = put(ctx, table(loop(root, rounds)))
    drive(root)
    assert order(root) == [*["solve", "judge"] * rounds, "after"]
    assert states(ctx, batch_id) == {
        "j/solve": ["succeeded"] * rounds,
        "j/judge": ["succeeded"] * rounds,
        "j/after": ["succeeded"],
    }
    assert f"satisfied in round {rounds} of 5" in why(ctx, batch_id)[1]
    metas = [attempts.read_meta(path) for path in sorted(ctx.layout.step(batch_id, "j", "judge").glob("attempts/*"))]
    solved = attempts.names(ctx.layout.step(batch_id, "j", "solve"))
    assert [meta.inputs["j/solve"] for meta in metas] == solved
    assert verify.verify(ctx.layout).problems == []


def test_rounds_run_out(root):
    ctx = context(root)
    batch_id = put(ctx, table(loop(root, 9, rounds=2)))
    done = program(root, "tick", "--until-idle", check=False)
    assert done.returncode == 1
    assert order(root) == ["solve", "judge"] * 2
    state, told = why(ctx, batch_id)
    assert (state, "not satisfied after 2 rounds" in told) == ("needs_attention", True)
    assert why(ctx, batch_id, "after")[1] == "blocked for good, unless that is retried: j/judge needs attention"
    assert verify.verify(ctx.layout).problems == []
    rebuild(ctx)
    drive(root)
    assert order(root) == ["solve", "judge"] * 2
    (root / "work").write_text("x\n" * 9)
    program(root, "retry", f"{batch_id}/j/judge")
    wait_for(lambda: idle(ctx), "the retried critic")
    assert order(root)[4:] == ["judge", "after"]
    assert why(ctx, batch_id)[0] == "succeeded"


def test_a_solver_that_fails_ends_the_loop(root):
    ctx = context(root)
    looping = loop(root, 9)
    looping["steps"][0]["command"][2] = (
        f"test ! -e {root}/work || exit 1; {SOLVE.format(root)}"  # once, and never again
    )
    batch_id = put(ctx, table({**looping, "job_id": "k"}))
    drive(root)
    assert states(ctx, batch_id) == {"k/solve": ["succeeded", "failed"], "k/judge": ["succeeded"]}
    (found,) = explain(ctx, f"{batch_id}/k/judge").steps
    assert found.state == "needs_attention"
    assert any("solve ended as failed" in line for line in found.why)
    now = currents.read(ctx.layout.job(batch_id, "k")).steps["judge"]
    assert (now.settled, now.unmet) == (True, "solve ended as failed")
    assert [e["line"] for _, e in ledger.read(ctx.layout.batch(batch_id)) if e["event"] == "unmet"] == [now.unmet]
    assert verify.verify(ctx.layout).problems == []


def test_a_condition_that_cannot_be_told_is_no_success(root):
    ctx = context(root)
    batch_id = put(ctx, table(loop(root, 1, until="report.verdict == 'yes'")))
    drive(root)
    assert "until cannot be told: 'dict object' has no attribute 'verdict'" in why(ctx, batch_id)[1]
    assert "j/after" not in states(ctx, batch_id)


def test_a_canceled_loop_stays_canceled(root):
    ctx = context(root)
    batch_id = put(ctx, table(loop(root, 999, rounds=100)))
    running = started(root, "tick", "--until-idle", "--fail-on", "never")
    wait_for(lambda: (root / "order").exists() and len(order(root)) > 2, "the second round")
    program(root, "cancel", f"{batch_id}/j")
    running.communicate(timeout=100)
    drive(root)
    count = len(order(root))
    drive(root)
    assert len(order(root)) == count
    assert "j/after" not in states(ctx, batch_id)
    assert why(ctx, batch_id)[0] in ("canceled", "needs_attention")


def test_killed_anywhere_it_goes_on_in_its_order(root):
    """Whatever of it lives is killed again and again; rounds may cost more attempts, and their order holds."""
    ctx = context(root, "[retry]\nmax_attempts = 50\nbackoff_sec = 0.01\n")
    batch_id = put(ctx, table(loop(root, 6, rounds=8)))
    for _ in range(12):
        program(root, "tick", check=False)
        for path in ctx.layout.batch(batch_id).glob("*/steps/*/attempts/*/state.json"):
            state = json.loads(path.read_text())
            if state["status"] in ("queued", "running"):
                for pid, begun in (("pid", "pid_start"), ("worker_pid", "worker_start")):
                    processes.send(state.get(pid), state.get(begun), signal.SIGKILL)
    drive(root)
    drive(root)
    done = {step: found.count("succeeded") for step, found in states(ctx, batch_id).items()}
    assert done["j/after"] == 1
    assert done["j/judge"] == done["j/solve"]
    job_dir = ctx.layout.job(batch_id, "j")
    assert currents.read(job_dir).steps["judge"].unmet == ""
    assert verify.verify(ctx.layout).problems == []


def test_a_settle_that_dies_half_way_is_done_again(root):
    """The queue's part of a round is derived: without it, a rebuild makes the same."""
    ctx = context(root)
    batch_id = put(ctx, table(loop(root, 2)))
    drive(root, "--concurrency", "1")
    book = JobState(ctx, batch_id)
    judge = book.job("j").step("judge")
    assert book.current("j").get("judge").settled
    rebuild(ctx)
    assert book.look_again(book.job("j"), judge).settled
    drive(root)
    assert order(root) == ["solve", "judge", "solve", "judge", "after"]
