"""Finding secrets in bytes, and what stands in their place; ``clean.py`` applies it to an attempt's files.

A file is looked at in pieces of bounded size that overlap. Two views of a piece are searched for all patterns at once
(``secret_forms``): the squeezed one, and, where it has escapes or colour codes, the squeezed one with these resolved. Only where
something is found is it worked out which bytes of the piece it was. The search is Hyperscan's from some megabytes
on, where its database is worth being compiled, else one ``find`` for each pattern.
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from parallelhassnes.execute import secret_forms

CHUNK = 4 << 20
_WORTH_COMPILING = 8 << 20
"""Bytes after which the search is compiled."""
_ESCAPES_WORTH_COMPILING = 2 << 20
_WORTH_NUMPY = 256 << 10
"""Bytes from which numpy is faster than importing it is slow."""
_BLOCK = 1 << 12
"""Bytes in which a place is looked up at once."""
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
        """(number of the pattern, where it ends) of each place, or, where that is ``once``, of one of them."""
        self._seen += len(data)
        if self._seen > _WORTH_COMPILING and self._database is None:
            self._database = self._compiled() or False
        found: list[tuple[int, int]] = []
        if self._database:
            self._database.scan(
                data, match_event_handler=lambda number, _, end, *__: found.append((number, end))
            )
            return found
        for number, pattern in enumerate(self._patterns):
            at = data.find(pattern)
            while at >= 0:
                found.append((number, at + len(pattern)))
                at = -1 if self._once else data.find(pattern, at + 1)
        return found

    def _compiled(self) -> Any:
        return _compile(self._patterns, once=self._once, literal=True)


class _Escapes:
    """Where escapes are, in bytes."""

    def __init__(self, *, ascii_only: bool) -> None:
        wide = () if ascii_only else (secret_forms.WIDE,)
        self._patterns = (*secret_forms.ESCAPES, *wide)
        self._seen = 0
        self._database: Any = None

    def spans(self, data: bytes) -> Iterable[tuple[int, int]]:
        """From where to where, in order, none inside another; line ends are left out or not."""
        self._seen += len(data)
        if self._seen > _ESCAPES_WORTH_COMPILING and self._database is None:
            self._database = _compile(self._patterns, literal=False) or False
        if not self._database:
            return secret_forms.escapes_in(data)
        found: list[tuple[int, int]] = []
        self._database.scan(
            data, match_event_handler=lambda _, start, end, *__: found.append((start, end))
        )
        found.sort(key=lambda span: (span[0], -span[1]))
        return found


def _compile(patterns: Sequence[bytes], *, literal: bool, once: bool = False) -> Any:
    """Hyperscan's database of them; None where there is no Hyperscan for this machine."""
    try:
        import hyperscan
    except ImportError:
        return None
    flag = hyperscan.HS_FLAG_SINGLEMATCH if once else 0
    database = hyperscan.Database()
    database.compile(
        expressions=list(patterns), ids=list(range(len(patterns))), elements=len(patterns),
        flags=[flag if literal else hyperscan.HS_FLAG_SOM_LEFTMOST] * len(patterns), literal=literal,
    )  # fmt: skip
    return database


class Redactor:
    """What is to be taken out; made once for an attempt.

    Args:
        values: name → value of each secret that the attempt was given.
        chunk: bytes of a file that are looked at at once.
    """

    def __init__(self, values: Mapping[str, str], chunk: int = CHUNK) -> None:
        self.unfit = {
            name: why for name, value in values.items() if (why := secret_forms.unfit(value))
        }
        """Name → why its value is not looked for."""
        self._patterns = secret_forms.patterns(values)
        self._search = _Search([each.form for each in self._patterns])
        self._escapes = _Escapes(ascii_only=all(value.isascii() for value in values.values()))
        marks = {mark: shape for shape in secret_forms.SHAPES for mark in shape.marks}
        self._shapes, self._marks = list(marks.values()), _Search(list(marks), once=True)
        longest = max(
            (_LONGEST_SPELLING * len(value.encode()) for value in values.values()), default=0
        )
        self._overlap = max(secret_forms.MAX_SHAPE, longest) + 64
        self._chunk = max(chunk, self._overlap + 1024)

    def text(self, said: str) -> str:
        """The same text without secrets."""
        data = said.encode("utf-8", "surrogateescape")
        return self.replace(data, self.find(data)).decode("utf-8", "surrogateescape")

    def pieces(self, handle: int, start: int, end: int) -> Iterator[tuple[int, bytes, list[Match]]]:
        """(offset, bytes, matches in them), this part of a file's bytes in order, each once; no match is across two pieces."""
        offset, held, at_end = start, b"", False
        while not at_end:
            wanted = min(self._chunk, end - offset - len(held))
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
        """The name of a secret in bytes that come in parts, as far as it is the first; None where there is none."""
        held = b""
        for part in parts:
            held += part
            if len(held) >= self._chunk:
                if found := self.find(held):
                    return found[0].name
                held = held[-self._overlap :]
        found = self.find(held)
        return found[0].name if found else None

    def find(self, data: bytes) -> list[Match]:
        """Every secret in the bytes, in order, none inside another."""
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
        hits = self._search.hits(secret_forms.squeezed(data))
        if hits:
            yield from self._located(hits, data, _Places(data))
        bare = self._resolved(data)
        again = self._search.hits(secret_forms.squeezed(bare)) if bare is not data else []
        if len(again) > len(hits):
            resolved = _Resolved(data, secret_forms.escapes_in(data))
            places = _Places(resolved.bytes)
            again = self._search.hits(secret_forms.squeezed(resolved.bytes))
            yield from (
                match._replace(start=resolved.start(match.start), end=resolved.end(match.end))
                for match in self._located(again, resolved.bytes, places)
            )

    def _resolved(self, data: bytes) -> bytes:
        """The bytes without escapes and colour codes, as fast as can be: where each was is not known any more."""
        bare = secret_forms.without_line_ends(data)
        if any(mark in bare for mark in (b"\x1b", b"\\", b"%", b"&")):
            return _Resolved(bare, self._escapes.spans(bare)).bytes
        return bare

    def _located(
        self, hits: list[tuple[int, int]], data: bytes, places: "_Places"
    ) -> Iterator[Match]:
        for number, end in hits:
            pattern = self._patterns[number]
            first, last = places.of(end - len(pattern.form)), places.of(end - 1) + 1
            if (
                pattern.exact is None
                or secret_forms.squeezed_in_case(data[first:last]) == pattern.exact
            ):
                yield Match(first, last, pattern.name)

    def _shaped(self, data: bytes) -> Iterator[Match]:
        for shape in {
            id(s): s for n, _ in self._marks.hits(data) if (s := self._shapes[n])
        }.values():
            group = "secret" if "secret" in shape.pattern.groupindex else 0
            for hit in shape.pattern.finditer(data):
                yield Match(*hit.span(group), shape.name)

    def replace(self, data: bytes, matches: list[Match], *, same_size: bool = False) -> bytes:
        """The bytes with something else in the place of the matches."""
        if not matches:
            return data
        parts, at = [], 0
        for match in matches:
            parts += [data[at : match.start], match.stand_in(same_size=same_size)]
            at = match.end
        return b"".join([*parts, data[at:]])


class _Places:
    """From a place in squeezed bytes to that in the bytes themselves."""

    def __init__(self, data: bytes) -> None:
        mask = data.translate(secret_forms.KEPT)
        self._before: Any = None
        if len(data) < _WORTH_NUMPY:
            self._kept: Any = array("I", compress(range(len(data)), mask))
            return
        import numpy as np

        self._mask = np.frombuffer(mask + bytes(-len(mask) % _BLOCK), np.uint8)
        # Eight bytes at once, 128 times, which no byte's sum overflows.
        lanes = self._mask.view(np.uint64).reshape(-1, _BLOCK // 1024, 128).sum(axis=2)
        sizes = lanes.view(np.uint8).reshape(-1, _BLOCK // 128).sum(axis=1)
        self._before = [0, *np.cumsum(sizes).tolist()]
        """How many are kept before each block."""
        self._block = -1

    def of(self, place: int) -> int:
        if self._before is None:
            return int(self._kept[place])
        block = bisect_right(self._before, place) - 1
        if block != self._block:
            self._block = block
            bits = self._mask[block * _BLOCK : (block + 1) * _BLOCK].view(bool)  # numpy's fast path
            self._kept = bits.nonzero()[0]
        return block * _BLOCK + int(self._kept[place - self._before[block]])


class _Resolved:
    """Bytes with their escapes resolved, and where each of them was."""

    def __init__(self, data: bytes, escapes: Iterable[tuple[int, int]]) -> None:
        parts: list[bytes] = []
        self._new, self._old, self._widths = [0], [0], [1]
        size = at = 0
        for start, end in escapes:
            if start < at:
                continue
            stands_for = secret_forms.decoded(data[start:end])
            parts += [data[at:start], stands_for]
            size += start - at
            self._note(size, start, end - start)
            size, at = size + len(stands_for), end
            self._note(size, at, 1)
        parts.append(data[at:])
        self.bytes = b"".join(parts)

    def _note(self, new: int, old: int, width: int) -> None:
        if self._new[-1] == new:  # the escape before this stands for nothing
            self._new.pop(), self._old.pop(), self._widths.pop()
        self._new.append(new)
        self._old.append(old)
        self._widths.append(width)

    def start(self, place: int) -> int:
        number = bisect_right(self._new, place) - 1
        if self._widths[number] > 1:
            return self._old[number]
        return self._old[number] + place - self._new[number]

    def end(self, place: int) -> int:
        """Behind the last byte that what ends there was made of."""
        number = bisect_right(self._new, place - 1) - 1
        if self._widths[number] > 1:
            return self._old[number] + self._widths[number]
        return self._old[number] + place - self._new[number]
