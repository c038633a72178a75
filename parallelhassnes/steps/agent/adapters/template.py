"""Any program as an agent: an argument vector with ``{prompt_file} {schema_file} {output_file} {workdir}`` in it.

The prompt goes to standard input too. What it writes to ``output_file``, else the end of its standard output, is its
last message. It has no events, no conversation to resume, and counts no tokens.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from parallelhassnes.steps.agent.adapters.agent_cli import AgentLaunch, EventReader, NotInstalled, Request, Transcript
from parallelhassnes.steps.usage import Tokens

PLACES = ("prompt_file", "schema_file", "output_file", "workdir")


class Template:
    """Runs an argument vector."""

    events_file = "agent.output.log"

    def __init__(self, name: str, command: tuple[str, ...]) -> None:
        self.name = name
        self.command = command

    def version(self, environ: Mapping[str, str]) -> str:
        program = self.command[0] if self.command else ""
        if shutil.which(program, path=environ.get("PATH")) is None:
            raise NotInstalled(f"{program!r} is no program", fix="correct the agent's command")
        return ""

    def prepare(self, request: Request) -> AgentLaunch:
        values = {
            "prompt_file": request.prompt_file,
            "schema_file": request.schema_file,
            "output_file": request.output_file,
            "workdir": request.directory,
        }
        return AgentLaunch([_filled(part, values) for part in self.command], dict(request.environ))

    def reader(self) -> EventReader:
        return _Silent()

    def sessions(self, home: Path, thread_id: str) -> list[Path]:  # noqa: ARG002 - it has none
        return []

    def thread_tokens(self, home: Path, thread_id: str) -> Tokens:  # noqa: ARG002 - it counts none
        return Tokens()

    def tidy(self, home: Path) -> None:  # noqa: ARG002 - it has no home
        return


def _filled(part: str, values: Mapping[str, Path | None]) -> str:
    """Return the argument with its places filled in; other braces are left alone."""
    for name, value in values.items():
        part = part.replace(f"{{{name}}}", str(value or ""))
    return part


class _Silent:
    """Keeps the end of what a program says."""

    _MOST = 1 << 20
    """Bytes."""

    def __init__(self) -> None:
        self._transcript = Transcript(done=True)
        self._end = bytearray()

    @property
    def transcript(self) -> Transcript:
        if self._end:
            self._transcript.message = self._end[-self._MOST :].decode("utf-8", "replace")
        return self._transcript

    def feed(self, line: bytes) -> None:
        self._end += line
        if len(self._end) > 2 * self._MOST:  # seldom, so that a line costs what it holds
            del self._end[: -self._MOST]
