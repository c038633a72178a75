"""Escapes (``\\x41``, ``\\u0041``, ``%41``, ``&#65;``) and colour codes in bytes, and the bytes with these resolved.

An escape begins with one of four bytes that stand in no escape further on. So each is what it is whatever is around it, and all can be
looked at side by side: ``resolved_fast`` does that with numpy, and gives what ``resolved`` gives, which goes from one to the next.
"""

import enum
import functools
import html
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    type _Bytes = NDArray[np.uint8]
    type _Places = NDArray[np.intp]

_COLOUR = r"\[[0-9;:]*[A-Za-z]"
# Every alternative begins with a plain character: Python's search then jumps from one of these to the next.
_ESCAPED = re.compile(
    "|".join(
        (
            rf"\x1b{_COLOUR}",
            rf"\\(?:x1[bB]|u001[bB]|033|e){_COLOUR}",
            r"\\[nrt]",
            r"\\[xX][0-9a-fA-F]{2}",
            r"\\u[0-9a-fA-F]{4}",
            r"\\U0000[0-9a-fA-F]{4}",
            r"%[0-9a-fA-F]{2}",
            r"&#[0-9]{1,4};",
            r"&#[xX]0{0,4}[0-9a-fA-F]{1,2};",
            r"&(?:amp|lt|gt|quot|apos);",
        )
    ).encode()
)
_LINE_END = 2
"""Bytes of ``\\n``, ``\\r`` and ``\\t``; every other escape has more."""
_BEGINNINGS = (b"\\", b"%", b"&", b"\x1b")
_COLOUR_ENDS = re.compile(_COLOUR.encode())
_LONG = 64
"""Characters of a colour code after which it is no longer looked at beside others."""
_FEW = 32
"""One escape in so many times as many bytes as a pattern has: looking around each escape is then less work than looking at all bytes."""
_SPARE = 64
"""Bytes more than a pattern has that are looked at on either side of an escape: so many of them may be left out at once."""
_MANY = 64
"""Escapes other than line ends from which arrays are faster than one after the other."""
_PAD = bytes(16)
"""Behind the data: as far as an escape of bounded length is looked at."""


class Resolved:
    """Bytes in which what an escape stands for is where the escape begins, and NULs fill the rest of its place.

    Args:
        starts: where each escape begins, in order.
        ends: where it ends.
        line_ends: where ``\\n`` and its like begin, which are none of these: nothing that is looked for begins or ends in one.
    """

    def __init__(self, data: bytes, starts: Sequence[int], ends: Sequence[int], line_ends: Sequence[int] = ()) -> None:
        self.data, self._starts, self._ends, self._line_ends = data, starts, ends, line_ends

    def start(self, place: int) -> int:
        """Tell where what this place holds is spelled from."""
        number = bisect_right(self._starts, place) - 1
        return int(self._starts[number]) if number >= 0 and place < self._ends[number] else place

    def end(self, place: int) -> int:
        """Behind the last byte that what ends before this place is spelled with."""
        number = bisect_right(self._starts, place - 1) - 1
        return int(self._ends[number]) if number >= 0 and place <= self._ends[number] else place

    def windows(self, reach: int, squeezed: Callable[[bytes], bytes]) -> list[tuple[int, int]]:
        """Return the parts of the bytes that hold each escape and, on either side of it, as many bytes as that or all that there are.

        Args:
            squeezed: leaves out the bytes that do not count.
        """
        size = len(self.data)
        if (len(self._starts) + len(self._line_ends)) * reach * _FEW > size:
            return [(0, size)]
        spans = [(int(start), int(end)) for start, end in zip(self._starts, self._ends, strict=True)]
        found: list[tuple[int, int]] = []
        last = 0
        for start, end in sorted([*spans, *((int(start), int(start) + _LINE_END) for start in self._line_ends)]):
            first = self._before(start, reach, squeezed)
            if found and last >= first:
                first = min(first, found.pop()[0])
            last = max(last, self._behind(end, reach, squeezed))
            found.append((first, last))
        return found

    def _before(self, place: int, reach: int, squeezed: Callable[[bytes], bytes]) -> int:
        width = reach + _SPARE
        while (other := place - width) > 0:
            if len(squeezed(self.data[other:place])) >= reach:
                return other
            width *= 2
        return 0

    def _behind(self, place: int, reach: int, squeezed: Callable[[bytes], bytes]) -> int:
        width = reach + _SPARE
        while (other := place + width) < len(self.data):
            if len(squeezed(self.data[place:other])) >= reach:
                return other
            width *= 2
        return len(self.data)


def resolved(data: bytes) -> Resolved | None:
    """Return the bytes with every escape resolved; None where there is none."""
    spans = [found.span() for found in _ESCAPED.finditer(data)]
    if not spans:
        return None
    parts, at = [], 0
    for start, end in spans:
        parts += [data[at:start], _decoded(data[start:end]).ljust(end - start, b"\0")]
        at = end
    line_ends = [start for start, end in spans if end - start == _LINE_END]
    spans = [(start, end) for start, end in spans if end - start != _LINE_END]
    return Resolved(b"".join([*parts, data[at:]]), [start for start, _ in spans], [end for _, end in spans], line_ends)


def _decoded(escape: bytes) -> bytes:
    """Tell what an escape stands for; a colour code or a line end for nothing."""
    if escape.startswith(b"&"):
        return html.unescape(escape.decode()).encode()
    if escape.startswith(b"%"):
        return bytes([int(escape[1:], 16)])
    if b"[" in escape or escape[1:2] not in b"xXuU":
        return b""
    number = int(escape[2:].decode(), 16)
    return bytes([number]) if escape[1:2] in b"xX" else chr(number).encode("utf-8", "replace")


@functools.cache
def has_numpy() -> bool:
    """Tell whether numpy is installed; it comes with the extras ``stats`` and ``report``."""
    try:
        import numpy  # noqa: F401, ICN001
    except ImportError:
        return False
    return True


def resolved_fast(data: bytes) -> Resolved | None:
    """Return the same as ``resolved``, at some hundred MB a second whatever the data are."""
    if not any(each in data for each in _BEGINNINGS):
        return None
    found = _Escapes(data)
    return found.resolved() if found.spans or len(found.line_ends) else None


class _Escapes:
    """The escapes in some bytes, kind by kind."""

    def __init__(self, data: bytes) -> None:
        import numpy as np

        self._np, self._text, self._data = np, data, np.frombuffer(data + _PAD, np.uint8)
        self._hex = _hex_digits()
        self.spans: list[tuple[_Places, _Places]] = []
        self._values: list[tuple[_Places, _Bytes]] = []
        at = self._beginnings()
        kind = _kinds()[self._data[at].astype(np.uint16) << 8 | self._data[at + 1]]
        is_any = kind > 0
        at, kind = at[is_any], kind[is_any]
        is_end = kind == int(_Kind.LINE_END)
        self.line_ends: Any = at[is_end]
        at, kind = at[~is_end], kind[~is_end]
        if len(at) > _MANY:
            self._side_by_side({each: at[kind == int(each)] for each in _Kind})
        elif len(at):
            self._one_by_one(at)

    def _beginnings(self) -> "_Places":
        """Return the places at which an escape may begin."""
        first, *others = (ord(each) for each in _BEGINNINGS if each in self._text)
        is_one = self._data == first
        is_other = self._np.empty_like(is_one)
        for each in others:
            is_one |= self._np.equal(self._data, each, out=is_other)
        return self._np.flatnonzero(is_one)

    def _one_by_one(self, at: "_Places") -> None:
        np = self._np
        found = [each for place in at.tolist() if (each := _ESCAPED.match(self._text, place))]
        spans = np.array([each.span() for each in found], np.intp).reshape(-1, 2)
        self._note(spans[:, 0], spans[:, 1])
        values = [(each.start() + number, byte) for each in found for number, byte in enumerate(_decoded(each[0]))]
        places = np.array(values, np.intp).reshape(-1, 2)
        self._values.append((places[:, 0], places[:, 1].astype(np.uint8)))

    def _side_by_side(self, at: "dict[_Kind, _Places]") -> None:
        x, u = at[_Kind.SMALL_X], at[_Kind.U]
        colours = self._colours(
            [
                (at[_Kind.ESC], 1),
                (self._are(x, 2, b"1b", b"1B"), 4),
                (self._are(u, 2, b"001b", b"001B"), 6),
                (self._are(at[_Kind.ZERO], 2, b"33"), 4),
                (at[_Kind.E], 2),
            ]
        )
        if len(colours):
            x, u = (each[~self._np.isin(each, colours)] for each in (x, u))
        self._hexes(self._np.concatenate([x, at[_Kind.X]]), 2, 2)
        self._characters(u, 2)
        self._characters(self._are(at[_Kind.WIDE], 2, b"0000"), 6)
        self._hexes(at[_Kind.PERCENT], 1, 2)
        if len(at[_Kind.AND]):
            self._entities(at[_Kind.AND])

    def _note(self, at: "_Places", ends: "_Places | int", *values: "tuple[_Places, _Bytes]") -> None:
        if len(at):
            self.spans.append((at, at + ends if isinstance(ends, int) else ends))
            self._values += values

    def _are(self, at: "_Places", behind: int, *words: bytes) -> "_Places":
        """Return those places at which, so many bytes further on, one of these words stands."""
        if not len(at):
            return at
        is_one = self._np.zeros(len(at), bool)
        for word in words:
            is_word = self._np.ones(len(at), bool)
            for number, byte in enumerate(word):
                is_word &= self._data[at + behind + number] == byte
            is_one |= is_word
        return at[is_one]

    def _number(self, at: "_Places", digits: int) -> "tuple[_Places, Any]":
        """Return (places from which so many hex digits stand, their numbers)."""
        value = self._np.zeros(len(at), self._np.int32)
        is_number = self._np.ones(len(at), bool)
        for number in range(digits):
            digit = self._hex[self._data[at + number]]
            is_number &= digit < 16
            value = value * 16 + digit
        return at[is_number], value[is_number]

    def _hexes(self, at: "_Places", behind: int, digits: int) -> None:
        if not len(at):
            return
        digits_at, value = self._number(at + behind, digits)
        at = digits_at - behind
        self._note(at, behind + digits, (at, value.astype(self._np.uint8)))

    def _characters(self, at: "_Places", behind: int) -> None:
        """Note characters of four hex digits, as UTF-8."""
        if not len(at):
            return
        digits_at, value = self._number(at + behind, 4)
        at = digits_at - behind
        value[(value >= 0xD800) & (value < 0xE000)] = ord("?")
        byte = self._np.uint8
        one, two, three = value < 0x80, (value >= 0x80) & (value < 0x800), value >= 0x800
        self._note(
            at,
            behind + 4,
            (at[one], value[one].astype(byte)),
            (at[two], (0xC0 | value[two] >> 6).astype(byte)),
            (at[two] + 1, (0x80 | value[two] & 63).astype(byte)),
            (at[three], (0xE0 | value[three] >> 12).astype(byte)),
            (at[three] + 1, (0x80 | value[three] >> 6 & 63).astype(byte)),
            (at[three] + 2, (0x80 | value[three] & 63).astype(byte)),
        )

    def _colours(self, begun: "Sequence[tuple[_Places, int]]") -> "_Places":
        """Note colour codes that begin at places, their brackets so many bytes further on; give where they begin."""
        np = self._np
        at = np.concatenate([places for places, _ in begun])
        bracket = np.concatenate([places + width for places, width in begun])
        if not len(at):
            return at  # type: ignore[no-any-return]
        is_code = self._data[bracket] == ord("[")
        at, end = at[is_code], bracket[is_code] + 1
        going = np.arange(len(at))
        for _ in range(_LONG):
            byte = self._data[end[going]]
            going = going[(byte >= ord("0")) & (byte <= ord(";"))]  # digits, colon, semicolon
            if not len(going):
                break
            end[going] += 1
        byte = self._data[end] | 0x20
        is_code = (byte >= ord("a")) & (byte <= ord("z"))
        for number in going.tolist():
            found = _COLOUR_ENDS.match(self._text, self._text.index(b"[", int(at[number])))
            is_code[number] = found is not None
            end[number] = found.end() - 1 if found else 0
        self._note(at[is_code], end[is_code] + 1)
        return at[is_code]  # type: ignore[no-any-return]

    def _entities(self, at: "_Places") -> None:
        for word in (b"amp;", b"lt;", b"gt;", b"quot;", b"apos;"):
            named = self._are(at, 1, word)
            value = ord(html.unescape(f"&{word.decode()}"))
            self._note(named, 1 + len(word), (named, self._np.full(len(named), value, self._np.uint8)))
        numbers = self._are(at, 1, b"#")
        is_hex = (self._data[numbers + 2] | 0x20) == ord("x")
        self._numbered(numbers[~is_hex], 2, 4, lambda digits: digits < 10, 10)
        self._numbered(numbers[is_hex], 3, 6, lambda digits: digits < 16, 16)

    def _numbered(self, at: "_Places", behind: int, most: int, is_digit: "Callable[[_Bytes], Any]", base: int) -> None:
        """Note ``&#65;`` and its like."""
        if not len(at):
            return
        np = self._np
        value, end = np.zeros(len(at), np.int32), at + behind
        going = np.arange(len(at))
        for _ in range(most):
            digit = self._hex[self._data[end[going]]]
            going, digit = going[is_digit(digit)], digit[is_digit(digit)]
            value[going] = value[going] * base + digit
            end[going] += 1
        is_one = (self._data[end] == ord(";")) & (end > at + behind)
        if base == 16:
            is_one &= value < 256
        at, end, value = at[is_one], end[is_one] + 1, value[is_one]
        self._note(at, end)
        for each in np.unique(value).tolist():
            places = at[value == each]
            for number, byte in enumerate(html.unescape(f"&#{each};").encode()):
                self._values.append((places + number, np.full(len(places), byte, np.uint8)))

    def resolved(self) -> Resolved:
        np = self._np
        none = np.zeros(0, np.intp)
        starts = np.concatenate([none, *(starts for starts, _ in self.spans)])
        ends = np.concatenate([none, *(ends for _, ends in self.spans)])
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
        out = self._data[: len(self._text)].copy()
        out[self.line_ends] = 0
        out[self.line_ends + 1] = 0
        widths = ends - starts
        left = starts
        for further in range(min(_LONG, int(widths.max(initial=0)))):
            left = left[widths > further]
            widths = widths[widths > further]
            out[left + further] = 0
        for start, width in zip(left.tolist(), widths.tolist(), strict=True):
            out[start : start + width] = 0
        for places, values in self._values:
            out[places] = values
        return Resolved(out.tobytes(), starts, ends, self.line_ends)


class _Kind(enum.IntEnum):
    """What an escape may be, by its first two bytes."""

    LINE_END = 1
    SMALL_X = 2
    X = 3
    U = 4
    WIDE = 5
    ZERO = 6
    E = 7
    PERCENT = 8
    AND = 9
    ESC = 10


_BEGUN = (
    (b"\\", b"nrt", _Kind.LINE_END),
    (b"\\", b"x", _Kind.SMALL_X),
    (b"\\", b"X", _Kind.X),
    (b"\\", b"u", _Kind.U),
    (b"\\", b"U", _Kind.WIDE),
    (b"\\", b"0", _Kind.ZERO),
    (b"\\", b"e", _Kind.E),
    (b"\x1b", b"[", _Kind.ESC),
    (b"%", b"0123456789abcdefABCDEF", _Kind.PERCENT),
    (b"&", b"#algq", _Kind.AND),
)


@functools.cache
def _kinds() -> "_Bytes":
    """First byte × 256 + second byte → what may begin so, 0 for nothing."""
    import numpy as np

    table = np.zeros(1 << 16, np.uint8)
    for first, seconds, kind in _BEGUN:
        for second in seconds:
            table[first[0] << 8 | second] = kind
    return table


@functools.cache
def _hex_digits() -> "_Bytes":
    """Return byte → the number of a hex digit, 255 for any other."""
    import numpy as np

    table = np.full(256, 255, np.uint8)
    for digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
        table[np.frombuffer(digits, np.uint8)] = np.arange(16)
    return table
