"""Writing to the store: whole files, by rename.

Protocol: the content goes to ``runs/_system/tmp/<host>.<start>.<pid namespace>.<pid>.<n>``, is fsynced, renamed over its name, and
the directory is fsynced. A crash before the rename leaves a file there that nobody reads and that the
next tick removes (``sweep_temp``); after it, the new content. One folder for all, so that a look for what
crashes left costs one listing. Where no folder is set, or the target is on another file system, the
content waits beside its target, as ``.tmp-`` and that name.

JSON is compact, so that ``grep '"status":"failed"'`` finds it.
"""

import contextlib
import errno
import itertools
import json
import os
import platform
import stat
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes import packed, walk
from parallelhassnes.errors import UserError
from parallelhassnes.store import clocks, process_identity

if TYPE_CHECKING:
    from pydantic import BaseModel

_STALE_SEC = 3600.0
_SWEEP_SEC = 5.0
_LARGEST = 1 << 30
"""Bytes that no record comes near to."""
_counter = itertools.count()


class _Settings:
    durable = True
    temp: str | None = None


def set_durable(on: bool) -> None:
    """Set whether writes wait for the disk, for this process and those it forks."""
    _Settings.durable = on


def is_durable() -> bool:
    return _Settings.durable


def set_temp(folder: Path) -> None:
    """Set where content waits for its rename, for this process and those it forks; on the store's file system."""
    _Settings.temp = str(folder)


def temp_path(folder: Path | str) -> Path:
    """Return a fresh name to prepare something under that will be renamed into ``folder``; nothing is there yet."""
    return Path(_temp_path(folder))


def _temp_path(folder: Path | str) -> str:
    name = f"{_place()}.{os.getpid()}.{next(_counter)}"
    if _Settings.temp is not None:
        if os.path.isdir(_Settings.temp):  # noqa: PTH112 - hot path
            return f"{_Settings.temp}/{name}"
        with contextlib.suppress(FileNotFoundError):
            Path(_Settings.temp).mkdir(exist_ok=True)  # not what is above it: a store that is gone stays gone
            return f"{_Settings.temp}/{name}"
    return f"{folder}/.tmp-{name}"


def to_be_swept() -> Path | None:
    """Return a fresh name for something that the next tick removes: it belongs to no process. None where no folder is set."""
    if _Settings.temp is None:
        return None
    made = temp_path(_Settings.temp)
    if not made.parent.is_dir():
        return None
    return made.with_name(f"{_place()}.0.{os.getpid()}-{made.name.rpartition('.')[2]}")


def _place() -> str:
    """Tell where pids of the names are looked up: this host's name and start, and the pid namespace. Two hosts may share a name."""
    boot = process_identity.table().partition("-")[0]
    return f"{platform.node()}.{boot}.{process_identity.namespace()}"


def sweep_temp(folder: Path, is_alive: Callable[[int], bool]) -> int:
    """Remove what crashed writers left in the folder of ``set_temp``, for some seconds at most; how many.

    Args:
        is_alive: whether a process lives; those of another host, or of a container, leave what goes when it is an hour old.
    """
    removed, now = 0, None
    end = time.monotonic() + _SWEEP_SEC

    def check() -> None:
        if time.monotonic() > end:
            raise walk.OutOfTime

    with os.scandir(folder) as entries:
        for entry in entries:
            place, _, rest = entry.name.rpartition(".")[0].rpartition(".")
            here = place == _place() and rest.isdigit()
            try:
                now = _time_of_disk(folder) if now is None else now
                stale = clocks.age(entry.stat(follow_symlinks=False).st_mtime, now) > _STALE_SEC
                if stale or (here and not is_alive(int(rest))):
                    walk.remove_tree(entry.path, check)
                    removed += 1
            except walk.OutOfTime:
                break
            except OSError as error:  # it went meanwhile, or is somebody else's: another look finds it again
                if not is_damage(error):
                    raise
    return removed


def _time_of_disk(folder: Path) -> float:
    """Return what the file system takes the time for: a host whose clock is ahead would find every other one's files old."""
    fresh = folder / f"{_place()}.{os.getpid()}.{next(_counter)}"
    fresh.touch()
    try:
        return fresh.stat().st_mtime
    finally:
        fresh.unlink(missing_ok=True)


class CorruptFile(UserError):
    """A file of the store with content of a wrong form; the message names it."""


_OF_THE_HOST = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS}
    | {errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNABORTED}
)


def is_damage(error: BaseException) -> bool:
    """Tell whether it says something of the one file or folder that it came of; a full disk says nothing of that."""
    if isinstance(error, OSError):
        return error.errno not in _OF_THE_HOST
    return isinstance(error, CorruptFile)


def describe_damage(error: BaseException) -> str:
    """Return one line on damage: which file, and what is wrong with it."""
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}"
    return str(error)


def advice(error: BaseException) -> str:
    """Tell what to do about damage, as an imperative."""
    if isinstance(error, PermissionError):
        return "make it readable for the user who ticks"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return "look after the disk or the mount"
    return "put the file back, or remove the folder of the batch"


def dumps(document: Any) -> str:
    """Compact JSON on one line, with a newline; refuses NaN.

    A byte of a file's name that is no UTF-8 is written as JSON's escape of half a character, as which it is read again.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_bytes(path: Path | str, data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` with ``data`` in one act."""
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."  # noqa: PTH120 - hot path
    try:
        _write_by(_temp_path(folder), path, data, durable)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = f"{folder}/.tmp-{_place()}.{os.getpid()}.{next(_counter)}"
        _write_by(beside, path, data, durable)
    if durable:
        sync_dir(folder)


def _write_by(temp: str, path: str, data: bytes, durable: bool) -> None:
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            if durable and _Settings.durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temp, path)  # noqa: PTH104 - hot path
    except OSError as error:
        Path(temp).unlink(missing_ok=True)
        error.filename = error.filename or path
        raise


def claim(path: Path, data: bytes, *, mode: int = 0o666, aside: Path | None = None) -> bool:
    """Make a file with that content where there is none, whole from the start; False where another was faster.

    Waits for the disk: what others remember of the content must not change by a power cut.

    Args:
        aside: the folder that ``sweep_temp`` clears, where the content waits for its name; without one it waits beside it.
    """
    name = f"{_place()}.{os.getpid()}.{next(_counter)}"
    fresh = aside / name if aside is not None else path.with_name(f".tmp-{name}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        is_ours = False
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
            is_ours = True
    finally:
        fresh.unlink(missing_ok=True)
    sync_dir(path.parent)
    return is_ours


def write_new(path: Path | str, document: Any, *, durable: bool = True) -> None:
    """Write JSON to a file that is not there yet, in a folder that nobody looks into yet; waits for the disk.

    For a folder that gets its name only when it is whole. Its entries are durable after ``sync_dir``.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(dumps(document).encode("utf-8"))
        while view:
            view = view[os.write(handle, view) :]
        if durable and _Settings.durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path | str, document: Any, *, durable: bool = True) -> None:
    write_bytes(path, dumps(document).encode("utf-8"), durable=durable)


def write_text(path: Path | str, text: str, *, durable: bool = True) -> None:
    write_bytes(path, text.encode("utf-8", "surrogateescape"), durable=durable)


def sync_dir(folder: Path | str) -> None:
    """Make the folder's entries durable."""
    if not _Settings.durable:
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_files(folder: Path | str) -> list[str]:
    """Return the paths of the folder's JSON files, sorted; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{folder}/{n}" for n in sorted(found) if n.endswith(".json") and n[0] != "."]


def read_json(path: Path | str) -> Any:
    """Return the document in ``path``, which is an object as all documents of the store are.

    Raises:
        FileNotFoundError: there is none.
        CorruptFile: it is no JSON object.
    """
    try:
        document = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise CorruptFile(f"{path}: is no JSON object")
    return document


def read_bytes(path: Path | str) -> bytes:
    """Return the bytes of a regular file: a pipe or a device in its place is not waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        handle = packed.open_file(path)
    try:
        info = os.fstat(handle)
        if stat.S_ISDIR(info.st_mode):
            raise CorruptFile(f"{path}: is a folder, not a file")
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST:
            raise CorruptFile(f"{path}: is no file of the store")
        with open(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


def parse[Model: "BaseModel"](model: type[Model], document: Any, path: Path | str) -> Model:
    """Return the record that was read from ``path``.

    Raises:
        CorruptFile: it is not one.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(map(str, first["loc"]))
        raise CorruptFile(f"{path}: {place and f'/{place}: '}{first['msg']}") from None


def read_record[Model: "BaseModel"](model: type[Model], path: Path | str) -> Model:
    """Return the record in ``path``; raises as ``read_json`` and ``parse`` do."""
    return parse(model, read_json(path), path)


def read_json_or_none(path: Path | str) -> Any:
    """As ``read_json``, None where there is no such file."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


_CHECK = b',"check":"'


def summed(data: bytes) -> bytes:
    """Return a JSON object with a last member ``check``, the CRC-32 of all that is before it: for what is kept to be looked at again."""
    body = data.removesuffix(b"\n").removesuffix(b"}")
    return b'%b%b%08x"}\n' % (body, _CHECK, zlib.crc32(body))


def unsummed(data: bytes) -> bytes:
    """Return what ``summed`` was given.

    Raises:
        CorruptFile: it is spoilt, or somebody else has changed it.
    """
    body, _, check = data.rpartition(_CHECK)
    if check != b'%08x"}\n' % zlib.crc32(body):
        raise CorruptFile("has another check than its content")
    return body + b"}\n"


def write_kept(path: Path | str, document: Mapping[str, Any]) -> None:
    """Keep what views are read from until something changes."""
    write_bytes(path, summed(dumps(document).encode()), durable=False)


def read_kept(path: Path | str) -> dict[str, Any]:
    """Return what was kept; an empty document where it is gone, spoilt, or was changed by anybody else."""
    try:
        document: dict[str, Any] = json.loads(unsummed(read_bytes(path)))
    except (CorruptFile, OSError, ValueError, RecursionError):
        return {}
    return document


def read_derived(path: Path | str) -> dict[str, Any]:
    """Return the document in a file that can be made anew; an empty one where it is gone or spoilt."""
    try:
        document: dict[str, Any] = read_json(path)
    except (CorruptFile, OSError):
        return {}
    return document
