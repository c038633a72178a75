"""What quiet ticks have told: lasting trouble is told once, and again when it is another.

_system/told.json   D   the lines of the last quiet tick, numbers left out
"""

import contextlib
import re
from collections.abc import Sequence

from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout

_NUMBER = re.compile(r"(?<!line )(?<!column )(?<![\w.])\d+(\.\d+)?")
"""An amount, such as the seconds of a wait; the place of a mistake is none."""


def news(layout: Layout, lines: Sequence[str]) -> list[str]:
    """Those of the lines that the quiet tick before did not tell; what differs only in its numbers is the same."""
    path = layout.told
    before = atomic.read_derived(path).get("lines")
    kinds = [_NUMBER.sub("N", line) for line in lines]
    if kinds != before and (kinds or before):
        with contextlib.suppress(OSError):  # a full disk: told again
            atomic.write_json(path, {"lines": kinds}, durable=False)
    known = before if isinstance(before, list) else []
    return [line for line, kind in zip(lines, kinds, strict=True) if kind not in known]
