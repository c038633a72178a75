"""The time after which a trial has certainly gone past every limit of Harbor's own.

The sum of what Harbor allows each phase (``harbor.trial.trial.Trial._compute_*``), and a grace for
what it does not limit: downloads, collecting files, taking the environment down.
"""

from collections.abc import Mapping
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial import task as trial_task

GRACE_SEC = 300.0
DEFAULT_BUILD_SEC = 600.0
DEFAULT_VERIFIER_SEC = 600.0
DEFAULT_SETUP_SEC = 1200.0
"""The longest that an agent which comes with Harbor gives its own setup."""
DEFAULT_COLLECT_SEC = 60.0


def deadline_sec(config: dict[str, Any]) -> float | None:
    """Return the seconds from the start of a trial to its deadline; None where Harbor lets the agent run without end."""
    task = trial_task.task_toml(config)
    environment = safe_read.mapping(task.get("environment"))
    build = build_sec(config)
    setup = _limit(config, "agent_setup", _agent_setup(config))
    if config.get("user_agent"):
        # The simulated user and the bridge to it are set up like agents of their own.
        setup *= 3
    # Twice a build: the shared image's, and Harbor's own where that could not be provided.
    total = GRACE_SEC + 2 * build + setup + _health(environment.get("healthcheck"))
    steps = [safe_read.mapping(step) for step in safe_read.sequence(task.get("steps"))]
    for step in steps or [{}]:
        agent = _agent(config, task, step)
        if agent is None:
            return None
        total += agent + _health(step.get("healthcheck"))
        total += _verifier(config, task, step, build)
    return total


def phase_deadline_sec(config: dict[str, Any], phase: str) -> float | None:
    """Return the seconds that a trial may stay in a phase at most: what Harbor allows it, and the grace; None for no end."""
    task = trial_task.task_toml(config)
    environment = safe_read.mapping(task.get("environment"))
    build = build_sec(config)
    steps = [safe_read.mapping(step) for step in safe_read.sequence(task.get("steps"))] or [{}]
    match phase:
        case "create":
            return GRACE_SEC + DEFAULT_SETUP_SEC + build
        case "environment_setup":
            setup = _limit(config, "agent_setup", _agent_setup(config))
            if config.get("user_agent"):
                setup *= 3
            return GRACE_SEC + build + setup + _health(environment.get("healthcheck"))
        case "agent":
            limits = [_agent(config, task, step) for step in steps]
            known = [limit for limit in limits if limit is not None]
            return GRACE_SEC + max(known) if len(known) == len(limits) else None
        case "verifier":
            # Until the next step's agent starts, a health check included, or the environment is down.
            longest = max(_verifier(config, task, step, build) + _health(step.get("healthcheck")) for step in steps)
            return GRACE_SEC + longest
        case _:
            return None


def build_sec(config: dict[str, Any]) -> float:
    """Return the seconds that the environment's image may take to build."""
    environment = safe_read.mapping(trial_task.task_toml(config).get("environment"))
    declared = _seconds(environment, "build_timeout_sec", DEFAULT_BUILD_SEC)
    return _limit(config, "environment_build", declared)


def _agent_setup(config: dict[str, Any]) -> float:
    return _section(config, "agent", "override_setup_timeout_sec") or DEFAULT_SETUP_SEC


def _agent(config: dict[str, Any], task: Mapping[str, Any], step: Mapping[str, Any]) -> float | None:
    if config.get("install_only"):
        return 0.0
    base = _section(config, "agent", "override_timeout_sec") or _declared(task, step, "agent")
    if base is None:
        return None
    return _limit(config, "agent", base, _section(config, "agent", "max_timeout_sec"))


def _verifier(config: dict[str, Any], task: Mapping[str, Any], step: Mapping[str, Any], build: float) -> float:
    if safe_read.mapping(config.get("verifier")).get("disable"):
        return 0.0
    base = _section(config, "verifier", "override_timeout_sec") or _declared(task, step, "verifier")
    seconds = _limit(config, "verifier", base or DEFAULT_VERIFIER_SEC, _section(config, "verifier", "max_timeout_sec"))
    for part in (task, step):
        verifier = safe_read.mapping(part.get("verifier"))
        for hook in safe_read.sequence(verifier.get("collect")):
            seconds += _seconds(safe_read.mapping(hook), "timeout_sec", DEFAULT_COLLECT_SEC)
        if verifier.get("environment_mode") == "separate" or verifier.get("environment"):
            seconds += build
    return seconds


def _health(check: object) -> float:
    """Return the seconds that a health check may take at most (``harbor.environments.base.run_healthcheck``)."""
    if not isinstance(check, dict):
        return 0.0
    tries = _seconds(check, "retries", 3.0)
    each = _seconds(check, "timeout_sec", 30.0) + _seconds(check, "interval_sec", 5.0)
    return _seconds(check, "start_period_sec", 0.0) + (tries + 1) * each


def _limit(config: dict[str, Any], phase: str, base: float, most: float | None = None) -> float:
    multiplier = safe_read.number(config.get(f"{phase}_timeout_multiplier"))
    if multiplier is None:
        multiplier = _seconds(config, "timeout_multiplier", 1.0)
    return min(base, most or base) * multiplier


def _declared(task: Mapping[str, Any], step: Mapping[str, Any], section: str) -> float | None:
    own = safe_read.number(safe_read.mapping(step.get(section)).get("timeout_sec"))
    return own if own is not None else _section(task, section, "timeout_sec")


def _section(values: Mapping[str, Any], section: str, key: str) -> float | None:
    return safe_read.number(safe_read.mapping(values.get(section)).get(key))


def _seconds(values: Mapping[str, Any], key: str, default: float) -> float:
    found = safe_read.number(values.get(key))
    return default if found is None else float(found)
