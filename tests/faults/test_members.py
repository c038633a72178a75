"""Each member of the store that the file system refuses hurts only itself: every errno at every kind of member."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stores import CHECKOUT, attempt_dirs, command, context, job, program, put, read, states, table, wait_for

from parallelhassnes.admin import tokens
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.execute import processes
from parallelhassnes.store.queue import tickets

pytestmark = pytest.mark.timeout(240)
ERRNOS = ("EACCES", "EPERM", "ENAMETOOLONG", "EIO", "ELOOP", "EISDIR", "ESTALE", "EUCLEAN")
HERE = Path(__file__).parent / "members"


def faults(*found: tuple[str, str]) -> dict[str, str]:
    """The environment of a program for which the file system refuses these patterns (pattern, errno's name)."""
    said = [[pattern, getattr(errno, name)] for pattern, name in found]
    return {"FAULTS": json.dumps(said), "PYTHONPATH": f"{HERE}{os.pathsep}{CHECKOUT}"}


def without_traces(root: Path, done) -> None:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((root / "runs" / "_system").glob("error-*.log"))


QUEUED = {
    "batch folder": "runs/{b}(/|$)",
    "batch_meta.json": "runs/{b}/batch_meta",
    "control.json": "runs/{b}/control",
    "ledger": "runs/{b}/ledger",
    "job folder": "runs/{b}/j(/|$)",
    "job.json": "runs/{b}/j/job.json",
    "current.json": "runs/{b}/j/current",
    "overrides.json": "runs/{b}/j/overrides",
    "additions": "runs/{b}/j/additions",
    "step folder": "runs/{b}/j/steps/s$",
    "step.lock": "runs/{b}/j/steps/s/step.lock",
    "attempts": "runs/{b}/j/steps/s/attempts$",
    "attempt": "runs/{b}/j/steps/s/attempts/2",
    "ready key": "_queue/ready/k-{k}$",
    "ready batch": "_queue/ready/k-{k}/{b}$",
    "ready ticket": "_queue/ready/k-{k}/{b}/.*command",
    "running key": "_queue/running/k-{k}",
    "running ticket": "_queue/running/.*{b}",
    "ended ticket": "_queue/ended/{b}",
    "blocked note": "_queue/blocked/{b}",
    "limits": "limits/k-{k}.json",
    "added mark": "_queue/added/{b}",
}


@pytest.mark.parametrize("kind", QUEUED)
def test_the_others_go_on_beside_a_batch_that_waits(root, kind):
    ctx = context(root, "durable = false\nconcurrency = 20\n")
    bad = {name: put(ctx, table(job("j", command("s", "true", queue_key=f"k-{name.lower()}")))) for name in ERRNOS}
    if kind == "added mark":
        for batch in bad.values():
            (ctx.layout.added / batch).touch()
    good = put(ctx, table(job("g", command("a", "true"), command("b", "true", depends_on=["a"]))))
    env = faults(*((QUEUED[kind].format(b=re.escape(batch), k=name.lower()), name) for name, batch in bad.items()))
    without_traces(root, program(root, "tick", env=env, check=False))
    end = {"g/a": ["succeeded"], "g/b": ["succeeded"]}
    wait_for(lambda: states(ctx, good) == end, f"the good batch beside a refused {kind}")
    for reader in ("scoreboard", "results"):
        without_traces(root, program(root, reader, env=env, check=False))
    program(root, "tick", "--until-idle", "--fail-on", "never")
    for name, batch in bad.items():
        assert states(ctx, batch)["j/s"][-1] == "succeeded", name
    assert verify(ctx.layout).ok


@pytest.mark.parametrize("ticket", ["ready", "running", "ended"])
def test_a_ticket_whose_setting_aside_cannot_be_noted_is_not_lost(root, ticket):
    """By the note it would come back, so it stays where it is."""
    ctx = context(root, "durable = false\n")
    go = root / "go"
    batch = put(ctx, table(job("j", command("s", "sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done"))))
    if ticket != "ready":
        program(root, "tick")
        (path,) = wait_for(lambda: list(attempt_dirs(ctx, batch)), "the attempt")
        state = wait_for(lambda: (s := read(path / "state.json")).get("worker_pid") and s, "its worker")
        os.kill(state["pid"], signal.SIGKILL)
        wait_for(lambda: not processes.is_alive(state["pid"], None), "the supervisor's end")
    if ticket == "ended":
        (running,) = tickets.running(ctx.layout)
        assert tickets.end_running(ctx.layout, running.key_dir, running.name)
    env = faults((f"runs/{batch}/j/job.json", "EIO"), (f"_queue/blocked/{batch}", "EIO"))
    without_traces(root, program(root, "tick", env=env, check=False))
    assert list(ctx.layout.queue.rglob(f"{batch}.*.command"))
    go.touch()
    program(root, "tick", "--until-idle", "--fail-on", "never")
    assert states(ctx, batch)["j/s"][-1] == "succeeded"


def test_each_table_that_cannot_be_read_is_left_and_the_others_are_taken_in(root):
    ctx = context(root, "durable = false\n")
    for name in ERRNOS:
        (ctx.layout.incoming / f"t-{name}.json").write_bytes(table(job("j", command("s", "true")), experiment=name))
    (ctx.layout.incoming / "good.json").write_bytes(table(job("g", command("s", "true"))))
    env = faults(*((f"incoming/t-{name}.json$", name) for name in ERRNOS))
    done = program(root, "tick", "--json", env=env, check=False)
    without_traces(root, done)
    said = json.loads(done.stdout)
    assert len(said["accepted"]) == 1
    assert {line["name"] for line in said["left"]} == {f"t-{name}.json" for name in ERRNOS}
    assert all("the next tick tries again" in line["errors"][0] for line in said["left"])
    assert said["rejected"] == []
    program(root, "tick", "--until-idle", env=env)
    assert len(json.loads(program(root, "tick", "--json").stdout)["accepted"]) == len(ERRNOS)
    program(root, "tick", "--until-idle")
    assert verify(ctx.layout).ok


@pytest.mark.parametrize("valid", [True, False])
def test_a_table_with_the_longest_name_there_can_be(root, valid):
    ctx = context(root, "durable = false\n")
    name = "x" * 250 + ".json"
    (ctx.layout.incoming / name).write_bytes(table(job("j", command("s", "true"))) if valid else b"{}")
    (ctx.layout.incoming / "y.json").write_bytes(table(job("g", command("s", "true")), experiment="y"))
    said = json.loads(program(root, "tick", "--json").stdout)
    assert len(said["accepted"]) == 1 + valid
    assert [line["name"] for line in said["rejected"]] == ([] if valid else [name])
    assert not list(ctx.layout.incoming.iterdir())
    if not valid:
        (found,) = ctx.layout.rejected.glob("x*.error.json")
        assert read(found)["source_name"] == name


def test_a_bad_table_that_is_another_users_and_a_companion_that_is_none_hold_up_nobody(root):
    ctx = context(root, "durable = false\n")
    (ctx.layout.incoming / "theirs.json").write_bytes(b"{}")
    for name, companion in (
        ("torn", b"{"),
        ("foreign", b'{"zork":1}'),
        ("outside", b'{"batch_id":"../../x","source_name":"","base_dirs":[]}'),
    ):
        (ctx.layout.incoming / f"{name}.json").write_bytes(table(job("j", command("s", "true"))))
        (ctx.layout.incoming / f"{name}.json.submit").write_bytes(companion)
    (ctx.layout.incoming / "good.json").write_bytes(table(job("g", command("s", "true"))))
    done = program(root, "tick", "--json", env={"FAULTS": "[]", **chmod_refused("theirs")})
    said = json.loads(done.stdout)
    assert len(said["accepted"]) == 1
    assert {line["name"] for line in said["rejected"]} == {"theirs.json", "torn.json", "foreign.json", "outside.json"}
    assert not list(ctx.layout.incoming.glob("*.json"))
    assert not (root / "x").exists()


def chmod_refused(name: str) -> dict[str, str]:
    return faults((f"^chmod .*{name}", "EPERM"))


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("token", "tokens/{k}.json"),
        ("uploaded task", "_tasks/{k}"),
        ("runner", "runners/{k}/"),
        ("leftover", "_system/tmp/{k}"),
        ("rejected table", "rejected/{k}"),
        ("image", "_system/images/{k}"),
        ("start rate", "_system/starts/{k}"),
    ],
)
def test_members_beside_the_batches_hurt_only_themselves(root, kind, pattern):
    ctx = context(root, "durable = false\n")
    for name in ERRNOS:
        folder = (
            ctx.layout.runs
            / {
                "token": "_system/tokens",
                "uploaded task": "_tasks",
                "runner": "../runners",
                "leftover": "_system/tmp",
                "rejected table": "_queue/rejected",
                "image": "_system/images",
                "start rate": "_system/starts",
            }[kind]
        )
        folder.mkdir(exist_ok=True, parents=True)
        if kind in ("uploaded task", "runner"):
            (folder / name).mkdir()
            (folder / name / ("upload.json" if kind == "uploaded task" else "health.json")).write_text("{}")
        else:
            ending = ".error.json" if kind == "rejected table" else ".json"
            (folder / f"{name}{'' if kind == 'leftover' else ending}").write_text("{}")
    tokens.create(ctx, "good", "read")
    good = put(ctx, table(job("g", command("a", "true"))))
    env = faults(*((pattern.format(k=name), name) for name in ERRNOS))
    without_traces(root, program(root, "tick", "--until-idle", env=env, check=False))
    assert states(ctx, good) == {"g/a": ["succeeded"]}
    for reader in (["scoreboard"], ["token", "list"], ["doctor"]):
        done = program(root, *reader, env=env, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOTCONN"])
@pytest.mark.parametrize("pattern", ["{root}", "{root}/runs", "{root}/parallelhassnes.toml"])
def test_a_root_whose_file_system_has_gone_is_one_line_of_every_command(root, pattern, name, tmp_path):
    context(root, "durable = false\n")
    (tmp_path / "t.json").write_bytes(table(job("j", command("s", "true"))))
    env = faults((f"{re.escape(pattern.format(root=root))}(/|$)", name))
    for arguments in (
        ("init",),
        ("tick",),
        ("submit", str(tmp_path / "t.json")),
        ("scoreboard",),
        ("results", "--json"),
        ("doctor",),
        ("audit", "verify"),
        ("gc",),
        ("token", "list"),
    ):
        done = program(root, *arguments, env=env, check=False)
        assert "Traceback" not in done.stderr, (arguments, done.stderr)
        assert "internal error" not in done.stderr, (arguments, done.stderr)
        told = done.stderr.splitlines() or done.stdout.splitlines()
        assert any(os.strerror(getattr(errno, name)) in line for line in told) or done.returncode == 0, (
            arguments,
            done,
        )


@pytest.mark.parametrize("error", ["OSError(116, 'Stale file handle')", "RuntimeError('ours')", "UserError('x')"])
def test_nothing_that_a_command_ends_by_is_told_by_a_traceback(root, tmp_path, error):
    """Neither the root, nor a folder for the log, nor standard error can be written to."""
    code = (
        "import sys, os\n"
        "from parallelhassnes.cli import app\n"
        "from parallelhassnes.errors import UserError\n"
        f"def obey(): raise {error}\n"
        "app._obey = obey\n"
        f"sys.argv = ['parallelhassnes', 'tick', '--root', {str(root)!r}]\n"
        "app.main()\n"
    )
    env = {**os.environ, **faults((rf"{re.escape(str(root))}|error-\d+\.log", "ESTALE"))}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == (3 if "Runtime" in error else 2), done
    assert "During handling" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 or "internal error (RuntimeError)" in done.stderr, done.stderr
    with open("/dev/full", "w") as full:
        assert subprocess.run(argv, env=env, cwd="/", stderr=full, check=False).returncode == done.returncode
