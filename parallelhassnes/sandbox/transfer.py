"""Files into and out of a running sandbox.

A path inside may be, or lead through, a symbolic link that an agent has made: only inside does it mean what it says. So
a process inside moves the files, except for a plain upload, where ``place`` follows no links: every step is
taken relative to an open folder, and what is already there is unlinked, never opened. Nor does it where a file
arrives on this host: the folders that a sandbox shares with it may hold links too, and only a process inside may follow them.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harbor.environments.base import transfer_tar_filter

from parallelhassnes.sandbox.build import Built
from parallelhassnes.sandbox.root_layout import inside

_UNPACK = '{ [ -d "$T" ] || mkdir -p -- "$T"; } && tar -xpf - --no-same-owner -C "$T"'
_PUT = (
    'case $T in */) T=$T$N;; *) [ ! -d "$T" ] || T=$T/$N;; esac; '
    'mkdir -p -- "$(dirname -- "$T")" && cat >"$T" && chmod "$M" -- "$T"'
)
_PACK = 'tar -cf - -C "$T" .'
_GET = 'cat -- "$T"'


class TransferError(RuntimeError):
    """A file or folder could not be moved; one line."""


async def upload_dir(built: Built, env: Mapping[str, str], source: Path, target: str) -> None:
    """The content of ``source`` into ``target``, which is made if it is not there. Owners become root."""
    if not any(inside(target, path) or inside(path, target) for path in built.mounted):
        try:
            await asyncio.to_thread(place, source, built.root, target, built.spaces.owner)
        except Elsewhere:
            pass  # a link of the agent's leads somewhere; inside it means what it says
        else:
            return
    with tempfile.NamedTemporaryFile(dir=built.scratch, suffix=".tar") as archive:
        await asyncio.to_thread(_pack, source, Path(archive.name))
        await _run(built, _UNPACK, {**env, "T": target}, source=Path(archive.name), what=target)


async def upload_file(built: Built, env: Mapping[str, str], source: Path, target: str) -> None:
    """``source`` to ``target``, a file name or a folder."""
    with tempfile.NamedTemporaryFile(dir=built.scratch) as copy:
        await asyncio.to_thread(shutil.copy, source, copy.name)
        mode = f"{os.stat(copy.name).st_mode & 0o777:o}"  # noqa: PTH116
        more = {"T": target, "N": source.name, "M": mode}
        await _run(built, _PUT, {**env, **more}, source=Path(copy.name), what=target)


async def download_dir(built: Built, env: Mapping[str, str], source: str, target: Path, shared: Sequence[Path]) -> None:
    """The content of ``source`` into ``target``; what would land outside of it is left out.

    Args:
        shared: folders of this host that the sandbox writes to; no link in them is followed.
    """
    with (
        tempfile.NamedTemporaryFile(dir=built.scratch, suffix=".tar") as archive,
        tempfile.TemporaryDirectory(dir=built.scratch) as folder,
    ):
        await _run(built, _PACK, {**env, "T": source}, sink=Path(archive.name), what=source)
        await asyncio.to_thread(_unpack, Path(archive.name), Path(folder))
        await asyncio.to_thread(_arrive, Path(folder), target, shared)


async def download_file(
    built: Built, env: Mapping[str, str], source: str, target: Path, shared: Sequence[Path]
) -> None:
    """``source`` to ``target``, a file name or a folder that exists; ``shared`` as for ``download_dir``."""
    target = await asyncio.to_thread(_named, target, source.rpartition("/")[2])
    with tempfile.TemporaryDirectory(dir=built.scratch) as folder:
        copy = Path(folder) / target.name
        await _run(built, _GET, {**env, "T": source}, sink=copy, what=source)
        await asyncio.to_thread(_arrive, Path(folder), target.parent, shared)


async def _run(
    built: Built,
    command: str,
    env: Mapping[str, str],
    *,
    what: str,
    source: Path | None = None,
    sink: Path | None = None,
) -> None:
    done = await built.box.move(command, env=env, source=source, sink=sink)
    if done.code != 0:
        said = " ".join((done.stderr.text() or "").split())
        raise TransferError(f"cannot transfer {what}: {said or f'exit status {done.code}'}")


def _pack(source: Path, archive: Path) -> None:
    with tarfile.open(archive, "w") as tar:
        for path in sorted(source.iterdir()):
            tar.add(path, arcname=path.name, filter=_owned_by_root)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _named(target: Path, name: str) -> Path:
    return target / name if target.is_dir() and not target.is_symlink() else target


def _arrive(source: Path, target: Path, shared: Sequence[Path]) -> None:
    """Put the content of ``source`` into ``target`` on this host."""
    base = next((folder for folder in shared if target.is_relative_to(folder)), target)
    base.mkdir(parents=True, exist_ok=True)
    try:
        place(source, base.resolve(), f"/{target.relative_to(base)}")
    except Elsewhere:
        raise TransferError(f"cannot transfer to {target}: a link or a file is in the way") from None


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter=_harmless)  # noqa: S202


def _harmless(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    """Return Harbor's filter, except that one bad link does not lose the whole folder."""
    try:
        kept: tarfile.TarInfo | None = transfer_tar_filter(member, target)
    except tarfile.FilterError:
        return None
    return kept


_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = {errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}


class Elsewhere(Exception):
    """The target is not reached by plain folders of the root folder."""


def place(source: Path, root: Path, target: str, owner: int | None = None) -> None:
    """Put the content of ``source`` into ``target``, as files of ``owner`` (None: our own). Raises Elsewhere, OSError."""
    here = os.open(root, _OPEN)
    try:
        for part in Path(target).parts[1:]:
            here = _enter(here, part, owner)
        _fill(source, here, owner)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise Elsewhere(target) from error
        raise
    finally:
        os.close(here)


def _enter(folder: int, name: str, owner: int | None) -> int:
    """Open the folder ``name``, made if it is not there, and close the one that it is in."""
    if name == "..":
        raise Elsewhere(name)
    inner = _inner(folder, name, owner)
    os.close(folder)
    return inner


def _inner(folder: int, name: str, owner: int | None) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=folder)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, _OPEN, dir_fd=folder)
        _give(inner, owner)
        return inner


def _give(handle: int, owner: int | None) -> None:
    if owner is not None:
        os.chown(handle, owner, owner)


def _fill(source: Path, folder: int, owner: int | None) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                inner = _inner(folder, entry.name, owner)
                try:
                    _fill(Path(entry.path), inner, owner)
                    os.fchmod(inner, stat.S_IMODE(mode))
                finally:
                    os.close(inner)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=folder)
            if stat.S_ISLNK(mode):
                os.symlink(Path(entry.path).readlink(), entry.name, dir_fd=folder)
                if owner is not None:
                    os.chown(entry.name, owner, owner, dir_fd=folder, follow_symlinks=False)
            elif stat.S_ISREG(mode):
                handle = os.open(entry.name, _NEW, 0o600, dir_fd=folder)
                _give(handle, owner)
                _copy(entry.path, handle, mode)


def _copy(source: str, handle: int, mode: int) -> None:
    with os.fdopen(handle, "wb") as new, open(source, "rb") as old:  # noqa: PTH123
        shutil.copyfileobj(old, new, 2**20)
        os.fchmod(handle, stat.S_IMODE(mode))
