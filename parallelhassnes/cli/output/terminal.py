"""What may reach a terminal: text and colours. What a worker wrote into logs, names and files may command one otherwise.

Every stream of the program that is a terminal is a ``Terminal``, so no way of printing goes around it. What draws on the
screen itself (``console``) writes past it, and keeps its texts harmless before it adds its own commands.
"""

import codecs
import io
import re
import shutil
import sys
from typing import IO

_COLOURS = re.compile(r"(\x1b\[[0-9;:]*m)")
_COMMANDS = re.compile(
    r"(?:\x1b[P\]X^_]|[\x90\x98\x9d\x9e\x9f])[^\n\x07\x1b\x9c]*(?:\x1b\\|[\x07\x9c])?"  # strings: OSC, DCS, …
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: the cursor, the screen, modes
    r"|\x1b[ -/]*[0-~]"  # character sets, resets
)
_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
"""Characters that command a terminal, or show text out of order."""


def harmless(text: str) -> str:
    """Return the text and its colours; every other command to a terminal is taken out, what is left of one is made visible.

    A line that was written over itself (``\\r``) becomes several, so that nothing is hidden by what follows it.
    """
    if text.isprintable():
        return text
    text = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")
    parts = _COLOURS.split(text)
    parts[::2] = [_COMMANDS.sub("", part).translate(_CONTROLS) for part in parts[::2]]
    return "".join(parts)


def plain(text: str) -> str:
    """As ``harmless``, and without colours; every character keeps its place, so that a table stays one."""
    return text if text.isprintable() else text.translate(_CONTROLS)


class Terminal(io.TextIOWrapper):
    """A standard stream; what is written to it while it is a terminal is harmless."""

    raw = False
    """Let everything through: the user asked for the bytes."""

    def write(self, text: str) -> int:
        """Write the text."""
        return super().write(text if self.raw or not self.isatty() else harmless(text))

    def draw(self, text: str) -> int:
        """Write commands of our own."""
        return super().write(text)


def guard(stream: IO[str]) -> IO[str]:
    """Return the stream, or what takes its place where it is a terminal."""
    if type(stream) is not io.TextIOWrapper or not stream.isatty():
        return stream
    encoding, errors, lines = stream.encoding, stream.errors, stream.line_buffering
    stream.flush()
    return Terminal(stream.detach(), encoding, errors, line_buffering=lines)


def let_through(*, raw: bool) -> None:
    """Print the bytes as they are from now on, where the user asked for them."""
    if raw and isinstance(sys.stdout, Terminal):
        sys.stdout.raw = True


def copy(stream: IO[bytes]) -> None:
    """Print a file: its bytes, or on a terminal what is harmless of it."""
    sys.stdout.flush()
    if not isinstance(sys.stdout, Terminal) or sys.stdout.raw or not sys.stdout.isatty():
        shutil.copyfileobj(stream, sys.stdout.buffer)
        return
    for text in codecs.iterdecode(iter(lambda: stream.read(1 << 16), b""), "utf-8", "replace"):
        sys.stdout.write(text)
    sys.stdout.flush()
