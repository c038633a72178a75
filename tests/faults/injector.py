"""Kills a process at a named act: at each open for writing, write, fsync, rename, unlink, lock, fork, kill or exec.

An audit hook sees every such act of a process and of all that it forks, just before it happens, so no
list of points is kept by hand and none can be forgotten: a new write is a new point. A point's name is

    <role>: <function of ours> <act> <path, with ids made alike>

In record mode every act is noted; with a target the process that makes it kills itself by SIGKILL. Both
live in forked children only; nothing of it is in the package.
"""

import fcntl
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = f"{os.sep}parallelhassnes{os.sep}"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.utime": 1,
    "os.chmod": 1,
    "os.truncate": 1,
}
_ALONE = {"os.fork", "os.kill", "os.killpg", "os.exec", "subprocess.Popen", "os.posix_spawn"}
_ALIKE = (
    (re.compile(r"\d{8}T\d{6}Z-[a-z2-7]{8}"), "B"),
    (re.compile(r"\d{8}T\d{6}Z_[a-z0-9]{12}"), "A"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA"),
    (re.compile(r"_system/tmp/[^/]+"), "_system/tmp/N"),
    (re.compile(r"\b\d{14}\.B"), "MS.B"),
    (re.compile(r"B\.\d{7}\.[0-9a-f]{12}\.\w+"), "TICKET"),
    (re.compile(r"B/[^/]+/steps/[^/]+"), "B/J/steps/S"),
    (re.compile(r"B/[^/]+/(?=job|current|verdict|overrides|\.tmp)"), "B/J/"),
    (re.compile(r"(ready|running)/[^/]+"), r"\1/K"),
    (re.compile(r"[a-z0-9]+__[a-z0-9]{12}"), "TRIAL"),
    (re.compile(r"blobs/[0-9a-f]{2}\b"), "blobs/XX"),
    (re.compile(r"archive/tmp/[^/ ]+"), "archive/tmp/N"),
    (re.compile(r"\d{6,}"), "N"),
    (re.compile(r"(turns/[^/ ]+)/\d{4}/[^ ]+"), r"\1/PLACE"),
)


class Target(NamedTuple):
    """The act to die at: the ``nth`` time (from 1) that any process makes it."""

    name: str
    nth: int


class _Plan(NamedTuple):
    root: str
    folder: Path
    target: Target | None


class _Now:
    plan: _Plan | None = None
    role = ""
    busy = False


def install(root: Path, folder: Path, role: str, target: Target | None) -> None:
    """Watch this process and all that it forks; for a process made for it, since a hook stays for good.

    Args:
        root: acts on files outside of it are passed over.
        folder: where the trace (``trace``) and the counters are kept.
        target: None to record only.
    """
    folder.mkdir(exist_ok=True)
    fresh = _Now.plan is None
    _Now.plan, _Now.role = _Plan(f"{root}/", folder, target), role
    if not fresh:
        return
    sys.addaudithook(_on_event)
    os.register_at_fork(after_in_parent=lambda: _reach("forked", ""), after_in_child=_in_forked_child)
    _wrap_calls()


def recorded(folder: Path) -> Counter[str]:
    """How often each act was made in a recording."""
    trace = folder / "trace"
    return Counter(trace.read_text(encoding="utf-8").splitlines()) if trace.exists() else Counter()


def fired(folder: Path) -> bool:
    """Whether the target was reached."""
    return (folder / "fired").exists()


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _Now.plan is None or _Now.busy:
        return
    if event == "open":
        path, _mode, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes | os.PathLike):
            _reach("open", os.fsdecode(path))
    elif event in _PATHS:
        paths = [p for p in arguments[: _PATHS[event]] if isinstance(p, str | bytes | os.PathLike)]
        if paths:
            _reach(event.removeprefix("os."), *map(os.fsdecode, paths))
    elif event in _ALONE:
        _reach(event.removeprefix("os."), "")
    elif event in ("fcntl.flock", "fcntl.lockf"):
        handle, operation = arguments[:2]
        act = "unlock" if operation & fcntl.LOCK_UN else "lock"
        _reach(act, _path_of(handle))


def _wrap_calls() -> None:
    """Python tells nobody of these."""
    write, fsync = os.write, os.fsync

    def writing(handle: int, data: Any) -> int:
        if _Now.plan is None or _Now.busy:
            return write(handle, data)
        path = _path_of(handle)
        _reach("write", path)
        half = memoryview(data)[: len(data) // 2]
        _reach("write-half", path, before=lambda: write(handle, half))
        return write(handle, data)

    def syncing(handle: int) -> None:
        _reach("fsync", _path_of(handle))
        fsync(handle)

    os.write, os.fsync = writing, syncing


def _path_of(handle: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""


def _in_forked_child() -> None:
    if _Now.plan is None:
        return
    functions = {frame.f_code.co_name for frame in _frames()}
    _Now.role = "worker" if "start_worker" in functions else "supervisor"
    _reach("child", "")


def _frames() -> Iterator[Any]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _reach(act: str, *paths: str, before: Any = None) -> None:
    plan = _Now.plan
    if plan is None or _Now.busy:
        return
    inside = [path.removeprefix(plan.root) for path in paths if path.startswith(plan.root)]
    if any(paths) and not inside:
        return
    _Now.busy = True
    try:
        name = f"{_Now.role}: {_caller()} {act} {' -> '.join(map(_alike, inside))}".rstrip()
        if plan.target is None:
            _append(plan.folder / "trace", f"{name}\n")
        elif name == plan.target.name and _append(plan.folder / "hits", ".") == plan.target.nth:
            if before is not None:
                before()
            _append(plan.folder / "fired", name)
            os.kill(os.getpid(), signal.SIGKILL)
    finally:
        _Now.busy = False


def _caller() -> str:
    """The function of the package that the act is made for; ``store.atomic`` writes for others."""
    nearest = ""
    for frame in _frames():
        file = frame.f_code.co_filename
        if PACKAGE in file and "/tests/" not in file:
            module = file.rpartition(PACKAGE)[2].removesuffix(".py").replace(os.sep, ".")
            nearest = f"{module}.{frame.f_code.co_name}"
            if module not in ("store.atomic", "store.locks"):
                return nearest
    return nearest


def _alike(path: str) -> str:
    for pattern, word in _ALIKE:
        path = pattern.sub(word, path)
    return path


def _append(path: Path, text: str) -> int:
    """Add to a file in one write; the size right after it."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except FileNotFoundError:  # a fork of ours in the root of a sandbox, where what kills it is the sandbox's end
        return 0
    try:
        _WRITE(handle, text.encode())
        return os.lseek(handle, 0, os.SEEK_CUR)
    finally:
        os.close(handle)


_WRITE = os.write
