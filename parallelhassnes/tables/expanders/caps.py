"""Caps of a table: those of the nearest part, value by value; and what cannot be seen of an agent while it runs."""

from parallelhassnes.plan import CAPS, CapName, Caps
from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.model import CapFields

_USED: tuple[CapName, ...] = ("max_cost_usd", "max_tokens", "max_turns")
SEEN_OF_TRIALS = frozenset({"terminus-2", "computer-1", "claude-code", "codex", "oracle", "nop"})
"""Harbor's agents of which is seen what they use while they run; the last two use nothing."""
_SEEN_OF_STEPS: dict[str, frozenset[CapName]] = {
    "codex": frozenset({"max_tokens", "max_turns"}),
    "claude": frozenset({"max_tokens", "max_turns"}),
}
"""Agent of an agent step → what its events say while it runs."""


def asked(*parts: CapFields | None) -> Caps | None:
    """Return the caps of the first part that says one, value by value; None where none says any."""
    found = {}
    for name in CAPS:
        said = [value for part in parts if part is not None and (value := getattr(part, name)) is not None]
        if said:
            found[name] = said[0]
    return Caps.model_validate(found) if found else None


def tell_unseen(caps: Caps | None, agent: str, context: Expansion, *, of_step: bool = False) -> None:
    """Warn of caps that nothing enforces, as nobody sees what the agent uses before it has ended."""
    given = [name for name in _USED if caps is not None and getattr(caps, name) is not None]
    if of_step:
        given = [name for name in given if name not in _SEEN_OF_STEPS.get(agent, ())]
    elif agent in SEEN_OF_TRIALS:
        return
    if given:
        if of_step or ":" not in agent:
            why = f"{agent} does not say while it runs what that is"
        else:
            why = f"{agent} is ended by it only if it fills in Harbor's AgentContext, or its trajectory.json, while it runs"
        context.problems.warn(f"{', '.join(given)}: {why}; max_wall_sec holds in any case")
