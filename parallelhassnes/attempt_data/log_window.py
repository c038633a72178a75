"""Pieces of a file of an attempt, however large it is: a window from any byte or line, and where a text stands.

Nothing is kept between calls and nothing is indexed: a window costs its own bytes, counting the lines before it and
searching cost one reading of the file. Offsets are bytes. While its attempt runs, a file ends for a reader behind its
last newline, so that no line is seen in halves.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from parallelhassnes.attempt_data.safe_open import open_below
from parallelhassnes.errors import UnknownId

WINDOW = 1 << 16
"""Bytes of a window at most, unless its one line is cut."""
MOST_LINES = 400
CHUNK = 1 << 20
MOST_HITS = 200
CONTEXT = 20
"""Lines that are shown before the one that was asked for."""
_AROUND = 120


class Line(NamedTuple):
    """One line, or the part of it that a window holds."""

    number: int
    """From 1."""
    at: int
    end: int
    """Where the next line begins."""
    text: str


class Window(NamedTuple):
    """Whole lines of a file, one after another."""

    lines: list[Line]
    start: int
    end: int
    """Where the next window begins."""
    size: int
    """Bytes that there are now."""
    next_number: int
    """Of the line at ``end``."""


class Hit(NamedTuple):
    """A line in which a text stands."""

    number: int
    at: int
    excerpt: str


class Hits(NamedTuple):
    """Where a text stands."""

    found: list[Hit]
    more: bool
    """There are more than were looked for."""


def open_log(attempt_dir: Path, name: str) -> BinaryIO:
    """Return a regular file below the attempt's folder, never one that a link points to.

    Raises:
        UnknownId: there is none of that name.
    """
    return os.fdopen(open_below(attempt_dir, name), "rb")


def from_byte(stream: BinaryIO, at: int, *, whole: bool, number: int | None = None) -> Window:
    """Return the window that begins with the line at byte ``at``.

    Args:
        whole: the attempt has ended, so a line without its newline is one.
        number: of the line that begins at ``at``, where the caller knows it; else the lines before it are counted.
    """
    size = _size(stream, whole=whole)
    at = min(max(at, 0), size)
    start = _line_start(stream, at) if number is None else at
    first = _count(stream, start) + 1 if number is None else number
    stream.seek(start)
    data = _cut(stream.read(min(WINDOW, size - start)), at_end=start + WINDOW >= size)
    return _window(data, start, size, first)


def before_byte(stream: BinaryIO, end: int, *, whole: bool) -> Window:
    """Return the window that ends where the line at byte ``end`` begins."""
    size = _size(stream, whole=whole)
    end = min(max(end, 0), size)
    start = max(0, end - WINDOW)
    stream.seek(start)
    data = stream.read(end - start)
    if start > 0 and 0 <= (newline := data.find(b"\n")) < len(data) - 1:
        data, start = data[newline + 1 :], start + newline + 1
    dropped = sum(len(piece) for piece in _pieces(data)[:-MOST_LINES])
    start += dropped
    return _window(data[dropped:], start, size, _count(stream, start) + 1)


def at_end(stream: BinaryIO, *, whole: bool) -> Window:
    """Return the last window."""
    return before_byte(stream, 1 << 62, whole=whole)


def at_line(stream: BinaryIO, number: int, *, whole: bool) -> Window:
    """Return the window that begins some lines before line ``number``, so that its surroundings are seen."""
    first = max(1, number - CONTEXT)
    at, line = 0, 1
    stream.seek(0)
    for chunk in _chunks(stream):
        count = chunk.count(b"\n")
        if line + count >= first:
            behind = 0
            for _ in range(first - line):
                behind = chunk.index(b"\n", behind) + 1
            at += behind
            break
        at, line = at + len(chunk), line + count
    else:
        return at_end(stream, whole=whole)
    return from_byte(stream, at, whole=whole)


def search(stream: BinaryIO, text: str, *, most: int = MOST_HITS) -> Hits:
    """Return the lines in which ``text`` stands, upper and lower case alike; of a line of megabytes perhaps twice."""
    if not text:
        return Hits([], more=False)
    pattern = re.compile(re.escape(text.encode("utf-8", "surrogateescape")), re.IGNORECASE)
    found: list[Hit] = []
    base, number, kept = 0, 1, b""
    stream.seek(0)
    for chunk in _chunks(stream):
        data = kept + chunk
        cut = data.rfind(b"\n") + 1 or (len(data) if len(data) > CHUNK * 4 else 0)
        block, kept = data[:cut], data[cut:]
        number = _search(block, base, number, pattern, found, most)
        base += len(block)
        if len(found) > most:
            break
    else:
        _search(kept, base, number, pattern, found, most)
    return Hits(found[:most], more=len(found) > most)


def last_line(attempt_dir: Path, name: str) -> str:
    """Return the last line that says something; empty where there is none, or no file."""
    try:
        stream = open_log(attempt_dir, name)
    except UnknownId:
        return ""
    with stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 4096))
        for raw in reversed(re.split(rb"[\r\n]+", stream.read(4096))):
            if raw.strip():
                return raw.decode("utf-8", "replace").strip()[:300]
    return ""


def _search(block: bytes, base: int, number: int, pattern: re.Pattern[bytes], found: list[Hit], most: int) -> int:
    """Add the block's hits, one a line; the number of the line behind the block."""
    counted, at = 0, 0
    while (match := pattern.search(block, at)) and len(found) <= most:
        number += block.count(b"\n", counted, match.start())
        counted = match.start()
        start = block.rfind(b"\n", 0, match.start()) + 1
        end = block.find(b"\n", match.end())
        end = len(block) if end < 0 else end
        shown = block[max(start, match.start() - _AROUND) : min(end, match.end() + _AROUND)]
        found.append(Hit(number, base + start, shown.decode("utf-8", "replace")))
        at = end + 1
    return number + block.count(b"\n", counted)


def _size(stream: BinaryIO, *, whole: bool) -> int:
    """Return the bytes up to the end, or up to behind the last newline."""
    size = stream.seek(0, 2)
    if whole:
        return size
    tail = min(size, WINDOW)
    stream.seek(size - tail)
    newline = stream.read(tail).rfind(b"\n")
    return size if newline < 0 and size > WINDOW else size - tail + newline + 1


def _line_start(stream: BinaryIO, at: int) -> int:
    """Tell where the line of byte ``at`` begins; ``at`` itself within a line longer than a window."""
    back = min(at, WINDOW)
    stream.seek(at - back)
    newline = stream.read(back).rfind(b"\n")
    return at - back + newline + 1 if newline >= 0 or at < WINDOW else at


def _cut(data: bytes, *, at_end: bool) -> bytes:
    """Tell what of a reading are whole lines, ``MOST_LINES`` at most."""
    if not at_end and (newline := data.rfind(b"\n")) >= 0:
        data = data[: newline + 1]
    pieces = _pieces(data)
    return b"".join(pieces[:MOST_LINES])


def _pieces(data: bytes) -> list[bytes]:
    pieces = [piece + b"\n" for piece in data.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return pieces if pieces[-1] else pieces[:-1]


def _window(data: bytes, start: int, size: int, first: int) -> Window:
    lines, at = [], start
    for number, piece in enumerate(_pieces(data), first):
        text = piece.rstrip(b"\n").decode("utf-8", "replace")
        lines.append(Line(number, at, at + len(piece), text))
        at += len(piece)
    return Window(lines, start, at, size, first + data.count(b"\n"))


def _count(stream: BinaryIO, end: int) -> int:
    """Return the newlines before byte ``end``."""
    stream.seek(0)
    count = 0
    while end > 0 and (chunk := stream.read(min(CHUNK, end))):
        count += chunk.count(b"\n")
        end -= len(chunk)
    return count


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk
