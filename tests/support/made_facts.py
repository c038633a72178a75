"""Facts of trials, made up for tests of what counts them."""

from dataclasses import replace
from typing import Any

from parallelhassnes.plan import PassRule
from parallelhassnes.steps.trial_data import facts, rewards
from parallelhassnes.steps.trial_data.facts import TrialFacts


def trial_facts(
    step_id: str,
    result: str,
    attempt: str | None = None,
    failure_class: str | None = None,
    *,
    reward: float | None = None,
    named: dict[str, float] | None = None,
    rule: PassRule = rewards.DEFAULT,
    **more: Any,
) -> TrialFacts:
    """A trial with this reward, or with rewards by name, that stands by the rule; one attempt has cost what it has cost."""
    found = named if named is not None else {} if reward is None else {"reward": reward}
    if result != "scored":
        found = {}
    made = TrialFacts(
        step_id=step_id,
        result=result,
        attempt=attempt,
        failure_class=failure_class,
        rewards=found,
        main=rewards.main_name(found, rule),
        **rewards.stand(found, rule)._asdict(),
        by_default=rule.source == "default",
        **more,
    )
    spent = facts.spent_by(made) if result not in ("missing", "skipped") else facts.UsageSum()
    return replace(made, spent=spent)
