"""The deadline lies above Harbor's own limits, whatever task and table say."""

import pytest
from harness import TEMP, make_attempt, make_task, trial_spec

from parallelhassnes.steps import registry
from parallelhassnes.steps.trial.deadline import DEFAULT_SETUP_SEC, GRACE_SEC

BASE = GRACE_SEC + DEFAULT_SETUP_SEC


def deadline(tmp_path, toml="", agent=None, **config):
    task = make_task(tmp_path)
    (task / "task.toml").write_text(toml)
    spec = trial_spec(task, agent or {"name": "oracle"}, TEMP, **config)
    return registry.kind("trial").deadline_sec(make_attempt(tmp_path, "trial", spec))


LIMITS = "[agent]\ntimeout_sec=100\n[verifier]\ntimeout_sec=20\n[environment]\nbuild_timeout_sec=3\n"
STEPS = LIMITS + (
    '[[steps]]\nname="a"\n[steps.agent]\ntimeout_sec=7\n[[steps]]\nname="b"\n[steps.verifier]\ntimeout_sec=1\n'
)


@pytest.mark.parametrize(
    ("toml", "agent", "config", "seconds"),
    [
        (LIMITS, None, {}, 126),
        (LIMITS, None, {"timeout_multiplier": 2.0}, 252 + DEFAULT_SETUP_SEC),
        (LIMITS, None, {"agent_timeout_multiplier": 0.5}, 76),
        (LIMITS, None, {"agent_timeout_multiplier": 3, "timeout_multiplier": 1}, 326),
        (LIMITS, {"name": "x", "override_timeout_sec": 50}, {}, 76),
        (LIMITS, {"name": "x", "max_timeout_sec": 10}, {}, 36),
        (LIMITS, {"name": "x", "override_setup_timeout_sec": 5}, {}, 131 - DEFAULT_SETUP_SEC),
        (LIMITS, None, {"verifier": {"override_timeout_sec": 1}}, 107),
        (LIMITS, None, {"verifier": {"disable": True}}, 106),
        (LIMITS, None, {"install_only": True}, 26),
        (STEPS, None, {}, 2 * 3 + 7 + 20 + 100 + 1),
        (LIMITS.replace("[env", 'environment_mode="separate"\n[env'), None, {}, 129),
        ("[agent]\ntimeout_sec=1", None, {}, 1 + 2 * 600 + 600),
        (LIMITS + '[environment.healthcheck]\ncommand="x"\n', None, {}, 126 + 4 * 35),
    ],
)
def test_the_sum_of_harbors_limits(tmp_path, toml, agent, config, seconds):
    assert deadline(tmp_path, toml, agent, **config) == pytest.approx(BASE + seconds)


@pytest.mark.parametrize("toml", ["", "not toml [", "[agent]\ntimeout_sec='x'", "agent=3\nsteps=4"])
def test_an_agent_without_a_limit_has_no_deadline(tmp_path, toml):
    assert deadline(tmp_path, toml) is None


def test_a_task_that_is_not_there_has_none_either(tmp_path):
    for task in ({"path": str(tmp_path / "none")}, {}, {"name": "bad"}, {"path": 3}):
        spec = {"task_name": "t", "config": {"task": task}}
        assert registry.kind("trial").deadline_sec(make_attempt(tmp_path, "trial", spec)) is None


def test_a_trial_at_its_limits_ends_before_the_deadline(tmp_path):
    """The same numbers as Harbor computes for a real trial."""
    import asyncio

    from harbor.models.trial.config import TrialConfig
    from harbor.trial.trial import Trial

    spec = trial_spec(make_task(tmp_path, toml="[environment]\nbuild_timeout_sec = 77.0\n"))
    config = TrialConfig(**spec["config"], trials_dir=tmp_path / "trials", timeout_multiplier=1.5)
    trial = asyncio.run(Trial.create(config))
    limits = (
        trial.environment_build_timeout_sec
        + trial.agent_setup_timeout_sec
        + trial.agent_timeout_sec
        + trial.verifier_timeout_sec
    )
    trial._close_logger_handler()
    spec["config"]["timeout_multiplier"] = 1.5
    ours = registry.kind("trial").deadline_sec(make_attempt(tmp_path, "trial", spec))
    assert limits < ours < limits + 1700 + GRACE_SEC
