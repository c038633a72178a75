"""``scoreboard``, ``show``, ``logs`` as programs, and what they print for people."""

import json
import os
import signal
from pathlib import Path

import pytest
import stores
from terminals import ANSI, on_a_terminal, read_until

from parallelhassnes.schedule.context import Context


@pytest.fixture
def ended(root: Path) -> tuple[Context, str]:
    """A batch with a failure, something dead behind it and a success."""
    ctx = stores.context(root)
    batch_id = stores.put(
        ctx,
        stores.table(
            stores.job(
                "first", stores.shell("bad", "echo seen; exit 4"), stores.command("after", "true", depends_on=["bad"])
            ),
            stores.job("second", stores.command("good", "true")),
            experiment="nightly",
        ),
    )
    stores.program(root, "tick")
    stores.wait_for(lambda: stores.idle(ctx), "the batch to end")
    return ctx, batch_id


def lines(root: Path, *arguments: str, columns: int = 80) -> list[str]:
    done = stores.program(root, *arguments, env={"COLUMNS": str(columns)})
    assert "\x1b" not in done.stdout, "colours in a pipe"
    return [line.rstrip() for line in done.stdout.splitlines()]


def test_the_system_scoreboard_fits_a_terminal(root: Path, ended: tuple[Context, str]) -> None:
    _, batch_id = ended
    for columns in (80, 200):
        found = lines(root, "scoreboard", columns=columns)
        assert max(map(len, found)) <= columns
        assert found[0] == "1 batch, 3 steps: 1 blocked, 1 succeeded, 1 failed; 0 of " + found[0].rpartition("of ")[2]
        (row,) = [line for line in found if line.startswith(batch_id)]
        assert row.split()[1:6] == ["attention", "3", "1", "1", "1"]
        assert row.endswith("nightly")


def test_the_batch_scoreboard_names_trouble_first(root: Path, ended: tuple[Context, str]) -> None:
    _, batch_id = ended
    found = lines(root, "scoreboard", "latest")
    assert found[0] == f"{batch_id} attention  nightly"
    text = "\n".join(found)
    assert text.index("failed first/bad (agent_error, attempt 1)") < text.index(
        "blocked 1: first/bad failed (first/after)"
    )
    path = next(line.strip() for line in found if "/attempts/" in line)
    assert (root / path).is_dir(), "a path that wrapped cannot be copied"
    jobs = [line.split()[0] for line in found[found.index(next(x for x in found if x.startswith("job "))) + 1 :]]
    assert jobs == ["first", "second"]


def test_json_is_one_document_and_nothing_else(root: Path, ended: tuple[Context, str]) -> None:
    _, batch_id = ended
    for arguments, key in (
        (("scoreboard",), "batches"),
        (("scoreboard", "latest"), "counts"),
        (("show", "latest"), "files"),
        (("show", f"{batch_id}/first/bad"), "attempts"),
        (("logs", f"{batch_id}/first/bad"), "logs"),
    ):
        done = stores.program(root, *arguments, "--json")
        assert key in json.loads(done.stdout)
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1


def test_logs_and_show_for_people(root: Path, ended: tuple[Context, str]) -> None:
    _, batch_id = ended
    assert lines(root, "logs", f"{batch_id}/first") == ["==> stdout.log <==", "seen"]
    assert lines(root, "logs", f"{batch_id}/first", "--file", "stdout.log", "-f") == ["seen"]
    found = lines(root, "show", f"{batch_id}/first/bad")
    assert found[0] == f"step {batch_id}/first/bad failed"
    assert any(line.startswith("attempt 1 failed") for line in found)
    assert "blocked: first/bad failed" in lines(root, "show", f"{batch_id}/first/after")


def test_an_unknown_id_is_one_line_and_exit_2(root: Path, ended: tuple[Context, str]) -> None:
    for command in ("scoreboard", "show", "logs"):
        done = stores.program(root, command, "latest-but-one", check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_an_empty_store_says_how_to_begin(root: Path) -> None:
    assert "No batch yet: `parallelhassnes run PATH` makes one." in lines(root, "scoreboard")
    done = stores.program(root, "ls")
    assert (done.stdout, done.stderr) == ("", "no batch yet; `parallelhassnes run PATH` makes one\n")
    assert not (root / "runs").exists()


def test_watch_draws_until_ctrl_c(root: Path, ended: tuple[Context, str]) -> None:
    process, terminal = on_a_terminal(root, "scoreboard", "latest", "--watch")
    try:
        assert "attention" in read_until(terminal, "second")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_until_idle_shows_progress_on_a_terminal_and_its_attempts_do_not(root: Path) -> None:
    ctx = stores.context(root)
    gate = root / "gate"
    batch_id = stores.put(
        ctx,
        stores.table(
            stores.job(
                "j", stores.shell("wait", f"until [ -e {gate} ]; do sleep 0.02; done"), stores.shell("bad", "exit 3")
            )
        ),
    )
    process, terminal = on_a_terminal(root, "tick", "--until-idle", "--fail-on", "never")
    try:
        seen = read_until(terminal, "1/2 steps done")
        gate.touch()
        seen += read_until(terminal, None)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    text = ANSI.sub("", seen)
    assert "j/wait" in text
    assert "failed j/bad agent_error: ended with exit code 3" in text
    assert "2/2 steps done: 1 succeeded, 1 failed" in text
    for log in ctx.layout.batch(batch_id).glob("*/steps/*/attempts/*/*.log"):
        assert "done" not in log.read_text()
        assert "\x1b" not in log.read_text()
