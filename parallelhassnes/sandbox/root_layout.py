"""What a sandbox's file system is made of: what programs need of the host's, read-only, and everything else private.

The root of a sandbox is an ordinary folder that belongs to the trial (the *root folder*). Into it is bound, read-only,
what programs need of the host (``VISIBLE``): nothing is hidden there, because nothing else is there. Whatever the trial needs
inside one of those (a WORKDIR of ``/usr/src/x``, a file copied to ``/usr/local/bin``) is put into the root folder first; where it
has something, the host's folder is bound child by child around it instead of as a whole. In the same way a folder is left out
that was asked to be hidden: its neighbours are bound, so that no change on the host can bring it in.

``/bin``, ``/lib64`` and the like, which are links on most hosts, are mounted as folders: a link could be replaced by whoever
owns the root folder, and with it the loader of every program that is run after.

``/etc`` and ``/dev``, which are little but places to mount something at, are made in memory by the process that becomes the
sandbox (``make``): on a disk each of these places costs more than its mount. An ``/etc`` into which the task's image puts
something stays in the root folder.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = """
# who is who, and where names are found
passwd group nsswitch.conf hosts host.conf hostname resolv.conf networks protocols services rpc ethertypes gai.conf
shells login.defs skel
# how programs are found, linked and started
alternatives ld.so.cache ld.so.conf ld.so.conf.d static profile bash.bashrc bashrc inputrc bash_completion.d zsh
crypto-policies
# certificates
ssl/certs ssl/openssl.cnf ssl/cert.pem ca-certificates ca-certificates.conf pki/tls/certs pki/tls/openssl.cnf
pki/tls/cert.pem pki/ca-trust/extracted
# what this system is, its language and its time
debian_version os-release lsb-release redhat-release alpine-release issue localtime timezone locale.alias
locale.conf default/locale terminfo mime.types magic magic.mime
# programs that do not start without
fonts perl python3 java-17-openjdk java-11-openjdk java-21-openjdk java xdg vim glvnd chromium chromium.d dpkg
debconf.conf adduser.conf deluser.conf texmf ImageMagick-6 ImageMagick-7 sgml xml groff manpath.config gtk-3.0 gss
netconfig mke2fs.conf
"""
_OF_ETC = tuple(name for line in _ETC.splitlines() if not line.startswith("#") for name in line.split())
VISIBLE = (
    *_LINKED,
    "/usr",
    "/nix/store",
    "/gnu/store",
    *(f"/etc/{name}" for name in _OF_ETC),
    *(str(path) for path in sorted(Path("/etc").glob("python3.*"))),
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/texmf",
    "/var/cache/fontconfig",
    "/sys/devices/system",
)
_PRIVATE_DIRS = {"/tmp": 0o1777, "/var/tmp": 0o1777, "/run": 0o755, "/root": 0o700, "/home": 0o755}  # noqa: S108
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_MAX_LINKS = 40
IN_MEMORY = ("/dev", "/etc")
MEMORY_SIZE = "256m"
"""Of each of these, at most."""


class Mount(NamedTuple):
    """One mount inside the sandbox, in the order in which they are to be made."""

    kind: Literal["ro", "rw", "device", "hide"]
    """``hide``: what is at ``target`` is covered by ``source``, an empty file."""
    source: str
    """Path on the host."""
    target: str
    """Absolute path in the sandbox."""


class EmptyPlace(NamedTuple):
    """Something empty to make before the mounts: a folder, a file, or a link."""

    kind: Literal["folder", "file", "link"]
    path: str
    """Absolute path in the sandbox."""
    leads_to: str = ""
    """Of a link."""


UMASK = 0o022
"""A container's: whatever the user's own is, others in the sandbox can read what its image and its programs make."""


@contextlib.contextmanager
def containers_mask() -> Iterator[None]:
    """Have this process make files as a container does; what is made lies in a folder that is closed to others."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def make(root: str, places: Iterable[EmptyPlace]) -> None:
    """Make the places below ``root``, in order. Imports and loads nothing. Raises OSError."""
    for kind, path, leads_to in places:
        if kind == "folder":
            os.mkdir(root + path)  # noqa: PTH102
        elif kind == "file":
            os.mknod(root + path)
        else:
            os.symlink(leads_to, root + path)  # noqa: PTH211


def inside(path: str, folder: str) -> bool:
    """Tell whether ``path`` is ``folder`` or below it; both absolute."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class RootFolder:
    """The private folder that becomes ``/`` of a sandbox, and the mounts that go into it."""

    def __init__(self, path: Path, hidden: Iterable[str], shown: Iterable[str] = ()) -> None:
        """``hidden`` and ``shown``: further host paths to cover, and to bind read-only; without links in them."""
        self.path = path
        self._root = str(path)
        self.hidden = {path for path in hidden if os.path.lexists(path)}
        self.visible = dict.fromkeys(VISIBLE)
        self.visible |= dict.fromkeys(top for top in shown if not self._seen(top))
        self.mounts: list[Mount] = []
        self.in_memory: list[str] = []
        """Those of ``IN_MEMORY`` in which the trial had nothing when something was to be mounted there."""
        self.places: dict[str, EmptyPlace] = {}
        """What is to be made there, by path."""
        path.mkdir(mode=0o755)
        for target, mode in _PRIVATE_DIRS.items():
            self.folder(target).chmod(mode)
        self._devices()

    def place(self, path: str) -> Path:
        """Tell where ``path`` of the sandbox lies on the host while the sandbox does not run yet.

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
        """Tell where the symbolic link that will be at ``path`` inside points to; None where there is none."""
        # Strings, not Paths: this runs for every component of every path of every start.
        private = self._root + path
        if (place := self.places.get(path)) is not None:
            return place.leads_to or None
        if os.path.islink(private):  # noqa: PTH114
            return os.readlink(private)  # noqa: PTH115
        if self._seen(path) and os.path.islink(path) and not os.path.lexists(private):  # noqa: PTH114
            return os.readlink(path)  # noqa: PTH115
        return None

    def folder(self, path: str) -> Path:
        """Return a private folder at ``path`` of the sandbox, made with its parents."""
        place = self.place(path)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def is_folder(self, path: str) -> bool:
        """Tell whether ``path`` will be a folder inside."""
        place = self.place(path)
        host = "/" + str(place.relative_to(self.path))
        return place.is_dir() or (self._seen(host) and Path(host).is_dir())

    def bind(self, source: str, target: str, *, read_only: bool) -> None:
        """Bind ``source`` of the host, a file or a folder, at ``target``."""
        inner = str(self.place(target))[len(self._root) :]
        self._make("folder" if os.path.isdir(source) else "file", inner)  # noqa: PTH112
        self.mounts.append(Mount("ro" if read_only else "rw", source, inner))

    def finish(self, empty_file: Path) -> list[Mount]:
        """Return all mounts, in order. Called once, last."""
        extra, self.mounts = self.mounts, []
        self._resolver()
        for path in self.hidden:
            # What it is in is bound child by child, and this child is left out.
            if self._seen(path):
                self._make("folder", os.path.dirname(path))  # noqa: PTH120
        for top in self.visible:
            self._expose(top)
        # The loader of every program reads it, and it is not the agent's to write.
        if not self._there("/etc/ld.so.preload"):
            self._make("file", "/etc/ld.so.preload")
            self.mounts.append(Mount("hide", str(empty_file), "/etc/ld.so.preload"))
        return self.mounts + extra

    def _is_in_memory(self, path: str) -> bool:
        """Tell whether it is in a folder that is made in memory; from the first answer on, that is so for good."""
        top = path[:4]
        if top not in IN_MEMORY or path[4:5] not in ("", "/"):
            return False
        if top not in self.in_memory and not os.path.lexists(self._root + top):
            self.in_memory.append(top)
            make(self._root, [EmptyPlace("folder", top)])
        return top in self.in_memory

    def _seen(self, path: str) -> bool:
        """Tell whether it is one of what can be seen of the host, or in one."""
        while path not in self.visible:
            if not path:
                return False
            path = path.rpartition("/")[0]
        return True

    def _expose(self, path: str) -> None:
        """Bind the host's ``path``, around whatever the root folder has there."""
        # Strings and one lstat, not Paths: this runs for some ninety paths at every start.
        if path in self.hidden:
            return
        try:
            mode = os.lstat(path).st_mode
        except OSError:  # the host has none
            return
        there = self._there(path)
        if stat.S_ISDIR(mode) or (path in _LINKED and self._is_untouched(path, there=there)):
            if not there:
                self._make("folder", path)
                self.mounts.append(Mount("ro", os.path.realpath(path), path))
            elif self._has_folder(path):
                for name in sorted(os.listdir(path)):
                    self._expose(f"{path.rstrip('/')}/{name}")
        elif there:
            return
        elif stat.S_ISLNK(mode):
            self._make("link", path, os.readlink(path))  # noqa: PTH115
        elif stat.S_ISREG(mode):
            self._make("file", path)
            self.mounts.append(Mount("ro", path, path))

    def _there(self, path: str) -> bool:
        return path in self.places or os.path.lexists(self._root + path)

    def _has_folder(self, path: str) -> bool:
        if path in self.places:
            return self.places[path].kind == "folder"
        private = self._root + path
        return os.path.isdir(private) and not os.path.islink(private)  # noqa: PTH112, PTH114

    def _make(self, kind: Literal["folder", "file", "link"], path: str, leads_to: str = "") -> None:
        """Something empty, with the folders above it, unless there is something; in the root folder, or later in memory."""
        if not path or self._there(path):
            return
        later = self._is_in_memory(path)
        if path in self.in_memory:
            return
        self._make("folder", path.rpartition("/")[0])
        place = EmptyPlace(kind, path, leads_to)
        if later:
            self.places[path] = place
        else:
            make(self._root, [place])

    def _is_untouched(self, path: str, *, there: bool) -> bool:
        """Return the trial has nothing at this path, nor where it leads to, and nothing in it is hidden."""
        real = os.path.realpath(path)
        return not (
            there
            or not os.path.isdir(real)  # noqa: PTH112
            or self._there(real)
            or any(inside(hidden, real) for hidden in self.hidden)
        )

    def _devices(self) -> None:
        """``/dev`` without anything of the host but the harmless devices."""
        for name in _DEVICES:
            self._make("file", f"/dev/{name}")
            self.mounts.append(Mount("device", f"/dev/{name}", f"/dev/{name}"))
        for name in ("shm", "pts"):
            self._make("folder", f"/dev/{name}")
        links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0"}
        links |= {"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
        for name, link in links.items():
            self._make("link", f"/dev/{name}", link)
        self._make("folder", "/proc")
        self._make("link", "/var/run", "../run")

    def _resolver(self) -> None:
        """Name resolution where ``/etc/resolv.conf`` is a link into ``/run``, which is private here."""
        real = os.path.realpath("/etc/resolv.conf")
        bound = self._there(real)
        if Path(real).is_file() and not bound and not self._seen(real):
            self.bind(real, real, read_only=True)
