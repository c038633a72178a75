"""A recording of a terminal as one SVG that plays by itself: real commands on a real pseudo-terminal, drawn as frames.

``python -m tests.support.film docs/img/first-run.svg`` makes the one that the README shows.
"""

import contextlib
import html
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import stores
from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 104, 30
SCENES = (
    "parallelhassnes run examples/tasks -a oracle -a nop -k 2 -e sandbox",
    "parallelhassnes results latest --by agent",
    "parallelhassnes show latest/parallelhassnes-broken-oracle",
    "parallelhassnes status",
)
"""What is typed, in order."""
LONGEST_SEC = 90.0
_EVERY_SEC = 0.5
"""Between two frames of a command that goes on."""
_TYPED_SEC, _READ_SEC = 1.5, 7.0
_CELL, _LINE = 8.4, 18
_COMMAND = re.compile(r"(\r|\n|\x1b\[\??[0-9;]*[A-Za-z])")
_INK = ("#484f58", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#a5d6ff", "#e6edf3")
"""The eight colours of a terminal, on a dark ground."""


class Frame(NamedTuple):
    """What is on the screen, and for how long."""

    lines: tuple[str, ...]
    """With their colours, as a terminal takes them."""
    seconds: float


class Screen:
    """The lines of a terminal, as far as our own displays command it: colours, the cursor up, a line or the rest cleared."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self._row = 0
        self._fresh = False

    def write(self, text: str) -> None:
        """Take what was written."""
        for part in _COMMAND.split(text):
            if part == "\n":
                self._row += 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif part == "\r":
                self._fresh = True
            elif part.startswith("\x1b[") and not part.endswith("m"):
                self._command(part[2:-1], part[-1])
            elif part:
                self.lines[self._row] = part if self._fresh else self.lines[self._row] + part
                self._fresh = False

    def _command(self, number: str, letter: str) -> None:
        if letter == "A":
            self._row = max(0, self._row - int(number or 1))
        elif letter == "K":
            self.lines[self._row] = ""
        elif letter == "J":
            del self.lines[self._row + 1 :]

    def shown(self) -> tuple[str, ...]:
        """Return the last lines, as many as fit."""
        return tuple(self.lines[-LINES:])


def film(scenes: tuple[str, ...]) -> list[Frame]:
    """Type the commands one after the other in a folder with the examples; what was seen."""
    frames: list[Frame] = []
    screen = Screen()
    with tempfile.TemporaryDirectory() as folder:
        place, env = stores.readers_place(Path(folder))
        env |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES), "HOME": folder}
        for line in scenes:
            screen.write("\x1b[1m$\x1b[0m ")
            frames.append(Frame(screen.shown(), 0.6))
            screen.write(f"{line}\r\n")
            frames.append(Frame(screen.shown(), _TYPED_SEC))
            frames += _run(line, screen, place, env)
            screen.write("\n")
            frames.append(Frame(screen.shown(), _READ_SEC))
        hidden = str(place)
    return [Frame(tuple(each.replace(hidden, "~/checkout") for each in frame.lines), frame.seconds) for frame in frames]


def _run(line: str, screen: Screen, place: Path, env: dict[str, str]) -> Iterator[Frame]:
    """Run one command, and yield the screen whenever it is another, as it is meanwhile."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(line, shell=True, cwd=place, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    began, before = time.monotonic(), screen.shown()
    open_ = True
    while open_:
        if select.select([ours], [], [], _EVERY_SEC)[0]:
            data = b""
            with contextlib.suppress(OSError):  # the other end is closed
                data = os.read(ours, 1 << 16)
            open_ = bool(data)
            screen.write(data.decode("utf-8", "replace"))
        now = time.monotonic()
        if now - began >= _EVERY_SEC and screen.shown() != before:
            yield Frame(before, now - began)
            began, before = now, screen.shown()
    os.close(ours)
    if process.wait() != 0:
        raise SystemExit(f"{line} ended with {process.returncode}: {screen.shown()}")


def draw(frames: list[Frame]) -> str:
    """Return the frames as one SVG that plays them over and over; where nothing may move, it shows the last."""
    total = sum(frame.seconds for frame in frames)
    speed = min(1.0, LONGEST_SEC / total)
    lines: dict[str, int] = {}
    moves, drawn, at = [], [], 0.0
    for number, frame in enumerate(frames):
        begin, at = at, at + frame.seconds
        first = "" if number == 0 else "0%{visibility:hidden}"
        moves.append(
            f"@keyframes f{number}{{{first}{100 * begin / total:.2f}%{{visibility:visible}}"
            f"{100 * at / total:.2f}%{{visibility:hidden}}}}#f{number}{{animation-name:f{number}}}"
        )
        uses = [
            f'<use href="#l{lines.setdefault(line, len(lines))}" y="{(row + 1) * _LINE}"/>'
            for row, line in enumerate(frame.lines)
            if line
        ]
        last = ' style="visibility:visible"' if number == len(frames) - 1 else ""
        drawn.append(f'<g class="f" id="f{number}"{last}>{"".join(uses)}</g>')
    width, height = round(COLUMNS * _CELL + 24), LINES * _LINE + 24
    seconds = total * speed
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><title>A first run</title><style>'
        ".f{visibility:hidden;animation-duration:" + f"{seconds:.1f}s" + ";animation-timing-function:step-end;"
        "animation-iteration-count:infinite}text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
        "fill:#e6edf3;white-space:pre}@media(prefers-reduced-motion:reduce){.f{animation:none}}"
        + "".join(moves)
        + f'</style><rect width="{width}" height="{height}" rx="8" fill="#0d1117"/><defs>'
        + "".join(f'<g id="l{number}">{_line(line)}</g>' for line, number in lines.items())
        + f'</defs><g transform="translate(12,6)">{"".join(drawn)}</g></svg>\n'
    )


def _line(line: str) -> str:
    text = Text.from_ansi(line)
    text.truncate(COLUMNS)
    plain = text.plain.rstrip()
    spans, at = [], 0
    for number in range(len(plain) + 1):
        if number == len(plain) or _style(text, number) != _style(text, at):
            piece, style = html.escape(plain[at:number]), _style(text, at)
            spans.append(f"<tspan{style}>{piece}</tspan>" if style else piece)
            at = number
    length = f' textLength="{cell_len(plain) * _CELL:.1f}"' if plain else ""
    return f'<text{length} lengthAdjust="spacingAndGlyphs" xml:space="preserve">{"".join(spans)}</text>'


def _style(text: Text, at: int) -> str:
    """Return the attributes of a character."""
    style = Style.combine(
        [s.style for s in text.spans if s.start <= at < s.end and isinstance(s.style, Style)] or [Style.null()]
    )
    said = ' font-weight="700"' if style.bold else ""
    said += ' fill-opacity=".6"' if style.dim else ""
    if style.color is not None and style.color.number is not None:
        said += f' fill="{_INK[style.color.number % 8]}"'
    return said


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(film(SCENES)), encoding="utf-8")
