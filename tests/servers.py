"""Real servers for tests: ``parallelhassnes api`` on a free port, ended with the test."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from stores import program, started


class Server(NamedTuple):
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    client: httpx.Client

    def end(self, signum: int = signal.SIGTERM) -> str:
        """Send it a signal and wait for its end; what it has said on stderr."""
        self.client.close()
        self.process.send_signal(signum)
        return self.process.communicate(timeout=20)[1]


@contextmanager
def serving(root: Path, *arguments: str, token: str | None = None, **more) -> Iterator[Server]:
    """A server over the root; ``token`` is sent with every request of its client."""
    process = started(root, "api", "--port", "0", "--json", *arguments, **more)
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        url = json.loads(line)["url"]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield Server(url, process, client)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


def token(root: Path, name: str, role: str) -> str:
    """A new token."""
    return json.loads(program(root, "token", "create", name, "--role", role, "--json").stdout)["token"]  # fmt: skip
