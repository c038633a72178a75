"""Caps of a table: those of the nearest part, value by value; and what cannot be seen of an agent while it runs."""

from collections.abc import Mapping
from typing import Any

from parallelhassnes import prices
from parallelhassnes.plan import CAPS, CapName, Caps
from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.model import CapFields

_USED: tuple[CapName, ...] = ("max_cost_usd", "max_tokens", "max_turns")
SEEN_OF_TRIALS = frozenset({"terminus-2", "computer-1", "claude-code", "codex", "oracle", "nop"})
"""Harbor's agents of which is seen what they use while they run; the last two use nothing."""
_SEEN_OF_STEPS = frozenset({"codex", "claude"})
"""Agents of agent steps whose events, or sessions, say while they run what they use."""


def asked(*parts: CapFields | None) -> Caps | None:
    """Return the caps of the first part that says one, value by value; None where none says any."""
    found = {}
    for name in CAPS:
        said = [value for part in parts if part is not None and (value := getattr(part, name)) is not None]
        if said:
            found[name] = said[0]
    return Caps.model_validate(found) if found else None


def tell_unseen(
    caps: Caps | None, agent: str, context: Expansion, *, config: Mapping[str, Any], of_step: bool = False
) -> None:
    """Warn of caps that nothing enforces: nobody sees what the agent uses before it has ended, or what its model costs.

    Args:
        agent: its name, or its import path.
        config: Harbor's AgentConfig of a trial's agent.
    """
    given = [name for name in _USED if caps is not None and getattr(caps, name) is not None]
    model = str(config.get("model_name") or "")
    if agent in (_SEEN_OF_STEPS if of_step else SEEN_OF_TRIALS):
        # A trial without a model is an agent's that uses none. Claude's events name the model, also behind a word such as "sonnet".
        unknown = model or (of_step and agent == "codex")
        if agent == "claude" and not any(map(str.isdigit, model)):
            unknown = False
        if "max_cost_usd" not in given or not unknown or _is_priced(model, config.get("kwargs")):
            return
        given = ["max_cost_usd"]
        why = (
            f"litellm's prices, by which it is reckoned, lack {model}"
            if model
            else f"{agent} does not say which model it uses; name one"
        )
    elif of_step or ":" not in agent:
        why = f"{agent} does not say while it runs what that is"
    else:
        why = f"{agent} is ended by it only if it fills in Harbor's AgentContext, or its trajectory.json, while it runs"
    if given:
        context.problems.warn(f"{', '.join(given)}: {why}; max_wall_sec holds in any case")


def _is_priced(model: str, kwargs: object) -> bool:
    """Tell whether a price of the model is known: by the agent's own arguments, or by the list that Harbor reckons with."""
    own = kwargs.get("model_info") if isinstance(kwargs, Mapping) else None
    if isinstance(own, Mapping) and own.get("input_cost_per_token") is not None:
        return True
    return prices.of(model) is not None
