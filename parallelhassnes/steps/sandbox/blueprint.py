"""What an engine is told, and what it is: the internal interface of the two ways to make a sandbox."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from parallelhassnes.steps.sandbox.layout import Mount

HOSTNAME = "sandbox"
# What root in a sandbox keeps. Not in it: SYS_ADMIN (mounts, so read-only stays read-only), MKNOD (disks),
# DAC_READ_SEARCH (file handles), NET_ADMIN and NET_RAW (the host's network), SYS_PTRACE, SYS_MODULE and the rest.
CAPABILITIES = (
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "net_bind_service", "sys_chroot",
    "setfcap",
)  # fmt: skip


class Blueprint(NamedTuple):
    """What an engine needs to know to make a sandbox."""

    root: Path
    mounts: Sequence[Mount]
    scratch: Path
    """A folder outside the root folder for the engine's own files."""
    network: bool
    """True: the host's network; False: a loopback of its own."""
    user_namespace: bool


class Engine(Protocol):
    """A way to make a sandbox."""

    @property
    def name(self) -> str: ...

    @property
    def programs(self) -> tuple[str, ...]:
        """What must be installed."""

    def command(self, blueprint: Blueprint) -> list[str]:
        """The command line that makes the sandbox and starts the keeper in it."""


def search_path() -> str:
    """Where the engines' programs are looked for: ``PATH``, and the folders that a bare one leaves out."""
    return os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
