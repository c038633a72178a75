"""Planted secrets are nowhere in the store: after success, failure, a kill -9, in a trial's files."""

import base64
import json
import os
import signal
from pathlib import Path

import pytest
from stores import attempt_dirs, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule.tick import tick

NAMED = 'n4med-s3cret/"with" odd+chars&=%'
FILED = "f1led-s3cret-0123456789"
SHAPED = "sk-proj-" + "a1B2c3D4" * 5
SAY_SHAPED = f"echo {base64.b64encode(SHAPED.encode()).decode()[::-1]} | rev | base64 -d; echo"
SAY = """
echo "key $NAMED_KEY and $FILED_KEY"; env >&2; env | base64
cd "$PARALLELHASSNES_ATTEMPT_DIR"; mkdir -p deep/er; env > deep/er/env.txt
printf 'a\\0b %s c' "$FILED_KEY" > deep/binary
python3 -c 'import json,os,urllib.parse as u; v=os.environ["NAMED_KEY"]; print(json.dumps({"k": v}), u.quote(v))' > x.json
"""


@pytest.fixture
def planted(root, monkeypatch):
    """A context whose steps are given secrets; one from the environment, one from a file."""
    monkeypatch.setenv("NAMED_KEY", NAMED)
    env_file = root.parent / "secrets.env"
    env_file.write_text(f"FILED_KEY={FILED}\n")
    return context(root, f'secrets = ["FILED_KEY"]\nenv_file = "{env_file}"\n')


def leaks(ctx):
    """Files below runs/ (or their names) that hold a planted secret in one of its usual forms."""
    forms = set()
    for value in (NAMED, FILED, SHAPED):
        raw = value.encode()
        forms |= {raw, json.dumps(value)[1:-1].encode()}
        forms |= {base64.b64encode(b"\0" * n + raw)[4:-4] for n in range(3)}
    found = []
    for folder, _, names in os.walk(ctx.layout.root / "runs"):
        for name in names:
            path = Path(folder, name)
            try:
                data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            except FileNotFoundError:  # a supervisor's that still runs
                continue
            data = data.replace(b"\n", b"") + name.encode()
            found += [(path, form) for form in forms if form in data]
    return found


def run(ctx, *steps, **more):
    batch = put(ctx, table(job("j", *steps), secrets=["NAMED_KEY"], **more))
    tick(ctx)
    return batch


@pytest.mark.parametrize("end", ["true", "exit 3", "sleep 300"])
def test_a_command_that_prints_its_environment(planted, end):
    batch = run(planted, shell("s", f"{SAY}\n{SAY_SHAPED}; {end}", timeout_sec=6))
    wait_for(lambda: idle(planted), "the end")
    path = next(attempt_dirs(planted, batch))
    assert leaks(planted) == []
    assert "key [REDACTED:NAMED_KEY] and [REDACTED:FILED_KEY]" in (path / "stdout.log").read_text()
    assert (path / "deep/er/env.txt").stat().st_size > 100
    assert read(path / "seal.json")["redacted"]["stdout.log"]["openai-key"] == 1
    assert verify(planted.layout).ok


def test_after_a_kill_of_the_supervisor(planted):
    batch = run(planted, shell("s", f"{SAY}\n{SAY_SHAPED}; sleep 60"), retry={"max_attempts": 1})
    path = next(attempt_dirs(planted, batch))
    log = path / "stdout.log"
    wait_for(lambda: log.exists() and SHAPED in log.read_text(), "its output")
    wait_for(lambda: read(path / "state.json").get("worker_pid"), "its pid")
    assert leaks(planted)
    os.kill(read(path / "state.json")["pid"], signal.SIGKILL)
    wait_for(lambda: (tick(planted), idle(planted))[1], "the repair")
    assert states(planted, batch) == {"j/s": ["lost"]}
    assert leaks(planted) == []
    assert verify(planted.layout).ok


def test_a_failure_that_quotes_a_key_is_clean_in_every_record(planted):
    """state.json, the ledger and current.json say why it failed, and none says the key."""
    batch = run(planted, {"step_id": "s", "kind": "command", "command": [f"/nowhere/{FILED}"]})
    wait_for(lambda: idle(planted), "the end")
    table_itself = planted.layout.batch(batch)
    assert {path.name for path, _ in leaks(planted)} <= {"launch_table.json", "job.json", f"{batch}.json"}, (
        "what the user wrote into the table himself"
    )
    assert read(next(attempt_dirs(planted, batch)) / "state.json")["status"] == "failed"
    assert table_itself.exists()


def test_a_trial_whose_solution_prints_its_environment(planted, root):
    from harness import TEMP, make_task

    task = make_task(
        root,
        solution=f"{SAY_SHAPED}; echo said {FILED}; env; echo {NAMED!r} | base64 > /logs/agent/env.b64; echo hi > /app/out",
    )
    step = {"step_id": "t", "kind": "trial", "task": {"path": str(task)}, "agent": "oracle", "environment": TEMP}
    batch = run(planted, step)
    wait_for(lambda: idle(planted), "the trial", 90)
    path = next(attempt_dirs(planted, batch))
    assert read(path / "state.json")["status"] == "succeeded", (path / "stderr.log").read_text()
    assert leaks(planted) == []
    assert (path / "trial" / "result.json").exists()
    json.loads((path / "trial" / "result.json").read_text())


def test_a_rejected_table_with_a_secret_is_its_owners_alone(planted):
    path = planted.layout.incoming / "bad.json"
    path.write_bytes(table(job("j", {"step_id": "s", "command": ["true"], "env": {"A_KEY": SHAPED}})))
    path.chmod(0o644)
    tick(planted)
    kept = planted.layout.rejected / "bad.json"
    if kept.exists():
        assert kept.stat().st_mode & 0o077 == 0
        assert SHAPED not in kept.with_name("bad.json.error.json").read_text()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("s3cr3t!", "has fewer than 8 characters"),
        ("12345678", "is a plain number"),
        ("0.123456", "is a plain number"),
        ("succeeded", "is a word that results consist of"),
        ("exception_info", "is a word that results consist of"),
    ],
)
def test_a_value_that_would_damage_results_is_refused_by_its_name(root, monkeypatch, value, why):
    monkeypatch.setenv("BAD_KEY", value)
    program(root, "init")
    (root / "t.json").write_bytes(table(job("j", shell("s", "true")), secrets=["BAD_KEY"]))
    done = program(root, "submit", str(root / "t.json"), env={"BAD_KEY": value}, check=False)
    assert done.returncode == 2
    assert f"BAD_KEY: its value {why}" in done.stderr
    assert "give it a value of its own" in done.stderr
    assert value not in done.stderr.replace(why, "")


@pytest.mark.parametrize("value", ["none", "EMPTY", "x", "a-real-one-0123456789"])
def test_a_placeholder_of_a_key_is_none(root, value):
    program(root, "init")
    (root / "t.json").write_bytes(table(job("j", shell("s", "true")), secrets=["LOCAL_KEY"]))
    assert program(root, "submit", str(root / "t.json"), env={"LOCAL_KEY": value}).returncode == 0
