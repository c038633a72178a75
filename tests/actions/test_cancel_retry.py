"""cancel and retry, while ticks run."""

from stores import attempt_dirs, command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.queue import tickets


def test_cancel_ends_what_runs_and_starts_nothing_more(root):
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, table(*(job(f"j{n}", shell("s", "echo half; sleep 300")) for n in range(3))))
    tick(ctx)
    path = wait_for(lambda: next(iter(attempt_dirs(ctx, batch)), None), "an attempt")
    wait_for(lambda: (path / "stdout.log").exists() and (path / "stdout.log").read_text(), "its output")
    for _ in range(2):  # doing it twice changes nothing
        program(root, "cancel", batch)
    wait_for(lambda: idle(ctx), "the end")
    assert states(ctx, batch) == {"j0/s": ["canceled"]}
    assert (path / "stdout.log").read_text() == "half\n"
    tick(ctx)
    assert states(ctx, batch) == {"j0/s": ["canceled"]}


def test_cancel_of_one_step_leaves_the_others_and_blocks_what_needs_it(root):
    ctx = context(root, "concurrency = 1\n")
    flag = root / "go"
    batch = put(
        ctx,
        table(
            job("a", shell("hold", f"until test -e {flag}; do sleep 0.02; done")),
            job("b", command("s", "true"), command("after", "true", depends_on=["s"])),
            job("c", command("s", "true")),
        ),
    )
    tick(ctx)
    wait_for(lambda: tickets.running(ctx.layout), "the first")
    program(root, "cancel", f"{batch}/b/s")
    flag.touch()
    wait_for(lambda: idle(ctx), "the rest")
    assert states(ctx, batch) == {"a/hold": ["succeeded"], "c/s": ["succeeded"]}
    assert read(ctx.layout.job(batch, "b") / "current.json")["dead"] == {"after": "b/s"}
    program(root, "retry", f"{batch}/b/s")
    program(root, "tick")
    wait_for(lambda: idle(ctx), "what was canceled")
    assert states(ctx, batch)["b/s"] == ["succeeded"]
    assert states(ctx, batch)["b/after"] == ["succeeded"]


def test_retry_failed_repeats_only_what_did_not_succeed(root):
    ctx = context(root)
    flag = root / "flag"
    batch = put(ctx, table(job("j", command("good", "true"), shell("bad", f"test -e {flag}"))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "both")
    flag.touch()
    program(root, "retry", batch, "--failed")
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the bad one")
    assert states(ctx, batch) == {"j/good": ["succeeded"], "j/bad": ["failed", "succeeded"]}


def test_a_retried_trial_is_followed_by_a_new_verdict(root):
    ctx = context(root)
    task = {"path": "examples/tasks/hello"}
    batch = put(
        ctx,
        table(
            job(
                "j",
                {"step_id": "t", "kind": "trial", "task": task, "agent": {"name": "oracle"}, "environment": "sandbox"},
                {"step_id": "verdict", "kind": "verdict"},
            )
        ),
    )
    tick(ctx)
    wait_for(lambda: idle(ctx), "trial and verdict")
    assert states(ctx, batch) == {"j/t": ["succeeded"], "j/verdict": ["succeeded"]}
    program(root, "retry", f"{batch}/j/t")
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the second round")
    assert states(ctx, batch) == {"j/t": ["succeeded"] * 2, "j/verdict": ["succeeded"] * 2}


def test_unknown_ids_are_refused_with_the_nearest_known_one(root):
    ctx = context(root)
    batch = put(ctx, table(job("alpha", command("s", "true"))))
    done = program(root, "cancel", f"{batch}/alpah", check=False)
    assert done.returncode == 2
    assert "alpha" in done.stderr
    assert done.stderr.count("\n") == 1
