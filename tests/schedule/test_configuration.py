"""The configuration edited while things run: obeyed at the next pass, recorded with what started under it; a broken edit changes nothing."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from servers import serving
from stores import (
    attempt_dirs,
    command,
    context,
    idle,
    job,
    program,
    put,
    read,
    shell,
    started,
    states,
    table,
    wait_for,
)

from parallelhassnes.config import Config
from parallelhassnes.schedule import configuration, health
from parallelhassnes.schedule.context import Context

pytestmark = pytest.mark.timeout(240)
FAST = "durable = false\n"


def edit(ctx: Context, text: str) -> None:
    """As an editor does: the file in place, not by rename."""
    (ctx.layout.root / "parallelhassnes.toml").write_text(f"heartbeat_sec = 0.2\n{FAST}{text}")


def waits(root: Path, step_id: str, **more) -> dict:
    """A step that says that it runs and waits for ``go-<step>``."""
    script = f"touch {root}/runs-{step_id}; until [ -e {root}/go-{step_id} ]; do sleep 0.02; done"
    return shell(step_id, script, **more)


def metas(ctx: Context, batch: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for path in attempt_dirs(ctx, batch):
        meta = read(path / "meta.json")
        found.setdefault(meta["step_id"], []).append(meta | {"ended_at": read(path / "state.json")["ended_at"]})
    return found


@pytest.mark.parametrize(
    ("arguments", "env", "before", "after"),
    [
        (["tick"], {}, "concurrency = 6\n", "concurrency = 1\n"),
        (["tick"], {"PARALLELHASSNES_START": "spawn"}, "concurrency = 4\n", "concurrency = 1\n"),
        (["tick", "--until-idle"], {}, "[limits]\nk = 6\n", "[limits]\nk = 1\n"),
    ],
    ids=["supervisors", "spawned", "until-idle"],
)
def test_a_lower_limit_is_obeyed_by_every_pass_after_the_edit(root, arguments, env, before, after):
    ctx = context(root, FAST + before)
    steps = [shell(f"s{n}", "sleep 0.15", queue_key="k") for n in range(16)]
    batch = put(ctx, table(job("j", *steps)))
    with started(root, *arguments, env=env) as going:
        wait_for(lambda: len(states(ctx, batch)) >= 4, "several to run")
        edit(ctx, after)
        wait_for(lambda: idle(ctx), "the batch to end", 120)
        going.communicate(timeout=60)
    every = [meta for own in metas(ctx, batch).values() for meta in own]
    assert len(every) == 16
    old, new = (Config(**read(p)) for p in by_time(ctx))
    assert {meta["config_sha256"] for meta in every} == {old.sha256(), new.sha256()}
    for meta in every:
        if meta["config_sha256"] == new.sha256():
            live = [m for m in every if m["created_at"] < meta["created_at"] < m["ended_at"] and m != meta]
            assert live == [], f"{meta['step_id']} started beside {len(live)} others"
    events = [json.loads(line) for line in (ctx.layout.system / "ledger.jsonl").read_text().splitlines()]
    assert [e["config_sha256"] for e in events if e["event"] == "configured"] == [old.sha256(), new.sha256()]


def by_time(ctx: Context) -> list[Path]:
    return sorted((ctx.layout.system / "config_versions").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)


def test_secrets_names_and_floors_are_those_of_the_pass_that_starts_a_step(root):
    ctx = context(root, FAST)
    steps = [
        waits(root, "a"),
        shell("b", "printenv X_TOKEN | wc -c > seen; cp seen $PARALLELHASSNES_ATTEMPT_DIR/seen", depends_on=["a"]),
        command("c", "true", depends_on=["b"]),
    ]
    batch = put(ctx, table(job("j", *steps)))
    program(root, "tick", env={"X_TOKEN": "0123456789abcdef"})
    wait_for((root / "runs-a").exists, "the first step")
    edit(ctx, 'secrets = ["X_TOKEN"]\n')
    (root / "go-a").touch()
    wait_for(lambda: states(ctx, batch).get("j/c") == ["succeeded"], "the last step")
    (b,) = (path for path in attempt_dirs(ctx, batch) if "/steps/b/" in str(path))
    assert (b / "seen").read_text().strip() == "17"
    # A floor that nothing is above: steps end, and nothing starts until it is taken away.
    batch = put(ctx, table(job("j", waits(root, "d"), command("e", "true", depends_on=["d"]))))
    program(root, "tick")
    wait_for((root / "runs-d").exists, "the step")
    edit(ctx, "min_free_disk_mb = 1000000000\n")
    (root / "go-d").touch()
    wait_for(lambda: states(ctx, batch).get("j/d") == ["succeeded"], "its end")
    assert "the floor is 1000000000 MB" in program(root, "tick").stdout
    assert "j/e" not in states(ctx, batch)
    edit(ctx, "")
    program(root, "tick")
    wait_for(lambda: states(ctx, batch).get("j/e") == ["succeeded"], "the step after it")


AT_LEAST_TWICE = "[retry]\nmax_attempts = {}\nbackoff_sec = {}\n[retry.classes.agent_error]\nretry = true\n"


def waits_and_fails(root: Path, step_id: str, **more) -> dict:
    script = f"touch {root}/runs-{step_id}; until [ -e {root}/go-{step_id} ]; do sleep 0.02; done; exit 3"
    return shell(step_id, script, **more)


def test_an_end_is_judged_by_the_retry_of_the_configuration_as_it_is_then(root):
    """Four attempts where one was allowed when the batch came; what the table says of itself stays."""
    ctx = context(root, FAST + "[retry]\nmax_attempts = 1\n")
    steps = [
        waits_and_fails(root, "open"),
        waits_and_fails(root, "own", retry={"max_attempts": 2}),
        waits_and_fails(root, "own_class", retry={"classes": {"agent_error": {"retry": False}}}),
        waits_and_fails(root, "own_backoff", retry={"backoff_sec": 40}),
        command("after", "true", depends_on=["open"]),
    ]
    batch = put(ctx, table(job("j", *steps)))
    program(root, "tick")
    for name in ("open", "own", "own_class", "own_backoff"):
        wait_for((root / f"runs-{name}").exists, f"{name} to run")
    assert "retries: 1 attempt at most (parallelhassnes.toml)" in told(root, "j/open")
    edit(ctx, AT_LEAST_TWICE.format(4, 0.05))
    assert "retries: 4 attempts at most (parallelhassnes.toml), again after 0.05 s" in told(root, "j/open")
    assert "retries: 2 attempts at most (its table), again after 0.05 s" in told(root, "j/own")
    for name in ("open", "own", "own_class", "own_backoff"):
        (root / f"go-{name}").touch()
    wait_for(
        lambda: (
            {name: len(ends) for name, ends in states(ctx, batch).items()}
            == {"j/open": 4, "j/own": 2, "j/own_class": 1, "j/own_backoff": 1}
        ),
        "as many attempts as are allowed now",
    )
    wait_for(lambda: "4 attempts used up" in told(root, "j/open"), "the last end to be settled")
    assert "agent_error is not retried" in told(root, "j/own_class")
    assert "again after 4" in told(root, "j/own_backoff")
    # A rebuild comes to the same, whatever the file says by then.
    before = decided(ctx, batch)
    assert before["open"] == (True, None)
    edit(ctx, AT_LEAST_TWICE.format(9, 900))
    program(root, "doctor", "--rebuild", check=False)  # which also looks for an engine
    assert decided(ctx, batch) == before
    assert "4 attempts used up" in told(root, "j/open")


def test_fewer_attempts_are_obeyed_by_steps_that_have_used_some(root):
    ctx = context(root, FAST + AT_LEAST_TWICE.format(50, 0.05))
    batch = put(ctx, table(job("j", waits_and_fails(root, "s"))))
    program(root, "tick")
    wait_for((root / "runs-s").exists, "it to run")
    edit(ctx, AT_LEAST_TWICE.format(1, 0.05))
    (root / "go-s").touch()
    wait_for(lambda: "1 attempt used up" in told(root, "j/s"), "its end to be settled")
    assert states(ctx, batch) == {"j/s": ["failed"]}


def test_the_end_of_a_dead_attempt_is_judged_by_the_configuration_of_then(root):
    ctx = context(root, FAST + "[retry]\nmax_attempts = 1\n")
    batch = put(ctx, table(job("j", waits(root, "s"))))
    program(root, "tick")
    wait_for((root / "runs-s").exists, "it to run")
    (attempt,) = attempt_dirs(ctx, batch)
    os.kill(read(attempt / "state.json")["pid"], signal.SIGKILL)
    edit(ctx, "[retry]\nmax_attempts = 2\n")
    (root / "go-s").touch()
    wait_for(lambda: program(root, "tick") and states(ctx, batch)["j/s"] == ["lost", "succeeded"], "the second attempt")


def test_a_plan_of_an_earlier_version_keeps_the_rule_that_was_filled_in(root):
    ctx = context(root, FAST + AT_LEAST_TWICE.format(2, 0.05))
    batch = put(ctx, table(job("j", waits_and_fails(root, "s"))))
    path = ctx.layout.batch(batch) / "j" / "job.json"
    document = read(path)
    assert document["steps"][0]["retry"] == {"open": ["max_attempts", "backoff_sec", "classes"]}
    document["steps"][0]["retry"] = {
        "max_attempts": 2,
        "backoff_sec": 0.05,
        "classes": {"agent_error": {"retry": True}},
    }
    path.write_text(json.dumps(document))
    program(root, "tick")
    wait_for((root / "runs-s").exists, "it to run")
    edit(ctx, AT_LEAST_TWICE.format(5, 0.05))
    (root / "go-s").touch()
    wait_for(lambda: "2 attempts used up" in told(root, "j/s"), "its last end")
    assert states(ctx, batch) == {"j/s": ["failed", "failed"]}


def told(root: Path, step: str) -> str:
    """What ``explain`` says of a step."""
    every = json.loads(program(root, "explain", "latest", "--json").stdout)["steps"]
    return "\n".join(line for each in every if each["step"] == step for line in each["why"])


def decided(ctx: Context, batch: str) -> dict[str, tuple]:
    """What ``current.json`` has of each step: whether it is over, and when it starts again."""
    steps = read(ctx.layout.batch(batch) / "j" / "current.json")["steps"]
    return {name: (now.get("settled"), now.get("retry_at")) for name, now in steps.items()}


def test_the_process_that_wakes_a_retry_goes_by_the_configuration_of_then(root):
    ctx = context(root, FAST)
    retry = {"classes": {"agent_error": {"retry": True, "max_attempts": 2, "backoff_sec": 2}}}
    batch = put(ctx, table(job("j", command("s", "false", retry=retry))))
    program(root, "tick")
    wait_for(lambda: states(ctx, batch).get("j/s") == ["failed"], "the first attempt")
    edit(ctx, "grace_sec = 7\n")
    wait_for(lambda: states(ctx, batch).get("j/s") == ["failed", "failed"], "the retry")
    first, second = metas(ctx, batch)["s"]
    assert first["config_sha256"] != second["config_sha256"]
    under = ctx.layout.system / "config_versions" / f"{second['config_sha256']}.json"
    assert read(under)["grace_sec"] == 7


def test_a_broken_edit_keeps_the_last_good_configuration_and_is_told_once_per_change(root):
    ctx = context(root, FAST + "concurrency = 3\n")
    batch = put(ctx, table(job("j", waits(root, "a"), waits(root, "b", depends_on=["a"]))))
    program(root, "tick")
    wait_for((root / "runs-a").exists, "the first step")
    edit(ctx, "concurrency = = 1\n")
    (root / "go-a").touch()
    wait_for((root / "runs-b").exists, "the second step, under what was good")
    assert len({m["config_sha256"] for own in live_metas(ctx, batch) for m in own}) == 1
    quiet = [program(root, "tick", "--quiet").stderr for _ in range(2)]
    assert "parallelhassnes.toml: is not valid TOML" in quiet[0]
    assert "stays in force until it is mended" in quiet[0]
    assert quiet[1] == ""
    edit(ctx, "\n\nconcurrency = = 1\n")
    assert "line 5" in program(root, "tick", "--quiet").stderr
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    assert board["concurrency"] == 3
    checks = json.loads(program(root, "doctor", "--json", check=False).stdout)["checks"]
    with serving(root) as server:
        page = server.client.get("/").text
        answer = server.client.get("/health")
        server.client.post("/v1/tick")
        log = server.end()
    assert answer.status_code == 200
    assert log.count("is not valid TOML") == 1
    said = {
        "scoreboard": json.dumps(board),
        "doctor": json.dumps([c for c in checks if c["state"] == "trouble"]),
        "page": page,
        "/health": answer.text,
        "tick": program(root, "tick").stdout,
    }
    for view, text in said.items():
        assert "is not valid TOML" in text, view
    # Who brings something new is there to mend it, and is refused.
    refused = program(root, "submit", "-", input=table(job("k", command("s", "true"))).decode(), check=False)
    assert refused.returncode == 2
    assert "is not valid TOML" in refused.stderr
    (root / "go-b").touch()
    wait_for(lambda: states(ctx, batch).get("j/b") == ["succeeded"], "the end")
    edit(ctx, "concurrency = 2\n")
    program(root, "tick")
    assert health.troubles(ctx.layout) == []
    assert json.loads(program(root, "scoreboard", "--json").stdout)["concurrency"] == 2


def live_metas(ctx: Context, batch: str) -> list[list[dict]]:
    return [[read(path / "meta.json")] for path in attempt_dirs(ctx, batch)]


def test_a_file_is_read_where_its_stamp_moved_and_parsed_where_its_bytes_are_others(root):
    ctx = context(root, FAST + "concurrency = 3\n")
    path = root / "parallelhassnes.toml"
    first = configuration.in_force(ctx.layout).config
    assert configuration.in_force(ctx.layout).config is first
    os.utime(path)
    assert configuration.in_force(ctx.layout).config is first
    kept = path.stat()
    path.write_text(path.read_text().replace("3", "4"))  # of one size
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns + 1))
    assert configuration.in_force(ctx.layout).config.concurrency == 4
    other = root / "other.toml"  # a rename, with the time and the size of what was there
    other.write_text(path.read_text().replace("4", "5"))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert configuration.in_force(ctx.layout).config.concurrency == 5
    path.write_text("")  # an editor begins to write
    assert configuration.in_force(ctx.layout).config.concurrency == 5
    then = time.time() - 60
    os.utime(path, (then, then))
    assert configuration.in_force(ctx.layout).config == Config()


def test_an_edit_that_puts_the_old_time_back_and_a_file_that_an_editor_moved_away(root):
    ctx = context(root, FAST + "concurrency = 3\n[limits]\nk = 1\n")
    path = root / "parallelhassnes.toml"
    assert configuration.in_force(ctx.layout).config.concurrency == 3
    kept, text = path.stat(), path.read_text()
    with path.open("r+") as stream:  # in place, of one size, as ``rsync --inplace --times`` does
        stream.write(text.replace("concurrency = 3", "concurrency = 4"))
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert configuration.in_force(ctx.layout).config.concurrency == 4
    path.rename(root / "parallelhassnes.toml~")  # vim's backup, before it writes the file anew
    found = configuration.in_force(ctx.layout).config
    assert (found.concurrency, found.limits) == (4, {"k": 1})
    then = time.time() - 60
    os.utime(root, (then, then))
    assert configuration.in_force(ctx.layout).config == Config(), "it was taken away for good"


def test_the_snapshot_follows_the_file_where_another_process_wrote_it_in_between(root):
    ctx = context(root, FAST + "concurrency = 6\n")
    batch = put(ctx, table(job("j", command("s", "true"))))
    configuration.keep(ctx.layout, configuration.in_force(ctx.layout).config)
    edit(ctx, "concurrency = 1\n")
    program(root, "tick", "--until-idle")
    snapshot = ctx.layout.configured
    assert read(snapshot)["config"]["concurrency"] == 1
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    (root / "parallelhassnes.toml").write_text("heartbeat_sec = 0.2\ngrace_sec = 3\n" + FAST + "concurrency = 6\n")
    config = configuration.in_force(ctx.layout).config
    configuration.keep(ctx.layout, config)
    assert read(snapshot)["config"]["concurrency"] == config.concurrency == 6
