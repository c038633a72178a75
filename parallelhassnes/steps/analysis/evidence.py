"""Looking up quotes: each must stand word for word in a file of the trial, or it is struck out.

A quote may be of several lines; spaces at the ends of its lines and of the whole do not count, everything else does.
The line that an engine gave is corrected to where the words stand. Each struck quote halves the confidence, and an
answer without a single quote that holds is not worth more than ``MAX_WITHOUT``.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from parallelhassnes.steps.analysis.record import Quote
from parallelhassnes.steps.trial_data.trial_files import TrialFiles

MAX_WITHOUT = 0.3
"""The highest confidence of an answer whose every quote was struck, or that has none."""
MIN_QUOTE = 3
"""Characters below which a quote proves nothing."""


class LookedUp(NamedTuple):
    """What became of an answer's quotes."""

    found: tuple[Quote, ...]
    struck: tuple[Quote, ...]
    confidence: float


def look_up(files: TrialFiles, quotes: Sequence[Quote], confidence: float) -> LookedUp:
    """Sort the quotes into those that stand in the trial's files and those that do not."""
    found: list[Quote] = []
    struck: list[Quote] = []
    for quote in quotes:
        line = place(files, quote)
        if line is None:
            struck.append(quote)
        else:
            found.append(quote.model_copy(update={"line": line}))
    left = confidence * 0.5 ** len(struck)
    if not found:
        left = min(left, MAX_WITHOUT)
    return LookedUp(tuple(found), tuple(struck), round(left, 4))


def place(files: TrialFiles, quote: Quote) -> int | None:
    """The number of the line where the quote begins; None where it does not stand in that file.

    Of several places the one nearest to the line that the engine gave. Text inside a JSON file may also be quoted
    as it reads when its escapes are undone.
    """
    wanted = [line.strip() for line in quote.quote.strip().splitlines()]
    if len("".join(wanted)) < MIN_QUOTE:
        return None
    text = files.text(quote.file)
    if text is None:
        return None
    lines = text.splitlines()
    at = _starts(lines, wanted)
    if not at and quote.file.endswith(".json"):
        escaped = json.dumps(quote.quote.strip(), ensure_ascii=False)[1:-1]
        ascii_only = json.dumps(quote.quote.strip())[1:-1]
        at = [n for n, line in enumerate(lines, 1) if escaped in line or ascii_only in line]
    return min(at, key=lambda number: abs(number - (quote.line or 1))) if at else None


def _starts(lines: Sequence[str], wanted: Sequence[str]) -> list[int]:
    if len(wanted) == 1:
        return [number for number, line in enumerate(lines, 1) if wanted[0] in line]
    found = []
    for start in range(len(lines) - len(wanted) + 1):
        window = [line.strip() for line in lines[start : start + len(wanted)]]
        middle = window[1:-1] == list(wanted[1:-1])
        if middle and window[0].endswith(wanted[0]) and window[-1].startswith(wanted[-1]):
            found.append(start + 1)
    return found
