"""A supervisor that cannot tell whether its attempt was given up writes nothing, and waits until it can."""

import os
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from harness import make_attempt
from stores import wait_for

from parallelhassnes.execute.supervisor import Timing, supervise
from parallelhassnes.steps.command import CommandKind
from parallelhassnes.store import attempts, locks

BEAT_SEC = 0.05


class Running:
    """A supervisor of one attempt in a process of its own."""

    def __init__(self, folder: Path, script: str) -> None:
        self.attempt = make_attempt(folder, "command", {"command": ["sh", "-c", script]})
        self.step_dir = self.attempt.dir.parents[1]
        self.fence = self.step_dir / f"fence.{self.attempt.run_id}.json"
        lock = locks.claim(self.attempt.dir / "lock")
        assert lock is not None
        log = self.attempt.dir / "supervisor.log"
        is_fenced = partial(attempts.is_fenced, self.step_dir, self.attempt.run_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a test process has threads
            self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
                supervise(
                    self.attempt, CommandKind(), dict(os.environ), lock, Timing(BEAT_SEC, 0.3, is_fenced=is_fenced)
                )
                code = 0
            except attempts.Fenced:
                code = 7
            finally:
                os._exit(code)
        os.close(lock)

    def beats(self) -> int:
        return attempts.read_state(self.attempt.dir).heartbeat.count

    def cut_off(self) -> int:
        """Have the fence be one that cannot be looked at; the count of beats that stands still since."""
        self.fence.symlink_to(self.fence.name)
        with pytest.raises(OSError, match="symbolic links"):
            attempts.is_fenced(self.step_dir, self.attempt.run_id)
        before = -1
        while (now := self.beats()) != before:
            before = now
            time.sleep(4 * BEAT_SEC)
        return now

    def end(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("is_given_up", [False, True])
def test_nothing_is_written_until_that_can_be_told_and_the_work_goes_on(tmp_path, is_given_up):
    go, seen = tmp_path / "go", tmp_path / "seen"
    running = Running(tmp_path, f"until test -e {go}; do sleep 0.02; done; touch {seen}")
    wait_for(lambda: running.beats() > 1, "beats")
    running.cut_off()
    go.touch()
    wait_for(seen.exists, "the end of the work, which was not stopped")
    time.sleep(0.5)
    assert attempts.read_state(running.attempt.dir).status == "running", "its end is not written"
    assert not attempts.is_sealed(running.attempt.dir)
    if is_given_up:
        (tmp_path / "fence").touch()
        (tmp_path / "fence").replace(running.fence)  # in one act: it is seen as it is, or not at all
    else:
        running.fence.unlink()
    assert running.end() == (7 if is_given_up else 0)
    assert attempts.read_state(running.attempt.dir).status == ("running" if is_given_up else "succeeded")
    assert attempts.is_sealed(running.attempt.dir) != is_given_up
