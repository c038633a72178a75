"""Two ways to make a sandbox: ``unshare``, which is the kernel's own calls, and ``bubblewrap``.

Both do the same: new mount, pid, ipc and uts namespaces, the root folder as ``/`` with its mounts, a fresh ``/proc`` and
``/dev``, a filter of system calls (``seccomp.py``), and a first process that keeps the namespaces alive until its standard
input is closed. That process is root of a user namespace (``spaces.py``) and never of the host.

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

from parallelhassnes.sandbox import keeper, owners
from parallelhassnes.sandbox.engines import spaces
from parallelhassnes.sandbox.engines.blueprint import Blueprint, Engine
from parallelhassnes.sandbox.engines.bubblewrap import Bubblewrap
from parallelhassnes.sandbox.engines.unshare import Unshare
from parallelhassnes.sandbox.programs import search_path
from parallelhassnes.sandbox.root_layout import RootFolder

ENGINES: dict[str, Engine] = {"unshare": Unshare(), "bubblewrap": Bubblewrap()}
"""In the order in which they are tried: the first costs less, and has Landlock."""
_PROBE_SEC = 20


class EngineProbe(NamedTuple):
    """Which engine a sandbox would be made with here."""

    engine: str | None
    """``unshare`` or ``bubblewrap``; None where neither works."""
    lines: tuple[str, ...]
    """One line per engine that was tried, and what to do where none works."""


def usable(wanted: str = "auto") -> list[Engine]:
    """Return the engines whose programs are installed, in the order in which they are tried."""
    names = list(ENGINES) if wanted == "auto" else [wanted]
    return [ENGINES[name] for name in names if not missing_programs(ENGINES[name])]


def missing_programs(engine: Engine) -> list[str]:
    """Return the programs of an engine that are not installed."""
    return [name for name in engine.programs if shutil.which(name, path=search_path()) is None]


def probe(wanted: str = "auto") -> EngineProbe:
    """Make a sandbox and end it, with each engine until one works. Takes some tens of milliseconds."""
    if sys.platform != "linux":
        return EngineProbe(None, ("a sandbox needs Linux; use the docker environment",))
    lines = list(_not_installed(wanted))
    for engine in usable(wanted):
        reason = _try(engine)
        lines.append(f"{engine.name}: {reason or 'works'}")
        if reason is None:
            return EngineProbe(engine.name, tuple(lines))
    return EngineProbe(None, (*lines, advice()))


def _not_installed(wanted: str) -> Iterator[str]:
    for name, engine in ENGINES.items():
        if wanted in {"auto", name} and (missing := missing_programs(engine)):
            yield f"{name}: not installed: {', '.join(missing)}"


def _try(engine: Engine) -> str | None:
    """Tell why this engine does not work; None where it works."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        scratch = Path(folder).resolve()
        for name in ("shared", "empty"):
            (scratch / name).mkdir()
        (scratch / "nothing").touch()
        root = RootFolder(scratch / "root", ())
        root.bind(str(scratch / "shared"), keeper.INSIDE, read_only=True)
        mounts = root.finish(scratch / "nothing")
        try:
            given = spaces.make(spaces.new_owner(), network=True)
        except OSError as error:
            return str(error)
        if given.owner is not None:  # whatever the umask has closed to others
            owners.give(scratch, given.owner)
        places = [*root.places.values()]
        blueprint = Blueprint(root.path, mounts, scratch, given, (), root.in_memory, places)
        with given:
            launch = engine.launch(blueprint)
            try:
                process = launch.popen(subprocess.DEVNULL)
            except (OSError, subprocess.SubprocessError) as error:
                return str(error)
            try:
                out, err = process.communicate(timeout=_PROBE_SEC)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return f"did not start within {_PROBE_SEC} s"
    words = out.split()
    if left := launch.left_in(words):
        os.waitpid(left, 0)
    if keeper.READY in words:
        return None
    return " ".join(err.decode(errors="replace").split()) or f"exit status {process.returncode}"


def advice() -> str:
    """Tell what to do where no engine works, from what the kernel's settings say."""
    settings = {
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    }
    for path, (bad, command) in settings.items():
        if Path(path).is_file() and Path(path).read_text(encoding="ascii").strip() == bad:
            return f"user namespaces are disabled: allow them ({command}), or use docker"
    if not usable():
        return "install bash"
    return "run as root, or outside of the container that forbids mounts, or use the docker environment"
