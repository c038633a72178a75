"""Two ways to make the namespaces of a sandbox: ``bubblewrap``, and util-linux's ``unshare`` with ``mount``.

Both do the same: new mount, pid, ipc and uts namespaces (a network namespace where the task has no network), the
root folder as ``/`` with its mounts, a fresh ``/proc`` and ``/dev``, and a first process that keeps the namespaces
alive until its standard input is closed. Root makes them directly; an ordinary user in a user namespace of its own,
where it is root and every file it makes belongs to the user.

The first process is the *keeper* (``keeper.py``): it ends when its standard input is closed, and with it everything in
the sandbox. Both engines also ask the kernel to kill it when their parent dies, so that nothing outlives a ``kill -9``
of the harness. After it has started, no process ever enters the sandbox from outside: what an agent does to its own
``/lib64`` or ``/etc/ld.so.preload`` is never run with more rights than the agent has.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.steps.sandbox import keeper
from parallelhassnes.steps.sandbox.blueprint import Blueprint, Engine, search_path
from parallelhassnes.steps.sandbox.bubblewrap import Bubblewrap
from parallelhassnes.steps.sandbox.layout import RootFolder
from parallelhassnes.steps.sandbox.unshare import Unshare

ENGINES: dict[str, Engine] = {"bubblewrap": Bubblewrap(), "unshare": Unshare()}
_PROBE_SEC = 20


class Way(NamedTuple):
    """An engine, with or without a user namespace."""

    engine: Engine
    user_namespace: bool

    def __str__(self) -> str:
        return f"{self.engine.name}{' in a user namespace' if self.user_namespace else ''}"


class EngineProbe(NamedTuple):
    """Which way a sandbox would be made here."""

    engine: str | None
    """``bubblewrap`` or ``unshare``; None where neither works."""
    user_namespace: bool
    lines: tuple[str, ...]
    """One line per way that was tried, and what to do where none works."""


def ways(wanted: str = "auto") -> list[Way]:
    """The ways to make a sandbox whose programs are installed, in the order in which they are tried."""
    names = list(ENGINES) if wanted == "auto" else [wanted]
    spaces = (False, True) if os.geteuid() == 0 else (True,)
    usable = [ENGINES[name] for name in names if not missing_programs(ENGINES[name])]
    return [Way(engine, space) for engine in usable for space in spaces]


def missing_programs(engine: Engine) -> list[str]:
    """Programs of an engine that are not installed."""
    return [name for name in engine.programs if shutil.which(name, path=search_path()) is None]


def probe(wanted: str = "auto") -> EngineProbe:
    """Make a sandbox and end it, in each way until one works. Takes some tens of milliseconds."""
    if sys.platform != "linux":
        return EngineProbe(None, False, ("a sandbox needs Linux; use the docker environment",))
    lines = list(_not_installed(wanted))
    for way in ways(wanted):
        reason = _try(way)
        lines.append(f"{way}: {reason or 'works'}")
        if reason is None:
            return EngineProbe(way.engine.name, way.user_namespace, tuple(lines))
    return EngineProbe(None, False, (*lines, advice()))


def _not_installed(wanted: str) -> Iterator[str]:
    for name, engine in ENGINES.items():
        if wanted in {"auto", name} and (missing := missing_programs(engine)):
            yield f"{name}: not installed: {', '.join(missing)}"


def _try(way: Way) -> str | None:
    """Why this way does not work; None where it does."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        scratch = Path(folder).resolve()
        root = RootFolder(scratch / "root", ())
        (scratch / "shared").mkdir()
        root.bind(str(scratch / "shared"), keeper.INSIDE, read_only=True)
        mounts = root.finish(scratch, scratch)
        blueprint = Blueprint(
            root.path, mounts, scratch, network=False, user_namespace=way.user_namespace
        )
        try:
            done = subprocess.run(
                way.engine.command(blueprint),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={"PATH": search_path()},
                timeout=_PROBE_SEC,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"did not start within {_PROBE_SEC} s"
    if done.stdout == b"ready\n":
        return None
    return (
        " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
    )


def advice() -> str:
    """What to do where no way works, from what the kernel's settings say."""
    settings = {
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
        "/proc/sys/kernel/unprivileged_userns_clone": (
            "0",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    }
    for path, (bad, command) in settings.items():
        if Path(path).is_file() and Path(path).read_text(encoding="ascii").strip() == bad:
            return f"user namespaces are disabled: run as root, or allow them ({command}), or use docker"
    if not ways():
        return "install bubblewrap, or util-linux with unshare, mount, pivot_root and setpriv"
    return "run as root, or outside of the container that forbids mounts, or use the docker environment"
