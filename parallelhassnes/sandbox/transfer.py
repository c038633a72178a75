"""Files into and out of a running sandbox.

A path inside may be, or lead through, a symbolic link that an agent has made: only inside does it mean what it says. So
a process inside moves the files, except for a plain upload, where ``placing`` follows no links. Nor does it where a file
arrives on this host: the folders that a sandbox shares with it may hold links too, and only a process inside may follow them.
"""

import asyncio
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harbor.environments.base import transfer_tar_filter

from parallelhassnes.sandbox.build import Built
from parallelhassnes.sandbox.placing import Elsewhere, place
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
    """Harbor's filter, except that one bad link does not lose the whole folder."""
    try:
        kept: tarfile.TarInfo | None = transfer_tar_filter(member, target)
    except tarfile.FilterError:
        return None
    return kept
