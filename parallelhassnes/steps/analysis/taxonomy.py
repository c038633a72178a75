"""What an analysis may say: five outcomes, and under each its subtypes. ``docs/analyses.md`` holds these tables.

``unknown`` is no outcome of a trial but an engine's admission: the files prove nothing.
"""

from typing import Literal

type Outcome = Literal["good_success", "bad_success", "good_failure", "bad_failure", "harness_error", "unknown"]

OUTCOMES: dict[str, str] = {
    "good_success": "the agent did what was asked, and the tests saw it",
    "bad_success": "the tests passed without the work: a task that lets that happen, or an agent that made it happen",
    "good_failure": "the tests failed because of what the agent did or left undone: the task is fair",
    "bad_failure": "the tests failed because of the task: what was asked, what was tested, where it ran",
    "harness_error": "nothing can be said about agent or task: image, installation, network, provider, verifier, host",
    "unknown": "the files do not prove any of these (only the engine `rules` says so)",
}

type Subtype = Literal[
    "solved",
    "reference",
    "pre_solved",
    "too_permissive",
    "leaked_solution",
    "leaked_tests",
    "tampered",
    "timeout",
    "wrong_approach",
    "implementation_bug",
    "incomplete",
    "premature_stop",
    "lost_context",
    "gave_up",
    "no_action",
    "refused",
    "agent_crash",
    "other",
    "underspecified",
    "brittle_tests",
    "nondeterministic_tests",
    "missing_reference",
    "broken_reference",
    "environment",
    "image",
    "install",
    "network",
    "provider",
    "verifier",
    "host",
    "canceled",
    "unknown",
]

SUBTYPES: dict[str, dict[str, str]] = {
    "good_success": {
        "solved": "the work is there, and the tests look at it",
        "reference": "the task's own solution passed, as it must",
    },
    "bad_success": {
        "pre_solved": "the tests pass in the environment as it is, before any action",
        "too_permissive": "the tests accept work that is not what was asked",
        "leaked_solution": "the agent found the task's solution and used it",
        "leaked_tests": "the agent found the tests and worked towards them instead of the task",
        "tampered": "the agent changed the tests, or wrote the reward itself",
    },
    "good_failure": {
        "timeout": "the agent's time was up",
        "wrong_approach": "the way it took cannot lead there",
        "implementation_bug": "the right way with a mistake in it",
        "incomplete": "parts of what was asked are not there",
        "premature_stop": "it said that it was done, or stopped, before it was",
        "lost_context": "it ran out of context, or forgot what was asked",
        "gave_up": "it said that it could not do it",
        "no_action": "it did nothing at all",
        "refused": "the model refused",
        "agent_crash": "the agent's own program broke",
        "other": "the agent's doing in another way",
    },
    "bad_failure": {
        "underspecified": "the tests want what the instruction does not say",
        "brittle_tests": "the tests refuse right work, or break by themselves",
        "nondeterministic_tests": "the same work passes one time and fails another",
        "missing_reference": "the task has no solution to compare with",
        "broken_reference": "the task's own solution does not pass",
        "environment": "what the task needs is not in its environment, or that cannot be built",
    },
    "harness_error": {
        "image": "the environment's image could not be had or built here",
        "install": "the agent could not be installed or started",
        "network": "the network failed",
        "provider": "the model's provider did not serve the agent",
        "verifier": "the verifier did not come to a reward",
        "host": "the host failed, or the attempt was lost",
        "canceled": "somebody canceled it",
    },
    "unknown": {"unknown": "the files prove nothing"},
}

SUCCESSES = frozenset({"good_success", "bad_success"})
FAILURES = frozenset({"good_failure", "bad_failure"})


def contradiction(outcome: str, reward: float | None, *, scored: bool, passed: bool | None) -> str:
    """Tell why the outcome is impossible, given the verified reward; empty where it is possible.

    A success needs a pass, a failure needs none, and a trial that was scored is no ``harness_error``. Of one that was scored
    and is not decided (``passed`` None) either may be said.
    """
    if outcome in SUCCESSES and (not scored or passed is False):
        return f"{outcome} is said of a trial whose verified reward is {_said(reward)}"
    if outcome in FAILURES and scored and passed:
        return f"{outcome} is said of a trial whose verified reward is {_said(reward)}"
    if outcome == "harness_error" and scored:
        return f"harness_error is said of a trial that was scored ({_said(reward)})"
    return ""


def _said(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"


def fits(outcome: str, subtype: str) -> bool:
    """Tell whether the subtype belongs to the outcome."""
    return subtype in SUBTYPES.get(outcome, {})
