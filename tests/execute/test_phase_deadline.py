"""A phase that takes too long is ended although the whole deadline is far."""

import os
import warnings
from pathlib import Path

import pytest
from harness import make_attempt, make_task, trial_spec

from parallelhassnes.execute.supervisor import Timing, supervise
from parallelhassnes.steps.command import CommandKind
from parallelhassnes.steps.trial import deadline
from parallelhassnes.store import attempts, locks
from tests.faults import drive


class TwoPhases(CommandKind):
    """A program whose first phase may be long and whose second may not."""

    def phase(self, attempt):
        return "second" if (attempt.dir / "work" / "second").exists() else "first"

    def phase_deadline_sec(self, attempt, phase):
        return {"first": 60.0, "second": 0.3}[phase]


def test_the_phase_that_is_too_long_is_ended(tmp_path: Path):
    script = "sleep 0.4; touch second; sleep 300"
    attempt = make_attempt(tmp_path, "command", {"command": ["sh", "-c", script]})
    lock = locks.claim(attempt.dir / "lock")
    log = attempt.dir / "supervisor.log"

    def work():
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        supervise(attempt, TwoPhases(), dict(os.environ), lock, Timing(0.05, 0.3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a test process has threads
        drive.run(work)
    state = attempts.read_state(attempt.dir)
    assert (state.status, state.failure.failure_class) == ("failed", "agent_timeout")
    assert "in phase second: timeout" in log.read_text()


@pytest.mark.parametrize(("phase", "seconds"), [("environment_setup", 2100.0), ("agent", 330.0), ("verifier", 330.0)])
def test_the_phases_of_a_trial_have_harbors_limits_and_a_grace(tmp_path, phase, seconds):
    config = trial_spec(make_task(tmp_path))["config"]
    assert deadline.phase_deadline_sec(config, phase) == seconds
    whole = deadline.deadline_sec(config)
    assert whole is not None
    assert seconds < whole


def test_an_agent_without_a_limit_has_none_here_either(tmp_path):
    task = make_task(tmp_path)
    (task / "task.toml").write_text('version = "1.0"\n')
    assert deadline.phase_deadline_sec(trial_spec(task)["config"], "agent") is None
