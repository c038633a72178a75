"""What may reach a terminal: text and colours. What a worker wrote into logs, names and files may command one otherwise.

Every stream of the program that is a terminal is a ``Terminal``, so no way of printing goes around it. So is standard error in a file,
which somebody shows on a terminal later: there are lines of ours alone, and nobody asks for bytes. What draws on the
screen itself (``drawing``) writes past it, and keeps its texts harmless before it adds its own commands.
"""

import codecs
import io
import shutil
import sys
from typing import IO

from parallelhassnes.harmless import colourless, harmless


class Terminal(io.TextIOWrapper):
    """A standard stream; what is written to it while it is a terminal is harmless."""

    raw = False
    """Let everything through: the user asked for the bytes."""
    is_ours = False
    """Keep what is written harmless in a file, too."""

    def write(self, text: str) -> int:
        """Write the text."""
        if not self.raw and self.isatty():
            text = harmless(text)
        elif self.is_ours:
            text = colourless(text)
        return super().write(text)

    def draw(self, text: str) -> int:
        """Write commands of our own."""
        return super().write(text)


def guard(stream: IO[str], *, is_ours: bool = False) -> IO[str]:
    """Return the stream, or what takes its place where it is a terminal.

    Args:
        is_ours: nothing is written to it but lines of ours.
    """
    if type(stream) is not io.TextIOWrapper or not (is_ours or stream.isatty()):
        return stream
    encoding, errors, lines = stream.encoding, stream.errors, stream.line_buffering
    stream.flush()
    made = Terminal(stream.detach(), encoding, errors, line_buffering=lines)
    made.is_ours = is_ours
    return made


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
