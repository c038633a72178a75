"""What a coding agent's command line is to us: the Protocol, what it is asked, what its events say.

An agent has a home folder of its own, made for one attempt: its settings and its sessions. It must not be below
TMPDIR, where Codex's sandbox would refuse every command. Login files in it are links to the user's own; there are
none where a key is in the environment.
"""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from parallelhassnes.errors import UserError
from parallelhassnes.plan import AgentPolicy
from parallelhassnes.steps.agent.files import clear
from parallelhassnes.steps.step_types import Failure
from parallelhassnes.steps.usage import Tokens, Usage


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
class Transcript:
    """What an agent's events have said so far."""

    thread_id: str | None = None
    model: str | None = None
    used: Usage = Usage()
    paid: Tokens = Tokens()
    """Those of ``used`` whose cost is in it; of the others events have not told it yet, or never do."""
    tool_calls: int = 0
    turns: int = 0
    """Answers of the model, as far as events tell them apart: of Codex its messages and its calls of tools."""
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
        """Return its version, by asking the program; raises ``NotInstalled``."""

    def prepare(self, request: Request) -> AgentLaunch:
        """Write the home's settings and link the login; how to start the program."""

    def reader(self) -> EventReader:
        """Return a fresh reader of its events."""

    def sessions(self, home: Path, thread_id: str) -> list[Path]:
        """Return the files of a conversation, below ``home``."""

    def thread_tokens(self, home: Path, thread_id: str) -> Tokens:
        """Tell what a conversation has used by its session's files, also while it goes on.

        Events name the sum over the conversation; where they name each run's own, nothing is told here.
        """

    def tidy(self, home: Path) -> None:
        """Remove what nobody needs after the run: everything but settings and sessions."""


class BuiltInAgent:
    """What the agents that are known by name have in common: a program that says its version, and a home of its own."""

    install: str
    """What to do where the program is not there, as an imperative."""
    kept: tuple[str, ...]
    """What stays of a home after a run: settings and sessions."""

    def __init__(self, program: str) -> None:
        self.program = program

    def version(self, environ: Mapping[str, str]) -> str:
        return version(self.program, self.install, environ)

    def tidy(self, home: Path) -> None:
        for entry in home.iterdir() if home.is_dir() else ():
            if entry.name not in self.kept or entry.is_symlink():
                with contextlib.suppress(OSError):
                    clear(entry)


_VERSION = re.compile(r"\d+\.\d+[^\s)]*")
_WAIT_SEC = 30.0


def version(program: str, install: str, environ: Mapping[str, str]) -> str:
    """Return the version that ``program --version`` prints.

    Args:
        program: a name to look up in ``environ``'s PATH, or a path.
        install: what to do where it is not there, as an imperative.

    Raises:
        NotInstalled: there is no such program, or it says no version.
    """
    path = shutil.which(program, path=environ.get("PATH"))
    if path is None:
        raise NotInstalled(f"{program} is not installed (not on PATH)", fix=install)
    try:
        told = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_WAIT_SEC,
            check=False,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{path} --version fails: {error}", fix=install) from None
    found = _VERSION.search(told.stdout)
    if told.returncode != 0 or found is None:
        said = (told.stderr or told.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise NotInstalled(f"{path} --version ends with {told.returncode} and says {said[0][:200]!r}", fix=install)
    return found[0]


def link_login(name: str, user_home: Path | None, home: Path) -> None:
    """Link the user's login file into an agent's home, never copy it: what the agent renews is then the user's own.

    Args:
        user_home: where the user's own one is; None for no link.
    """
    link = home / name
    link.unlink(missing_ok=True)
    if user_home is not None and (user_home / name).is_file():
        link.symlink_to((user_home / name).absolute())


def user_home(environ: Mapping[str, str], variable: str, folder: str) -> Path | None:
    """Return the agent's home of this user: what ``variable`` says, else ``folder`` below HOME."""
    if environ.get(variable):
        return Path(environ[variable])
    return Path(environ["HOME"]) / folder if environ.get("HOME") else None
