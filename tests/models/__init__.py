"""A scripted model server on the loopback, in the place of a paid model: see ``models.server`` for the script."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SERVER = Path(__file__).with_name("server.py")


class Model(NamedTuple):
    """A running server."""

    url: str
    """Without a path: Anthropic's base URL; OpenAI's is ``url + "/v1"``."""
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """Everything it was asked so far: ``{"path", "headers", "body", "at"}``, oldest first."""
        if not self.log.exists():
            return []
        *whole, _ = self.log.read_text().split("\n")  # what is behind the last newline is being written
        return [json.loads(line) for line in whole]


@contextlib.contextmanager
def serving(folder: Path, *turns: dict[str, Any], **rules: Any) -> Iterator[Model]:
    """Run a server of these turns for every prompt, or by ``when={"part of a prompt": [turns]}``.

    It is a process of its own, because the processes under test fork and must have one thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script, log = folder / "script.json", folder / "requests.jsonl"
    script.write_text(json.dumps({**rules.get("when", {}), "": list(turns)}))
    log.unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, SERVER, script, log], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Model(f"http://127.0.0.1:{int(process.stdout.readline())}", log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def say(text: str, **more: Any) -> dict[str, Any]:
    """Answer in prose."""
    return {"say": text, **more}


def answer(document: Any, **more: Any) -> dict[str, Any]:
    """Answer with a JSON document: as the structured output that was asked for, where the client has a tool for it."""
    return {"json": document, **more}


def run(command: str, **more: Any) -> dict[str, Any]:
    """Have the agent run a shell command."""
    return {"run": command, **more}


def refuse(status: int, message: str = "", **more: Any) -> dict[str, Any]:
    """An HTTP error; with ``times=2`` only the first two requests, with ``headers={"retry-after": "7"}``."""
    return {"status": status, "message": message, **more}


CUT: dict[str, Any] = {"cut": True}
"""The stream stops in the middle of an answer."""
ENDLESS: dict[str, Any] = {"endless": True}
"""The answer goes on for ever."""
HANG: dict[str, Any] = {"hang": True}
"""Nothing comes, and the connection stays."""

ENDPOINT = {"model_providers": {"endpoint": {"request_max_retries": 0, "stream_max_retries": 0}}}
"""Codex's settings (``execution_policy.config``) that have it give up at the first failure of its provider."""


def provider(url: str) -> dict[str, str]:
    """The variables that send an agent to a server, with keys that it would need."""
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "key-of-openai",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }


def surroundings(url: str) -> dict[str, str]:
    """The whole environment of an agent whose provider is at ``url``."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR")} | provider(url)
