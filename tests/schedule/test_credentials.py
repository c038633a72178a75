"""Whose key: a pause holds for the credential that was refused, and each batch gets its own, whoever runs the pass."""

import json
import os
import signal
import threading
import time

import pytest
from harness import make_task
from servers import serving
from stores import (
    SUPPORT,
    attempt_dirs,
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

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.store import identity
from parallelhassnes.store.queue import queue_keys

KEY = "fake/model"
GOOD, BAD, OTHER = "g00d-" + "k" * 20, "b4d-" + "z" * 20, "0ther-" + "q" * 20


@pytest.fixture
def trial(root):
    """Makes a trial step of an agent that needs the good key."""
    task = make_task(root)
    script = root / "script"
    script.mkdir()
    (script / "words").write_text("key")
    (script / "good").write_text(GOOD)

    def step(step_id="t", **more):
        agent = {"import_path": "scripted_agent:ScriptedAgent", "model_name": KEY, "kwargs": {"script": str(script)}}
        return {
            "step_id": step_id,
            "kind": "trial",
            "task": {"path": str(task)},
            "environment": "temp_environment:TempEnvironment",
            "agent": agent,
            **more,
        }

    return step


def run(root, name, data, key, *more, **options):
    """``run`` of a table, with a key in its environment or none."""
    path = root / f"{name}.json"
    path.write_bytes(data)
    env = {**SUPPORT, **({"FAKE_KEY": key} if key else {})}
    done = program(root, "run", "-c", str(path), "--json", "--fail-on", "never", *more, env=env, check=False, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["batch_id"], done


def everything_below(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_refused_key_holds_up_no_other_and_resume_gives_its_batch_another(root, trial):
    ctx = context(root)
    data = table(job("j", trial("a"), trial("b")), secrets=["FAKE_KEY"], concurrency=1)
    bad, _ = run(root, "bad", data, BAD)
    assert states(ctx, bad) == {"j/a": ["failed"]}, "one is refused, the other waits"
    good, done = run(root, "good", data, GOOD)
    assert states(ctx, good) == {"j/a": ["succeeded"], "j/b": ["succeeded"]}, done.stderr
    (pause,) = queue_keys.read(ctx.layout, KEY).breakers.values()
    assert pause.batches == (bad,)
    line = f"{KEY} is paused for attempts with FAKE_KEY ({pause.credential.mark[:6]}): authentication failed"
    assert line in program(root, "explain", bad).stdout
    assert line in " ".join(program(root, "scoreboard", env={"COLUMNS": "400"}).stdout.split())
    board = json.loads(program(root, "scoreboard", "--json").stdout)
    (shown,) = [entry for entry in board["queue"] if entry["queue_key"] == KEY]
    assert [entry["variables"] for entry in shown["pauses"]] == [["FAKE_KEY"]]
    assert line in shown["paused"]
    with serving(root) as server:
        (entry,) = [found for found in server.client.get("/v1/queue").json()["keys"] if found["queue_key"] == KEY]
        assert entry["pauses"] == shown["pauses"]
    for value in (BAD, GOOD):
        assert value.encode() not in everything_below(ctx.layout.runs)
        assert value.encode() not in everything_below(ctx.layout.runners)
    program(root, "resume", KEY, env={**SUPPORT, "FAKE_KEY": GOOD})
    wait_for(lambda: idle(ctx), "the batch with its new key")
    assert states(ctx, bad) == {"j/a": ["failed", "succeeded"], "j/b": ["succeeded"]}
    assert verify(ctx.layout).ok


def test_a_batch_without_a_key_pauses_only_what_has_none(root, trial):
    ctx = context(root)
    first, _ = run(root, "first", table(job("j", trial())), None)
    second, _ = run(root, "second", table(job("j", trial())), None)
    assert states(ctx, first) == {"j/t": ["failed"]}
    assert states(ctx, second) == {}, "it has the same, which is none"
    assert "paused for attempts that are given no key" in program(root, "explain", second).stdout
    keyed, _ = run(root, "keyed", table(job("j", trial()), secrets=["FAKE_KEY"]), GOOD)
    assert states(ctx, keyed) == {"j/t": ["succeeded"]}
    program(root, "resume", KEY, env=SUPPORT)  # pauses it again, and nothing else
    wait_for(lambda: len(states(ctx, first)["j/t"]) + len(states(ctx, second).get("j/t", ())) == 3, "another refusal")
    again, _ = run(root, "again", table(job("j", trial()), secrets=["FAKE_KEY"]), GOOD)
    assert states(ctx, again) == {"j/t": ["succeeded"]}


def test_steps_of_one_batch_with_keys_of_their_own(root, trial):
    ctx = context(root, "concurrency = 1\n")
    steps = [trial(f"s{n}", env={"FAKE_KEY": "${KEY_B}" if n % 2 else "${KEY_A}"}) for n in range(4)]
    batch = put(ctx, table(job("j", *steps)))
    env = {**SUPPORT, "KEY_A": BAD, "KEY_B": GOOD}
    program(root, "tick", "--until-idle", "--fail-on", "never", env=env)
    wait_for(lambda: states(ctx, batch).get("j/s3"), "the last with a good key")
    found = states(ctx, batch)
    assert (found["j/s1"], found["j/s3"]) == (["succeeded"], ["succeeded"])
    assert len([step for step in ("j/s0", "j/s2") if step in found]) == 1, found


def test_another_key_in_the_env_file_starts_at_once(root, trial):
    ctx = context(root, 'env_file = "keys.env"\n')
    (root / "keys.env").write_text(f"FAKE_KEY={BAD}\n")
    batch = put(ctx, table(job("j", trial()), secrets=["FAKE_KEY"]))
    program(root, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT)
    assert states(ctx, batch) == {"j/t": ["failed"]}
    (root / "keys.env").write_text(f"FAKE_KEY={GOOD}\n")
    program(root, "tick", "--until-idle", env=SUPPORT)
    assert states(ctx, batch) == {"j/t": ["failed", "succeeded"]}
    meta = [read(path / "meta.json")["credential"] for path in attempt_dirs(ctx, batch)]
    assert meta[0]["variables"] == meta[1]["variables"] == ["FAKE_KEY"]
    assert meta[0]["mark"] != meta[1]["mark"]


def test_a_pause_of_an_earlier_version_holds_for_all_until_it_is_resumed(root, trial):
    ctx = context(root)
    ctx.layout.limits.mkdir(exist_ok=True)
    breaker = {
        "failure_class": "auth",
        "line": "401",
        "attempt": "b/j/s/a",
        "at": time.time(),
        "interval_sec": 600.0,
        "probe_at": time.time() + 600,
    }
    (ctx.layout.limits / "fake__model.json").write_text(
        json.dumps({"schema_version": 1, "queue_key": KEY, "breaker": breaker})
    )
    batch, _ = run(root, "batch", table(job("j", trial()), secrets=["FAKE_KEY"]), GOOD)
    assert states(ctx, batch) == {}
    assert f"{KEY} is paused: authentication failed (401)" in program(root, "explain", batch).stdout
    program(root, "resume", KEY, env={**SUPPORT, "FAKE_KEY": GOOD})
    wait_for(lambda: idle(ctx), "the batch")
    assert states(ctx, batch) == {"j/t": ["succeeded"]}


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_the_environment_of_a_run_is_its_own_batchs(root, how):
    ctx = context(root, "concurrency = 2\n")
    env = {"FAKE_KEY": GOOD, "PARALLELHASSNES_START": how}
    path = root / "run.json"
    path.write_bytes(
        table(job("j", *(shell(f"s{n}", "sleep 0.3") for n in range(6))), secrets=["FAKE_KEY"], concurrency=1)
    )
    process = started(root, "run", "-c", str(path), "--json", env=env)
    wait_for(lambda: list(ctx.layout.running.glob("*/*")), "its first step")
    check = f'test "$FAKE_KEY" = {OTHER}'
    other = put(ctx, table(job("k", shell("s", check)), secrets=["FAKE_KEY"]))
    free = put(ctx, table(job("k", shell("s", "true"))))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert states(ctx, free) == {"k/s": ["succeeded"]}
    assert states(ctx, other) == {}, "the passes of the run had a FAKE_KEY, which was not for it"
    note = read(ctx.layout.blocked / f"{other}.json")
    assert note["reason"] == "secret FAKE_KEY is not set in the environment"
    assert "FAKE_KEY is not set" in program(root, "explain", other).stdout
    program(root, "tick", "--until-idle", env={"FAKE_KEY": OTHER, "PARALLELHASSNES_START": how})
    assert states(ctx, other) == {"k/s": ["succeeded"]}
    mine = json.loads(out)["batch_id"]
    assert set(map(tuple, states(ctx, mine).values())) == {("succeeded",)}


def test_a_run_is_gone_on_with_its_own_value_or_not_at_all(root):
    ctx = context(root, 'concurrency = 1\nsecrets = ["FAKE_KEY"]\n')
    path = root / "run.json"
    check = f'test "$FAKE_KEY" = {GOOD}'
    path.write_bytes(table(job("j", shell("a", "sleep 300"), shell("b", check), shell("c", check))))
    process = started(root, "run", "-c", str(path), env={"FAKE_KEY": GOOD})
    batch = wait_for(ctx.layout.batch_ids, "the batch")[0]
    first = wait_for(lambda: list(attempt_dirs(ctx, batch)), "its first attempt")[0]
    wait_for(lambda: read(first / "state.json").get("worker_pid"), "its worker")
    process.kill()
    process.communicate()
    os.kill(read(first / "state.json")["pid"], signal.SIGKILL)
    program(root, "cancel", f"{batch}/j/a", env={"FAKE_KEY": OTHER})
    for env in ({}, {"FAKE_KEY": OTHER}):
        program(root, "tick", "--until-idle", "--fail-on", "never", env=env)
        assert set(states(ctx, batch)) == {"j/a"}, "the others wait, optional as the variable is"
        why = program(root, "explain", f"{batch}/j/b").stdout
        assert "FAKE_KEY is not at hand as `run` had it" in why
        assert f"parallelhassnes resume {batch}" in why
        assert "is not at hand as `run` had it" in program(root, "doctor", env=env, check=False).stdout
    program(root, "tick", "--until-idle", "--fail-on", "never", env={"FAKE_KEY": GOOD})
    assert {step: found[-1] for step, found in states(ctx, batch).items() if step != "j/a"} == {
        "j/b": "succeeded",
        "j/c": "succeeded",
    }


def test_a_broken_env_file_holds_up_only_what_takes_from_it(root):
    ctx = context(root, 'env_file = "keys.env"\n')
    (root / "keys.env").write_text("not a line\n")
    batch = put(ctx, table(job("j", shell("s", f"test $FAKE_KEY = {GOOD}")), secrets=["FAKE_KEY"]))
    other = put(ctx, table(job("g", shell("s", "true"))))
    program(root, "tick", "--until-idle", "--fail-on", "never")
    assert "line 1: is not NAME=value" in read(ctx.layout.blocked / f"{batch}.json")["reason"]
    assert states(ctx, other) == {"g/s": ["succeeded"]}
    (root / "keys.env").write_text(f"FAKE_KEY={GOOD}\n")
    program(root, "tick", "--until-idle")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


def test_the_key_of_the_marks_is_private_and_outside_of_what_is_shared(root):
    ctx = context(root)
    run(root, "one", table(job("j", shell("s", "true")), secrets=["FAKE_KEY"]), GOOD)
    key = ctx.layout.credential_key
    assert not key.is_relative_to(ctx.layout.runs)
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_bytes() not in everything_below(ctx.layout.runs)
    assert [runner["runner_id"] for runner in json.loads(program(root, "scoreboard", "--json").stdout)["runners"]] == [
        ctx.config.runner_id
    ]


def asked(layout, what):
    """What names the store's key, or the store."""
    if what == "id":
        return identity.store_id(layout.runs)
    return credentials.mark_of(layout, {"A": "x"})


@pytest.mark.parametrize("what", ["key", "id"])
def test_threads_that_need_the_key_or_the_id_first_at_once_get_the_same(root, what):
    layout = context(root).layout
    path = layout.credential_key if what == "key" else layout.system / identity.STORE_ID
    together, found = threading.Barrier(6), []

    def ask():
        together.wait()
        found.append(asked(layout, what))

    for _ in range(20):
        path.unlink(missing_ok=True)
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6, "each got one"
        assert set(found) == {asked(layout, what)}, "the one that is there"
        found.clear()
    assert [each.name for each in path.parent.glob(".tmp-*")] == []


@pytest.mark.parametrize("what", ["key", "id"])
@pytest.mark.parametrize("spoilt", [b"", b"\0" * 7, b"\xff/"])
def test_a_key_or_an_id_that_a_power_cut_has_spoilt_is_made_anew(root, what, spoilt):
    layout = context(root).layout
    path = layout.credential_key if what == "key" else layout.system / identity.STORE_ID
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(spoilt)
    assert asked(layout, what) == asked(layout, what)
    assert len(path.read_bytes()) == (32 if what == "key" else 13)


def test_a_key_that_no_client_can_send_is_waited_for_like_one_that_is_missing(root):
    bad = "sk-longish\u00e4"
    (root / "keys.env").write_text(f"FAKE_API_KEY=sk-longish-good\nFAKE_NOTE={bad}\n")
    ctx = context(root, 'env_file = "keys.env"\n')
    free = put(ctx, table(job("k", shell("s", f'test "$FAKE_NOTE" = {bad}')), secrets=["FAKE_NOTE"]))
    batch = put(ctx, table(job("j", shell("s", "true")), secrets=["FAKE_API_KEY"]))
    (root / "keys.env").write_text(f"FAKE_API_KEY={bad}\nFAKE_NOTE={bad}\n")
    program(root, "tick", check=False)
    wait_for(lambda: states(ctx, free) == {"k/s": ["succeeded"]}, "what is no key")
    assert states(ctx, batch) == {}
    reason = read(ctx.layout.blocked / f"{batch}.json")["reason"]
    assert reason == "FAKE_API_KEY can be no key: its character 11 of 11 is not ASCII; write it anew in keys.env"
    assert "FAKE_API_KEY can be no key" in program(root, "explain", batch).stdout
    (root / "keys.env").write_text("FAKE_API_KEY=sk-longish-good\n")
    program(root, "tick", "--until-idle")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
