"""Codex CLI (``codex exec``), as version 0.169 behaves.

Settings go into ``config.toml`` of the home rather than into the command line, because ``exec resume`` takes fewer
options than ``exec``. Where the user's own settings are to be in force, that file is a link to theirs, which goes with
the attempt's end, so that no key in it is copied; what the table says are options then. The prompt goes to standard input, events come from standard output. An error of the provider
is only in the event ``turn.failed``. The usage that ``turn.completed`` names is that of the whole conversation.
"""

import contextlib
import json
from collections.abc import Mapping
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
from parallelhassnes.steps.safe_read import first_line, mapping, read_bytes, text, whole
from parallelhassnes.steps.usage import Tokens, Usage

KEY, OPENAI_KEY, BASE_URL = "CODEX_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"
ENDPOINT = "endpoint"
"""Name of the provider that OPENAI_BASE_URL makes."""
_APPROVALS = {"untrusted": "on-request"}
"""Words of earlier versions that this one refuses, and the nearest it knows."""
_TAIL = 1 << 20


class Codex(BuiltInAgent):
    """Runs ``codex exec``."""

    name = "codex"
    events_file = "codex.events.jsonl"
    install = "install it (npm install -g @openai/codex) or name another agent"
    kept = ("config.toml", "sessions")

    def prepare(self, request: Request) -> AgentLaunch:
        request.home.mkdir(parents=True, exist_ok=True)
        environ = dict(request.environ)
        key = environ.get(KEY) or environ.get(OPENAI_KEY)
        own = user_home(environ, "CODEX_HOME", ".codex")
        link_login("auth.json", None if key else own, request.home)
        if key:
            environ[KEY] = key
        environ["CODEX_HOME"] = str(request.home)
        if request.home.is_relative_to(environ.get("TMPDIR", "/tmp")):  # noqa: S108 - its sandbox would refuse every command
            environ["TMPDIR"] = str(request.home / "tmp")
            (request.home / "tmp").mkdir(exist_ok=True)
        config = _config(request, environ)
        argv = [self.program, "exec"]
        theirs = own / "config.toml" if own and not key and request.policy.user_config else None
        if theirs is not None and theirs.is_file():
            (request.home / "config.toml").unlink(missing_ok=True)
            (request.home / "config.toml").symlink_to(theirs.absolute())
            argv += _options(_said(request))
        else:
            (request.home / "config.toml").write_text(_toml(config), encoding="utf-8")
        if request.thread_id is not None:
            argv.append("resume")
        argv.append("--json")
        if request.policy.skip_git_repo_check:
            argv.append("--skip-git-repo-check")
        if request.schema_file is not None:
            argv += ["--output-schema", str(request.schema_file)]
        if request.output_file is not None:
            argv += ["--output-last-message", str(request.output_file)]
        if request.thread_id is not None:
            argv.append(request.thread_id)
        return AgentLaunch([*argv, "-"], environ)

    def reader(self) -> EventReader:
        return CodexReader()

    def sessions(self, home: Path, thread_id: str) -> list[Path]:
        return [home / path for path, _ in walk.files(home, "sessions") if path.endswith(f"{thread_id}.jsonl")]

    def thread_tokens(self, home: Path, thread_id: str) -> Tokens:
        for path in self.sessions(home, thread_id):
            for line in reversed((read_bytes(path, _TAIL, end=True) or b"").splitlines()):
                if b"_token_usage" not in line:
                    continue
                payload = mapping(mapping(_parsed(line)).get("payload"))
                info = mapping(payload.get("info"))
                usage = payload.get("thread_token_usage") or info.get("total_token_usage")
                if isinstance(usage, dict):
                    return _tokens(usage)
        return Tokens()


def _config(request: Request, environ: Mapping[str, str]) -> dict[str, Any]:
    policy = request.policy
    config: dict[str, Any] = {
        "model": request.model,
        "model_reasoning_effort": policy.model_reasoning_effort,
        "sandbox_mode": policy.sandbox,
        "approval_policy": _APPROVALS.get(policy.approval_policy, policy.approval_policy),
        "web_search": "live" if policy.web_search_enabled else "disabled",
        "sandbox_workspace_write": {"writable_roots": policy.add_dirs, "network_access": policy.network_access},
        "check_for_update_on_startup": False,
        "analytics": {"enabled": False},
        "agents": {"enabled": False},
        "features": {"plugins": False, "apps": False},
        "skills": {"bundled": {"enabled": False}},
    }
    if environ.get(BASE_URL):
        config["model_provider"] = ENDPOINT
        config["model_providers"] = {
            ENDPOINT: {"name": ENDPOINT, "base_url": environ[BASE_URL], "wire_api": "responses", "env_key": KEY}
        }
    return _merged(config, policy.config)


def _said(request: Request) -> dict[str, Any]:
    """Return what a table says and the user's own settings are to give way to."""
    policy = request.policy
    config: dict[str, Any] = {
        "model": request.model,
        "model_reasoning_effort": policy.model_reasoning_effort,
        "sandbox_mode": policy.sandbox,
        "approval_policy": _APPROVALS.get(policy.approval_policy, policy.approval_policy),
        "web_search": "live" if policy.web_search_enabled else None,
    }
    if policy.add_dirs:
        config["sandbox_workspace_write"] = {"writable_roots": list(policy.add_dirs)}
    return _merged(config, policy.config)


def _options(config: Mapping[str, Any]) -> list[str]:
    """Return settings as options, which count more than those of ``config.toml``."""
    import tomli_w

    made: list[str] = []
    for name, value in _given(config).items():
        if isinstance(value, Mapping):
            made += [part if part == "-c" else f"{name}.{part}" for part in _options(value)]
        else:
            made += ["-c", f"{name}={tomli_w.dumps({'v': value}).removeprefix('v =').strip()}"]
    return made


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(under)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(made.get(name), Mapping)
        made[name] = _merged(made[name], value) if both else value
    return made


def _parsed(line: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    return Tokens(*(whole(usage.get(name)) or 0 for name in ("input_tokens", "cached_input_tokens", "output_tokens")))


class CodexReader:
    """The events of ``codex exec --json``."""

    def __init__(self) -> None:
        self.transcript = Transcript()

    def feed(self, line: bytes) -> None:
        event = mapping(_parsed(line))
        said = self.transcript
        match event.get("type"):
            case "thread.started":
                said.thread_id = text(event.get("thread_id"), 200)
            case "turn.started":
                said.done, said.failure, said.message = False, None, None
            case "turn.completed":
                said.done, said.current_item = True, None
                said.used = Usage(tokens=_tokens(mapping(event.get("usage"))))
            case "turn.failed":
                message = text(mapping(event.get("error")).get("message"), 20_000) or "turn failed"
                said.failure, said.current_item = failure_of(message), None
            case "error":
                self._error(text(event.get("message"), 20_000) or "")
            case "item.started" | "item.updated" | "item.completed" as kind:
                self._item(kind, mapping(event.get("item")))

    def _error(self, message: str) -> None:
        """Take an error; one that Codex goes on from says ``Reconnecting``, and is no failure."""
        if message.startswith("Reconnecting"):
            self.transcript.current_item = first_line(message, 200)
        elif message:
            self.transcript.failure = self.transcript.failure or failure_of(message)

    def _item(self, event: str, item: Mapping[str, Any]) -> None:
        kind, said = item.get("type"), self.transcript
        if kind == "agent_message":
            message = item.get("text")
            said.message = message if isinstance(message, str) else None
        elif kind in _TOOLS and event == "item.completed":
            said.tool_calls += 1
        if event == "item.completed" and (kind in _TOOLS or kind == "agent_message"):
            said.turns += 1
        if event == "item.completed":
            said.current_item = None
        else:
            said.current_item = f"{kind}: {_shown(item)}" if _shown(item) else str(kind)


_TOOLS = frozenset({"command_execution", "file_change", "mcp_tool_call", "web_search", "collab_tool_call"})


def _shown(item: Mapping[str, Any]) -> str:
    for name in ("command", "query", "tool", "text"):
        if isinstance(item.get(name), str):
            return first_line(item[name], 200)
    return ""


def _toml(document: Mapping[str, Any]) -> str:
    """Return the document as TOML; what is None is left out.

    Raises:
        TypeError: a value that TOML has no form for.
    """
    import tomli_w

    return tomli_w.dumps(_given(document))


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in document.items()
        if value is not None
    }
