"""The agents by name."""

from parallelhassnes.steps.agent.adapters.agent_cli import AgentCli
from parallelhassnes.steps.agent.adapters.claude import Claude
from parallelhassnes.steps.agent.adapters.codex import Codex
from parallelhassnes.steps.agent.adapters.template import Template

BUILT_IN = ("codex", "claude")


def agent(name: str, command: tuple[str, ...] = (), program: str = "") -> AgentCli:
    """Return the agent of that name; one that is not built in is the program of ``command``.

    Args:
        program: the path of a built-in agent's CLI, where it is not the one on PATH.
    """
    if command:
        return Template(name, command)
    if name == "claude":
        return Claude(program or name)
    if name == "codex":
        return Codex(program or name)
    return Template(name, (program or name,))
