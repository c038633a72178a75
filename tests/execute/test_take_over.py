"""A supervisor whose attempt is sealed goes on with the next one, and harms none that it started before."""

from stores import (
    attempt_dirs,
    context,
    idle,
    job,
    put,
    read,
    shell,
    states,
    step_of,
    table,
    wait_for,
)

from parallelhassnes.execute import processes
from parallelhassnes.schedule.tick import tick


def supervisors(ctx, batch) -> dict[str, int]:
    return {step_of(p): read(p / "state.json")["pid"] for p in attempt_dirs(ctx, batch)}


def test_one_process_supervises_one_attempt_after_the_other(tmp_path):
    ctx = context(tmp_path, "concurrency = 1\n")
    batch = put(ctx, table(*(job(f"j{n}", shell("s", f"echo word{n}")) for n in range(5))))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch) == {f"j{n}/s": ["succeeded"] for n in range(5)}
    assert len(set(supervisors(ctx, batch).values())) == 1
    for path in attempt_dirs(ctx, batch):
        assert (path / "stdout.log").read_text() == f"word{step_of(path)[1]}\n"


def test_what_it_started_before_lives_on_when_its_next_attempt_ends(tmp_path):
    ctx = context(tmp_path, "concurrency = 4\n")
    go = tmp_path / "go"
    first = shell("a", "true")
    short = shell("b", "sleep 300 & echo forked away", depends_on=["a"])
    others = [shell(s, f"until [ -e {go} ]; do sleep 0.05; done", depends_on=["a"]) for s in "cd"]
    batch = put(ctx, table(job("j", first, short, *others)))
    tick(ctx)
    wait_for(lambda: states(ctx, batch).get("j/b") == ["succeeded"], "the one that ends first")
    found = supervisors(ctx, batch)
    assert found["j/b"] == found["j/a"], "it went on in the same process"
    assert len({*found.values()}) == 3
    go.touch()
    wait_for(lambda: idle(ctx), "the others")
    assert states(ctx, batch) == {f"j/{s}": ["succeeded"] for s in "abcd"}


def test_what_others_started_meanwhile_lives_on_too(tmp_path):
    """A supervisor that has ended leaves behind what it started; none of it may fall to one that still runs."""
    ctx = context(tmp_path, "concurrency = 4\n")
    first, second = tmp_path / "first", tmp_path / "second"

    def waits_for(step_id, path, after):
        return shell(step_id, f"until [ -e {path} ]; do sleep 0.05; done", depends_on=[after])

    steps = [
        shell("a", "true"),
        waits_for("b", first, "a"),
        shell("c", "true", depends_on=["a"]),
        shell("d", "true", depends_on=["c"]),
        waits_for("e", second, "c"),
    ]
    batch = put(ctx, table(job("j", *steps)))
    tick(ctx)
    wait_for(lambda: states(ctx, batch).get("j/d") == ["succeeded"], "the short ones")
    wait_for(lambda: states(ctx, batch).get("j/e") == ["running"], "the last one")
    found = supervisors(ctx, batch)
    assert found["j/a"] == found["j/b"], "the first went on"
    assert found["j/c"] == found["j/d"] != found["j/e"], "the second started another, and ended"
    wait_for(lambda: not processes.is_alive(found["j/d"], None), "the end of the second")
    first.touch()
    wait_for(lambda: states(ctx, batch)["j/b"] == ["succeeded"], "the end of the first")
    second.touch()
    wait_for(lambda: idle(ctx), "the rest")
    assert states(ctx, batch) == {f"j/{s}": ["succeeded"] for s in "abcde"}
