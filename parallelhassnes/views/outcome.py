"""What a step has come to, in the words that every view uses: ``passed``, ``scored 0.4``, ``no score: rate_limit``.

"Succeeded" says that a trial was carried out, which is not what people look for. So a trial is named by its reward, a verdict
by what it says of the task, and trials are counted apart from the steps around them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from parallelhassnes import formatting
from parallelhassnes.states import TERMINAL
from parallelhassnes.steps.trial_data.ended_line import QUALITY_OF_1
from parallelhassnes.views.scoreboard_models import TrialCounts

type Standing = str
"""``passed``, ``scored`` or ``no_score`` of a trial with an end; of any other step, its state."""
OVER = frozenset(TERMINAL) - {"canceled"}
"""States after which a trial without a reward has no score."""
TASK = {
    "broken": "task broken",
    "good": "task good",
    "needs_review": "task to be reviewed",
    "unknown": "task not judged",
}
"""Task quality → the words of its verdict."""


class StepOutcome(NamedTuple):
    """A step's outcome."""

    standing: Standing
    text: str


def outcome(
    kind: str,
    state: str,
    said: Mapping[str, Any] | None = None,
    failure_class: str | None = None,
    *,
    guessed: bool = False,
) -> StepOutcome:
    """Return what a step or an attempt has come to.

    Args:
        state: of ``states.STATES``; one that is not over is its own outcome.
        said: what the ledger's line says of the report (``trial`` or ``verdict``), where it says anything.
        failure_class: of the last attempt, where it failed.
    """
    said, plain = said or {}, state.replace("_", " ")
    if kind == "verdict" and state == "succeeded":
        quality = said.get("task_quality") or QUALITY_OF_1.get(said.get("task_broken"))
        return StepOutcome(state, TASK.get(str(quality), "done"))
    if kind != "trial" or state not in OVER:
        return StepOutcome(state, plain)
    if said.get("result") != "scored":
        why = failure_class or ("" if state == "succeeded" else state)
        return StepOutcome("no_score", f"no score{f': {formatting.failure_class(why, guessed)}' if why else ''}")
    reward, passed = said.get("reward"), said.get("passed")
    if passed is True:
        return StepOutcome("passed", "passed" if reward in (None, 1) else f"passed, scored {_number(reward)}")
    if reward is None:
        return StepOutcome("scored", "scored, several rewards and none decides")
    return StepOutcome("scored", f"scored {_number(reward)}")


def _number(reward: float) -> str:
    return formatting.reward(reward, plain=True)


def standing(kind: str, state: str, said: Mapping[str, Any] | None) -> Standing:
    """Return the first part of ``outcome``, for counting."""
    if kind != "trial" or state not in OVER:
        return state
    if said is None or said.get("result") != "scored":
        return "no_score"
    return "passed" if said.get("passed") is True else "scored"


def count_trials(standings: Iterable[Standing]) -> TrialCounts:
    """Count trials by what they have come to."""
    found = Counter(standings)
    waiting = found.pop("ready", 0) + found.pop("blocked", 0)
    return TrialCounts(total=found.total() + waiting, waiting=waiting, **found)


def trials_text(counts: TrialCounts) -> list[tuple[str, str]]:
    """Return ``[("15 passed", "passed"), ("21 scored less", "scored"), …]``: what occurs, with the name of its style."""
    words = {
        "passed": "passed",
        "scored": "scored without passing",
        "no_score": "without a score",
        "running": "running",
        "waiting": "waiting",
        "canceled": "canceled",
    }
    return [(f"{count} {word}", name) for name, word in words.items() if (count := getattr(counts, name))]


def work(steps: int, trials: int) -> str:
    """Return ``36 trials and 9 other steps``, ``36 trials``, ``3 steps``."""
    if not trials:
        return formatting.counted(steps, "step")
    others = steps - trials
    more = f" and {formatting.counted(others, 'other step')}" if others else ""
    return f"{formatting.counted(trials, 'trial')}{more}"
