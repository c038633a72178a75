"""The network of a sandbox: one of its own, joined to the world by ``pasta`` (https://passt.top), a stack in user mode.

A sandbox never shares the host's network namespace unless ``network: host`` asks for it. ``pasta`` opens each connection again
on the host, as any program there could, but for the host itself: its loopback is not mapped, and packets to any of the host's
own addresses, and to the address at which clouds give out credentials, go nowhere (``kernel.never_route``). What a task needs of the
host's loopback all the same, a model server, is named by port (``host_ports``) and found at the same port of the sandbox's loopback.

``pasta`` is started when the first process inside asks the kernel for a socket (``trigger.py``): it costs as much as the rest of a
sandbox, and most commands need no network.

Where ``pasta`` is not installed, or finds that this host has no network, there is none but a loopback.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import os
import re
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from parallelhassnes.sandbox.engines.spaces import Spaces
from parallelhassnes.sandbox.engines.trigger import Trigger, is_over, let_go_on, question
from parallelhassnes.sandbox.engines.unshare import watch_over
from parallelhassnes.sandbox.programs import search_path

type Mode = Literal["private", "host", "none"]
MODES = ("private", "host", "none")
NO_PASTA = "no network: pasta is not installed (Debian: apt-get install passt)"
NEEDS_NETWORK = (
    "this agent runs inside the sandbox and needs a network, which it has not: install pasta (Debian: apt-get install passt), "
    "or set network: host"
)
RESOLVER = "169.254.1.1"
"""Where a sandbox asks for names if the host's resolver is on the host's loopback."""
METADATA = "169.254.169.254"
_NOISE = "to syslog"
"""What pasta adds to each line where nobody takes its log."""
_READY_SEC = 10.0
_LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "[::1]"}  # noqa: S104
_RESOLV = Path("/etc/resolv.conf")
_NAMESERVER = re.compile(r"^\s*nameserver\s+(\S+)", re.MULTILINE)
_ADDRESS = re.compile(r"(\d+\.){3}\d+")


def has_pasta() -> bool:
    """Tell whether a private network can reach anything."""
    return shutil.which("pasta", path=search_path()) is not None


def resolver_is_local() -> bool:
    """Tell whether the host asks for names at an address of its loopback."""
    text = _RESOLV.read_text(encoding="utf-8", errors="replace") if _RESOLV.is_file() else ""
    first = _NAMESERVER.search(text)
    return first is not None and (first[1].startswith("127.") or first[1] == "::1")


def own_addresses() -> list[bytes]:
    """Return every address of this host but those of its loopback, and the clouds' address for credentials, packed."""
    found = {socket.inet_pton(socket.AF_INET, METADATA)}
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/net/fib_trie").read_text(encoding="ascii").splitlines()
        for before, line in itertools.pairwise(lines):
            if "/32 host LOCAL" in line and (address := _ADDRESS.search(before)):
                found.add(socket.inet_pton(socket.AF_INET, address[0]))
    with contextlib.suppress(OSError):  # no IPv6
        for line in Path("/proc/self/net/if_inet6").read_text(encoding="ascii").splitlines():
            found.add(bytes.fromhex(line.split()[0]))
    return sorted(a for a in found if not ipaddress.ip_address(a).is_loopback)


def local_ports(values: Iterable[object]) -> list[int]:
    """Return the ports of this host's loopback that URLs among these values name."""
    ports: set[int] = set()
    for value in values:
        if isinstance(value, str) and value.startswith(("http://", "https://", "ws://")):
            with contextlib.suppress(ValueError):
                url = urlsplit(value)
                if url.hostname in _LOCAL:
                    ports.add(url.port or (443 if url.scheme == "https" else 80))
    return sorted(ports)


class NetworkError(RuntimeError):
    """The network did not come about, and may the next time; one line."""


class Pasta:
    """A running ``pasta``, which ends with ``stop`` or with this process."""

    def __init__(self, process: asyncio.subprocess.Process, told: Path) -> None:
        self._process = process
        self._told = told

    @classmethod
    async def start(cls, spaces: Spaces, scratch: Path, ports: Sequence[int]) -> "Pasta":
        """Begin to join a network namespace to the world; ``ready`` waits for it."""
        network = -1 if spaces.network is None else spaces.network
        told = scratch / "pasta.pid"
        argv = ["pasta", "--foreground", "--quiet", "--config-net", "--no-map-gw", "--pid", str(told)]
        argv += ["--tcp-ports", "none", "--udp-ports", "none", "--udp-ns", "none"]
        argv += ["--tcp-ns", ",".join(map(str, ports)) or "none"]
        if resolver_is_local():
            argv += ["--dns-forward", RESOLVER]
        if os.geteuid() == 0:
            argv += ["--runas", f"{os.geteuid()}:{os.getegid()}"]
        argv += ["--userns", f"/proc/self/fd/{spaces.user}", "--netns", f"/proc/self/fd/{network}"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
            process = await asyncio.create_subprocess_exec(
                *argv,
                env={"PATH": search_path()},
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(spaces.user, network),
                preexec_fn=watch_over,
            )
        return cls(process, told)

    async def ready(self) -> str | None:
        """Wait until the network is there; what pasta said where there can be none, None where it is there.

        Raises:
            NetworkError: it was killed, or says nothing for too long.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SEC):
                while self._process.returncode is None:
                    if self._told.exists() and self._told.stat().st_size:
                        return None
                    await asyncio.sleep(0.002)
                said = await self._process.stderr.read(2000) if self._process.stderr else b""
                lines = said.decode(errors="replace").splitlines()
                if words := "; ".join(line for line in lines if line and _NOISE not in line):
                    return f"no network: pasta: {words}"
                raise NetworkError("pasta ended without a word")
        raise NetworkError(f"pasta was not ready within {_READY_SEC:g} s")

    async def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()


class Network:
    """What joins a sandbox to the world once it is wanted there."""

    def __init__(self, spaces: Spaces, scratch: Path, ports: Sequence[int], *, wanted: bool) -> None:
        """``wanted``: there is to be one at all; the other arguments are ``Pasta.start``'s."""
        self._wanted = wanted
        self._start = partial(Pasta.start, spaces, scratch, ports)
        self._pasta: Pasta | None = None
        self._joining: asyncio.Task[None] | None = None
        self._listeners: list[int] = []
        self.note: str | None = None
        """What ``pasta`` said where this host has no network to join."""
        self.trouble: str | None = None
        """Why the network did not come about although it may the next time; one line."""

    @contextlib.contextmanager
    def trigger(self) -> Iterator[Trigger | None]:
        """While a keeper is started: what it is to install; None where nobody needs to be asked."""
        if not self._wanted or self._pasta is not None:
            yield None
            return
        trigger = Trigger()
        try:
            yield trigger
            if (listener := trigger.listener()) is not None:
                self._listeners.append(listener)
                asyncio.get_running_loop().add_reader(listener, self._asked, listener)
        finally:
            trigger.close()

    @property
    def is_joined(self) -> bool:
        """Whether the sandbox has been joined to the world, or would have been if there were one."""
        return self._pasta is not None

    async def begin(self) -> None:
        """Join at once where the kernel does not ask. Raises NetworkError."""
        if self._wanted and not self._listeners:
            await self._join()

    async def _join(self) -> None:
        self._pasta = await self._start()
        self.note = await self._pasta.ready()

    def _asked(self, listener: int) -> None:
        number = question(listener)
        if number is None:
            if is_over(listener):
                asyncio.get_running_loop().remove_reader(listener)
            return
        if self._joining is None:
            self._joining = asyncio.create_task(self._join())
        if self._joining.done():
            let_go_on(listener, number)
        else:
            self._joining.add_done_callback(partial(self._joined, listener, number))

    def _joined(self, listener: int, number: bytes, joining: asyncio.Task[None]) -> None:
        if not joining.cancelled() and (error := joining.exception()) is not None:
            self.trouble = str(error)
        if listener in self._listeners:
            let_go_on(listener, number)

    async def stop(self) -> None:
        """End it; the sandbox has ended."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait({self._joining})
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            os.close(listener)
        self._listeners.clear()
        if self._pasta is not None:
            await self._pasta.stop()
