"""A real server of buckets, SeaweedFS, and a proxy before it that cuts connections, or has it understand what Google's clients say."""

import contextlib
import hashlib
import hmac
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import pytest
from probes import weed

KEYS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test", "AWS_REGION": "us-east-1"}
"""Of one who may do all."""
READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-reader", "AWS_REGION": "us-east-1"}
"""Of one who may only read."""


GOOGLES = MappingProxyType({b"x-goog-if-generation-match: 0": b"if-none-match: *", b"authorization: Bearer \r\n": b""})
"""How a client of Google's store asks for a key to be written only where there is none, and of Amazon's; and the key that it has not got."""


class Server(NamedTuple):
    """A server that runs."""

    port: int
    filer: int

    @property
    def env(self) -> dict[str, str]:
        """Address and keys, as users set them."""
        return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def offer(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Have this process and what it starts use it."""
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)
        return self

    def make_bucket(self, name: str) -> str:
        """Make a bucket; its address."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.filer}/buckets/{name}/", method="POST")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 201
        return f"s3://{name}/archive"

    def make_locked_bucket(self, name: str) -> str:
        """Make a bucket of which nothing can be removed for a day; its address."""
        assert self.ask("PUT", f"/{name}", headers={"x-amz-bucket-object-lock-enabled": "true"})[0] == 200
        retention = "<DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention>"
        lock = f"<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>{retention}</Rule>"
        body = f"<ObjectLockConfiguration>{lock}</ObjectLockConfiguration>".encode()
        assert self.ask("PUT", f"/{name}", "object-lock=", body)[0] == 200
        return f"s3://{name}/archive"

    def ask(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, str]:
        """Ask for what obstore has no call for, signed by version 4 of Amazon's scheme; status and text of the answer."""
        at = datetime.now(UTC)
        scope, digest = f"{at:%Y%m%d}/{KEYS['AWS_REGION']}/s3/aws4_request", hashlib.sha256(body).hexdigest()
        signed = {
            "host": f"127.0.0.1:{self.port}",
            "x-amz-content-sha256": digest,
            "x-amz-date": f"{at:%Y%m%dT%H%M%SZ}",
            **headers,
        }
        names = ";".join(sorted(signed))
        request = "\n".join([method, path, query, *(f"{k}:{signed[k]}" for k in sorted(signed)), "", names, digest])
        text = f"AWS4-HMAC-SHA256\n{signed['x-amz-date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{KEYS['AWS_SECRET_ACCESS_KEY']}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        said = f"AWS4-HMAC-SHA256 Credential={KEYS['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}?{query}",
            body or None,
            {**signed, "Authorization": said},
            method=method,
        )
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def _free_ports(number: int) -> list[int]:
    """Ports whose number 10,000 further on is free, too: the server takes that for its own talk, and sockets that are called after them."""
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(20_000, 29_000)
        try:
            for each in (port, port + 10_000):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", each))
        except OSError:
            continue
        if any(Path("/tmp").glob(f"seaweedfs-*{port}.sock")):  # left by a server that was killed, maybe another user's
            continue
        if port not in found:
            found.append(port)
    return found


@contextmanager
def serving(folder: Path, *, open_to_all: bool = False) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        open_to_all: it asks for no keys.
    """
    who = [
        {"name": "all", "credentials": [_key(KEYS)], "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
        {"name": "reader", "credentials": [_key(READER)], "actions": ["Read", "List"]},
        *([{"name": "anonymous", "actions": ["Admin", "Read", "List", "Write"]}] if open_to_all else []),
    ]
    (folder / "who.json").write_text(json.dumps({"identities": who}))
    (folder / "data").mkdir()
    master, volume, filer, port = _free_ports(4)
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.volumeSizeLimitMB": 64,
        "volume.port": volume,
        "volume.max": 1000,  # each bucket takes several
        "filer.port": filer,
        "s3.port": port,
        "s3.config": folder / "who.json",
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [weed() or "weed", "server", "-s3", *(f"-{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while not (_answers(port) and _answers(filer)):
            assert running.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield Server(port, filer)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()


def _key(of: dict[str, str]) -> dict[str, str]:
    return {"accessKey": of["AWS_ACCESS_KEY_ID"], "secretKey": of["AWS_SECRET_ACCESS_KEY"]}


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Proxy:
    """A proxy that cuts connections in the middle, and says what is asked in other words.

    Args:
        one_of: one of so many is cut, after some bytes of what is asked or answered; 0 for none.
        words: what is asked → what the server is asked.
    """

    def __init__(
        self, port: int, one_of: int = 0, seed: int = 0, words: Mapping[bytes, bytes] = MappingProxyType({})
    ) -> None:
        self._port, self._one_of, self._chance, self._words = port, one_of, random.Random(seed), words
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.cuts = 0
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, act: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=act, args=arguments, daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        """End all connections, and every thread: a process with several forks no supervisor."""
        for one in (self._server, *self._clients):
            with contextlib.suppress(OSError):  # it has ended
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        is_cut = self._one_of and self._chance.randrange(self._one_of) == 0
        left = self._chance.randrange(1, 30_000) if is_cut else None
        with client, socket.create_connection(("127.0.0.1", self._port)) as server, selectors.DefaultSelector() as both:
            for one, other in ((client, server), (server, client)):
                both.register(one, selectors.EVENT_READ, other)
            while True:
                for key, _ in both.select():
                    try:
                        data = key.fileobj.recv(65_536)
                        for word, other in self._words.items() if key.fileobj is client else ():
                            data = data.replace(word, other)
                        key.data.sendall(data if left is None else data[:left])
                    except OSError:
                        return
                    if not data:
                        return
                    if left is not None:
                        left -= len(data)
                        if left <= 0:
                            self.cuts += 1
                            return
