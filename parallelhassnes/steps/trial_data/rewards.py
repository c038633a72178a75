"""What a trial's reward is, and whether the trial passed.

The main reward is the one that the ``pass`` of the step, sweep, table or task names, else the one called ``reward``, else
the only one. A trial passes where the main reward is at least ``at_least`` (1 where nobody says), within a relative
1e-9, which is what summing tenths loses. Of several rewards without a main one none is guessed: all are kept, the
trial is scored, and whether it passed is undecided, with a line that says how to decide.

A reward is any finite number, as Harbor takes it: negative, above 1, 1e308; ``true`` and ``false`` are 1 and 0. NaN,
infinities and texts are none.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from parallelhassnes.plan import PassRule
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.usage import quoted

MAIN = "reward"
"""The name of the main reward where nobody names one."""
DEFAULT = PassRule()
TOLERANCE = 1e-9
"""Relative, to the limit."""
MOST_NAMES = 5
"""Names of rewards in a message."""

type Rewards = Mapping[str, float | int]


class RewardStanding(NamedTuple):
    """What the rewards of a trial come to."""

    reward: float | None
    """The main one."""
    passed: bool | None
    """None where that is not decided, or there is no reward."""
    undecided: str | None
    """How to decide; None where there is nothing to decide."""


def read(found: object) -> tuple[dict[str, float | int], list[str]]:
    """Return the rewards by name that are numbers, however many, and a line for each value that is none."""
    rewards: dict[str, float | int] = {}
    told = []
    for name, value in safe_read.mapping(found).items():
        reward = _finite(value)
        if reward is None:
            told.append(f"reward {quoted(name)} is {quoted(value)}, which is no finite number")
        else:
            rewards[name.encode("utf-8", "replace").decode("utf-8")] = reward
    return rewards, told


def _finite(value: object) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def stand(rewards: Rewards | None, rule: PassRule = DEFAULT) -> RewardStanding:
    """Return the main reward, and whether it passes."""
    if not rewards:
        return RewardStanding(None, None, None)
    name = main_name(rewards, rule)
    if name is None:
        return RewardStanding(None, None, _how_to_decide(rewards, rule))
    reward = float(rewards[name])
    return RewardStanding(reward, passes(reward, rule.at_least), None)


def main_name(rewards: Rewards, rule: PassRule = DEFAULT) -> str | None:
    """Return the name of the main reward; None where there is none."""
    if rule.reward is not None:
        return rule.reward if rule.reward in rewards else None
    if MAIN in rewards:
        return MAIN
    return next(iter(rewards)) if len(rewards) == 1 else None


def passes(reward: float, at_least: float = DEFAULT.at_least) -> bool:
    """Tell whether a reward reaches the limit."""
    return reward >= at_least - TOLERANCE * abs(at_least)


def said(rule: PassRule) -> str:
    """Return the rule in words, whoever says it: ``reward >= 1``."""
    return f"{rule.reward or 'main reward'} >= {rule.at_least:g}"


def _how_to_decide(rewards: Rewards, rule: PassRule) -> str:
    some = [quoted(name) for name in list(rewards)[:MOST_NAMES]]
    more = len(rewards) - len(some)
    has = ", ".join(some) + (f" and {more} more" if more > 0 else "")
    if rule.reward is not None:
        return f"undecided: the {rule.source} names reward {quoted(rule.reward)}, and the trial has {has}"
    return (
        f"undecided: {len(rewards)} rewards ({has}) and none is called reward; "
        "name one with pass: {reward: NAME, at_least: X} in the table, or --pass 'NAME>=X'"
    )


def rule_of(spec: Mapping[str, Any]) -> PassRule:
    """Return the rule of a trial step's ``spec``; the default where it has none."""
    found = safe_read.mapping(spec.get("pass_rule"))
    return PassRule.model_validate(found) if found else DEFAULT
