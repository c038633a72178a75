"""What a coding agent's command line is to us: the Protocol, what it is asked, what its events say.

An agent has a home folder of its own, made for one attempt: its settings and its sessions. It must not be below
TMPDIR, where Codex's sandbox would refuse every command. Login files in it are links to the user's own; there are
none where a key is in the environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from parallelhassnes.errors import UserError
from parallelhassnes.plan import AgentPolicy
from parallelhassnes.steps.step_types import Failure


class NotInstalled(UserError):
    """The agent's program is not there, or does not say its version."""


@dataclass(frozen=True)
class Request:
    """What an agent is asked."""

    prompt: str
    directory: Path
    """Where it works."""
    home: Path
    """Its own folder; there, and outside TMPDIR."""
    policy: AgentPolicy
    model: str | None = None
    schema: Mapping[str, Any] | None = None
    """JSON Schema that its last message must fit; None for prose."""
    schema_file: Path | None = None
    """The same in a file."""
    output_file: Path | None = None
    """Where its last message goes."""
    prompt_file: Path | None = None
    thread_id: str | None = None
    """The conversation to go on with, whose session is in ``home``."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What the program sees, before the agent's own additions."""


@dataclass(frozen=True)
class AgentLaunch:
    """How the program is started."""

    argv: list[str]
    environ: dict[str, str]


@dataclass
class AgentTokens:
    """Tokens used; ``cache`` is part of ``input``. None where nobody counted."""

    input: int | None = None
    cache: int | None = None
    output: int | None = None

    def add(self, read: int, cached: int, written: int) -> None:
        self.input = (self.input or 0) + read
        self.cache = (self.cache or 0) + cached
        self.output = (self.output or 0) + written

    def minus(self, other: "AgentTokens") -> "AgentTokens":
        """Those since ``other``."""
        if self.input is None:
            return self
        less = (
            max((mine or 0) - (theirs or 0), 0)
            for mine, theirs in ((self.input, other.input), (self.cache, other.cache), (self.output, other.output))
        )
        return AgentTokens(*less)


@dataclass
class Transcript:
    """What an agent's events have said so far."""

    thread_id: str | None = None
    model: str | None = None
    tokens: AgentTokens = field(default_factory=AgentTokens)
    cost_usd: float | None = None
    tool_calls: int = 0
    current_item: str | None = None
    """What it is doing, in one line."""
    message: str | None = None
    """The last message, whole."""
    document: Any = None
    """The structured output, where the program hands it over parsed."""
    done: bool = False
    """The last turn came to an end by itself."""
    gave_up: bool = False
    """The last turn ended because no report that it made fitted the schema: no failure, whatever the exit code."""
    failure: Failure | None = None
    """Why the last turn failed."""


class EventReader(Protocol):
    """Reads an agent's events line by line; what it has read is in ``transcript``."""

    @property
    def transcript(self) -> Transcript:
        """What was read so far."""

    def feed(self, line: bytes) -> None:
        """Take one whole line; anything that is not an event of a known shape is passed over."""


class AgentCli(Protocol):
    """One agent's command line. Implementations are stateless but for what they were made with."""

    name: str
    events_file: str
    """Name of the file that its standard output goes to, in the attempt's directory."""

    def version(self, environ: Mapping[str, str]) -> str:
        """Its version, by asking the program; raises ``NotInstalled``."""

    def prepare(self, request: Request) -> AgentLaunch:
        """Write the home's settings and link the login; how to start the program."""

    def reader(self) -> EventReader:
        """A fresh reader of its events."""

    def sessions(self, home: Path, thread_id: str) -> list[Path]:
        """The files of a conversation, below ``home``."""

    def thread_tokens(self, home: Path, thread_id: str) -> AgentTokens:
        """What a conversation has used by its session's files, also while it goes on.

        Events name the sum over the conversation; where they name each run's own, nothing is told here.
        """

    def tidy(self, home: Path) -> None:
        """Remove what nobody needs after the run: everything but settings and sessions."""
