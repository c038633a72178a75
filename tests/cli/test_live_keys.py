"""The live display on a real terminal: what runs and what it said last; keys open a log, filter, cancel, pause and leave."""

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stores
from terminals import ANSI, on_a_terminal, read_until

from parallelhassnes.schedule.context import Context
from parallelhassnes.store.queue import tickets


@pytest.fixture
def ctx(root: Path) -> Context:
    return stores.context(root)


def waiting(root: Path, *names: str) -> bytes:
    """A table of steps that say a few lines and wait for a file of their name."""
    script = "echo begun {0}; for n in 1 2 3; do echo {0} line $n; done; until [ -e {1}/{0} ]; do sleep 0.02; done"
    return stores.table(*(stores.job(name, stores.shell("s", script.format(name, root))) for name in names))


@contextmanager
def shown(root: Path, *arguments: str) -> Iterator[tuple["object", int]]:
    process, terminal = on_a_terminal(root, *arguments)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def end_of(process, terminal: int) -> str:
    said = ANSI.sub("", read_until(terminal, None))
    process.wait(60)
    return said


def test_a_run_shows_what_each_attempt_said_last_and_takes_keys(root: Path, ctx: Context) -> None:
    batch_id = stores.put(ctx, waiting(root, "alpha", "beta"))
    with shown(root, "tick", "--until-idle", "--fail-on", "never") as (process, terminal):
        read_until(terminal, "alpha line 3")
        read_until(terminal, "q leave")
        os.write(terminal, b"f")
        read_until(terminal, "filter: █")
        os.write(terminal, b"bet\n")
        read_until(terminal, "filter: bet · ")
        os.write(terminal, b"l")
        log = ANSI.sub("", read_until(terminal, "l or Esc goes back"))
        log += ANSI.sub("", read_until(terminal, "beta line 3"))
        assert "==> beta/s stdout.log <==" in log
        assert "begun beta" in log
        os.write(terminal, b"l")
        read_until(terminal, "q leave")
        os.write(terminal, b"c")
        read_until(terminal, "cancel beta/s? y cancels it, any other key does not")
        os.write(terminal, b"n")
        read_until(terminal, "beta/s goes on")
        os.write(terminal, b"c")
        read_until(terminal, "cancel beta/s?")
        os.write(terminal, b"y")
        stores.wait_for(
            lambda: stores.states(ctx, batch_id).get("beta/s") == ["canceled"], "the end of what was canceled"
        )
        (root / "alpha").touch()
        said = end_of(process, terminal)
    assert re.search(r"2/2 steps done: 1 succeeded, 1 canceled", said)
    assert process.returncode == 0


def test_p_pauses_and_resumes_and_q_leaves_the_attempts_alone(root: Path, ctx: Context) -> None:
    batch_id = stores.put(ctx, waiting(root, "alpha", "beta"))
    control = ctx.layout.batch(batch_id) / "control.json"
    with shown(root, "tick", "--until-idle") as (process, terminal):
        read_until(terminal, "alpha/s")
        before = termios.tcgetattr(terminal)
        os.write(terminal, b"p")
        read_until(terminal, f"{batch_id} is paused; resume lets it go on")
        assert stores.read(control)["paused"]
        os.write(terminal, b"p")
        stores.wait_for(lambda: not stores.read(control).get("paused"), "the resumption")
        os.write(terminal, b"q")
        said = end_of(process, terminal)
        after = termios.tcgetattr(terminal)
    assert "stopped watching; 2 live attempts, which nothing here stops" in " ".join(said.split())
    assert process.returncode == 130
    assert not before[3] & termios.ICANON, "keys came one by one"
    assert after[3] & termios.ICANON, "the terminal is as it was"
    assert after[3] & termios.ECHO
    for name in ("alpha", "beta"):
        (root / name).touch()
    stores.wait_for(lambda: stores.idle(ctx), "the end")


@pytest.mark.parametrize("command", ["tick", "watch"])
def test_what_p_has_paused_keeps_the_display_open_with_nothing_running_until_p_lets_it_go_on(root: Path, command):
    ctx = stores.context(root, "concurrency = 1\n")
    batch_id = stores.put(ctx, waiting(root, "alpha", "beta"))
    if command == "watch":
        stores.program(root, "tick")
    arguments = ("tick", "--until-idle") if command == "tick" else ("watch",)
    with shown(root, *arguments) as (process, terminal):
        read_until(terminal, "alpha line 3")
        os.write(terminal, b"p")
        read_until(terminal, f"{batch_id} is paused; resume lets it go on")
        (root / "alpha").touch()
        (root / "beta").touch()
        stores.wait_for(lambda: not tickets.running(ctx.layout), "the end of what ran")
        os.write(terminal, b"x")  # a key that says nothing takes the note away
        read_until(terminal, "paused · p lets it go on · q leaves it paused")
        assert stores.states(ctx, batch_id) == {"alpha/s": ["succeeded"]}
        os.write(terminal, b"p")
        said = end_of(process, terminal)
    assert "2/2 steps done: 2 succeeded" in said
    assert process.returncode == 0


def test_q_leaves_a_batch_paused_and_says_how_it_goes_on(root: Path) -> None:
    ctx = stores.context(root, "concurrency = 1\n")
    batch_id = stores.put(ctx, waiting(root, "alpha", "beta"))
    with shown(root, "tick", "--until-idle") as (process, terminal):
        read_until(terminal, "alpha line 3")
        os.write(terminal, b"p")
        read_until(terminal, "is paused; resume lets it go on")
        (root / "alpha").touch()
        stores.wait_for(lambda: not tickets.running(ctx.layout), "the end of what ran")
        os.write(terminal, b"q")
        said = end_of(process, terminal)
    assert f"parallelhassnes resume {batch_id}" in " ".join(said.split())
    assert process.returncode == 130


def test_in_the_background_it_leaves_the_terminal_to_the_shell_and_goes_on(root: Path, ctx: Context) -> None:
    (root / "alpha").touch()
    batch_id = stores.put(ctx, waiting(root, "alpha"))
    ours, theirs = pty.openpty()
    line = f"set -m; {sys.executable} -m parallelhassnes tick --until-idle --root {root} & wait $!"
    process = subprocess.Popen(
        ["bash", "-c", line],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=stores.CHECKOUT,
        env=stores.environment({"TERM": "xterm-256color"}),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - it runs nothing of Python's
    )
    os.close(theirs)
    try:
        said = ANSI.sub("", read_until(ours, "1/1 step done: 1 succeeded"))
        assert process.wait(60) == 0
        assert "q leave" not in said
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert stores.states(ctx, batch_id) == {"alpha/s": ["succeeded"]}


def test_watch_shows_a_batch_that_another_process_runs_and_ends_with_it(root: Path, ctx: Context) -> None:
    stores.put(ctx, waiting(root, "alpha"))
    stores.program(root, "tick")
    assert len(tickets.running(ctx.layout)) == 1
    with shown(root, "watch") as (process, terminal):
        read_until(terminal, "alpha line 3")
        (root / "alpha").touch()
        said = end_of(process, terminal)
    assert "1/1 step done: 1 succeeded" in said
    assert process.returncode == 0


def test_watch_without_a_terminal_prints_lines(root: Path, ctx: Context) -> None:
    stores.put(ctx, waiting(root, "alpha"))
    (root / "alpha").touch()
    stores.program(root, "tick")
    done = stores.program(root, "watch", "latest")
    assert "1/1 step done: 1 succeeded" in done.stderr
    assert done.stdout == ""


def test_a_paused_key_is_told_in_words(root: Path, ctx: Context) -> None:
    (root / "alpha").touch()
    (root / "beta").touch()
    stores.put(ctx, waiting(root, "alpha", "beta"))
    stores.program(root, "pause", "command", "--reason", "the proxy is down")
    began = time.monotonic()
    said = stores.program(root, "tick", "--until-idle", "--fail-on", "never", check=False).stderr
    assert "the proxy is down" in said
    assert time.monotonic() - began < 60
