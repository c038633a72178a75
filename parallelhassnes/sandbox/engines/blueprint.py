"""What an engine is told, and what it is: the internal interface of the two ways to make a sandbox."""

import contextlib
import os
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from parallelhassnes.sandbox.engines import kernel
from parallelhassnes.sandbox.engines.spaces import Spaces
from parallelhassnes.sandbox.engines.trigger import Trigger
from parallelhassnes.sandbox.programs import search_path
from parallelhassnes.sandbox.root_layout import MEMORY_SIZE, UMASK, EmptyPlace, Mount, make

HOSTNAME = "sandbox"
# What root in a sandbox keeps, over what belongs to the sandbox. Not in it: SYS_ADMIN (mounts, so read-only stays
# read-only), MKNOD (disks), DAC_READ_SEARCH (file handles), NET_ADMIN and NET_RAW, SYS_PTRACE, SETFCAP and the rest.
CAPABILITIES = (
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "net_bind_service",
    "sys_chroot",
)
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_MASKED = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
"""What OCI runtimes make read-only, and what they cover, as far as the kernel has it."""


class Blueprint(NamedTuple):
    """What an engine needs to know to make a sandbox."""

    root: Path
    mounts: Sequence[Mount]
    scratch: Path
    """A folder outside the root folder for the engine's own files; holds ``empty`` and ``nothing`` to cover things with."""
    spaces: Spaces
    shown: Sequence[tuple[str, str]] = ()
    """Folders of the host whose files root of the sandbox is to read as the host's root does, and where to mount them first."""

    in_memory: Sequence[str] = ()
    """Folders of the sandbox that are made in memory, and what is made in them, in order."""
    places: Sequence[EmptyPlace] = ()
    unreachable: Sequence[bytes] = ()
    """Addresses that nothing is sent to, where the network is the sandbox's own."""
    trigger: Trigger | None = None
    """By which we learn of its first socket."""

    def join(self) -> None:
        """Enter the network namespace, if there is one, and make it what it is to be."""
        if self.spaces.network is not None:
            os.setns(self.spaces.network, os.CLONE_NEWNET)
            kernel.raise_loopback()
            kernel.never_route(self.unreachable)

    def begin_mounts(self) -> None:
        """Make a mount namespace with the folders in memory, in which ``shown`` belongs to the sandbox.

        Where the kernel cannot remap what is shown, others' rights hold for it.
        """
        kernel.unshare_mounts()
        root, owner = str(self.root), self.spaces.owner
        whose = "" if owner is None else f",uid={owner},gid={owner}"
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        for folder in self.in_memory:
            data = f"mode=755,size={MEMORY_SIZE}{whose}"
            kernel.mount("tmpfs", root + folder, "tmpfs", flags, data)
        make(root, self.places)
        for path, place in self.shown:
            kernel.mount(path, place, None, kernel.MS_BIND | kernel.MS_REC)
            with contextlib.suppress(OSError):
                kernel.remap(place, self.spaces.user)


@dataclass
class SandboxLaunch:
    """How to start a process that becomes the first of a sandbox."""

    argv: Sequence[str]
    prepare: Callable[[], None]
    """Called in the new process before the program is executed: by ``preexec_fn``, so this process is copied."""
    handles: Sequence[int] = ()
    """Descriptors that the program inherits."""
    own: Sequence[int] = ()
    """Descriptors to close once the program has started."""
    leaves_it: bool = False
    """The process that is started leaves the keeper behind as our own child, says its number in a line, and ends; else it is around it."""

    def popen(self, stdin: int) -> "subprocess.Popen[bytes]":
        """Start it, once. Raises OSError, subprocess.SubprocessError."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
                return subprocess.Popen(
                    self.argv,
                    env={"PATH": search_path()},
                    cwd="/",
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    preexec_fn=self.prepare,  # noqa: PLW1509 - it is what makes the sandbox
                    umask=UMASK,
                    pass_fds=self.handles,
                )
        finally:
            for handle in self.own:
                os.close(handle)

    def left_in(self, words: Sequence[bytes]) -> int | None:
        """Return the number of the keeper that was left behind, from what was printed; None for one that was not, or not yet."""
        return next((int(word) for word in words if word.isdigit()), None) if self.leaves_it else None


class Engine(Protocol):
    """A way to make a sandbox."""

    @property
    def name(self) -> str: ...

    @property
    def programs(self) -> tuple[str, ...]:
        """What must be installed."""

    def launch(self, blueprint: Blueprint) -> SandboxLaunch:
        """Tell how the sandbox is made and the keeper started in it."""


def proc_entries(names: Sequence[str]) -> list[str]:
    """Return those of ``/proc`` that this kernel has."""
    return [f"/proc/{name}" for name in names if Path("/proc", name).exists()]
