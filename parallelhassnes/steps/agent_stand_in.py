"""The kind ``agent``, as far as this version has it: a stand-in instead of a coding agent.

With ``tick --no-codex`` every agent step is answered by a report made from its prompt alone, the same
each time and marked as a stand-in. Without it an agent step is not launched.
"""

import hashlib
import json
from typing import Any

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps.kinds import Attempt, Failure, Outcome, WorkerEnd

NOT_RUN = "agent steps need `tick --no-codex` in this version"
EXIT_NOT_RUN = 2


class AgentStandInKind:
    """Answers an agent step without an agent."""

    name = "agent"

    def preload(self, step: StepSpec) -> None:  # noqa: ARG002 - it needs nothing that is slow to import
        return

    def deadline_sec(self, attempt: Attempt) -> float | None:  # noqa: ARG002 - it does nothing that could hang
        return 60.0

    def work(self, attempt: Attempt) -> int:
        return 0 if attempt.stand_in else EXIT_NOT_RUN

    def phase(self, attempt: Attempt) -> str | None:
        return "stand_in" if attempt.stand_in else None

    def conclude(self, attempt: Attempt, end: WorkerEnd) -> Outcome:
        if end.reason == "canceled":
            return Outcome("canceled", "Canceled.", Failure("canceled", "canceled"))
        if end.reason == "lost":
            return Outcome("lost", "Lost.", Failure("lost", "its supervisor died"))
        if not attempt.stand_in:
            return Outcome("failed", f"Not run: {NOT_RUN}.", Failure("task_definition", NOT_RUN))
        if end.exit_code != 0:
            line = f"the stand-in ended with exit code {end.exit_code}"
            return Outcome("failed", line, Failure("internal", line))
        digest = hashlib.sha256(_prompt(attempt.step.spec).encode("utf-8", "replace")).hexdigest()
        summary = f"Stand-in: no agent was run. The prompt's SHA-256 begins with {digest[:12]}."
        agent = {"prompt_sha256": digest, "answer": f"stand-in-{digest[:16]}"}
        return Outcome("succeeded", summary, None, {"agent": agent, "stand_in": True})

    def sweep(self, attempt: Attempt) -> list[str]:  # noqa: ARG002 - nothing was started
        return []


def _prompt(spec: dict[str, Any]) -> str:
    """The prompt; where the step has it elsewhere (a file), what the step says about that."""
    prompt = spec.get("prompt")
    return prompt if isinstance(prompt, str) else json.dumps(spec, sort_keys=True)
