"""The words of a Dockerfile instruction: quotes, escapes and variables, as Docker's shell lexer reads them.

``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:+other}`` and ``${NAME+other}`` are
replaced, except in single quotes; an unset variable is empty. What a variable holds is never split into words.
https://docs.docker.com/reference/dockerfile/#environment-replacement
"""

import re
from collections.abc import Mapping

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])(.*))?", re.DOTALL)


def split(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """The words of ``text``. Raises ValueError for an open quote or a variable that cannot be read."""
    words: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(text):
        char = text[at]
        if char.isspace():
            if word is not None:
                words.append("".join(word))
            word = None
            at += 1
            continue
        word = word if word is not None else []
        piece, at = _piece(text, at, variables, escape)
        word.append(piece)
    if word is not None:
        words.append("".join(word))
    return words


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """``text`` as one word: quotes removed, variables replaced, spaces kept."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        piece, at = _piece(text, at, variables, escape)
        pieces.append(piece)
    return "".join(pieces)


def _piece(text: str, at: int, variables: Mapping[str, str], escape: str) -> tuple[str, int]:
    """What starts at ``at`` outside quotes, replaced, and where the text goes on after it."""
    char = text[at]
    if char == "'":
        end = text.find("'", at + 1)
        if end < 0:
            raise ValueError("a single quote is not closed")
        return text[at + 1 : end], end + 1
    if char == '"':
        return _double_quoted(text, at + 1, variables, escape)
    if char == "$":
        return _variable(text, at + 1, variables, escape)
    if char == escape and at + 1 < len(text):
        return text[at + 1], at + 2
    return char, at + 1


def _double_quoted(text: str, at: int, variables: Mapping[str, str], escape: str) -> tuple[str, int]:
    pieces: list[str] = []
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(pieces), at + 1
        if char == "$":
            piece, at = _variable(text, at + 1, variables, escape)
            pieces.append(piece)
        elif char == escape and text[at + 1 : at + 2] in ('"', "$", escape):
            pieces.append(text[at + 1])
            at += 2
        else:
            pieces.append(char)
            at += 1
    raise ValueError("a double quote is not closed")


def _variable(text: str, at: int, variables: Mapping[str, str], escape: str) -> tuple[str, int]:
    """What the variable that starts after ``$`` stands for."""
    if text[at : at + 1] != "{":
        plain = _PLAIN.match(text, at)
        return (variables.get(plain[0], ""), plain.end()) if plain else ("$", at)
    end = _closing_brace(text, at)
    braced = _BRACED.fullmatch(text[at + 1 : end])
    if braced is None:
        raise ValueError(f"${text[at : end + 1]} is not a variable that can be replaced here")
    name, operator, other = braced.groups()
    value = variables.get(name)
    if operator is None:
        return value or "", end + 1
    there = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return (expand(other, variables, escape) if there else ""), end + 1
    return (value or "" if there else expand(other, variables, escape)), end + 1


def _closing_brace(text: str, at: int) -> int:
    depth = 0
    for index in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError("a ${ is not closed")
