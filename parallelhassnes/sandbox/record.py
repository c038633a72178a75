"""``sandbox.json``: what a sandbox was made of, what of its task it left out, and what it does not isolate."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

NOT_ISOLATED = (
    "the kernel is the host's",
    "the host's programs, libraries and a part of /etc can be read",
    "the image that FROM names is not used",
    "disk space is not limited; storage_mb has no effect",
    "the clock and the kernel's random numbers are the host's",
)
NO_FILTER = "no system call is refused: there is no filter for this architecture"
HOST_NETWORK = "the network is the host's, its loopback and abstract sockets included"


class Skipped(BaseModel):
    """An instruction that was left out because ``unsupported: skip`` was given, or a ``USER`` whom the host does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: int
    """Line of the Dockerfile; 0 where it is not about a line."""
    instruction: str


class SandboxRecord(BaseModel):
    """The content of ``sandbox.json`` in the trial's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    engine: str
    """``bubblewrap`` or ``unshare``."""
    user_namespace: bool
    """Whether root inside is another user outside; always so since ``host_uid`` is written."""
    host_uid: int | None = None
    """The host's user who is root inside: who started the harness or, if that was root, a number that belongs to nobody."""
    landlock: bool = False
    """Whether the agent's processes are kept from those beside them by the kernel's Landlock, too."""
    base_image: str
    """What the Dockerfile's FROM names; not used."""
    network: Literal["private", "host", "none"]
    """``private``: a network of its own, from which the host cannot be reached."""
    network_joined: bool = False
    """Whether a process inside asked for a socket, so that a private network was joined to the world."""
    network_note: str | None = None
    """Why there is none although the task allows one."""
    verification: Literal["isolated", "clean", "shared"] | None = None
    """How the verifier was kept from the agent; None for a sandbox in which no agent runs."""
    host_ports: tuple[int, ...] = ()
    """Ports of the host's loopback that can be reached all the same."""
    removed: dict[str, str] = {}
    """What was taken from the verifier's folder after it had ended, name → ``link``, ``pipe``, ``socket`` or ``device``."""
    skipped: tuple[Skipped, ...]
    not_isolated: tuple[str, ...]
    limits: dict[str, str]
    """``cpus``, ``memory_mb``, ``processes``, ``storage_mb`` → how much and by what, or that it is not enforced."""

    def write(self, path: Path) -> None:
        """Write as one line, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json() + "\n", encoding="utf-8")
        temporary.replace(path)
