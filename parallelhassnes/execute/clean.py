"""Making what a worker left fit to be sealed: within bounds, ours alone, without secrets.

One walk (``walk.py``) looks at every entry once:

* What is past the bounds of the configuration (entries, depth, data, time), too long a path for the system, or a device
  is *left out*: put where ticks remove it, and named in the seal. Once the time is over, or the attempt has been cancelled for
  some time, that holds for all that has not been looked at: nothing that may hold a secret stays.
* Set-id bits, file capabilities and other owners go. A file that has other names, too (hard links, perhaps outside), is
  replaced by a copy of our own instead, so that nothing outside changes.
* A compressed file that holds a secret is left out.
* Secrets go out of names, targets of links, extended attributes and the content of regular files. In a text file a secret
  becomes ``[REDACTED:NAME]``; in a binary one (a null byte among the first 8192) or a sparse one it is written over by as many ``*``, so
  that nothing moves. A file is made anew beside its place and renamed; where there is no space for that it is written
  over in place. Holes are not read.

A crash anywhere leaves files with and without secrets and no seal; whoever finishes the attempt looks at all of them again.
"""

import contextlib
import itertools
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import walk
from parallelhassnes.config import Bounds
from parallelhassnes.execute import own_files, unpacked
from parallelhassnes.execute.redact import Match, Redactor
from parallelhassnes.formatting import counted
from parallelhassnes.store import atomic, attempts, space
from parallelhassnes.walk import Entry, OutOfTime

_SNIFFED = 8192
_LONGEST_PATH = 3_000
"""Bytes of a path below the attempt's folder that every system call and archive still takes with the folders above it."""
_LONGEST_NAME = 255
_MOST_NAMED = 1_000
"""Left out entries that a seal names; of more, it says how many."""
_OWN = frozenset({attempts.META, attempts.STATE, attempts.FINAL, attempts.FINAL_TEXT, *attempts.LOGS, "supervisor.log"})
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID
_TEMPORARY = ".tmp-"


class Patience:
    """How long an attempt's end may still take."""

    def __init__(self, bounds: Bounds, is_canceled: Callable[[], bool] = lambda: False) -> None:
        self._bounds, self._is_canceled = bounds, is_canceled
        self._end = time.monotonic() + bounds.max_sec
        self._why = f"the end had taken {bounds.max_sec:g} s (bounds.max_sec)"
        self._look = 0.0
        self._canceled = False

    def check(self) -> None:
        """Raises OutOfTime once it is over; looks for a cancel twice a second."""
        now = time.monotonic()
        if now >= self._look and not self._canceled:
            self._look = now + 0.5
            if self._is_canceled():
                self._canceled = True
                if now + self._bounds.cancel_sec < self._end:
                    self._end = now + self._bounds.cancel_sec
                    self._why = f"the attempt was canceled and its end had taken {self._bounds.cancel_sec:g} s more (bounds.cancel_sec)"
        if now > self._end:
            raise OutOfTime(self._why)


class Cleaned(NamedTuple):
    """What was done; paths are relative to the attempt's folder."""

    redacted: dict[str, dict[str, int]]
    """Path → name of a secret → how often."""
    left_out: list[dict[str, Any]]
    """``path`` and ``why`` of what is not there any more or could not be looked at; ``more``, how many more, last."""


def clean(attempt_dir: Path, redactor: Redactor, bounds: Bounds, patience: Patience) -> Cleaned:
    """Make everything below the folder fit to be sealed.

    Raises:
        OSError: a file with a secret can neither be made anew, nor written over, nor left out.
    """
    top = walk.open_folder(attempt_dir)
    try:
        cleaner = _Cleaner(top, redactor, bounds, patience)
        cleaner.run()
    finally:
        os.close(top)
    return Cleaned(cleaner.redacted, cleaner.named_left_out())


class _Cleaner:
    """One cleaning of one attempt."""

    def __init__(self, top: int, redactor: Redactor, bounds: Bounds, patience: Patience) -> None:
        self._top, self._redactor, self._bounds, self._patience = top, redactor, bounds, patience
        self._room, self._data = bounds.max_files, bounds.max_mb << 20
        self.redacted: dict[str, dict[str, int]] = {}
        self._left_out: list[dict[str, Any]] = []
        self._more = 0
        self._is_own = False

    def run(self) -> None:
        self._thin_out()
        for entry in walk.walk(self._top, lambda: self._room):
            if entry.leaving:
                self._leave_folder(entry)
            elif not (entry.depth == 1 and entry.name == attempts.SEAL):
                self._visit(entry)

    def _check(self) -> None:
        if not self._is_own:
            self._patience.check()

    def named_left_out(self) -> list[dict[str, Any]]:
        return self._left_out + ([{"more": self._more}] if self._more else [])

    # --- what is left out -----------------------------------------------------------------------------

    def _thin_out(self) -> None:
        """Leave out what is too much in the attempt's own folder, which cannot be left out whole."""
        with os.scandir(self._top) as entries:
            count = sum(1 for _ in entries)
        if count <= self._bounds.max_files:
            return
        kept = self._bounds.max_files - len(_OWN)
        place = atomic.to_be_swept()
        if place is None:
            return
        place.mkdir()
        away = walk.open_folder(place)
        try:
            with os.scandir(self._top) as entries:
                surplus = itertools.islice(entries, kept, None)
                for entry in surplus:
                    if entry.name not in _OWN:
                        with contextlib.suppress(OSError):
                            os.rename(entry.name, entry.name, src_dir_fd=self._top, dst_dir_fd=away)
        finally:
            os.close(away)
        self._note(f"{count - kept} entries of the attempt's folder", self._too_many())

    def _too_many(self) -> str:
        return f"past {counted(self._bounds.max_files, 'file')} (bounds.max_files)"

    def _visit(self, entry: Entry) -> None:
        self._room -= 1
        if entry.depth == 1 and entry.name.startswith(_TEMPORARY):  # of a supervisor that died while it wrote
            entry.skip()
            walk.put_away(entry.folder, entry.name, atomic.to_be_swept())
            return
        self._is_own = entry.depth == 1 and entry.name in _OWN  # bounded already, and always kept
        try:
            self._check()
            why = None if self._is_own else self._excess(entry)
            if why is None:
                self._make_ours(entry)
                return
        except OutOfTime as error:
            why = str(error)
        except OSError as error:
            if space.is_full(error):
                raise
            why = f"cannot be looked at: {error.strerror}"
        self._leave_out(entry, why)

    def _excess(self, entry: Entry) -> str | None:
        """Tell why the entry is left out; None where it is kept."""
        info = entry.info
        if self._room < 0:
            return self._too_many()
        if entry.depth > self._bounds.max_depth:
            return f"in more than {self._bounds.max_depth} folders (bounds.max_depth)"
        can_be_long = entry.depth > _LONGEST_PATH // (_LONGEST_NAME + 1)
        if can_be_long and len(os.fsencode(entry.path)) > _LONGEST_PATH:
            return f"its path is longer than {_LONGEST_PATH} bytes"
        if stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
            return "is a device"
        if entry.is_file:
            self._data -= (size := min(info.st_size, info.st_blocks * 512))
            if self._data < 0:
                self._data += size
                return f"past {self._bounds.max_mb} MB of data (bounds.max_mb)"
        return None

    def _leave_out(self, entry: Entry, why: str) -> None:
        entry.skip()
        path, name = self._shown(entry), entry.name
        try:
            walk.put_away(entry.folder, name, atomic.to_be_swept())
        except OSError as error:
            why = f"{why}; it is still there: {error.strerror}"
        self._note(path, why)

    def _note(self, path: str, why: str) -> None:
        if len(self._left_out) < _MOST_NAMED:
            self._left_out.append({"path": path, "why": why})
        else:
            self._more += 1

    def _shown(self, entry: Entry) -> str:
        """Return the entry's path as a seal can name it: without secrets, and not endless."""
        path = self._redactor.text(entry.path)
        return path if len(path) <= 500 else f"{path[:250]}…{path[-249:]}"

    def _leave_folder(self, entry: Entry) -> None:
        if entry.error is not None:
            if entry.error.errno == walk.TOO_MANY:
                self._leave_out(entry, self._too_many())
                return
            self._note(self._shown(entry), f"not looked into: {entry.error.strerror}")
        try:
            self._clean_name(entry)
        except OSError as error:
            if space.is_full(error):
                raise
            self._leave_out(entry, f"its name cannot be changed: {error.strerror}")

    # --- owners, modes, attributes --------------------------------------------------------------------

    def _make_ours(self, entry: Entry) -> None:
        """Take from one entry what it must not have, but for a folder's name, which goes when it is left."""
        own_files.allow(entry.folder, entry.name)
        if entry.is_file:
            self._clean_file(entry)
        elif entry.is_link:
            self._clean_link(entry)
        attributes = [] if entry.is_file or entry.is_link else self._bad_attributes(entry)
        if not entry.is_file and (attributes or self._is_unsafe(entry.info)):
            self._mend(entry, attributes)
        if not entry.is_folder:
            self._clean_name(entry)

    def _is_unsafe(self, info: os.stat_result) -> bool:
        bits = stat.S_ISUID if stat.S_ISDIR(info.st_mode) else _SET_ID
        linked = stat.S_ISLNK(info.st_mode)  # has no permissions of its own
        return info.st_uid != os.geteuid() or (not linked and bool(info.st_mode & bits))

    def _bad_attributes(self, entry: Entry) -> list[str]:
        """Return extended attributes that are capabilities or hold a secret."""
        if not hasattr(os, "listxattr"):
            return []
        place = f"/proc/self/fd/{entry.folder}/{entry.name}"
        found = []
        with contextlib.suppress(OSError):
            for name in os.listxattr(place, follow_symlinks=False):
                value = os.getxattr(place, name, follow_symlinks=False)
                said = os.fsencode(name) + b"=" + value
                if name == "security.capability" or self._redactor.find(said):
                    found.append(name)
        return found

    def _mend(self, entry: Entry, attributes: list[str]) -> None:
        """Take set-id bits, another owner and these attributes from what has no other name."""
        folder, name = entry.folder, entry.name
        try:
            for each in attributes:
                os.removexattr(f"/proc/self/fd/{folder}/{name}", each, follow_symlinks=False)
            if attributes and any(each != "security.capability" for each in attributes):
                self.redacted.setdefault(entry.path, {})["attribute"] = len(attributes)
            if entry.info.st_uid != os.geteuid():
                os.chown(name, os.geteuid(), os.getegid(), dir_fd=folder, follow_symlinks=False)
            bits = stat.S_ISUID if entry.is_folder else _SET_ID
            walk.set_mode(folder, name, lambda mode: mode & ~bits)
        except OSError as error:
            self._note(self._shown(entry), f"kept as it is: {error.strerror}")

    # --- names ----------------------------------------------------------------------------------------

    def _clean_link(self, entry: Entry) -> None:
        target = os.readlink(entry.name, dir_fd=entry.folder)
        cleaned = self._redactor.text(target)
        if cleaned != target:
            os.unlink(entry.name, dir_fd=entry.folder)
            os.symlink(cleaned[:_LONGEST_PATH], entry.name, dir_fd=entry.folder)
            self.redacted.setdefault(entry.path, {})["link"] = 1

    def _clean_name(self, entry: Entry) -> None:
        if entry.depth == 1 and entry.name in _OWN:
            return
        cleaned = self._redactor.text(entry.name).replace("/", "_")
        if cleaned == entry.name:
            return
        before = entry.path
        for number in range(1000):
            tail = f"_{number}" if number else ""
            fresh = os.fsdecode(os.fsencode(cleaned)[: _LONGEST_NAME - len(tail)]) + tail
            try:
                os.stat(fresh, dir_fd=entry.folder, follow_symlinks=False)
            except FileNotFoundError:
                break
        os.rename(entry.name, fresh, src_dir_fd=entry.folder, dst_dir_fd=entry.folder)
        entry.name = fresh
        for path in [path for path in self.redacted if f"{path}/".startswith(f"{before}/")]:
            self.redacted[entry.path + path[len(before) :]] = self.redacted.pop(path)
        self.redacted.setdefault(entry.path, {})["name"] = 1

    # --- content --------------------------------------------------------------------------------------

    def _clean_file(self, entry: Entry) -> None:
        try:
            handle = entry.open()
        except OSError:  # another user's, which the seal names as unreadable
            return
        try:
            attributes = self._bad_attributes(entry)
            unsafe = self._is_unsafe(entry.info) or bool(attributes)
            foreign = entry.info.st_uid != os.geteuid() and os.geteuid() != 0
            shared = entry.info.st_nlink > 1
            found = next((m for _, _, some in self._pieces(handle) for m in some), None)
            packed = None if self._is_own else self._packed(handle)
            if packed is not None:
                self._leave_out(entry, f"holds {packed}, compressed")
                return
            if self._is_own and entry.name.endswith(".json"):
                if found is not None:
                    self._clean_record(entry, handle)
            elif found is not None or (unsafe and (foreign or shared)):
                self._make_anew(entry, handle)
            elif unsafe:
                self._mend(entry, attributes)
        finally:
            os.close(handle)

    def _packed(self, handle: int) -> str | None:
        """Return the name of a secret that is in a compressed file; None where there is none."""
        return self._redactor.first_in(self._bounded(unpacked.pieces(handle, os.pread(handle, 8, 0))))

    def _bounded(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the parts, as long as there is time and they are no more data than is kept of an attempt.

        Raises:
            OutOfTime: one of both is over.
        """
        left = self._bounds.max_mb << 20
        for part in parts:
            self._check()
            left -= len(part)
            if left < 0:
                raise OutOfTime(f"unpacks to more than {self._bounds.max_mb} MB (bounds.max_mb)")
            yield part

    def _clean_record(self, entry: Entry, handle: int) -> None:
        """Take secrets out of the texts of a record of ours, and of nothing else of it."""
        data = b"".join(data for _, data, _ in self._pieces(handle))
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            self._make_anew(entry, handle)
            return
        count = _clean_texts(document, self._redactor)
        temporary = f"{_TEMPORARY}{os.getpid()}-clean"
        out = os.open(temporary, _MAKE, 0o600, dir_fd=self._top)
        with os.fdopen(out, "wb") as stream:
            stream.write(atomic.dumps(document).encode())
        os.rename(temporary, entry.name, src_dir_fd=self._top, dst_dir_fd=entry.folder)
        self.redacted.setdefault(entry.path, {}).update(count)

    def _pieces(self, handle: int) -> Iterator[tuple[int, memoryview, list[Match]]]:
        for start, end in walk.data_of(handle):
            for piece in self._redactor.pieces(handle, start, end):
                self._check()
                yield piece

    def _make_anew(self, entry: Entry, handle: int) -> None:
        """Put a copy of our own without secrets in the file's place, or take them out in place where there is no space."""
        info = os.fstat(handle)
        same_size = b"\0" in os.pread(handle, _SNIFFED, 0) or info.st_blocks * 512 < info.st_size
        temporary = f"{_TEMPORARY}{os.getpid()}-clean"
        try:
            out = os.open(temporary, _MAKE, 0o600, dir_fd=self._top)
            try:
                found = self._copy(handle, out, same_size=same_size)
                os.fchmod(out, stat.S_IMODE(info.st_mode) & 0o777)
            finally:
                os.close(out)
            os.rename(temporary, entry.name, src_dir_fd=self._top, dst_dir_fd=entry.folder)
        except (OSError, OutOfTime) as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._top)
            if isinstance(error, OutOfTime):
                raise
            if info.st_nlink > 1 or info.st_uid != os.geteuid():
                self._leave_out(entry, f"cannot be made ours: {error.strerror}")
                return
            found = self._write_over(entry, handle)
        if found:
            self.redacted.setdefault(entry.path, {}).update(found)

    def _copy(self, handle: int, out: int, *, same_size: bool) -> Counter[str]:
        found: Counter[str] = Counter()
        for offset, data, matches in self._pieces(handle):
            clean = self._redactor.replace(data, matches, same_size=same_size)
            if same_size:
                os.lseek(out, offset, os.SEEK_SET)
            view = memoryview(clean)
            while view:
                view = view[os.write(out, view) :]
            found.update(match.name for match in matches)
        if same_size:
            os.ftruncate(out, os.fstat(handle).st_size)
        return found

    def _write_over(self, entry: Entry, handle: int) -> Counter[str]:
        """Put as many ``*`` in the place of each secret."""
        found: Counter[str] = Counter()
        walk.set_mode(entry.folder, entry.name, lambda mode: mode | stat.S_IWUSR)
        writer = entry.open(os.O_WRONLY)
        try:
            for offset, _, matches in self._pieces(handle):
                for match in matches:
                    os.pwrite(writer, match.stand_in(same_size=True), offset + match.start)
                    found[match.name] += 1
        finally:
            os.close(writer)
        return found


def _clean_texts(document: Any, redactor: Redactor) -> Counter[str]:
    """Take secrets out of every text below a JSON value, in place; how often each was there."""
    found: Counter[str] = Counter()

    def cleaned(text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        matches = redactor.find(data)
        found.update(match.name for match in matches)
        return redactor.replace(data, matches).decode("utf-8", "replace") if matches else text

    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            items = [(cleaned(key), below) for key, below in value.items()]
            value.clear()
            value.update(items)
        each = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in list(each):
            if isinstance(below, str):
                value[key] = cleaned(below)
            elif isinstance(below, dict | list):
                left.append(below)
    return found
