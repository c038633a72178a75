"""Attempts of a batch in one archive, and how their files are read from there.

    runs/<batch_id>/packed.tar.zst        what was in <job_id>/steps of each job: a tar, in frames of zstd, no attempt in two of them
    runs/<batch_id>/packed.seals.jsonl    a line per attempt: where it lay, its seal and the seal's SHA-256
    runs/<batch_id>/packed.json           where each attempt is in the archive; written last, removed first: without it nothing is packed

A file is looked for here only where nothing is at its path, so a batch that is not packed costs nothing, and one of which a crash has
left some folders is read from these. Readers get a descriptor as of any other file: of memory, or of a nameless file
where it is large. A member is found by its path below the batch's folder, and never leads out of the archive.

``store/archives/packing.py`` makes archives, ``unpacking.py`` beside it brings their files back; ``walk``, the readers of records and ``attempts`` come here.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from parallelhassnes import file_stamp, places

if TYPE_CHECKING:
    import tarfile

ARCHIVE, SEALS, INDEX = "packed.tar.zst", "packed.seals.jsonl", "packed.json"
FILES = frozenset({ARCHIVE, SEALS, INDEX})
_DEPTH = 5
"""Parts of an attempt's place: ``job/steps/step/attempts/name``."""
_IN_MEMORY = 64 << 20
"""Bytes up to which a member is given as memory."""
_CHUNK = 1 << 20
_KEPT = 2 << 20
"""Bytes of a frame that are kept in memory for who reads on."""


class Section(NamedTuple):
    """Where an attempt, or the rest of a job's ``steps``, is in the archive."""

    at: int
    """Byte of the archive at which its frame begins."""
    skip: int
    """Bytes of the frame's content before it."""
    size: int
    """Bytes of tar."""


class Pack:
    """The archive of one batch."""

    def __init__(self, folder: str, index: dict[str, Any]) -> None:
        self.folder = folder
        self.index = index
        self.attempts = {place: Section(*said) for place, said in index["attempts"].items()}
        """``job/steps/step/attempts/name`` → where it is."""
        self.rest = {place: Section(*said) for place, said in index["rest"].items()}
        """``job/steps`` → the same of everything in it that is in no attempt."""
        self._names: dict[str, list[str]] = {}
        for place in self.attempts:
            step, _, name = place.rpartition(f"/{places.ATTEMPTS}/")
            self._names.setdefault(step, []).append(name)

    def names(self, step: str) -> list[str]:
        """Return the names of a step's attempts (``job/steps/step``), oldest first."""
        return sorted(self._names.get(step, ()))

    def section_of(self, place: str) -> str:
        """Tell which section a path below the batch's folder is in."""
        parts = place.split("/")
        attempt = "/".join(parts[:_DEPTH])
        return attempt if attempt in self.attempts else "/".join(parts[:2])

    def section(self, key: str) -> Section | None:
        return self.attempts.get(key) or self.rest.get(key)

    def seals(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the place of each attempt → SHA-256 of its seal, and the seal, from the file beside the archive.

        Raises:
            OSError: that file is not the one that was written with the archive.
        """
        with open(f"{self.folder}/{SEALS}", "rb") as stream:  # noqa: PTH123 - the store's own file
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != self.index.get("seals_sha256"):
            raise OSError(errno.EIO, "is not what was packed", f"{self.folder}/{SEALS}")
        lines = map(json.loads, data.splitlines())
        return {line["attempt"]: (line["seal_sha256"], line["seal"]) for line in lines}

    @contextlib.contextmanager
    def raw(self, section: Section, skip: int = 0) -> "Iterator[_Stretch]":
        """Give what a section is made of, from byte ``skip`` on; unpacked while it is read, unless its frame was read of late."""
        import zstandard

        end = section.skip + section.size
        if end <= _KEPT and len(data := _frame(self, section.at)) >= end:
            yield _Stretch(io.BytesIO(data[section.skip + skip : end]), section.size - skip)
            return

        with open(f"{self.folder}/{ARCHIVE}", "rb") as stream:  # noqa: PTH123 - the store's own file
            stream.seek(section.at)
            with zstandard.ZstdDecompressor().stream_reader(stream) as plain:
                found = _Stretch(plain, section.skip + skip)
                while found.left and found.read(_CHUNK):
                    pass
                found.left = section.size - skip
                yield found

    def members(self, key: str) -> "dict[str, tarfile.TarInfo]":
        """Return what a section holds, by its path below the batch's folder, in its order."""
        return _members(self, key)

    def read(self, key: str) -> "Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]":
        """Yield what a section holds, in its order, each with its content; that of a file until the next is asked for."""
        import tarfile

        section = self.section(key)
        if section is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.folder}/{key}")
        with self.raw(section) as raw, tarfile.open(fileobj=raw, mode="r|", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            for info in tar:
                yield info, tar.extractfile(info) if info.isreg() else None

    def open(self, place: str) -> int:
        """Return a descriptor of a file's content.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it is none, or the archive cannot be read.
        """
        key = self.section_of(place)
        info, section = self.members(key).get(place), self.section(key)
        if info is None or section is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.folder}/{place}")
        if not info.isreg():
            raise OSError(errno.EINVAL, "is no regular file", place)
        handle = _nameless(self.folder, info.size)
        try:
            with self.raw(section, info.offset_data) as raw:
                raw.left = info.size
                while data := raw.read(_CHUNK):
                    _write(handle, data)
            if os.lseek(handle, 0, os.SEEK_CUR) != info.size:
                raise OSError(errno.EIO, "the archive ends too early", f"{self.folder}/{ARCHIVE}")
            os.utime(handle, ns=(mtime_ns(info), mtime_ns(info)))
            os.fchmod(handle, info.mode & 0o7777)
            os.lseek(handle, 0, os.SEEK_SET)
        except BaseException:
            os.close(handle)
            raise
        return handle


class _Stretch:
    """So many bytes of a stream, for ``tarfile``."""

    def __init__(self, stream: Any, left: int) -> None:
        self._stream, self.left = stream, left

    def read(self, most: int) -> bytes:
        try:
            data: bytes = self._stream.read(min(most, self.left))
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise OSError(errno.EIO, f"the archive cannot be read ({error})") from None
        self.left -= len(data)
        return data

    def all(self) -> bytes:
        return b"".join(iter(lambda: self.read(_CHUNK), b""))


def of(batch_dir: Path | str) -> Pack | None:
    """Return the archive of a batch; None where it is not packed.

    Raises:
        OSError: its index cannot be read.
    """
    info = _index(batch_dir)
    return None if info is None else _load(os.fspath(batch_dir), file_stamp.of(info))


def is_there(batch_dir: Path | str) -> bool:
    """Tell whether a batch is packed, without reading the index of its archive."""
    return _index(batch_dir) is not None


def _index(batch_dir: Path | str) -> os.stat_result | None:
    try:
        info = os.stat(f"{batch_dir}/{INDEX}")  # noqa: PTH116 - asked of every batch whose file is missing
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info if stat.S_ISREG(info.st_mode) else None  # else a job of that name, of an earlier version


@lru_cache(maxsize=16)
def _load(folder: str, _index_as_of: file_stamp.FileStamp) -> Pack:
    try:
        with open(f"{folder}/{INDEX}", "rb") as stream:  # noqa: PTH123 - the store's own file
            return Pack(folder, json.loads(stream.read()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(errno.EIO, f"is no index of an archive ({error})", f"{folder}/{INDEX}") from None


@lru_cache(maxsize=4)
def _frame(pack: Pack, at: int) -> bytes:
    """Return the beginning of a frame's content; readers of one attempt, and of the next, come to the same frame."""
    import zstandard

    with open(f"{pack.folder}/{ARCHIVE}", "rb") as stream:  # noqa: PTH123 - the store's own file
        stream.seek(at)
        with zstandard.ZstdDecompressor().stream_reader(stream) as plain:
            return _Stretch(plain, _KEPT).all()


@lru_cache(maxsize=64)
def _members(pack: Pack, key: str) -> "dict[str, tarfile.TarInfo]":
    import tarfile

    try:
        return {info.name: info for info, _ in pack.read(key)}
    except tarfile.TarError as error:
        raise OSError(errno.EIO, f"the archive cannot be read ({error})", f"{pack.folder}/{ARCHIVE}") from None


def mtime_ns(info: "tarfile.TarInfo") -> int:
    """Return when a member was changed last, in nanoseconds, as it was written down."""
    seconds, _, part = info.pax_headers.get("mtime", "0").partition(".")
    return int(seconds) * 1_000_000_000 + int(part[:9].ljust(9, "0") or 0)


def _nameless(folder: str, size: int) -> int:
    """Return a descriptor of a file without a name; a large one is beside the archive, or where its reader may make files."""
    if size <= _IN_MEMORY and hasattr(os, "memfd_create"):
        return os.memfd_create("packed", os.MFD_CLOEXEC)
    with contextlib.suppress(
        OSError, AttributeError
    ):  # a reader with no right to write, or a file system without such files
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    import tempfile

    handle, path = tempfile.mkstemp()
    os.unlink(path)  # noqa: PTH108 - as it was made
    return handle


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


# --- by path ----------------------------------------------------------------------------------------------------


def find(path: Path | str) -> tuple[Pack, str] | None:
    """Return the archive that a path would be in, and its place there; None where its batch is not packed."""
    text = os.fspath(path)
    if f"/{places.STEPS}" not in text:
        return None
    parts = text.split("/")
    for at, part in enumerate(parts):
        if part == places.STEPS and at >= 2 and (pack := of("/".join(parts[: at - 1]) or "/")) is not None:
            return pack, "/".join(parts[at - 1 :])
    return None


def member(path: Path | str) -> "tarfile.TarInfo | None":
    """Return what was packed from a path; None where nothing was."""
    found = find(path)
    if found is None:
        return None
    pack, place = found
    key = pack.section_of(place)
    return pack.members(key).get(place) if pack.section(key) else None


def open_file(path: Path | str) -> int:
    """Return a descriptor of a packed file; see ``Pack.open``."""
    found = find(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return found[0].open(found[1])


def names(step_dir: Path | str) -> list[str]:
    """Return the names of a step's packed attempts, oldest first."""
    found = find(step_dir)
    return found[0].names(found[1]) if found else []


def files(top: Path | str, below: str = "") -> list[tuple[str, int]]:
    """Return packed regular files below a folder, by path relative to ``top``, each with its size."""
    found = find(top)
    if found is None:
        return []
    pack, place = found
    key, inside = pack.section_of(place), f"{place}/{below}/" if below else f"{place}/"
    if pack.section(key) is None:
        return []
    every = pack.members(key).items()
    return sorted(
        (name[len(place) + 1 :], info.size) for name, info in every if info.isreg() and name.startswith(inside)
    )
