"""Notifications: a real HTTP server is told of each event once, by a process that no pass waits for."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from harness import TEMP, make_task
from stores import context, environment, idle, job, program, put, read, shell, table, wait_for

from parallelhassnes.config import NotifyConfig, load_config
from parallelhassnes.errors import InvalidInput
from parallelhassnes.schedule.process import notifying
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic, locks
from parallelhassnes.store.queue import notices, queue_keys

SECRET = "t0ken-" + "s" * 24


SERVER = """
import http.server, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = f"{time.monotonic_ns()}.json"
        (folder / ("." + name)).write_bytes(body)
        (folder / ("." + name)).rename(folder / name)
        while (folder / "hang").exists():
            time.sleep(0.01)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *said):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Hook:
    """A web hook: what it was sent, and whether it answers. A process of its own, so that this one may fork attempts."""

    def __init__(self, folder, port):
        self.folder, self.hang = folder, folder / "hang"
        self.url = f"json://127.0.0.1:{port}/{SECRET}"

    @property
    def messages(self):
        return [read(path) for path in sorted(self.folder.glob("[0-9]*.json"))]

    def titles(self):
        return sorted(message["title"] for message in self.messages)

    def forget(self):
        for path in self.folder.glob("[0-9]*.json"):
            path.unlink()


@pytest.fixture
def hook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hook")
    command = [sys.executable, "-c", SERVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield Hook(folder, int(process.stdout.readline()))
        process.kill()


def store(root, url, toml=""):
    """A root that tells the hook, whose URL stands in its env_file alone."""
    (root / "secrets.env").write_text(f"TEAM_CHAT={url}\n")
    (root / "secrets.env").chmod(0o600)
    return context(root, f'env_file = "secrets.env"\n{toml}\n[notify]\nto = ["TEAM_CHAT"]\n')


def quiet(ctx):
    """Nothing waits to be told, and nobody tells."""
    return not notices.untold(ctx.layout) and not locks.is_held(notifying.sending_lock(ctx.layout))


def settled(ctx):
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch")
    wait_for(lambda: (tick(ctx), quiet(ctx))[1], "what is to be told")


def everything_below(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_batch_s_end_and_its_next_end_are_told_once_each(root, hook):
    ctx = store(root, hook.url)
    batch = put(ctx, table(job("a", shell("s", "true")), job("b", shell("s", "exit 3"))))
    settled(ctx)
    (message,) = hook.messages
    assert message["title"] == "ParallelHassnes: 1 batch ended"
    assert message["message"] == (f"{batch} (table.json) needs attention: 2 steps; `parallelhassnes results {batch}`")
    program(root, "doctor", "--rebuild", check=False)
    settled(ctx)
    assert len(hook.messages) == 1
    program(root, "retry", f"{batch}/b/s")
    settled(ctx)
    assert hook.titles() == ["ParallelHassnes: 1 batch ended"] * 2
    for folder in (ctx.layout.runs, ctx.layout.runners):
        assert SECRET.encode() not in everything_below(folder)
    assert SECRET not in program(root, "doctor", check=False).stdout


def test_gates_pauses_and_budgets_are_told(root, hook):
    ctx = store(root, hook.url, "concurrency = 1\n")
    gated = put(
        ctx,
        table(
            job("j", shell("now", "true", gate="human"), shell("s", "true")),
            job("k", shell("t", "true", depends_on=["j/s"], gate="human")),
        ),
    )
    settled(ctx)
    lines = [line for message in hook.messages for line in message["message"].splitlines()]
    assert sorted(lines) == [f"approve or reject {gated}/j/now", f"approve or reject {gated}/k/t"]
    hook.forget()
    program(root, "approve", gated)
    settled(ctx)
    assert hook.titles() == ["ParallelHassnes: 1 batch ended"]
    hook.forget()
    put(ctx, table(job("j", shell("s", "true", queue_key="my/model"))))
    for _ in range(2):
        program(root, "pause", "my/model", "--reason", "the bill")
    wait_for(lambda: quiet(ctx), "the pause")
    (message,) = hook.messages
    assert message["title"] == "ParallelHassnes: 1 queue key paused"
    assert "the bill" in message["message"]
    hook.forget()
    make_task(root)
    agent = {"import_path": "costly_agent:CostlyAgent", "n_trials": 3, "kwargs": {}, "queue_key": "costly"}
    sweep = {"path": str(root / "hello"), "agents": [agent], "environment": TEMP}
    spent = put(ctx, table(sweep=sweep, budget={"usd": 1}))
    wait_for(lambda: (tick(ctx), hook.messages)[1], "the budget")
    for _ in range(3):
        tick(ctx)
    wait_for(lambda: quiet(ctx), "what is to be told")
    assert hook.titles() == ["ParallelHassnes: 1 budget reached"], hook.messages
    (message,) = hook.messages
    assert message["message"].startswith(f"{spent}: budget: 1.00 of 1.00 USD spent; parallelhassnes budget {spent}")


def test_a_key_that_its_provider_pauses_is_told(root, hook):
    ctx = store(root, hook.url)
    task = make_task(root)
    script = root / "script"
    script.mkdir()
    (script / "words").write_text("key")
    (script / "good").write_text("good")
    agent = {
        "import_path": "scripted_agent:ScriptedAgent",
        "model_name": "fake/model",
        "kwargs": {"script": str(script)},
    }
    step = {
        "kind": "trial",
        "task": {"path": str(task)},
        "environment": "temp_environment:TempEnvironment",
        "agent": agent,
    }
    put(ctx, table(job("j", {"step_id": "a", **step}), job("k", {"step_id": "b", **step}), concurrency=1))
    wait_for(lambda: (tick(ctx), queue_keys.read(ctx.layout, "fake/model").breakers)[1], "the pause")
    wait_for(lambda: (tick(ctx), hook.messages)[1], "the message")
    wait_for(lambda: quiet(ctx), "what is to be told")
    (message,) = [each for each in hook.messages if "paused" in each["title"]]
    assert message["message"].startswith("fake/model is paused for attempts ")
    with contextlib.suppress(ProcessLookupError):  # the waker waits for the probe
        os.kill(locks.holder(ctx.layout.waker_lock) or 0, signal.SIGKILL)


def test_a_store_that_nothing_ticks_is_told_once_by_whoever_looks(root, hook):
    ctx = store(root, hook.url)
    (ctx.layout.incoming / "t.json").write_bytes(table(job("a", shell("s", "true"))))
    assert "1 table waiting to be taken in" in looked(root, hook)
    assert program(root, "notify").stdout == "nothing is new\n"
    tick(ctx)
    settled(ctx)
    assert hook.titles() == ["ParallelHassnes: 1 batch ended", "ParallelHassnes: nothing starts"]
    hook.forget()
    long_ago = 1_700_000_000
    ctx.layout.pass_wanted.touch()
    for path in (ctx.layout.pass_wanted, ctx.layout.tick_lock):
        os.utime(path, (long_ago, long_ago))
    assert "a pass has been wanted" in looked(root, hook)


def looked(root, hook):
    """What ``notify`` has told, which it says on its own line, too."""
    assert program(root, "notify").stdout == "nothing_ticks told to TEAM_CHAT\n"
    return hook.messages[-1]["message"]


@pytest.mark.parametrize("moment", ["claimed", "sent"])
def test_a_kill_loses_a_message_and_repeats_none(root, hook, moment):
    ctx = store(root, hook.url)
    notices.note(ctx.layout, ctx.config.notify, "key_paused", "k", line="the first")
    if moment == "claimed":  # killed between the claim and the message
        (path,) = notices.untold(ctx.layout)
        told = ctx.layout.notices / "told" / path.name
        told.parent.mkdir()
        told.hardlink_to(path)
        sent = []
    else:
        hook.hang.touch()
        process = subprocess.Popen([sys.executable, "-m", notifying.SENDER, str(root)], env=environment())
        wait_for(lambda: hook.messages, "the message")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        hook.hang.unlink()
        sent = ["the first"]
    notices.note(ctx.layout, ctx.config.notify, "key_paused", "k", line="the first")
    notices.note(ctx.layout, ctx.config.notify, "key_paused", "l", line="the second")
    wait_for(lambda: (tick(ctx), quiet(ctx))[1], "what is to be told")
    assert [message["message"] for message in hook.messages] == [*sent, "the second"]


def test_a_service_that_hangs_or_is_gone_is_in_nobody_s_way(root, hook):
    ctx = store(root, hook.url)
    (root / "parallelhassnes.toml").write_text((root / "parallelhassnes.toml").read_text() + "timeout_sec = 0.5\n")
    hook.hang.touch()
    put(ctx, table(job("a", shell("s", "true"))))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch")
    log = ctx.layout.system / notifying.LOG
    wait_for(lambda: "did not answer within 0.5 s" in (log.read_text() if log.exists() else ""), "the line of the log")
    wait_for(lambda: quiet(ctx), "its end")
    hook.hang.unlink()
    assert "last: " in program(root, "doctor", check=False).stdout
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        (root / "secrets.env").write_text(f"TEAM_CHAT=json://127.0.0.1:{closed.getsockname()[1]}/{SECRET}\n")
        done = program(root, "notify", "--test", check=False)
    assert (done.returncode, done.stdout) == (1, "test not told to TEAM_CHAT: it did not take the message\n")
    assert SECRET not in log.read_text()


def test_doctor_and_test_messages_tell_what_is_set_up_by_name(root, hook):
    ctx = store(root, hook.url)
    assert "notify      TEAM_CHAT (JSON)" in program(root, "doctor", check=False).stdout
    done = json.loads(program(root, "notify", "--test", "--json").stdout)
    assert [each["service"] for each in done["told"]] == ["TEAM_CHAT"]
    assert hook.titles() == ["ParallelHassnes: a test"]
    (root / "secrets.env").write_text("TEAM_CHAT=nonsense\n")
    assert "TEAM_CHAT holds no URL that Apprise knows" in program(root, "doctor", check=False).stdout
    (root / "secrets.env").write_text("")
    assert "TEAM_CHAT is not set; set it in secrets.env" in program(root, "doctor", check=False).stdout
    notices.note(ctx.layout, ctx.config.notify, "key_paused", "k", line="a line")
    wait_for(lambda: (tick(ctx), quiet(ctx))[1], "what is to be told")
    assert "not told to TEAM_CHAT" in (ctx.layout.system / notifying.LOG).read_text()
    (root / "parallelhassnes.toml").write_text("heartbeat_sec = 1\n")
    refused = program(root, "notify", check=False)
    assert refused.returncode == 2
    assert 'write to = ["NAME"] under [notify]' in refused.stderr


def test_a_url_in_the_configuration_is_refused_without_being_shown(root):
    (root / "parallelhassnes.toml").write_text(f'[notify]\nto = ["json://user:{SECRET}@host/x"]\n')
    with pytest.raises(InvalidInput) as refused:
        load_config(root)
    assert "name the variables that hold the urls" in refused.value.lines()[0]
    assert SECRET not in " ".join(refused.value.lines())


def test_nothing_is_noted_where_nobody_wants_to_hear(root):
    ctx = context(root)
    for config in (NotifyConfig(), NotifyConfig(to=("X",), events=("gate_waits",))):
        notices.note(ctx.layout, config, "key_paused", "k", line="x")
    put(ctx, table(job("a", shell("s", "true"))))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch")
    assert not ctx.layout.notices.exists()


def test_what_cannot_be_read_is_told_of_no_one_and_goes(root, hook):
    ctx = store(root, hook.url)
    (ctx.layout.notices / "new").mkdir(parents=True)
    (ctx.layout.notices / "new" / "key_paused.x.json").write_text("{torn")
    atomic.claim(ctx.layout.notices / "new" / "key_paused.y.json", b"[]")
    wait_for(lambda: (tick(ctx), quiet(ctx))[1], "what is to be told")
    assert hook.messages == []
    assert read(ctx.layout.notices / "told" / "key_paused.y.json") == []
