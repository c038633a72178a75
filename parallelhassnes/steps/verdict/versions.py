"""Reading ``verdict.json`` of this version and of older ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.verdict import discrimination
from parallelhassnes.steps.verdict.judge import SCHEMA_VERSION, listed

VERDICT_FILE = "verdict.json"
QUALITY_OF_1: dict[bool | None, str] = {True: "broken", False: "good", None: "unknown"}
"""``task_broken``, which was all that verdicts before 2.0.0 said, as ``task_quality``."""


def read(job_dir: Path) -> dict[str, Any] | None:
    """The job's verdict in the shape of this version; None where there is none."""
    found = safe_read.read_object(job_dir / VERDICT_FILE)
    return None if found is None else upgraded(found)


def upgraded(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict of any version as one of this: what an older one did not say is empty.

    Before 2.0.0 a task was broken, sound or neither, and there were no findings, intervals and analyses.
    """
    if str(verdict.get("schema_version", "")).partition(".")[0] != "1":
        return dict(verdict)
    found = QUALITY_OF_1[verdict["task_broken"]]
    added = {
        "task_quality": found,
        "confidence": 0.0,
        "primary_issue": None,
        "recommendations": [],
        "findings": [],
        "flakiness": {"agents": [], "same_actions": []},
        "analyses": {"n": 0, "missing": [], "outcomes": {}, "said": []},
        "prose": None,
    }
    agents = [_agent_of_1(agent) for agent in verdict["agents"]]
    return {**verdict, **added, "agents": agents, "schema_version": SCHEMA_VERSION}


def _agent_of_1(agent: Mapping[str, Any]) -> dict[str, Any]:
    scored, passes, cost = agent["scored"], agent["passes"], agent["cost_usd"]
    return {
        **agent,
        "superseded": agent.get("superseded", 0),
        "passes_doubted": 0,
        "pass_rate": passes / scored if scored else None,
        "pass_rate_interval": listed(discrimination.wilson(passes / scored, scored) if scored else None),
        "mean_reward_interval": None,
        "pass_hat": discrimination.pass_hat_all(scored, passes),
        "cost_per_success_usd": cost / passes if cost is not None and passes else None,
    }
