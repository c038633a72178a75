"""Taking secrets out of an attempt's files before the seal.

Every regular file, file name and link target of the attempt is looked at, in pieces of bounded size that
overlap. In a text file a secret becomes ``[REDACTED:NAME]``; in a binary one (a null byte among the first
8192) it is written over in place by as many ``*``, so that nothing moves. A text file is made anew beside its
place and renamed, which leaves a hard link from outside alone; where there is no space for that, it is
written over in place as a binary one is. Links are not followed. What is compressed or encrypted is not seen.

A crash anywhere leaves files with and without secrets and no seal; whoever finishes the attempt looks at
all of them again.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.execute import secret_forms
from parallelhassnes.store.attempts import SEAL

CHUNK = 4 << 20
_SNIFFED = 8192


class _Match(NamedTuple):
    start: int
    end: int
    name: str
    digits: bool

    def stand_in(self, *, same_size: bool) -> bytes:
        if self.digits:
            return b"9" * (self.end - self.start)
        if same_size:
            return b"*" * (self.end - self.start)
        return f"[REDACTED:{self.name}]".encode()


class Redactor:
    """What is to be taken out; made once for an attempt.

    Args:
        values: name → value of each secret that the attempt was given.
        chunk: bytes of a file that are looked at at once.
    """

    def __init__(self, values: Mapping[str, str], chunk: int = CHUNK) -> None:
        self._chunk = chunk
        self._literals = secret_forms.literals(values)
        self._wrapped = secret_forms.wrapped(values)
        longest = max((8 * len(value.encode()) for value in values.values()), default=0)
        self._overlap = max(secret_forms.MAX_SHAPE, longest) + 64

    def clean(self, attempt_dir: Path) -> dict[str, dict[str, int]]:
        """Take the secrets out of every file below the folder; relative path → name → how often.

        Raises:
            OSError: a file with a secret can neither be made anew nor written over.
        """
        report: dict[str, dict[str, int]] = {}
        for folder, folders, names in os.walk(attempt_dir, topdown=False):
            for name in names:
                if not (name == SEAL and folder == str(attempt_dir)):
                    self._clean_entry(attempt_dir, folder, name, report)
            for name in folders:
                self._clean_name(attempt_dir, folder, name, report)
        return report

    def text(self, said: str) -> str:
        """The same text without secrets."""
        data = said.encode("utf-8", "surrogateescape")
        return self._replace(data, self._find(data)).decode("utf-8", "surrogateescape")

    def _clean_entry(
        self, top: Path, folder: str, name: str, report: dict[str, dict[str, int]]
    ) -> None:
        name = self._clean_name(top, folder, name, report)
        path = f"{folder}/{name}"
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a link, or another user's file, which the seal names as unreadable
            return
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return
            first = next(self._matches(handle), None)
            if first is None:
                return
            found = self._rewrite(handle, path, top)
        finally:
            os.close(handle)
        report.setdefault(os.path.relpath(path, top), {}).update(found)

    def _clean_name(
        self, top: Path, folder: str, name: str, report: dict[str, dict[str, int]]
    ) -> str:
        """Take secrets out of a file's name and of what a link points to; the name that it has now."""
        place = f"{folder}/{name}"
        if os.path.islink(place):  # noqa: PTH114 - hot path
            target = os.readlink(place)  # noqa: PTH115 - as text, whatever it is
            cleaned = self.text(target)
            if cleaned != target:
                Path(place).unlink()
                Path(place).symlink_to(cleaned)
                self._note(report, Path(place), top, "link")
        cleaned = self.text(name).replace("/", "_")
        if cleaned == name:
            return name
        path = Path(place)
        fresh = path.with_name(cleaned)
        while os.path.lexists(fresh):
            fresh = fresh.with_name(f"{fresh.name}_")
        path.rename(fresh)
        self._note(report, fresh, top, "name")
        return fresh.name

    def _note(self, report: dict[str, dict[str, int]], path: Path, top: Path, what: str) -> None:
        report.setdefault(os.path.relpath(path, top), {})[what] = 1

    # --- one file -------------------------------------------------------------------------------------

    def _pieces(self, handle: int) -> Iterator[tuple[int, bytes, list[_Match]]]:
        """(offset, bytes, matches in them), the file's bytes in order, each once; no match is across two pieces."""
        offset, held, at_end = 0, b"", False
        while not at_end:
            chunk = os.pread(handle, self._chunk, offset + len(held))
            at_end = len(chunk) < self._chunk
            if at_end and chunk:  # a short read is not the end, nothing read is
                at_end = not os.pread(handle, 1, offset + len(held) + len(chunk))
            data = held + chunk
            matches = self._find(data)
            cut = len(data) if at_end else max(0, len(data) - self._overlap)
            if not at_end:
                matches = [match for match in matches if match.start < cut]
                cut = max([cut, *(match.end for match in matches)])
            if cut:
                yield offset, data[:cut], matches
            offset, held = offset + cut, data[cut:]

    def _matches(self, handle: int) -> Iterator[_Match]:
        for _, _, matches in self._pieces(handle):
            yield from matches

    def _find(self, data: bytes) -> list[_Match]:
        """Every secret in the bytes, in order, none inside another."""
        found = []
        for name, form, digits in self._literals:
            at = data.find(form)
            while at >= 0:
                found.append(_Match(at, at + len(form), name, digits))
                at = data.find(form, at + len(form))
        for each in self._wrapped:
            if any(piece in data for piece in each.pieces):
                hits = each.pattern().finditer(data)
                found += [_Match(*hit.span(), each.name, digits=False) for hit in hits]
        for shape in secret_forms.SHAPES:
            if any(mark in data for mark in shape.marks):
                group = "secret" if "secret" in shape.pattern.groupindex else 0
                found += [
                    _Match(*hit.span(group), shape.name, digits=False)
                    for hit in shape.pattern.finditer(data)
                ]
        found.sort(key=lambda match: (match.start, -match.end))
        kept: list[_Match] = []
        for match in found:
            if not kept or match.start >= kept[-1].end:
                kept.append(match)
            elif match.end > kept[-1].end:  # two that overlap become one
                kept[-1] = kept[-1]._replace(end=match.end, digits=False)
        return kept

    def _replace(self, data: bytes, matches: list[_Match]) -> bytes:
        parts, at = [], 0
        for match in matches:
            parts += [data[at : match.start], match.stand_in(same_size=False)]
            at = match.end
        return b"".join([*parts, data[at:]])

    def _rewrite(self, handle: int, path: str, top: Path) -> Counter[str]:
        """Replace the file's content by the same without secrets; how often each was in it."""
        if b"\0" in os.pread(handle, _SNIFFED, 0):
            return self._write_over(handle, path)
        fresh = top / f".tmp-{os.getpid()}-redact"
        found: Counter[str] = Counter()
        try:
            with fresh.open("wb") as out:
                info = os.fstat(handle)
                os.fchmod(out.fileno(), stat.S_IMODE(info.st_mode))
                for _, data, matches in self._pieces(handle):
                    out.write(self._replace(data, matches))
                    found.update(match.name for match in matches)
            fresh.rename(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            return self._write_over(handle, path)
        return found

    def _write_over(self, handle: int, path: str) -> Counter[str]:
        """Put as many ``*`` in the place of each secret."""
        found: Counter[str] = Counter()
        writer = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for offset, _, matches in self._pieces(handle):
                for match in matches:
                    os.pwrite(writer, match.stand_in(same_size=True), offset + match.start)
                    found[match.name] += 1
        finally:
            os.close(writer)
        return found
