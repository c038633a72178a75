"""Finding secrets in bytes, and what stands in their place; ``clean.py`` applies it to an attempt's files.

A file is looked at in pieces of bounded size that overlap. Two views of a piece are searched for all patterns at once
(``secret_forms``): the squeezed one, and the squeezed one with escapes and colour codes resolved (``escapes``), where it has any and
as far around these as a pattern reaches. Which bytes of the piece it was is worked out for what is found alone. Of small attempts
Python looks at one escape, and for one pattern, after the other; from some megabytes on Hyperscan and numpy do it at once, with the same result.
"""

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
_WORTH_NUMPY = 4 << 20
"""Bytes after which numpy is faster than importing it is slow."""
_WORTH_PLACES = 256 << 10
"""Bytes with a secret in them from which that is so."""
_WORTH_ARRAYS = 1 << 14
"""Bytes from which numpy is faster than going from one escape to the next."""
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

    def __init__(self, patterns: Sequence[bytes], *, once: bool = False) -> None:
        self._patterns, self._once = patterns, once
        self._seen = 0
        self._database: Any = None

    def hits(self, data: bytes) -> list[tuple[int, int]]:
        """Return (number of the pattern, where it ends) of each place, or, where that is ``once``, of one of them."""
        self._seen += len(data)
        if self._seen > _WORTH_COMPILING and self._database is None:
            self._database = self._compiled() or False
        found: list[tuple[int, int]] = []
        if self._database:
            self._database.scan(data, match_event_handler=lambda number, _, end, *__: found.append((number, end)))
            return found
        for number, pattern in enumerate(self._patterns):
            at = data.find(pattern)
            while at >= 0:
                found.append((number, at + len(pattern)))
                at = -1 if self._once else data.find(pattern, at + 1)
        return found

    def _compiled(self) -> Any:
        """Return Hyperscan's database of them; None where there is no Hyperscan for this machine."""
        try:
            import hyperscan
        except ImportError:
            return None
        flag = hyperscan.HS_FLAG_SINGLEMATCH if self._once else 0
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
        self._search = _Search([each.form for each in self._patterns])
        self._seen = 0
        marks = {mark: shape for shape in secret_forms.SHAPES for mark in shape.marks}
        self._shapes, self._marks = list(marks.values()), _Search(list(marks), once=True)
        longest = max((_LONGEST_SPELLING * len(value.encode()) for value in values.values()), default=0)
        self._overlap = max(secret_forms.MAX_SHAPE, longest) + 64
        self.chunk = max(chunk, self._overlap + 1024)

    def text(self, said: str) -> str:
        """Return the same text without secrets."""
        data = said.encode("utf-8", "surrogateescape")
        return self.replace(data, self.find(data)).decode("utf-8", "surrogateescape")

    def pieces(self, handle: int, start: int, end: int) -> Iterator[tuple[int, bytes, list[Match]]]:
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
                yield offset, data[:cut], matches
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
        if hits := self._search.hits(secret_forms.squeezed(data)):
            yield from self._located(hits, data, fast=fast)
        found = escapes.resolved_fast(data) if fast else escapes.resolved(data)
        if found is None:
            return
        for first, last in found.windows(self._reach, secret_forms.KEPT):
            part = found.data[first:last]
            if hits := self._search.hits(secret_forms.squeezed(part)):
                for start, end, name in self._located(hits, part, fast=fast):
                    yield Match(found.start(first + start), found.end(first + end), name)

    def _located(self, hits: list[tuple[int, int]], data: bytes, *, fast: bool) -> Iterator[Match]:
        places = _kept_fast(data) if fast or (len(data) > _WORTH_PLACES and escapes.has_numpy()) else _kept(data)
        for number, end in hits:
            pattern = self._patterns[number]
            first, last = int(places[end - len(pattern.form)]), int(places[end - 1]) + 1
            if pattern.exact is None or secret_forms.squeezed_in_case(data[first:last]) == pattern.exact:
                yield Match(first, last, pattern.name)

    def _shaped(self, data: bytes) -> Iterator[Match]:
        for shape in {id(s): s for n, _ in self._marks.hits(data) if (s := self._shapes[n])}.values():
            group = "secret" if "secret" in shape.pattern.groupindex else 0
            for hit in shape.pattern.finditer(data):
                yield Match(*hit.span(group), shape.name)

    def replace(self, data: bytes, matches: list[Match], *, same_size: bool = False) -> bytes:
        """Return the bytes with something else in the place of the matches."""
        if not matches:
            return data
        parts, at = [], 0
        for match in matches:
            parts += [data[at : match.start], match.stand_in(same_size=same_size)]
            at = match.end
        return b"".join([*parts, data[at:]])


def _kept(data: bytes) -> Sequence[int]:
    """Tell where each of the squeezed bytes is in the bytes themselves."""
    return array("I", compress(range(len(data)), data.translate(secret_forms.KEPT)))


def _kept_fast(data: bytes) -> Sequence[int]:
    import numpy as np

    return np.flatnonzero(np.frombuffer(data.translate(secret_forms.KEPT), bool))  # type: ignore[return-value]
