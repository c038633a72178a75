"""What a sandbox's file system is made of: the host's userland read-only, everything else private.

The root of a sandbox is an ordinary folder that belongs to the trial (the *root folder*). Into it are bound, read-only,
the folders of the host that hold its userland (``VISIBLE``). Whatever the trial needs inside one of those (a WORKDIR
of ``/opt/x``, a file copied to ``/usr/local/bin``) is put into the root folder first; where it has something, the
host's folder is bound child by child around it instead of as a whole. All other paths of the host do not exist in it:
``/root``, ``/home``, ``/mnt``, ``/srv``, ``/data``, sockets under ``/run``, other trials, the harness's own store.
"""

import errno
import math
import os
import pwd
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

VISIBLE = (
    "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt", "/nix", "/gnu",
    "/var/lib", "/var/cache", "/sys/devices/system",
)  # fmt: skip
_SCANNED = ("/etc", "/opt", "/var/lib", "/var/cache")
_PRIVATE_DIRS = {"/tmp": 0o1777, "/var/tmp": 0o1777, "/run": 0o755, "/root": 0o700, "/home": 0o755}  # noqa: S108
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_MAX_LINKS = 40
GUARDED_SEC = 30.0
_NO_LOGIN = ("nologin", "false", "sync", "halt", "shutdown")


class Mount(NamedTuple):
    """One mount inside the sandbox, in the order in which they are to be made."""

    kind: Literal["ro", "rw", "device", "hide"]
    """``hide``: what is at ``target`` is covered by ``source``, an empty folder or an empty file."""
    source: str
    """Path on the host."""
    target: str
    """Absolute path in the sandbox."""


def inside(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or below it; both absolute."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class _Guarded:
    """What was found last, kept over forks."""

    paths: tuple[str, ...] = ()
    at = -math.inf


def guarded() -> tuple[str, ...]:
    """Paths of the visible folders that an ordinary user of the host could not read, and home folders among them.

    Root in a sandbox could read them, so they are covered. Looked up anew after ``GUARDED_SEC``: some milliseconds.
    """
    if time.monotonic() - _Guarded.at > GUARDED_SEC:
        _Guarded.paths, _Guarded.at = _find_guarded(), time.monotonic()
    return _Guarded.paths


def _find_guarded() -> tuple[str, ...]:
    found: list[str] = []
    for folder in _SCANNED:
        found += _unreadable(folder, depth=9 if folder == "/etc" else 1)
    for user in pwd.getpwall():
        home = os.path.normpath(user.pw_dir)
        login = user.pw_shell.rpartition("/")[2] not in _NO_LOGIN
        if login and any(inside(home, top) and home != top for top in _SCANNED):
            found.append(home)
    return tuple(found)


def _unreadable(folder: str, depth: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # not there, or not for us: then not for the sandbox either
        return
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if mode & 0o005 != 0o005:
                yield entry.path
            elif depth > 1:
                yield from _unreadable(entry.path, depth - 1)
        elif not stat.S_ISLNK(mode) and not mode & 0o004:
            yield entry.path


class RootFolder:
    """The private folder that becomes ``/`` of a sandbox, and the mounts that go into it."""

    def __init__(self, path: Path, hidden: Iterable[str], shown: Iterable[str] = ()) -> None:
        """``hidden`` and ``shown``: further host paths to cover, and to bind read-only; without links in them."""
        self.path = path
        self._root = str(path)
        self.hidden = {path for path in hidden if os.path.lexists(path)}
        self.visible = [*VISIBLE, *(top for top in shown if not self._seen(top, VISIBLE))]
        self.mounts: list[Mount] = []
        path.mkdir(mode=0o755)
        for target, mode in _PRIVATE_DIRS.items():
            self.folder(target).chmod(mode)
        self._devices()

    def place(self, path: str) -> Path:
        """Where ``path`` of the sandbox lies on the host while the sandbox does not run yet.

        Symbolic links, private ones and those of the visible host folders, are followed as they will be inside, so
        that no path leads out of the root folder. Raises OSError for a loop of links.
        """
        parts = [part for part in path.split("/") if part not in ("", ".")]
        resolved = ""
        links = 0
        while parts:
            part = parts.pop(0)
            here = resolved.rpartition("/")[0] if part == ".." else f"{resolved}/{part}"
            link = self._link(here)
            if link is not None:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                parts = [p for p in link.split("/") if p not in ("", ".")] + parts
                here = "" if link.startswith("/") else resolved
            resolved = here
        return Path(self._root + resolved)

    def _link(self, path: str) -> str | None:
        """Where the symbolic link that will be at ``path`` inside points to; None where there is none."""
        # Strings, not Paths: this runs for every component of every path of every start.
        private = self._root + path
        if os.path.islink(private):  # noqa: PTH114
            return os.readlink(private)  # noqa: PTH115
        if self._seen(path) and os.path.islink(path) and not os.path.lexists(private):  # noqa: PTH114
            return os.readlink(path)  # noqa: PTH115
        return None

    def folder(self, path: str) -> Path:
        """A private folder at ``path`` of the sandbox, made with its parents."""
        place = self.place(path)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def is_folder(self, path: str) -> bool:
        """Whether ``path`` will be a folder inside."""
        place = self.place(path)
        host = "/" + str(place.relative_to(self.path))
        return place.is_dir() or (self._seen(host) and Path(host).is_dir())

    def bind(self, source: str, target: str, *, read_only: bool) -> None:
        """Bind ``source`` of the host, a file or a folder, at ``target``."""
        place = self.place(target)
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        inner = "/" + str(place.relative_to(self.path))
        self.mounts.append(Mount("ro" if read_only else "rw", source, inner))

    def finish(self, empty_dir: Path, empty_file: Path) -> list[Mount]:
        """All mounts, in order; the empty things are what hidden paths are covered with. Called once, last."""
        extra, self.mounts = self.mounts, []
        self._resolver()
        for top in self.visible:
            self._expose(top)
        bound = [mount.target for mount in self.mounts]
        for path in sorted(self.hidden):
            if any(inside(path, target) for target in bound):
                cover = empty_dir if Path(path).is_dir() else empty_file
                self.mounts.append(Mount("hide", str(cover), path))
        return self.mounts + extra

    def _seen(self, path: str, tops: Iterable[str] | None = None) -> bool:
        return any(inside(path, top) for top in (tops or self.visible))

    def _expose(self, path: str) -> None:
        """Bind the host's ``path``, around whatever the root folder has there."""
        source, private = Path(path), self.path / path.lstrip("/")
        if path in self.hidden or not os.path.lexists(path):
            return
        if source.is_symlink():
            if not os.path.lexists(private):
                private.parent.mkdir(parents=True, exist_ok=True)
                private.symlink_to(source.readlink())
        elif not source.is_dir():
            if not os.path.lexists(private) and (source.is_file()):
                private.touch()
                self.mounts.append(Mount("ro", path, path))
        elif not private.exists():
            private.mkdir(parents=True)
            self.mounts.append(Mount("ro", path, path))
        elif private.is_dir() and not private.is_symlink():
            for name in sorted(os.listdir(path)):
                self._expose(f"{path.rstrip('/')}/{name}")

    def _devices(self) -> None:
        """``/dev`` without anything of the host but the harmless devices."""
        dev = self.folder("/dev")
        for name in _DEVICES:
            (dev / name).touch()
            self.mounts.append(Mount("device", f"/dev/{name}", f"/dev/{name}"))
        for name in ("shm", "pts"):
            (dev / name).mkdir()
        links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0"}
        links |= {"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
        for name, link in links.items():
            (dev / name).symlink_to(link)
        self.folder("/proc")
        (self.path / "var/run").symlink_to("../run")

    def _resolver(self) -> None:
        """Name resolution where ``/etc/resolv.conf`` is a link into ``/run``, which is private here."""
        real = os.path.realpath("/etc/resolv.conf")
        if Path(real).is_file() and not self._seen(real):
            self.bind(real, real, read_only=True)
