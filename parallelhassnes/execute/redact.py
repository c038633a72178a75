"""Finding secrets in bytes, and what stands in their place; ``clean.py`` applies it to an attempt's files.

A file is looked at in pieces of bounded size that overlap. What is compressed or encrypted is not seen.
"""

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from parallelhassnes.execute import secret_forms

CHUNK = 4 << 20


class Match(NamedTuple):
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
            at_end = not chunk
            data = held + chunk
            matches = self.find(data)
            cut = len(data) if at_end else max(0, len(data) - self._overlap)
            if not at_end:
                matches = [match for match in matches if match.start < cut]
                cut = max([cut, *(match.end for match in matches)])
            if cut:
                yield offset, data[:cut], matches
            offset, held = offset + cut, data[cut:]

    def find(self, data: bytes) -> list[Match]:
        """Every secret in the bytes, in order, none inside another."""
        found = []
        for name, form, digits in self._literals:
            at = data.find(form)
            while at >= 0:
                found.append(Match(at, at + len(form), name, digits))
                at = data.find(form, at + len(form))
        for each in self._wrapped:
            if any(piece in data for piece in each.pieces):
                hits = each.pattern().finditer(data)
                found += [Match(*hit.span(), each.name, digits=False) for hit in hits]
        for shape in secret_forms.SHAPES:
            if any(mark in data for mark in shape.marks):
                group = "secret" if "secret" in shape.pattern.groupindex else 0
                found += [
                    Match(*hit.span(group), shape.name, digits=False)
                    for hit in shape.pattern.finditer(data)
                ]
        found.sort(key=lambda match: (match.start, -match.end))
        kept: list[Match] = []
        for match in found:
            if not kept or match.start >= kept[-1].end:
                kept.append(match)
            elif match.end > kept[-1].end:  # two that overlap become one
                kept[-1] = kept[-1]._replace(end=match.end, digits=False)
        return kept

    def replace(self, data: bytes, matches: list[Match], *, same_size: bool = False) -> bytes:
        """The bytes with something else in the place of the matches."""
        if not matches:
            return data
        parts, at = [], 0
        for match in matches:
            parts += [data[at : match.start], match.stand_in(same_size=same_size)]
            at = match.end
        return b"".join([*parts, data[at:]])
