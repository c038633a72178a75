"""A dry run: with ``tick --no-codex`` every agent step is answered by a report made from its prompt alone.

It is the same each time, and marked as a stand-in.
"""

import hashlib
import json
from typing import Any

from parallelhassnes.steps import terminal_outcomes
from parallelhassnes.steps.step_types import Outcome, StepAttempt, WorkerEnd


def conclude(attempt: StepAttempt, end: WorkerEnd) -> Outcome:
    """What a stand-in's attempt came to."""
    stopped = terminal_outcomes.stopped(end)
    if stopped is not None:
        return stopped
    if end.exit_code != 0:
        return terminal_outcomes.broken(f"the stand-in ended with exit code {end.exit_code}")
    digest = hashlib.sha256(_prompt(attempt.step.spec).encode("utf-8", "replace")).hexdigest()
    summary = f"Stand-in: no agent was run. The prompt's SHA-256 begins with {digest[:12]}."
    agent = {"prompt_sha256": digest, "answer": f"stand-in-{digest[:16]}"}
    return Outcome("succeeded", summary, None, {"agent": agent, "stand_in": True})


def _prompt(spec: dict[str, Any]) -> str:
    """The prompt; where the step has it elsewhere (a file), what the step says about that."""
    prompt = spec.get("prompt")
    return prompt if isinstance(prompt, str) and prompt else json.dumps(spec, sort_keys=True)
