"""What foreign text may do where it is shown: be read, and be coloured. Everything that commands a terminal is taken out.

What a worker wrote into logs, names and files is foreign.
"""

import re

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


def colourless(text: str) -> str:
    """As ``harmless``, and without colours."""
    return text if text.isprintable() else _COLOURS.sub("", harmless(text))


def one_line(text: str) -> str:
    """As ``plain``, for what is to stay on one line whatever is named in it; half a character is written as an escape."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return plain(whole.replace("\r", "\\r").replace("\n", "\\n"))


def plain(text: str) -> str:
    """As ``harmless``, and without colours; every character keeps its place, so that a table stays one."""
    return text if text.isprintable() else text.translate(_CONTROLS)
