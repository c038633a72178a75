"""Claude Code (``claude -p``), as version 2.1 behaves.

The prompt goes to standard input, events come from standard output (``stream-json``), the last of them a ``result``
for each run. A schema is enforced by a tool; a report that does not fit after five tries ends in an error of the
subtype ``error_max_structured_output_retries``, which is no failure of the provider. A conversation is resumed by the
path of its session's file, because by its id it is only found from the directory where it began. A stream that is cut
ends with success and an empty result.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parallelhassnes import walk
from parallelhassnes.steps.agent.adapters.agent_cli import (
    AgentLaunch,
    BuiltInAgent,
    EventReader,
    Request,
    Transcript,
    link_login,
    user_home,
)
from parallelhassnes.steps.failure_evidence import failure_of
from parallelhassnes.steps.safe_read import first_line, mapping, number, sequence, text, whole
from parallelhassnes.steps.step_types import Failure
from parallelhassnes.steps.usage import Tokens, Usage

KEYS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
)
"""With one of these the user's login is not linked."""
PROBLEMS_OF_THE_REPORT = "error_max_structured_output_retries"
REPORT_TOOL = "StructuredOutput"
_EDITS = ("Edit", "Write", "NotebookEdit")
_WEB = ("WebSearch", "WebFetch")


class Claude(BuiltInAgent):
    """Runs ``claude -p``."""

    name = "claude"
    events_file = "claude.events.jsonl"
    install = "install it (npm install -g @anthropic-ai/claude-code) or name another agent"
    kept = ("projects", "sessions")

    def prepare(self, request: Request) -> AgentLaunch:
        request.home.mkdir(parents=True, exist_ok=True)
        environ = dict(request.environ)
        has_key = any(environ.get(name) for name in KEYS)
        own = user_home(environ, "CLAUDE_CONFIG_DIR", ".claude")
        link_login(".credentials.json", None if has_key else own, request.home)
        environ |= {
            "CLAUDE_CONFIG_DIR": str(request.home),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        argv = [self.program, "-p", "--output-format", "stream-json", "--verbose", "--strict-mcp-config"]
        argv += _permissions(request)
        if request.model:
            argv += ["--model", request.model]
        if request.policy.model_reasoning_effort:
            argv += ["--effort", request.policy.model_reasoning_effort]
        if request.policy.config:
            argv += ["--settings", json.dumps(request.policy.config)]
        if request.schema is not None:
            bare = {name: value for name, value in request.schema.items() if name != "$schema"}
            argv += ["--json-schema", json.dumps(bare)]
        if request.thread_id is not None:
            found = self.sessions(request.home, request.thread_id)
            argv += ["--resume", str(found[0]) if found else request.thread_id]
        return AgentLaunch(argv, environ)

    def reader(self) -> EventReader:
        return ClaudeReader()

    def sessions(self, home: Path, thread_id: str) -> list[Path]:
        return [home / path for path, _ in walk.files(home) if path.endswith(f"/{thread_id}.jsonl")]

    def thread_tokens(self, home: Path, thread_id: str) -> Tokens:  # noqa: ARG002 - it counts each run by itself
        return Tokens()


def _permissions(request: Request) -> list[str]:
    """Claude Code has no sandbox of the kernel's; what nobody allowed beforehand is refused, as nobody can be asked."""
    policy = request.policy
    denied = [] if policy.web_search_enabled else [*_WEB]
    allowed = [*_WEB] if policy.web_search_enabled else []
    arguments: list[str] = []
    match policy.sandbox:
        case "read-only":
            denied += _EDITS
        case "workspace-write":
            arguments += ["--permission-mode", "acceptEdits"]
            allowed.append("Bash")
        case "danger-full-access" if os.geteuid() == 0:  # which it refuses to root under its own name
            arguments += ["--permission-mode", "acceptEdits", "--add-dir", "/"]
            allowed += ["Bash", "Read", *_EDITS]
        case "danger-full-access":
            arguments += ["--permission-mode", "bypassPermissions"]
    for folder in policy.add_dirs:
        arguments += ["--add-dir", folder]
    if allowed:
        arguments += ["--allowedTools", ",".join(allowed)]
    if denied:
        arguments += ["--disallowedTools", ",".join(denied)]
    return arguments


class ClaudeReader:
    """The events of ``claude -p --output-format stream-json``; a resumed run begins with another ``init``."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self._ended = Usage()
        """Of the runs that have ended."""
        self._counted: dict[str, Tokens] = {}
        """Message id → tokens, of the run that goes on."""
        self._report: Any = None
        """The last report that it tried to give."""

    def feed(self, line: bytes) -> None:
        event: Mapping[str, Any] = {}
        with contextlib.suppress(ValueError, RecursionError):
            event = mapping(json.loads(line))
        said = self.transcript
        match event.get("type"):
            case "system" if event.get("subtype") == "init":
                said.thread_id = text(event.get("session_id"), 200)
                said.model = text(event.get("model"), 200)
                said.done, said.failure, said.message, said.document = False, None, None, None
            case "assistant" if event.get("parent_tool_use_id") is None:
                self._assistant(mapping(event.get("message")))
            case "user":
                said.current_item = None
            case "result":
                self._result(event)

    def _assistant(self, message: Mapping[str, Any]) -> None:
        said = self.transcript
        for block in map(mapping, sequence(message.get("content"))):
            if block.get("type") == "text" and isinstance(block.get("text"), str):
                said.message = block["text"]
            elif block.get("type") == "tool_use" and block.get("name") == REPORT_TOOL:
                self._report = block.get("input")
            elif block.get("type") == "tool_use":
                said.tool_calls += 1
                said.current_item = f"{block.get('name')}: {_shown(mapping(block.get('input')))}"
        said.turns += str(message.get("id")) not in self._counted
        self._counted[str(message.get("id"))] = _tokens(mapping(message.get("usage")), _COUNTS)
        said.used = self._ended._replace(tokens=sum(self._counted.values(), self._ended.tokens))

    def _result(self, event: Mapping[str, Any]) -> None:
        said = self.transcript
        said.current_item, said.done = None, True
        said.thread_id = text(event.get("session_id"), 200) or said.thread_id
        if isinstance(event.get("result"), str):
            said.message = event["result"]
        said.gave_up = event.get("subtype") == PROBLEMS_OF_THE_REPORT
        said.document = self._report if said.gave_up else event.get("structured_output")
        models = [mapping(model) for model in mapping(event.get("modelUsage")).values()]
        tokens = sum((_tokens(model, _COUNTS_OF_MODEL) for model in models), Tokens())
        self._ended += Usage(number(event.get("total_cost_usd")), tokens)
        self._counted.clear()
        said.used = self._ended
        said.paid = Tokens() if self._ended.cost_usd is None else self._ended.tokens
        said.failure = _failure(event)


_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
_COUNTS_OF_MODEL = ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens", "outputTokens")


def _tokens(usage: Mapping[str, Any], names: Sequence[str]) -> Tokens:
    read, cached, made, written = (whole(usage.get(name)) or 0 for name in names)
    return Tokens(read + cached + made, cached, written)


def _failure(result: Mapping[str, Any]) -> Failure | None:
    subtype = text(result.get("subtype"), 100) or ""
    said = [text(line, 2000) or "" for line in sequence(result.get("errors"))]
    message = text(result.get("result"), 20_000) or "; ".join(said)
    if result.get("is_error") and subtype != PROBLEMS_OF_THE_REPORT:
        return failure_of(message or subtype, whole(result.get("api_error_status")))
    if not result.get("is_error") and not message and result.get("structured_output") is None:
        return Failure("transient_provider", "the answer was empty: the stream was cut")
    return None


def _shown(arguments: Mapping[str, Any]) -> str:
    for name in ("command", "file_path", "pattern", "query", "url", "description"):
        if isinstance(arguments.get(name), str):
            return first_line(arguments[name], 200)
    return ""
