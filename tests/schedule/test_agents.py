"""Agent steps in a store: retries and pauses by class, what a scoreboard shows, cancel, deadline and kill -9."""

import json
import os
import signal
import socket
import subprocess

import pytest
from models import ENDPOINT, HANG, answer, provider, refuse, serving
from models import run as shell
from stores import attempt_dirs, context, idle, job, program, put, read, states, table, wait_for

from parallelhassnes.execute import processes
from parallelhassnes.schedule.limits import concurrency_keys
from parallelhassnes.store.records import parse_time
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.explain import explain

pytestmark = pytest.mark.codex
REPORT = {"status": "succeeded", "summary": "Fine.", "files_read": [], "files_written": [], "artifacts": []}


@pytest.fixture
def batch(root, tmp_path):
    """Submits agent steps with this model behind them: the context, the batch's id, a tick, the server."""
    import contextlib

    with contextlib.ExitStack() as stack:

        def go(turns, *steps, toml="", **more):
            server = stack.enter_context(serving(tmp_path / "model", *turns))
            ctx = context(root, toml)
            variables = provider(server.url)
            url, key = variables["OPENAI_BASE_URL"], variables["OPENAI_API_KEY"]
            jobs = [
                job(
                    f"j{number}",
                    {
                        "step_id": "a",
                        "prompt": "Do it.",
                        "working_directory": str(tmp_path),
                        "model": "gpt-5.2",
                        "env": {"OPENAI_BASE_URL": url},
                        "execution_policy": {"config": ENDPOINT},
                        **step,
                    },
                )
                for number, step in enumerate(steps)
            ]
            batch_id = put(ctx, table(*jobs, secrets=["OPENAI_API_KEY"], **more))
            stack.callback(_end, ctx, batch_id)
            return (ctx, batch_id, lambda *a: program(root, "tick", *a, env={"OPENAI_API_KEY": key}), server)

        yield go


def _end(ctx, batch_id):
    """Leave nothing that runs or waits, whatever became of the test."""
    if not idle(ctx):
        program(ctx.layout.root, "cancel", batch_id, check=False)
    for path in attempt_dirs(ctx, batch_id):
        if not (path / "seal.json").exists():
            processes.kill_run(read(path / "meta.json")["run_id"])


def test_a_rate_limit_is_retried_and_the_tokens_count(batch):
    turns = [refuse(429, times=1), answer(REPORT, tokens=[100, 20])]
    retry = {"classes": {"rate_limit": {"backoff_sec": 0.1}}}
    ctx, batch_id, tick, _ = batch(turns, {}, retry=retry)
    tick("--until-idle")
    assert states(ctx, batch_id) == {"j0/a": ["failed", "succeeded"]}
    first, second = (read(path / "final.json") for path in attempt_dirs(ctx, batch_id))
    assert first["failure"]["class"] == "rate_limit"
    assert second["summary"] == "Fine."
    board = batch_scoreboard(ctx.layout, batch_id)
    assert (board.spent.input, board.spent.output) == (100, 20)
    for path in attempt_dirs(ctx, batch_id):
        for file in path.rglob("*"):
            assert not file.is_file() or b"key-of-openai" not in file.read_bytes()


def test_a_refused_key_pauses_its_queue_key(batch):
    ctx, batch_id, tick, _ = batch([refuse(401, "Incorrect API key provided")], {}, {}, limits={"gpt-5.2": 1})
    tick()
    held = wait_for(lambda: concurrency_keys.Holds(ctx.layout, ctx.config).every(), "the pause")
    assert "auth" in json.dumps(held)
    wait_for(lambda: states(ctx, batch_id) == {"j0/a": ["failed"]}, "the first attempt's end")


def test_what_it_does_is_shown_and_a_cancel_ends_it(batch, root):
    ctx, batch_id, tick, _ = batch([shell("sleep 61"), HANG], {})
    tick()
    running = lambda: batch_scoreboard(ctx.layout, batch_id).running  # noqa: E731
    seen = lambda: [step for step in running() if step.item and step.tokens]  # noqa: E731
    (step,) = wait_for(seen, "the command, and what it has cost")
    assert (step.phase, "sleep 61" in step.item, step.tokens) == ("agent", True, 15)
    assert "sleep 61" in program(root, "scoreboard", batch_id).stdout
    program(root, "cancel", batch_id)
    wait_for(lambda: states(ctx, batch_id) == {"j0/a": ["canceled"]}, "the cancel")
    (path,) = attempt_dirs(ctx, batch_id)
    wait_for((path / "seal.json").exists, "the seal")
    assert processes.with_run_id(read(path / "meta.json")["run_id"]) == []
    assert read(path / "final.json")["agent"]["tokens"]["input"] == 10
    assert "thread.started" in (path / "agent" / "codex.events.jsonl").read_text()


@pytest.mark.parametrize("down", [False, True], ids=["silent", "down"])
def test_a_deadline_ends_what_would_wait_for_ever(batch, down):
    limit = 6  # long enough for the program to have begun its thread, whatever else the machine does
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        nobody = {"env": {"OPENAI_BASE_URL": f"http://127.0.0.1:{taken.getsockname()[1]}/v1"}}
        ctx, batch_id, tick, _ = batch([HANG], {"timeout_sec": limit, **(nobody if down else {})})
        tick("--until-idle")
    (path,) = attempt_dirs(ctx, batch_id)
    final, state = read(path / "final.json"), read(path / "state.json")
    assert (final["status"], final["failure"]["class"]) == ("failed", "agent_timeout")
    assert final["agent"]["thread_id"]
    assert limit <= parse_time(state["ended_at"]) - parse_time(state["started_at"]) < limit + 60


def test_one_step_at_a_time_in_a_folder_takes_one_slot(batch, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    alone = {"working_directory": str(place), "workspace_policy": {"exclusive": True}}
    go = tmp_path / "go"
    leave = shell("rmdir busy && echo x >> done", after_file=str(go))
    ctx, batch_id, tick, _ = batch([shell("mkdir busy"), leave, answer(REPORT)], alone, alone, {})
    tick()
    for folder in (place, tmp_path):
        wait_for((folder / "busy").exists, f"the one that works in {folder}")
    assert len([*attempt_dirs(ctx, batch_id)]) == 2
    why = [line for step in explain(ctx, batch_id).steps for line in step.why]
    assert f"another step works in {place}, and only one may at a time" in why
    go.touch()
    wait_for(lambda: idle(ctx), "the end")
    assert sorted(states(ctx, batch_id).values()) == [["succeeded"]] * 3
    assert (place / "done").read_text() == "x\nx\n"


def test_a_killed_supervisor_loses_no_event_and_no_change(batch, tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    isolated = {"working_directory": str(repository), "workspace_policy": {"mode": "isolated", "keep": "never"}}
    turns = [shell("echo half > half.txt; sleep 62", times=1), answer(REPORT)]
    ctx, batch_id, tick, _ = batch(turns, isolated)
    tick()
    (path,) = wait_for(lambda: [*attempt_dirs(ctx, batch_id)], "the attempt")
    wait_for(lambda: [*ctx.layout.worktrees.glob("*/*/half.txt")], "the agent's file")
    wait_for(lambda: read(path / "state.json").get("worker_pid"), "its pid")
    os.kill(read(path / "state.json")["pid"], signal.SIGKILL)

    def repaired():  # the first tick may find the agent's program alive, and only end that
        tick()
        return states(ctx, batch_id)["j0/a"][0] == "lost"

    wait_for(repaired, "the repair")
    wait_for(lambda: states(ctx, batch_id) == {"j0/a": ["lost", "succeeded"]}, "the retry")
    wait_for(lambda: idle(ctx), "the end")
    assert processes.with_run_id(read(path / "meta.json")["run_id"]) == []
    lost = read(path / "final.json")["agent"]
    assert lost["thread_id"] in (path / "agent" / "codex.events.jsonl").read_text()
    assert lost["workspace"]["touched"] == ["half.txt"]
    assert sorted(os.listdir(path / "agent" / "home")) == ["config.toml", "sessions"]
    assert "+half" in (path / "agent" / "git_diff.patch").read_text()
    assert not [*ctx.layout.worktrees.glob("*/*")]
    assert not [*(repository / ".git" / "worktrees").glob("*")]
