"""The two servers of one root: killed, stopped and started again while clients use them."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from stores import CHECKOUT, environment

START_SEC = 60.0
STOP_SEC = 30.0


class Wrong:
    """What was found that should not be, from any thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(f"WRONG {line}", file=sys.stderr, flush=True)


class Server:
    """``parallelhassnes api`` on a port that stays the same over its lives."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self.name = root, name
        self.log = root.parent / f"server-{name}.log"
        self.port = 0
        self.lives = 0
        """How often it was started."""
        self.up = False
        """Answers, and nobody is about to end it."""
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = ["api", "--port", str(self.port), "--json", "--root", str(self._root)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "parallelhassnes", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
                cwd=CHECKOUT,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"server {self.name} did not start: {self.log.read_text()[-2000:]}"
        self.port = int(json.loads(line)["url"].rpartition(":")[2])
        self.lives += 1
        self.up = True

    def end(self, signum: int) -> None:
        """Send a signal and wait for the end."""
        process = self._process
        if process is None:
            return
        self.up = False
        process.send_signal(signum)
        code = process.wait(STOP_SEC)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
        assert code in (0, -signum), f"server {self.name}: exit {code}"


class Gone(Exception):
    """The server was ended, or is not there; ask the other, or again."""


class Client:
    """Asks either server, as its chance has it; of one thread."""

    def __init__(self, servers: list[Server], chance: random.Random, wrong: Wrong) -> None:
        self._servers, self.chance, self._wrong = servers, chance, wrong
        # Connections are given up before the server would: a request on one that it just closes says nothing.
        self._http = httpx.Client(timeout=120, limits=httpx.Limits(keepalive_expiry=2))
        self.asked = 0

    def any(self) -> Server:
        """A server that is up; waits for one where none is."""
        end = time.monotonic() + START_SEC
        while True:
            up = [server for server in self._servers if server.up]
            if up:
                return self.chance.choice(up)
            assert time.monotonic() < end, "no server is up"
            time.sleep(0.05)

    @contextmanager
    def at(self, server: Server, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        """The answer of this server, not read yet.

        Raises:
            Gone: it was ended meanwhile, by us.
        """
        lives = server.lives
        self.asked += 1
        try:
            with self._http.stream(method, server.url + path, **more) as answer:
                if answer.status_code >= 500:
                    answer.read()
                    self._wrong.say(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
                yield answer
        except httpx.TransportError as error:
            if server.up and server.lives == lives:
                self._wrong.say(f"{method} {path}: server {server.name} is up, and {error!r}")
            raise Gone from None

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer of some server; asked again, of any, where that was ended meanwhile."""
        while True:
            try:
                with self.at(self.any(), method, path, **more) as answer:
                    answer.read()
                return answer
            except Gone:
                continue

    def good(self, method: str, path: str, **more: Any) -> Any:
        """The document of an answer that must be a good one."""
        answer = self.ask(method, path, **more)
        if not answer.is_success:
            self._wrong.say(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return {}
        return answer.json()

    def close(self) -> None:
        self._http.close()


def mentioning(folder: Path) -> list[str]:
    """Every process whose command line or environment names the folder; pid and command line."""
    wanted, found = os.fsencode(folder), []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        try:
            line, env = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        if line and (wanted in line or wanted in env):
            found.append(f"{place.name} {line.replace(bytes(1), b' ').decode(errors='replace')[:200]}")
    return found
