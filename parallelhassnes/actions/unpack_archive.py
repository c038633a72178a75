"""Unpacking archives of strangers: zip, tar and tar.gz, into a folder of their own and nowhere else.

Only regular files and folders come out, with no permission but that to read and to run. Refused whole, before anything of
it is used: names that are absolute, have ``..`` or lead through a link; links, devices and pipes; two entries of one
name; more entries or bytes than allowed, by what is claimed and by what is really there; encryption; and headers that
would take more memory than they are worth.
"""

import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import IO, NamedTuple, Self, cast

from parallelhassnes.errors import UserError
from parallelhassnes.store.space import is_full

MOST_ENTRIES = 50_000
MOST_DEPTH = 40
_MOST_HEADER = 1 << 20
"""Bytes of a tar's extended header, or per thousand entries of a zip's directory, at most."""
_MOST_DIRECTORY = 32 << 20
_CHUNK = 1 << 18
_JUNK = ("__MACOSX", ".DS_Store")
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    NotImplementedError,
)


class ArchiveEntry(NamedTuple):
    """One thing in an archive."""

    name: str
    size: int
    """As claimed."""
    is_folder: bool
    runs: bool
    """It may be executed."""


def unpack(archive: IO[bytes], name: str, folder: Path, most_bytes: int) -> None:
    """Put what is in the archive into the folder, which is empty.

    Args:
        archive: a file that can be sought in.
        name: what messages call it.
        most_bytes: what it may unpack to.

    Raises:
        UserError: it is no archive, or not one to be unpacked; what is in the folder then is of no use.
        OSError: the disk is full; the same of the folder.
    """
    magic = archive.read(4)
    archive.seek(0)
    try:
        if magic[:2] == b"PK":
            entries = _zip(archive, name)
        elif magic[:2] == b"\x1f\x8b":
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=archive, mode="rb"))
            entries = _tar(plain, name, most_bytes)
        else:
            entries = _tar(archive, name, most_bytes)
        with contextlib.closing(entries):
            _write(entries, name, folder, most_bytes)
    except _BROKEN as error:
        if isinstance(error, OSError) and is_full(error):
            raise
        why = error.strerror if isinstance(error, OSError) else None  # without the path of ours
        raise UserError(
            f"{name}: cannot be unpacked ({why or error or type(error).__name__})", fix="send a whole .zip or .tar.gz"
        ) from None


def _write(entries: Generator[tuple[ArchiveEntry, IO[bytes] | None]], name: str, folder: Path, most_bytes: int) -> None:
    left, seen = most_bytes, set[str]()
    for number, (entry, stream) in enumerate(entries, 1):
        if number > MOST_ENTRIES:
            raise UserError(f"{name}: has more than {MOST_ENTRIES} entries")
        parts = _parts(entry.name, name)
        if not parts or parts[0] in _JUNK or parts[-1] in _JUNK or parts[-1].startswith("._"):
            continue
        target = folder.joinpath(*parts)
        if entry.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        place = "/".join(parts)
        if place in seen:
            raise UserError(f"{name}: has two entries {place}")
        seen.add(place)
        if entry.size > left:
            raise UserError(f"{name}: unpacks to more than {most_bytes >> 20} MiB")
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o755 if entry.runs else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(target, flags, mode), "wb") as out:  # noqa: PTH123 - by descriptor
            os.fchmod(out.fileno(), mode)
            while stream is not None and (data := stream.read(_CHUNK)):
                left -= len(data)
                if left < 0:
                    raise UserError(f"{name}: unpacks to more than {most_bytes >> 20} MiB")
                out.write(data)


def _parts(entry: str, name: str) -> list[str]:
    """Return the folders and the file of an entry; none for the archive's own root.

    Raises:
        UserError: it would lie elsewhere, or no such file can be made.
    """
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    shown = repr(entry[:100])
    if entry.startswith("/") or "\\" in entry or ".." in parts or entry[1:2] == ":":
        raise UserError(f"{name}: entry {shown} would lie outside of the task's folder")
    if "\0" in entry or len(parts) > MOST_DEPTH or any(len(os.fsencode(p)) > 255 for p in parts):
        raise UserError(f"{name}: entry {shown} cannot be a file name")
    if any("\udc80" <= character <= "\udcff" for character in entry):
        raise UserError(f"{name}: the name of entry {shown} is not UTF-8", fix="rename it")
    return parts


# --- zip ----------------------------------------------------------------------------------------------


def _zip(archive: IO[bytes], name: str) -> Generator[tuple[ArchiveEntry, IO[bytes] | None]]:
    _check_directory(archive, name)
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{name}: entry {info.filename[:100]!r} is a link or a device")
            if info.flag_bits & 1:
                raise UserError(f"{name}: is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{name}: is packed by an unusual method", fix="use deflate")
            entry = ArchiveEntry(info.filename, info.file_size, info.is_dir(), bool(mode & 0o100))
            if entry.is_folder:
                yield entry, None
            else:
                with opened.open(info) as stream:
                    yield entry, stream


def _check_directory(archive: IO[bytes], name: str) -> None:
    """Before all of a zip's directory is read into memory: is it as large as one of a task may be?"""
    # The standard library's own reading of the end record, so that it is the same directory that is read afterwards.
    end = zipfile._EndRecData(archive)  # type: ignore[attr-defined]  # noqa: SLF001
    if end is None:
        raise zipfile.BadZipFile("no end record")
    if end[5] > _MOST_DIRECTORY:
        raise UserError(f"{name}: has more than {MOST_ENTRIES} entries")
    archive.seek(0)


# --- tar ----------------------------------------------------------------------------------------------


class _CarefulInfo(tarfile.TarInfo):
    """Refuses headers that are read into memory whole and claim to be large, sparse files, and what is no header."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            # The library takes it for the end, and what follows would be left out in silence.
            raise tarfile.ReadError("is cut, or has no header where one should be") from None

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        whole = (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if self.type in whole and self.size > _MOST_HEADER:
            raise tarfile.ReadError("a header is too large")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("has a sparse file")
        return super()._proc_member(tarfile_)  # type: ignore[misc,no-any-return]

    def _refuse_sparse(self, *_: object) -> None:
        raise tarfile.ReadError("has a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Bounded:
    """A stream of which no more than so many bytes can be read, however little they were packed into."""

    def __init__(self, stream: IO[bytes], most: int, name: str) -> None:
        self._stream, self._left, self._most, self._name = stream, most, most, name

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UserError(f"{self._name}: unpacks to more than {self._most >> 20} MiB")
        return data


def _tar(stream: IO[bytes], name: str, most: int) -> Generator[tuple[ArchiveEntry, IO[bytes] | None]]:
    overhead = MOST_ENTRIES * tarfile.BLOCKSIZE * 4
    bounded = _Bounded(stream, most + overhead, name)
    with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_CarefulInfo) as opened:  # type: ignore[call-overload]
        for number, member in enumerate(opened):
            opened.members = []  # it would keep every one
            if not member.isreg() and not member.isdir():
                raise UserError(f"{name}: entry {member.name[:100]!r} is a link or a device")
            if not number and member.name in ("", "."):
                continue
            entry = ArchiveEntry(member.name, member.size, member.isdir(), bool(member.mode & 0o100))
            yield entry, None if entry.is_folder else opened.extractfile(member)
