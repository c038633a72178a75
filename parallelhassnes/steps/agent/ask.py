"""Running an agent once, and reading what came of it.

Below the folder ``work`` that the caller gives: ``prompt.txt``, ``schema.json``, ``home/`` (the agent's own),
``<agent>.events.jsonl`` (appended by the program itself, so that nobody's death loses an event), ``agent.stderr.log``
and ``last_message.txt``.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from parallelhassnes import prices
from parallelhassnes.errors import UserError
from parallelhassnes.plan import AgentPolicy
from parallelhassnes.steps.agent import reports
from parallelhassnes.steps.agent.adapters.agent_cli import AgentCli, EventReader, Request, Transcript
from parallelhassnes.steps.agent.files import clear
from parallelhassnes.steps.caps import LOOK_SEC, CapWatch, UsedSoFar
from parallelhassnes.steps.safe_read import first_line, open_file, read_bytes
from parallelhassnes.steps.step_types import Failure
from parallelhassnes.steps.usage import Tokens, Usage
from parallelhassnes.store import atomic

PROMPT, SCHEMA, MESSAGE, HOME, ERRORS = ("prompt.txt", "schema.json", "last_message.txt", "home", "agent.stderr.log")
MAX_MESSAGE = 16 << 20
GRACE_SEC = 10.0
READ_ONLY = AgentPolicy(sandbox="read-only")


@dataclass(frozen=True)
class AgentAnswer:
    """What an agent's run came to."""

    text: str
    """Its last message."""
    document: Any = None
    """The JSON of it; None where it is prose or no schema was asked for."""
    problems: list[str] = field(default_factory=list)
    """Every way in which the message does not fit the schema; a document with problems is kept all the same."""
    failure: Failure | None = None
    """Why the run failed; there may be a message all the same. None where the run succeeded."""
    thread_id: str | None = None
    used: Usage = Usage()
    tool_calls: int = 0
    model: str | None = None
    exit_code: int | None = None
    seconds: float = 0.0

    @property
    def valid(self) -> bool:
        """The run succeeded, and its message fits the schema."""
        return self.failure is None and not self.problems


def ask(
    cli: AgentCli,
    prompt: str,
    folder: Path,
    work: Path,
    *,
    environ: Mapping[str, str],
    schema: Mapping[str, Any] | None = None,
    model: str | None = None,
    policy: AgentPolicy = READ_ONLY,
    timeout_sec: float | None = None,
) -> AgentAnswer:
    """Ask an agent one thing, in a conversation of its own.

    Args:
        folder: where it works.
        work: a folder for its files, see above; not below TMPDIR.
        environ: what it sees; a key of its provider is looked for there.
        schema: JSON Schema that its last message must fit.
        timeout_sec: after so long it is ended, as a failure of the class ``agent_timeout``.

    Raises:
        UserError: its program cannot be started. ``agent_cli.version`` tells that before, in clearer words.
    """
    request = request_of(prompt, folder, work, schema, environ)
    conversation = Conversation(cli, work, replace(request, model=model, policy=policy))
    try:
        return conversation.turn(prompt, timeout_sec)
    finally:
        cli.tidy(request.home)


def request_of(
    prompt: str, folder: Path, work: Path, schema: Mapping[str, Any] | None, environ: Mapping[str, str]
) -> Request:
    """Return the request, with its files in ``work``; the policy is read-only."""
    work.mkdir(parents=True, exist_ok=True)
    home = work / HOME
    home.mkdir(exist_ok=True)
    if schema is not None:
        bare = {name: value for name, value in schema.items() if name != "$schema"}
        (work / SCHEMA).write_text(json.dumps(bare), encoding="utf-8")
    return Request(
        prompt=prompt,
        directory=folder,
        home=home,
        policy=READ_ONLY,
        schema=schema,
        schema_file=work / SCHEMA if schema is not None else None,
        output_file=work / MESSAGE,
        prompt_file=work / PROMPT,
        environ=environ,
    )


class ProgramEnd(NamedTuple):
    """How the program ended."""

    exit_code: int
    timed_out: bool
    seconds: float
    capped: str | None = None
    """The cap that ended it, in a line."""


class Conversation:
    """One or more turns with an agent; the later ones go on with the conversation of the first."""

    def __init__(self, cli: AgentCli, work: Path, request: Request, watch: CapWatch | None = None) -> None:
        self.cli, self.work, self.request, self._watch = cli, work, request, watch
        self.events = work / cli.events_file
        self.reader: EventReader = cli.reader()
        self._offset = self.events.stat().st_size if self.events.exists() else 0
        self._before = Tokens()
        self._counted, self._turns_counted = Tokens(), 0
        self._log_bytes = 0
        self._log_is_whole = True
        self._losses: set[str] = set()
        self._open: int | None = None
        """The events, while the program runs."""
        self._seconds = 0.0
        if request.thread_id is not None:
            self._before = cli.thread_tokens(request.home, request.thread_id)

    def turn(self, prompt: str, timeout_sec: float | None) -> AgentAnswer:
        """Say something to the agent and wait for its answer; tokens, cost and seconds are those of all turns so far."""
        request = replace(self.request, prompt=prompt)
        if self.reader.transcript.thread_id is not None:
            request = replace(request, thread_id=self.reader.transcript.thread_id)
        assert request.prompt_file is not None  # noqa: S101 - request_of gives one
        clear(request.prompt_file)
        atomic.write_text(request.prompt_file, prompt, durable=False)
        clear(self.work / MESSAGE)
        _append(self.events).close()
        self._open = open_file(self.events)  # read on by this, also where its name is removed
        try:
            ended = _run(self.cli, request, self.events, self.work / ERRORS, timeout_sec, self._over)
            self._read()
        finally:  # a signal of ours may end the wait
            handle, self._open = self._open, None
            os.close(handle)
        self._seconds += ended.seconds
        said = self.reader.transcript
        text = _message(said, self.work / MESSAGE)
        clear(self.work / MESSAGE)
        atomic.write_text(self.work / MESSAGE, text, durable=False)
        failure = _failure(self.cli, said, ended, request.thread_id, self.work / ERRORS)
        document: Any = None
        problems: list[str] = []
        if request.schema is not None and failure is None:
            document, problems = parsed(said, text, request.schema)
        return replace(
            self.so_far(), text=text, document=document, problems=problems, failure=failure, exit_code=ended.exit_code
        )

    def _over(self) -> str | None:
        """Tell which cap is reached by now."""
        if self._watch is None:
            return None
        if not self._watch.runs:
            self._watch.begin()
        if self._watch.look() is None:
            return None
        used = self.so_far().used
        said = self.reader.transcript
        tokens, cost = used.tokens, self._cost(used)
        if (
            not self._log_is_whole
        ):  # each later turn counts as one of those before; the one that goes on has no number yet
            share = max((said.turns + 1) / (self._turns_counted + 1), 1.0)
            tokens = Tokens(*(None if each is None else int(each * share) for each in tokens))
            cost = None if cost is None else cost * share
        return self._watch.reached(UsedSoFar(cost, tokens.whole, said.turns))

    def _cost(self, used: Usage) -> float | None:
        """Return the cost so far in US dollars: what events have told, the rest by the price of its model; None where nobody knows."""
        said = self.reader.transcript
        price = prices.of(said.model or self.request.model or "")
        if price is None:
            return used.cost_usd
        sent, cached, answered = (each or 0 for each in used.tokens.minus(said.paid))
        return (used.cost_usd or 0.0) + price.cost(sent, cached, answered)

    def so_far(self) -> AgentAnswer:
        """Tell what the events have told until now, also of a turn that was broken off."""
        self._read()
        said = self.reader.transcript
        used = used_so_far(self.cli, said, self.request.home, self._before)
        if (used.tokens.whole or 0) >= (self._counted.whole or 0):
            self._counted, self._turns_counted = used.tokens, said.turns
        self._look_at_log(said.thread_id)
        return AgentAnswer(
            text=said.message or "",
            thread_id=said.thread_id,
            used=used._replace(tokens=self._counted),
            tool_calls=said.tool_calls,
            model=said.model or self.request.model,
            seconds=self._seconds,
        )

    def _read(self) -> None:
        """Take what events have told since the last look."""
        if self._open is None:
            self._offset = read_events(self.events, self._offset, self.reader)
            return
        file = os.fstat(self._open)
        if file.st_size < self._offset or not file.st_nlink:
            self._tell_loss("events")
        with os.fdopen(os.dup(self._open), "rb") as stream:  # a reader of its own: what one has read ahead may be gone
            self._offset = _read_on(stream, self._offset, self.reader)

    def _look_at_log(self, thread_id: str | None) -> None:
        """See whether the session's log has lost something."""
        if thread_id is None:
            return
        there = 0
        for path in self.cli.sessions(self.request.home, thread_id):
            with contextlib.suppress(OSError):  # it was removed just now
                there += path.lstat().st_size
        if there < self._log_bytes:
            self._tell_loss("log of the conversation")
            self._log_is_whole = False
        self._log_bytes = there

    def _tell_loss(self, what: str) -> None:
        """Say once of each that it has lost something: what was counted by it stays counted."""
        if what not in self._losses:
            line = f"{self.cli.name}: its {what} was shortened or removed; what was counted by it stays counted"
            print(line, file=sys.stderr, flush=True)
        self._losses.add(what)


def _run(
    cli: AgentCli,
    request: Request,
    events: Path,
    errors: Path,
    timeout_sec: float | None,
    over: Callable[[], str | None],
) -> ProgramEnd:
    launch = cli.prepare(request)
    began = time.monotonic()
    assert request.prompt_file is not None  # noqa: S101 - request_of gives one
    environ = {**launch.environ, "PWD": str(request.directory)}
    with os.fdopen(open_file(request.prompt_file), "rb") as said, _append(events) as out, _append(errors) as err:
        try:
            process = subprocess.Popen(
                launch.argv, stdin=said, stdout=out, stderr=err, env=environ, cwd=request.directory, process_group=0
            )
        except OSError as error:
            raise UserError(f"cannot start {launch.argv[0]}: {error.strerror}") from None
    timed_out, capped = False, None
    try:
        while capped is None and not timed_out:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SEC)
                break
            capped = over()
            timed_out = timeout_sec is not None and time.monotonic() - began >= timeout_sec
    finally:  # also where a signal of ours ends the wait by an exception
        stop(process)
    return ProgramEnd(process.returncode, timed_out, time.monotonic() - began, capped)


def _append(path: Path) -> BinaryIO:
    """Return a log that is added to; what is no file of its own there, such as a link, is removed."""
    if path.is_symlink() or not path.is_file():
        clear(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def stop(process: subprocess.Popen[bytes], grace_sec: float = GRACE_SEC) -> None:
    """End the program, if it still runs, and whatever it left in its process group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_sec)
        except subprocess.TimeoutExpired:
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_events(path: Path, offset: int, reader: EventReader) -> int:
    """Feed the whole lines from ``offset`` on to the reader; where the next ones begin.

    A file that is shorter than that was emptied, and what is in it now is new.
    """
    try:
        handle = open_file(path)
    except OSError:  # none yet, or a link
        return offset
    with os.fdopen(handle, "rb") as stream:
        return _read_on(stream, offset, reader)


def _read_on(stream: BinaryIO, offset: int, reader: EventReader) -> int:
    if os.fstat(stream.fileno()).st_size < offset:
        offset = 0
    stream.seek(offset)
    for line in stream:
        if not line.endswith(b"\n"):
            break
        reader.feed(line)
        offset += len(line)
    return offset


def used_so_far(cli: AgentCli, said: Transcript, home: Path, before: Tokens) -> Usage:
    """Tell what a conversation has used: by its events or, where these say it only at a turn's end, by its session.

    Args:
        before: the tokens that it had used before it was gone on with here.
    """
    tokens = said.used.tokens
    if said.thread_id is not None:
        counted = cli.thread_tokens(home, said.thread_id)
        tokens = max(tokens, counted, key=lambda each: each.input or 0)
    return said.used._replace(tokens=tokens.minus(before))


def parsed(said: Transcript, text: str, schema: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return the document in an agent's last message, and every way in which it does not fit the schema."""
    document = said.document
    if document is None:
        try:
            document = json.loads(_unfenced(text))
        except (ValueError, RecursionError):
            what = "is prose, not JSON" if text.strip() else "is empty"
            return None, [f"/: the last message {what}"]
    return document, reports.problems(document, schema)


def _unfenced(text: str) -> str:
    """Return the text without a Markdown fence around the whole of it."""
    lines = text.strip().splitlines()
    if len(lines) >= 2 and lines[0] in ("```", "```json") and lines[-1] == "```":
        return "\n".join(lines[1:-1])
    return text


def _message(said: Transcript, output_file: Path) -> str:
    if said.message is not None and not output_file.exists():
        return said.message
    written = read_bytes(output_file, MAX_MESSAGE)
    return said.message or "" if not written else written.decode("utf-8", "replace")


def _failure(cli: AgentCli, said: Transcript, ended: ProgramEnd, thread_id: str | None, errors: Path) -> Failure | None:
    if ended.capped is not None:
        return Failure("capped", f"{cli.name} was ended: {ended.capped}")
    if ended.timed_out:
        return Failure("agent_timeout", f"{cli.name} was ended after {ended.seconds:.0f} s")
    if said.failure is not None and (ended.exit_code != 0 or not said.done):
        return said.failure
    if said.gave_up or (ended.exit_code == 0 and said.done):
        if thread_id is not None and said.thread_id != thread_id:
            line = f"asked to go on with {thread_id}, {cli.name} answered in {said.thread_id}"
            return Failure("agent_error", line)
        return said.failure
    last = (read_bytes(errors, 4096, end=True) or b"").decode("utf-8", "replace").strip()
    told = first_line(last.splitlines()[-1]) if last else "it said nothing"
    if ended.exit_code == -signal.SIGKILL:
        return Failure("infrastructure", f"{cli.name} was killed from outside (out of memory?)")
    line = f"{cli.name} ended with exit code {ended.exit_code}: {told}"
    if said.thread_id is None and not said.done:
        return Failure("task_definition", f"{cli.name} did not start: {told}", last)
    return Failure("agent_error", line, last)
