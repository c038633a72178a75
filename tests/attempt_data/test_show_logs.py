"""``show`` and ``logs`` of real attempts."""

import shutil
import threading
from pathlib import Path

import pytest
import stores

from parallelhassnes.attempt_data.follow_logs import open_logs
from parallelhassnes.errors import UnknownId
from parallelhassnes.views.show import show


@pytest.fixture
def ended(root: Path):
    ctx = stores.context(root)
    batch_id = stores.put(
        ctx,
        stores.table(
            stores.job(
                "j1",
                stores.shell("bad", "echo seen; printf 'no newline' >&2; exit 4"),
                stores.command("after", "true", depends_on=["bad"]),
            )
        ),
    )
    stores.program(root, "tick")
    stores.wait_for(lambda: stores.idle(ctx), "the batch to end")
    return ctx.layout, batch_id


def test_every_level_has_its_state_and_files(ended) -> None:
    layout, batch_id = ended
    batch = show(layout, batch_id)
    assert (batch.what, batch.state, batch.counts.failed, batch.counts.blocked) == ("batch", "attention", 1, 1)
    assert {"batch_meta.json", "ledger.jsonl"} <= {line.path for line in batch.files}
    job = show(layout, f"{batch_id}/j1")
    assert [step.state for step in job.steps] == ["failed", "blocked"]
    assert job.steps[1].reason == "j1/bad failed"
    step = show(layout, f"{batch_id}/j1/bad")
    assert (step.state, len(step.attempts)) == ("failed", 1)
    assert "exit code 4" in step.failure
    assert step.report["status"] == "failed"
    attempt = show(layout, f"{batch_id}/j1/bad/1")
    assert (attempt.what, attempt.state, attempt.record["number"]) == ("attempt", "failed", 1)
    sizes = {line.path: line.size for line in attempt.files}
    assert sizes["stdout.log"] == len("seen\n")
    assert "seal.json" in sizes
    waiting = show(layout, f"{batch_id}/j1/after")
    assert (waiting.state, waiting.attempts, waiting.record["depends_on"]) == ("blocked", [], ["j1/bad"])


def test_logs_of_what_has_ended(ended) -> None:
    layout, batch_id = ended
    logs = open_logs(layout, batch_id)
    found = {piece.file: piece.text for piece in logs.new()}
    assert (found["stdout.log"], found["stderr.log"]) == ("seen\n", "no newline")
    assert list(logs.new()) == []
    only = open_logs(layout, f"{batch_id}/j1/bad")
    assert next(piece.text for piece in only.new("final.txt")).startswith("The command")
    with pytest.raises(UnknownId, match=r"has no log stdot\.log; did you mean stdout\.log"):
        list(only.new("stdot.log"))
    with pytest.raises(UnknownId, match="has no log"):
        list(only.new("../../../job.json"))
    with pytest.raises(UnknownId, match="not been attempted"):
        open_logs(layout, f"{batch_id}/j1/after")


def test_logs_that_are_moved_away_while_they_are_read_hold_nothing_up(ended) -> None:
    """Harbor does that between the steps of a task."""
    layout, batch_id = ended
    logs = open_logs(layout, batch_id)
    log, aside = logs.dir / "trial/verifier/test-stdout.txt", logs.dir / "trial/steps/one.txt"
    for folder in (log.parent, aside.parent):
        folder.mkdir(parents=True)
    log.write_text("of one\n")
    pieces = logs.new()
    read = [next(pieces)]
    log.rename(aside)
    read += pieces
    assert {piece.file for piece in read} >= {"stdout.log", "stderr.log"}
    assert [(piece.file, piece.text) for piece in logs.new()] == [("trial/steps/one.txt", "of one\n")]
    for text in ("of two\n", "of three\n"):
        log.write_text(text)
        assert [piece.text for piece in logs.new()] == [text]
        log.unlink()
        assert list(logs.new()) == []


def test_following_sees_every_line_once_and_ends_with_the_attempt(root: Path) -> None:
    ctx = stores.context(root)
    threads = {*threading.enumerate()}  # of other tests in this process
    gate = root / "gate"
    script = f"echo one; until [ -e {gate} ]; do sleep 0.02; done; echo two; printf three"
    batch_id = stores.put(ctx, stores.table(stores.job("j1", stores.shell("talk", script))))
    stores.program(root, "tick")
    stores.wait_for(lambda: list(ctx.layout.batch(batch_id).glob("*/steps/*/attempts/[!.]*")), "the attempt")
    seen: list[str] = []
    for piece in open_logs(ctx.layout, batch_id).follow("stdout.log"):
        if piece is not None:
            seen.append(piece.text)
        if "".join(seen) == "one\n" and not gate.exists():
            gate.touch()
    assert "".join(seen) == "one\ntwo\nthree"
    assert {*threading.enumerate()} <= threads


def test_last_lines_are_told_once_and_a_line_that_has_only_begun_is_told_when_it_is_whole(ended) -> None:
    layout, batch_id = ended
    logs = open_logs(layout, batch_id)
    log = logs.dir / "trial/verifier/test-stdout.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("one\ntwo\nthr")
    name = "trial/verifier/test-stdout.txt"
    assert logs.last_lines(name, 1, 1 << 16) == "two\n"
    assert logs.last_lines(name, 5, 1 << 16) == "one\ntwo\n"
    assert logs.last_lines(name, 0, 1 << 16) == ""
    with log.open("a") as stream:
        stream.write("ee\n")
    assert [piece.text for piece in logs.new(name)] == ["three\n"]


def test_following_ends_where_the_attempt_is_deleted(ended) -> None:
    layout, batch_id = ended
    logs = open_logs(layout, batch_id)
    (logs.dir / "seal.json").unlink()
    seen = 0
    for piece in logs.follow():
        seen += 1
        if piece is None:
            shutil.rmtree(logs.dir)
    assert seen > 1
