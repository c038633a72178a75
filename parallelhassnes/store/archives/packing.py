"""Making a batch's archive (``parallelhassnes.packed``) and proving it; ``unpacking`` brings its files back.

An archive is made and proved aside, from attempts that are sealed and so do not change. Then, under ``tick.lock``, archive and seals get
their names, the index gets its, the ledger a line ``packed``, and the originals are moved away job by job, to be removed.
Coming back is the same the other way: everything is unpacked and proved aside; under ``tick.lock`` each job gets its folder, the index
goes, and the ledger gets a line ``unpacked``. After a crash anywhere each file is at its path or in the archive, and the command that
was cut off goes on where it is asked for again (``actions/packs.py``).
"""

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol

from parallelhassnes import packed, places, walk
from parallelhassnes.errors import UserError
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.evidence import merkle, removals, seal

_FRAME = 1 << 20
"""Bytes of tar from which the next attempt begins another frame: as much is unpacked to read one file."""
_LEVEL = 12
_CUTS_OF_256 = 4
"""Of 256 jobs so many end a frame of records by their names."""
_CHUNK = 1 << 20
_LEFTOVERS = (".tmp-", ".nfs")
_DEEPEST = 200
"""Folders within each other that are packed: so many are open at once when they come back."""


class NotPackable(UserError):
    """Something in the batch does not fit into an archive."""


def check_unpacked(batch_dir: Path) -> None:
    """Look whether something may be added to the batch's attempts.

    Raises:
        UserError: it is packed.
    """
    if packed.of(batch_dir) is not None:
        raise UserError(f"{batch_dir.name} is packed", fix=f"`parallelhassnes unpack {batch_dir.name}`, then again")


# --- making -----------------------------------------------------------------------------------------------------


class Sink(Protocol):
    """What takes the bytes of an archive."""

    def write(self, data: bytes, /) -> object: ...


class Writer:
    """A tar in frames of zstd, with the SHA-256 of all of it."""

    def __init__(self, stream: Sink, at_cut: Callable[[], object] = lambda: None) -> None:
        """Begin.

        Args:
            at_cut: is called when a frame has ended.
        """
        import zstandard

        self._at_cut = at_cut
        self._stream, self._compressor = stream, zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self.digest, self.size, self.at, self.raw = hashlib.sha256(), 0, 0, 0
        self.total = 0
        """Bytes of tar."""
        self._frame = self._compressor.compressobj()

    def _out(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)
        self._stream.write(data)

    def write(self, data: bytes) -> None:
        self.raw += len(data)
        self.total += len(data)
        self._out(self._frame.compress(data))

    def cut(self) -> None:
        """End the frame."""
        self._out(self._frame.flush())
        self._frame = self._compressor.compressobj()
        self.at, self.raw = self.size, 0
        self._at_cut()


def write(batch_dir: Path, target: Path) -> packed.Pack:
    """Make archive, seals and index of a batch in a folder that is empty.

    Raises:
        NotPackable: there is something that an archive cannot hold.
    """
    kept: dict[str, list[int]] = {}
    rest: dict[str, list[int]] = {}
    seals, buried = hashlib.sha256(), removals.of(batch_dir)
    with (target / packed.ARCHIVE).open("xb") as stream, (target / packed.SEALS).open("xb") as told:
        writer = Writer(stream)
        for job in _jobs(batch_dir):
            steps = f"{job}/{places.STEPS}"
            inside: list[str] = []
            rest[steps] = _section(writer, batch_dir, steps, inside)
            for place in sorted(inside):
                kept[place] = _section(writer, batch_dir, place, None, records_only=place in buried)
                data = atomic.read_bytes(batch_dir / place / attempts.SEAL)
                line = {"attempt": place, "seal_sha256": hashlib.sha256(data).hexdigest(), "seal": json.loads(data)}
                text = atomic.dumps(line).encode()
                seals.update(text)
                told.write(text)
        writer.write(b"\0" * 1024)
        writer.cut()
        for each in (stream, told):
            each.flush()
            os.fsync(each.fileno())
    index = {
        "schema_version": 1,
        "archive_sha256": writer.digest.hexdigest(),
        "archive_size": writer.size,
        "seals_sha256": seals.hexdigest(),
        "rest": rest,
        "attempts": kept,
    }
    atomic.write_new(target / packed.INDEX, index)
    return packed.Pack(str(target), index)


def _jobs(batch_dir: Path) -> list[str]:
    return sorted(name for name in os.listdir(batch_dir) if (batch_dir / name / places.STEPS).is_dir())


def _section(
    writer: Writer,
    batch_dir: Path,
    place: str,
    inside: list[str] | None,
    named: str = "",
    *,
    fenced: bool = True,
    records_only: bool = False,
) -> list[int]:
    """Write a folder and everything in it; with ``inside``, attempts are named there instead of written.

    Args:
        named: what it is called in the archive, if not by its place.
        fenced: also what silent hosts may still write into.
        records_only: of an attempt whose files were removed by a rule: without what that removal has not come to yet.
    """
    if writer.raw >= _FRAME:
        writer.cut()
    at, skip = writer.at, writer.raw
    folder, named = batch_dir / place, named or place
    _add(writer, named, folder.lstat(), None)
    top = walk.open_folder(folder)
    try:
        for entry in walk.walk(top):
            name = f"{named}/{entry.path}"
            if entry.leaving:
                if entry.error is not None:
                    raise NotPackable(f"{batch_dir.name}/{name} cannot be looked into: {entry.error.strerror}")
                continue
            if records_only and not removals.stays(entry.path):
                entry.skip()
                continue
            parts = entry.path.split("/")
            if (
                inside is not None
                and parts[1:2] == [places.ATTEMPTS]
                and len(parts) == 3
                and attempts.is_name(parts[2])
            ):
                inside.append(name)
                entry.skip()
                continue
            if not fenced and parts[1:2] == ["fenced"]:
                entry.skip()
                continue
            if entry.depth > _DEEPEST:
                raise NotPackable(
                    f"{batch_dir.name}/{'/'.join(name.split('/')[:6])}… has more than {_DEEPEST} folders within each other"
                )
            _add_entry(writer, batch_dir, name, entry)
    finally:
        os.close(top)
    return [at, skip, writer.raw - skip]


def _add_entry(writer: Writer, batch_dir: Path, name: str, entry: walk.Entry) -> None:
    try:
        if entry.is_link:
            _add(writer, name, entry.info, None, os.readlink(entry.name, dir_fd=entry.folder))
        elif not entry.is_file:
            _add(writer, name, entry.info, None)
        else:
            handle = entry.open()
            try:
                _add(writer, name, os.fstat(handle), handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise NotPackable(f"{batch_dir.name}/{name} cannot be read: {error.strerror}") from None


def _add(writer: Writer, name: str, info: os.stat_result, handle: int | None, link: str = "") -> None:
    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    kind = kinds.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        raise NotPackable(f"{name} is neither file, folder, link nor pipe, and an archive holds nothing else")
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, stat.S_IMODE(info.st_mode)
    made.uid, made.gid, made.size = info.st_uid, info.st_gid, info.st_size if handle is not None else 0
    made.mtime = int(info.st_mtime_ns // 1_000_000_000)
    made.pax_headers = {"mtime": f"{info.st_mtime_ns // 1_000_000_000}.{info.st_mtime_ns % 1_000_000_000:09d}"}
    writer.write(made.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    left = made.size
    while handle is not None and left:
        data = os.read(handle, min(_CHUNK, left))
        if not data:
            raise NotPackable(f"{name} became shorter while it was packed", fix="pack the batch again")
        writer.write(data)
        left -= len(data)
    writer.write(b"\0" * (-made.size % 512))


# --- for an archive elsewhere -----------------------------------------------------------------------------------

ATTEMPT = "attempt"
"""What an attempt is called in a tar of its own, so that one that two batches have is the same there."""


def write_attempt(writer: Writer, batch_dir: Path, place: str) -> None:
    """Write one sealed attempt, packed or not, as ``ATTEMPT``; the bytes are the same both ways.

    Of one whose files were removed by a rule its records are written.

    Raises:
        NotPackable: there is something that an archive cannot hold.
        FileNotFoundError: it is not there.
    """
    pack = None if (batch_dir / place).is_dir() else packed.of(batch_dir)
    is_buried = place in removals.of(batch_dir)
    if pack is None:
        _section(writer, batch_dir, place, None, ATTEMPT, records_only=is_buried)
    else:
        for info, content in pack.read(place):
            path = info.name[len(place) + 1 :]
            if not (is_buried and path and not removals.stays(path)):
                _write_again(writer, info, content, ATTEMPT + info.name[len(place) :])
    _end(writer)


def write_records(writer: Writer, batch_dir: Path, without: Collection[str]) -> None:
    """Write everything of a batch that is in none of its attempts, job by job.

    Args:
        without: names in the batch's folder that are left out.

    Raises:
        NotPackable: there is something that an archive cannot hold.
    """
    pack = packed.of(batch_dir)
    for name in sorted(os.listdir(batch_dir)):
        if name in without or name in packed.FILES or name.startswith(_LEFTOVERS):
            continue
        if not (batch_dir / name).is_dir():
            _write_file(writer, batch_dir, name)
            continue
        _add(writer, name, (batch_dir / name).lstat(), None)
        for below in sorted(os.listdir(batch_dir / name)):
            place = f"{name}/{below}"
            if below.startswith(_LEFTOVERS):
                continue
            if (batch_dir / place).is_dir():
                _section(writer, batch_dir, place, [] if below == places.STEPS else None, fenced=False)
            else:
                _write_file(writer, batch_dir, place)
        steps = f"{name}/{places.STEPS}"
        if pack is not None and steps in pack.rest and not (batch_dir / steps).exists():
            for info, content in pack.read(steps):
                _write_again(writer, info, content, info.name)
        # By its name too, so that what has changed in one job leaves the frames of most others as they were.
        if writer.raw >= _FRAME or hashlib.sha256(name.encode()).digest()[0] < _CUTS_OF_256:
            writer.cut()
    _end(writer)


def write_folder(writer: Writer, folder: Path) -> None:
    """Write a folder of the store with everything in it, by its own name."""
    _section(writer, folder.parent, folder.name, None)
    _end(writer)


def _end(writer: Writer) -> None:
    writer.write(b"\0" * 1024)
    writer.cut()


def _write_file(writer: Writer, batch_dir: Path, place: str) -> None:
    handle = walk.open_below(batch_dir, place)
    try:
        _add(writer, place, os.fstat(handle), handle)
    finally:
        os.close(handle)


def _write_again(writer: Writer, info: tarfile.TarInfo, content: IO[bytes] | None, name: str) -> None:
    """Write a member of an archive as it was written there, by another name."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = info.type, info.linkname, info.mode
    made.uid, made.gid, made.size, made.mtime = info.uid, info.gid, info.size, int(info.mtime)
    made.pax_headers = {"mtime": info.pax_headers["mtime"]}
    writer.write(made.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    for data in chunks(content) if content is not None else ():
        writer.write(data)
    writer.write(b"\0" * (-made.size % 512))


def chunks(content: IO[bytes]) -> Iterator[bytes]:
    """Yield what is left of a file, a piece at a time."""
    while data := content.read(_CHUNK):
        yield data


# --- proving ----------------------------------------------------------------------------------------------------


def prove(pack: packed.Pack, seals: Mapping[str, str], compare_with: Path | None = None) -> None:
    """Read the whole archive, and compare every file with what its attempt's seal says.

    Args:
        seals: place of each attempt → SHA-256 of its seal, by the ledger.
        compare_with: the batch's folder, whose files that are in no attempt must be the same.

    Raises:
        UserError: something is not what it was.
    """
    wrong = UserError(
        f"the archive {pack.folder}/{packed.ARCHIVE} is not what was packed",
        fix="the originals are untouched; pack again",
    )
    with (Path(pack.folder) / packed.ARCHIVE).open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != pack.index["archive_sha256"]:
            raise wrong
    if pack.attempts.keys() != seals.keys():
        raise wrong
    buried = removals.of(compare_with or Path(pack.folder))
    for place, said in seals.items():
        handle = pack.open(f"{place}/{attempts.SEAL}")
        with os.fdopen(handle, "rb") as stream:
            data = stream.read()
        files = json.loads(data)["files"]
        there = {path: facts for path, facts in files.items() if place not in buried or removals.stays(path)}
        found = seal.survey_packed(pack, place, like=there)
        if hashlib.sha256(data).hexdigest() != said or merkle.root(found) != merkle.root(there):
            raise wrong
    if compare_with is None:
        return
    for key in pack.rest:
        for info, content in pack.read(key):
            if content is not None and content.read() != atomic.read_bytes(compare_with / info.name):
                raise wrong
