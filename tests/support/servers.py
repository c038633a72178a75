"""Real servers for tests: ``parallelhassnes api`` on a free port, ended with the test."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from stores import program, started

from parallelhassnes.admin.init import init

END_SEC = 60.0
"""Within which a server ends that was told to, on a machine with too much to do."""


class Server(NamedTuple):
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    client: httpx.Client

    def end(self, signum: int = signal.SIGTERM) -> str:
        """Send it a signal and wait for its end; what it has said on stderr."""
        self.client.close()
        self.process.send_signal(signum)
        return self.process.communicate(timeout=END_SEC)[1]


@contextmanager
def serving(root: Path, *arguments: str, token: str | None = None, **more) -> Iterator[Server]:
    """A server over the root; ``token`` is sent with every request of its client."""
    init(root)
    process = started(root, "api", "--port", "0", "--json", *arguments, **more)
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        url = json.loads(line)["url"]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A connection is given up before the server would: what is asked on one that it just closes has no answer.
        limits = httpx.Limits(keepalive_expiry=2)
        with httpx.Client(base_url=url, headers=headers, timeout=60, limits=limits) as client:
            yield Server(url, process, client)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=END_SEC)


@contextmanager
def kept_port() -> Iterator[str]:
    """A port for servers that are started later: bound and not listened on, so nobody else is given it meanwhile."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, who can take it
        kept.bind(("127.0.0.1", 0))
        yield str(kept.getsockname()[1])


def token(root: Path, name: str, role: str) -> str:
    """A new token."""
    return json.loads(program(root, "token", "create", name, "--role", role, "--json").stdout)["token"]
