"""Finding secrets in bytes, and what stands in their place; ``clean.py`` applies it to an attempt's files.

A file is looked at in pieces of bounded size that overlap. Two views of a piece are searched for all patterns at once
(``secret_forms``): the squeezed one, and the squeezed one with escapes and colour codes resolved (``escapes``), where it has any and
as far around these as a pattern reaches. Which bytes of the piece it was is worked out for what is found alone. Of small attempts
Python looks at one escape, and for one pattern, after the other; from some megabytes on Hyperscan and numpy do it at once, with the same result.
"""

import contextlib
import functools
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from parallelhassnes.execute import escapes, secret_forms

CHUNK = 1 << 20
"""Bytes that are looked at at once: a look goes over them some twenty times, which the processor's cache holds."""
_WORTH_COMPILING = 1 << 20
"""Bytes after which the search is compiled."""
_WORTH_NUMPY = 1 << 20
"""Bytes after which numpy is faster than importing it is slow."""
_WORTH_PLACES = 256 << 10
"""Bytes with a secret in them from which that is so."""
_WORTH_ARRAYS = 1 << 14
"""Bytes from which numpy is faster than going from one escape to the next."""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's ``mallopt``; see its ``malloc.h``."""
_LONGEST_SPELLING = 32
"""Bytes that a character of a secret takes at most, escaped and coloured."""


class Match(NamedTuple):
    """A secret in some bytes."""

    start: int
    end: int
    name: str

    def stand_in(self, *, same_size: bool) -> bytes:
        if same_size:
            return b"*" * (self.end - self.start)
        return f"[REDACTED:{self.name}]".encode()


class _Search:
    """Where any of some patterns is, in bytes."""

    def __init__(self, patterns: Sequence[bytes], *, any_case: bool = False) -> None:
        self._patterns, self._any_case = patterns, any_case
        self._seen = 0
        self._database: Any = None

    def hits(self, data: bytes) -> list[tuple[int, int]]:
        """Return (number of the pattern, where it ends) of each place; ``any_case``: patterns are in lower case, the bytes in any."""
        self._seen += len(data)
        if self._seen > _WORTH_COMPILING and self._database is None:
            self._database = self._compiled() or False
        found: list[tuple[int, int]] = []
        if self._database:
            self._database.scan(data, match_event_handler=lambda number, _, end, *__: found.append((number, end)))
            return found
        data = data.lower() if self._any_case else data
        for number, pattern in enumerate(self._patterns):
            found += ((number, start + len(pattern)) for start in _starts(data, pattern))
        return found

    def _compiled(self) -> Any:
        """Return Hyperscan's database of them; None where there is no Hyperscan for this machine."""
        try:
            import hyperscan
        except ImportError:
            return None
        flag = hyperscan.HS_FLAG_CASELESS if self._any_case else 0
        count = len(self._patterns)
        database = hyperscan.Database()
        database.compile(
            expressions=list(self._patterns), ids=list(range(count)), elements=count, flags=[flag] * count, literal=True
        )
        return database


class Redactor:
    """What is to be taken out; made once for an attempt.

    Args:
        values: name → value of each secret that the attempt was given.
        chunk: bytes of a file that are looked at at once.
    """

    def __init__(self, values: Mapping[str, str], chunk: int = CHUNK) -> None:
        self.unfit = {name: why for name, value in values.items() if (why := secret_forms.unfit(value))}
        """Name → why its value is not looked for."""
        self._patterns = secret_forms.patterns(values)
        self._reach = max((len(each.form) for each in self._patterns), default=0)
        self._search = _Search([each.form for each in self._patterns], any_case=True)
        self._seen = 0
        marks = {mark: shape for shape in secret_forms.SHAPES for mark in shape.marks}
        self._shapes, self._marks = list(marks.values()), _Search(list(marks))
        longest = max((_LONGEST_SPELLING * len(value.encode()) for value in values.values()), default=0)
        self._overlap = max(secret_forms.MAX_SHAPE, longest) + 64
        self.chunk = max(chunk, self._overlap + 1024)

    def text(self, said: str) -> str:
        """Return the same text without secrets."""
        data = said.encode("utf-8", "surrogateescape")
        return self.replace(data, self.find(data)).decode("utf-8", "surrogateescape")

    def pieces(self, handle: int, start: int, end: int) -> Iterator[tuple[int, memoryview, list[Match]]]:
        """Yield (offset, bytes, matches in them), this part of a file's bytes in order, each once; no match is across two pieces."""
        offset, held, at_end = start, b"", False
        while not at_end:
            wanted = min(self.chunk, end - offset - len(held))
            chunk = os.pread(handle, wanted, offset + len(held)) if wanted > 0 else b""
            at_end = not chunk or offset + len(held) + len(chunk) >= end
            data = held + chunk
            matches = self.find(data)
            cut = len(data) if at_end else max(0, len(data) - self._overlap)
            if not at_end:
                matches = [match for match in matches if match.start < cut]
                cut = max([cut, *(match.end for match in matches)])
            if cut:
                yield offset, memoryview(data)[:cut], matches
            offset, held = offset + cut, data[cut:]

    def first_in(self, parts: Iterable[bytes]) -> str | None:
        """Return the name of a secret in bytes that come in parts, as far as it is the first; None where there is none."""
        held = b""
        for part in parts:
            held += part
            if len(held) >= self.chunk:
                if found := self.find(held):
                    return found[0].name
                held = held[-self._overlap :]
        found = self.find(held)
        return found[0].name if found else None

    def find(self, data: bytes) -> list[Match]:
        """Return every secret in the bytes, in order, none inside another."""
        found = [*self._named(data), *self._shaped(data)]
        if not found:
            return found
        found.sort(key=lambda match: (match.start, -match.end))
        kept: list[Match] = []
        for match in found:
            if not kept or match.start >= kept[-1].end:
                kept.append(match)
            elif match.end > kept[-1].end:  # two that overlap become one
                kept[-1] = kept[-1]._replace(end=match.end)
        return kept

    def _named(self, data: bytes) -> Iterator[Match]:
        if not self._patterns:
            return
        self._seen += len(data)
        fast = self._seen > _WORTH_NUMPY and len(data) > _WORTH_ARRAYS and escapes.has_numpy()
        if fast:
            _keep_freed_memory()
        if hits := self._search.hits(secret_forms.squeezed(data)):
            yield from self._located(hits, data, fast=fast)
        found = escapes.resolved_fast(data) if fast else escapes.resolved(data)
        if found is None:
            return
        windows = found.windows(self._reach, secret_forms.squeezed)
        if len(windows) > 1 and not self._search.hits(
            b"".join(secret_forms.squeezed(found.data[slice(*each)]) for each in windows)
        ):
            return
        for first, last in windows:
            part = found.data[first:last]
            if hits := self._search.hits(secret_forms.squeezed(part)):
                for start, end, name in self._located(hits, part, fast=fast):
                    yield Match(found.start(first + start), found.end(first + end), name)

    def _located(self, hits: list[tuple[int, int]], data: bytes, *, fast: bool) -> Iterator[Match]:
        ends: dict[int, list[int]] = {}
        for number, end in hits:
            ends.setdefault(number, []).append(end)
        places: Sequence[int] | None = None
        for number, those in ends.items():
            pattern = self._patterns[number]
            starts = _starts(data, pattern.plain)
            if len(starts) == len(those):  # each is a hit: so these are all
                yield from (Match(start, start + len(pattern.plain), pattern.name) for start in starts)
                continue
            if places is None:
                places = (
                    _kept_fast(data) if fast or (len(data) > _WORTH_PLACES and escapes.has_numpy()) else _kept(data)
                )
            for end in those:
                first, last = int(places[end - len(pattern.form)]), int(places[end - 1]) + 1
                if pattern.exact is None or secret_forms.squeezed(data[first:last]) == pattern.exact:
                    yield Match(first, last, pattern.name)

    def _shaped(self, data: bytes) -> Iterator[Match]:
        spans: dict[int, tuple[int, int]] = {}
        for number, end in self._marks.hits(data):
            first, last = spans.get(number, (end, end))
            spans[number] = min(first, end), max(last, end)
        for number, (first, last) in spans.items():
            shape = self._shapes[number]
            group = "secret" if "secret" in shape.pattern.groupindex else 0
            for hit in shape.pattern.finditer(
                data, max(0, first - secret_forms.BEFORE_MARK), last + secret_forms.MAX_SHAPE
            ):
                yield Match(*hit.span(group), shape.name)

    def replace(self, data: bytes | memoryview, matches: list[Match], *, same_size: bool = False) -> bytes:
        """Return the bytes with something else in the place of the matches."""
        parts: list[bytes | memoryview] = []
        at = 0
        for match in matches:
            parts += [data[at : match.start], match.stand_in(same_size=same_size)]
            at = match.end
        return b"".join([*parts, data[at:]])


@functools.cache
def _keep_freed_memory() -> None:
    """Have glibc keep some MB that are freed: else each of the views of a piece is new pages of the kernel, a quarter of the time."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in ((_TRIM_THRESHOLD, 16 << 20), (_TOP_PAD, 8 << 20), (_MMAP_THRESHOLD, 16 << 20)):
            mallopt(parameter, size)


def _starts(data: bytes, pattern: bytes) -> list[int]:
    """Return every place where the pattern begins, also those that overlap."""
    found = []
    at = data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + 1)
    return found


def _kept(data: bytes) -> Sequence[int]:
    """Tell where each of the squeezed bytes is in the bytes themselves."""
    return array("I", compress(range(len(data)), data.translate(secret_forms.KEPT)))


def _kept_fast(data: bytes) -> Sequence[int]:
    import numpy as np

    return np.flatnonzero(np.frombuffer(data.translate(secret_forms.KEPT), bool))  # type: ignore[return-value]
