"""What an agent is doing right now, from the events as they come."""

from typing import NamedTuple

from pydantic import ValidationError

from parallelhassnes.plan import AgentPlan
from parallelhassnes.steps.agent import files
from parallelhassnes.steps.agent.adapters.agent_cli import AgentTokens, Transcript
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import HOME, read_events, tokens_so_far
from parallelhassnes.steps.step_types import StepAttempt


class SeenEvents(NamedTuple):
    """One look at an agent's events."""

    said: Transcript
    tokens: AgentTokens
    """Of this attempt alone."""


class EventFollower:
    """Reads an attempt's events from where it last stopped.

    Raises:
        ValidationError: the step's plan is not one.
    """

    def __init__(self, attempt: StepAttempt) -> None:
        plan = AgentPlan.model_validate(attempt.step.spec)
        self._attempt_dir = attempt.dir
        self._dir = files.folder(attempt.dir)
        self._cli = agent(plan.agent, plan.command, plan.program)
        self._reader = self._cli.reader()
        self._offset = 0

    def look(self) -> SeenEvents:
        """What the events have told until now."""
        self._offset = read_events(self._dir / self._cli.events_file, self._offset, self._reader)
        said = self._reader.transcript
        tokens = tokens_so_far(self._cli, said, self._dir / HOME)
        resumed = files.read_run(self._attempt_dir).resumed
        if resumed is not None:
            before = resumed.tokens_before
            tokens = tokens.minus(AgentTokens(before.input, before.cache, before.output))
        return SeenEvents(said, tokens)


def look(attempt: StepAttempt) -> SeenEvents:
    """What an attempt's events tell, from the first; nothing where its plan is not one."""
    try:
        return EventFollower(attempt).look()
    except ValidationError:
        return SeenEvents(Transcript(), AgentTokens())
