"""Live progress where there is no terminal: a line per ended attempt, a summary at the end, no thread."""

import io
import threading
from pathlib import Path

import pytest
import stores

from parallelhassnes.cli.output import live_progress as display
from parallelhassnes.cli.output.live_progress import LiveProgress
from parallelhassnes.views.watch_model import Follower


def batch(root: Path, **more: object) -> tuple[stores.Context, str]:
    ctx = stores.context(root)
    jobs = (
        stores.job("j1", stores.shell("bad", "exit 3"), stores.command("after", "true", depends_on=["bad"])),
        stores.job("j2", stores.command("good", "true")),
    )
    return ctx, stores.put(ctx, stores.table(*jobs, **more))


def test_plain_lines_and_the_last_word(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "SUMMARY_SEC", 3600.0)  # none between, however long it takes
    ctx, batch_id = batch(root)
    stream = io.StringIO()
    threads = threading.enumerate()
    with LiveProgress(ctx, [batch_id], stream=stream) as progress:
        stores.program(root, "tick")
        stores.wait_for(lambda: (progress.update(), progress.last.over == 2)[1], "two ended steps")
        assert threading.enumerate() == threads
    found = stream.getvalue().splitlines()
    assert len(found) == 3
    (bad,) = [line for line in found if "j1/bad" in line]
    assert " failed j1/bad agent_error: ended with exit code 3 [" in bad
    assert (root / bad.split()[-1]).is_dir()
    assert any(" succeeded j2/good [" in line for line in found)
    assert found[-1].startswith("2/3 steps done: 1 succeeded, 1 failed; 1 blocked; ")


def test_it_says_nothing_when_it_is_not_enabled(root: Path) -> None:
    ctx, batch_id = batch(root)
    stream = io.StringIO()
    with LiveProgress(ctx, [batch_id], enabled=False, stream=stream) as progress:
        progress.update(now=True)
    assert stream.getvalue() == ""


def test_a_follower_of_all_takes_up_what_is_in_the_queue_and_no_more(root: Path) -> None:
    ctx, first = batch(root)
    stores.program(root, "tick")
    stores.wait_for(lambda: stores.idle(ctx), "the first batch to end")
    follower = Follower(ctx)
    assert follower.look().total == 0
    second = stores.put(ctx, stores.table(stores.job("x", stores.shell("a", "sleep 0.3")), limits={"command": 2}))
    assert follower.look().total == 1
    stores.program(root, "tick")
    ended = []
    stores.wait_for(lambda: (ended.extend(follower.look().ended), ended)[1], "the second batch to end")
    assert [(e.step, e.status) for e in ended] == [("x/a", "succeeded")]
    assert second in ended[0].attempt
    assert first not in ended[0].attempt
