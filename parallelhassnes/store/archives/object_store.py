"""Where archives of batches are kept: a bucket of S3, Google or Azure, by obstore, or a folder.

Three acts are all that is asked of it: write a key where there is none (``If-None-Match: *``; of a folder, ``link()``), read a key, list
what a key begins with. Nothing is written twice and nothing is removed, so two who write at once do no harm, and a bucket may lock what it
has. A key appears whole or not at all. A fourth act, to put right what is under a key, is for mending alone (``Mending``).

Credentials come from the environment, or from ``env_file``, by the names that each provider gives them. They are written nowhere; of what a
server says, only its status and its code are told, since the rest may hold what signs a request.
"""

import contextlib
import errno
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, Protocol, override

from parallelhassnes.config import ARCHIVE_VARIABLES, check_archive_url
from parallelhassnes.errors import UserError, extra
from parallelhassnes.store import atomic, process_identity

LARGEST = 1 << 30
"""Bytes of one object at most."""
_TRIES = 6
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
_STATUS, _CODE = re.compile(r"status code: (\d{3})"), re.compile(r"<Code>([A-Za-z]{1,64})</Code>")


class StoreTrouble(UserError):
    """The place does not do what is asked of it: it cannot be reached, is not there, or refuses."""


class NotThere(Exception):
    """There is nothing under a key."""


class TooLarge(Exception):
    """Under a key is more than anybody has put there, and none of it was read."""

    def __init__(self) -> None:
        super().__init__("is larger than anything that a push writes")


class ObjectStore(Protocol):
    """A place that keeps bytes under keys."""

    url: str
    """As it was named."""
    address: str
    """The same for use from anywhere: of a folder its whole path."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a key; False where it was there, which stays as it was.

        Raises:
            StoreTrouble: that could not be done.
        """

    def read(self, key: str, most: int = LARGEST) -> bytes:
        """Return what is under a key.

        Args:
            most: bytes of it that are taken into memory at most.

        Raises:
            NotThere: nothing is.
            TooLarge: it is more than that.
            StoreTrouble: that cannot be told.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write a key, whatever was there.

        Raises:
            StoreTrouble: that could not be done.
        """

    def names(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield what is right below a key, each with its size; what is further below counts as one, of no size.

        Raises:
            StoreTrouble: that cannot be told.
        """


def open_store(
    url: str, variables: Mapping[str, str], *, at: Path, mb_per_sec: float = 0.0, timeout_sec: float = 60.0
) -> ObjectStore:
    """Return the place that an address names; nothing is asked of it yet.

    Args:
        variables: where credentials are looked for, by name.
        at: the folder that a relative path is meant from.
        mb_per_sec: what is written per second at most; 0 for all that goes.
        timeout_sec: time that a server may leave a request without an answer.

    Raises:
        UserError: it is no address of such a place, or obstore is not installed.
    """
    try:
        check_archive_url(url)
    except ValueError as error:
        shown = url if "credential" not in str(error) else url.partition("://")[0] + "://…"
        message, _, fix = str(error).partition("; ")
        raise UserError(f"{shown}: {message}", fix=fix) from None
    if "://" not in url or url.startswith("file://"):
        return Folder(url, at / Path(url.removeprefix("file://")).expanduser(), _Pace(mb_per_sec))
    return Bucket(url, variables, _Pace(mb_per_sec), timeout_sec)


class _Pace:
    """Has whoever writes wait, so that no more than so much goes out per second."""

    def __init__(self, mb_per_sec: float) -> None:
        self._rate, self._free_at, self._lock = mb_per_sec * 1e6, 0.0, threading.Lock()

    def wait(self, size: int) -> None:
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            begins = max(now, self._free_at)
            self._free_at = begins + size / self._rate
        time.sleep(begins - now)


class Mending(ObjectStore):
    """A place whose keys are put right: one that is there with other bytes than what it is asked to hold is replaced.

    Only for keys of which there is one right content, or any that says the same: blobs, seals, tasks; never for heads.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.url, self.address, self.plain = store.url, store.address, store
        self.mended = 0
        """Objects that were put right, or had gone."""

    @override
    def create(self, key: str, data: bytes) -> bool:
        try:
            if self.plain.read(key, len(data)) == data:
                return False
        except (NotThere, TooLarge):
            pass
        self.plain.replace(key, data)
        self.mended += 1
        return True

    @override
    def replace(self, key: str, data: bytes) -> None:
        self.plain.replace(key, data)

    @override
    def read(self, key: str, most: int = LARGEST) -> bytes:
        return self.plain.read(key, most)

    @override
    def names(self, folder: str) -> Iterator[tuple[str, int]]:
        return self.plain.names(folder)


def as_it_is(store: ObjectStore) -> ObjectStore:
    """Return the place without mending: what is there stays."""
    return store.plain if isinstance(store, Mending) else store


def _check_is_file(info: os.stat_result) -> None:
    """Refuse what lies in an object's place and is none."""
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "it is no file")


def _without_waiting(path: str, flags: int) -> int:
    """Open what may be a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


# --- a folder ---------------------------------------------------------------------------------------------------


class Folder(ObjectStore):
    """A folder, on whatever disk: a key is a path below it."""

    def __init__(self, url: str, path: Path, pace: _Pace) -> None:
        self.url, self._path, self._pace = url, path, pace
        self.address = os.path.abspath(path)  # noqa: PTH100 - without what links lead to
        self._is_swept = False

    @override
    def create(self, key: str, data: bytes) -> bool:
        path = self._path / key
        try:
            if path.exists():
                _check_is_file(path.stat())
                return False
            self._pace.wait(len(data))
            self._make(path.parent)
            self._make(self._temp)
            return atomic.claim(path, data, aside=self._temp)
        except OSError as error:
            self._refuse(error, "written", key)

    @override
    def replace(self, key: str, data: bytes) -> None:
        path = self._path / key
        try:
            self._make(path.parent)
            atomic.write_bytes(path, data)
        except OSError as error:
            self._refuse(error, "written", key)

    @property
    def _temp(self) -> Path:
        """Where content waits for its name."""
        return self._path / "tmp"

    def _sweep(self) -> None:
        """Remove what writers that were killed have left, once."""
        if not self._is_swept:
            self._is_swept = True
            with contextlib.suppress(OSError):  # who only reads may do no such thing
                atomic.sweep_temp(self._temp, lambda pid: process_identity.is_alive(pid, None))

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            if folder != self._path:
                self._make(folder.parent)
            folder.mkdir(exist_ok=True, parents=folder == self._path)
            atomic.sync_dir(folder.parent)

    @override
    def read(self, key: str, most: int = LARGEST) -> bytes:
        try:
            with open(self._path / key, "rb", opener=_without_waiting) as stream:
                info = os.fstat(stream.fileno())
                _check_is_file(info)
                data = stream.read(min(info.st_size, most) + 1)
        except (FileNotFoundError, NotADirectoryError):
            self._check_links(key)
            raise NotThere(key) from None
        except OSError as error:
            self._refuse(error, "read", key)
        if len(data) > most:
            raise TooLarge
        return data

    @override
    def names(self, folder: str) -> Iterator[tuple[str, int]]:
        self._sweep()
        try:
            with os.scandir(self._path / folder) as entries:
                found = [(entry.name, 0 if entry.is_dir() else entry.stat().st_size) for entry in entries]
        except FileNotFoundError as error:
            missing = Path(error.filename or self._path / folder)
            self._check_links(str(missing.relative_to(self._path)))
            if missing != self._path / folder:  # it has just gone
                self._refuse(error, "listed", folder)
            if not self._path.parent.is_dir():
                raise StoreTrouble(
                    f"{self.url}: there is no such folder, nor the one above it", fix="make it, or mount it"
                ) from None
            return
        except OSError as error:
            self._refuse(error, "listed", folder)
        yield from sorted(each for each in found if each[0][0] != ".")

    def _check_links(self, key: str) -> None:
        """Refuse a key that is not there because a link on the way to it leads nowhere, as one to a disk that is not mounted: it says nothing of what was there."""
        path = self._path / key
        for each in (*path.parents[: len(Path(key).parts)], path):
            if each.is_symlink() and not each.exists():
                fix = "mount what it leads to, or remove the link"
                raise StoreTrouble(f"{self.url}: {each} is a link that leads nowhere", fix=fix)

    def _refuse(self, error: OSError, what: str, key: str) -> NoReturn:
        fix = "look after the disk or the mount, and whether you may use it"
        if error.errno in (errno.EISDIR, errno.EINVAL):
            fix = f"move {self._path / key} away"
        raise StoreTrouble(f"{self.url}: {key} cannot be {what} ({error.strerror})", fix=fix) from None


# --- a bucket ---------------------------------------------------------------------------------------------------


class Bucket(ObjectStore):
    """A bucket, and a folder in it."""

    def __init__(self, url: str, variables: Mapping[str, str], pace: _Pace, timeout_sec: float) -> None:
        with extra("archive", "an archive in a bucket needs"):
            import obstore
            from obstore import exceptions, store
        self.url, self._pace, self._obstore, self._errors = url, pace, obstore, exceptions
        self.address = url.rstrip("/")
        self._timeout_sec = timeout_sec
        self._store = self._open(store.from_url, variables)

    def _open(self, from_url: Any, variables: Mapping[str, str]) -> Any:
        scheme = self.url.partition("://")[0]
        prefix = ARCHIVE_VARIABLES[scheme]
        said = {name.lower(): value for name, value in variables.items() if name.startswith(prefix) and value}
        plain = any(variables.get(name, "").startswith("http://") for name in _ENDPOINTS)
        options: dict[str, Any] = {
            "client_options": {
                "allow_http": plain,
                "connect_timeout": f"{min(10.0, self._timeout_sec)}s",
                "read_timeout": f"{self._timeout_sec}s",
                "timeout": f"{10 * self._timeout_sec}s",
            },
            "retry_config": {"max_retries": _TRIES, "retry_timeout": timedelta(seconds=self._timeout_sec)},
        }
        known: dict[str, str] = {}
        for name, value in said.items():
            try:
                from_url(self.url, **options, **{name: value})
            except self._errors.UnknownConfigurationKeyError:
                continue
            except (self._errors.BaseError, ValueError):
                pass  # it wants another one, too
            known[name] = value
        if prefix == "AWS_":
            known.setdefault("checksum_algorithm", "SHA256")  # what a bucket that locks its objects asks for
        try:
            return from_url(self.url, **options, **known)
        except (self._errors.BaseError, ValueError):
            fix = f"look at the address, and at what the environment, or env_file, sets of {prefix}…"
            raise UserError(f"{self.url}: cannot be used with what is set for it", fix=fix) from None

    @override
    def create(self, key: str, data: bytes) -> bool:
        self._pace.wait(len(data))
        try:
            self._obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
            return False
        except (self._errors.BaseError, OSError) as error:
            self._refuse(error)
        return True

    @override
    def replace(self, key: str, data: bytes) -> None:
        self._pace.wait(len(data))
        try:
            self._obstore.put(self._store, key, data, use_multipart=False)
        except (self._errors.BaseError, OSError) as error:
            self._refuse(error)

    @override
    def read(self, key: str, most: int = LARGEST) -> bytes:
        try:
            found = self._obstore.get(self._store, key)
            if found.meta["size"] > most:
                raise TooLarge
            return found.bytes().to_bytes()
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                self._refuse(error)
            raise NotThere(key) from None
        except (self._errors.BaseError, OSError) as error:
            self._refuse(error)

    @override
    def names(self, folder: str) -> Iterator[tuple[str, int]]:
        try:
            found = self._obstore.list_with_delimiter(self._store, folder or None)
        except (self._errors.BaseError, OSError) as error:
            self._refuse(error)
        for path in sorted(found["common_prefixes"]):
            yield path.rpartition("/")[2], 0
        for each in found["objects"]:
            yield each["path"].rpartition("/")[2], each["size"]

    def _refuse(self, error: Exception) -> NoReturn:
        """Tell what is wrong in words of ours: what a server says may hold a signature."""
        said = str(error)
        status, code = _STATUS.search(said), _CODE.search(said)
        shown = ", ".join(found[1] for found in (status, code) if found)
        number = status[1] if status else ""
        prefix = ARCHIVE_VARIABLES[self.url.partition("://")[0]]
        if "169.254.169.254" in said or "metadata.google" in said:
            what, fix = "there are no credentials", f"set {prefix}… in the environment or in env_file"
        elif (
            "NoSuchBucket" in said
            or "ContainerNotFound" in said
            or (number == "404" and "bucket does not exist" in said)
        ):
            what, fix = "there is no such bucket", "make it, or correct the address or the endpoint"
        elif number in ("401", "403") or type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
            what, fix = "access is denied", f"look at the credentials ({prefix}…) and at what they may do there"
        elif number.startswith("5"):
            what, fix = "the server fails", "say it again later; what is there already is not sent twice"
        elif not number and ("operation timed out" in said or "TimedOut" in said) and "tcp connect" not in said:
            what = f"does not answer within {self._timeout_sec:g} s"
            fix = "say it again later; archive_timeout_sec of parallelhassnes.toml is how long to wait"
        elif not number and (
            "error sending request" in said or "timed out" in said or "timeout" in said or isinstance(error, OSError)
        ):
            what = "cannot be reached"
            fix = f"look at the network and at the endpoint ({', '.join(n for n in _ENDPOINTS if n.startswith(prefix))}), then say it again"
        else:
            what, fix = "the server refuses what was asked", "look at the address and at the server's log"
        raise StoreTrouble(f"{self.url}: {what}{f' ({shown})' if shown else ''}", fix=fix) from None
