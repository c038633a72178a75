"""Whether a trial has a score that counts towards a target of scored trials (``n_valid``).

A score does not count where the agent has a model and the trial says that it used no token of it: such an
agent has never spoken to its model, and a reward of 0 would be held against it. A trial that does not
count its tokens (null) is believed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelhassnes.steps import untrusted

REPORT = "final.json"


def read(attempt_dir: Path) -> Mapping[str, Any]:
    """The ``trial`` part of an attempt's report; empty where there is none."""
    report = untrusted.read_object(attempt_dir / REPORT) or {}
    return untrusted.mapping(report.get("trial"))


def is_valid(trial: Mapping[str, Any]) -> bool:
    """Whether the trial has a reward and is not ruled out; ``trial`` is that part of a report."""
    return untrusted.number(trial.get("reward")) is not None and not is_silent(trial)


def is_silent(trial: Mapping[str, Any]) -> bool:
    """Whether an agent with a model has counted its tokens and they are none."""
    tokens = untrusted.mapping(trial.get("tokens"))
    agent = untrusted.mapping(trial.get("agent"))
    counted = [untrusted.whole(tokens.get(name)) for name in ("input", "output")]
    return bool(agent.get("model")) and counted == [0, 0]
