"""What the sandbox makes of a task's Dockerfile, and what it cannot do. Nothing here imports Harbor.

Honoured: ``WORKDIR``, ``ENV``, ``ARG`` (defaults), ``USER``, ``COPY`` and ``ADD`` of files of the build context.
Noted or without effect: ``FROM`` (the host's own userland is used), ``CMD``, ``ENTRYPOINT``, ``LABEL`` and the like.
Everything else cannot be had without building an image, and is reported with its line.

Why not ``dockerfile-parse``: it knows neither here-documents nor the scope of ``ARG``, reads ``COPY`` no further than
its text, and the rest of it is the part that takes few lines.

In words ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:+other}`` and ``${NAME+other}`` are
replaced, except in single quotes; an unset variable is empty. What a variable holds is never split into words.
https://docs.docker.com/reference/dockerfile/#environment-replacement
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_HARMLESS = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "SHELL", "STOPSIGNAL"}
_DIRECTIVE = re.compile(r"#\s*([A-Za-z]+)\s*=\s*(\S+)\s*")
_HEREDOC = re.compile(r"<<(-?)\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\2")
_REMOTE = re.compile(r"(?:https?|ftp|git|ssh)://|git@", re.IGNORECASE)
_NOT = "not supported by the sandbox environment"
WAY_OUT = "run it in Docker (-e docker), or leave it out where this host has what is needed (--ek unsupported=skip)"
"""What to do about an instruction that cannot be done."""
_COPY_FLAGS = {"chown", "chmod", "link"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What an image has to begin with, and ``$PATH`` stands for in its Dockerfile."""


class Unsupported(NamedTuple):
    """One thing that the sandbox cannot do."""

    line: int
    """Line in the Dockerfile, from 1; 0 where it is not about a line."""
    instruction: str
    reason: str

    def line_of(self, folder: str = "environment") -> str:
        """Tell what is wrong, and where; one line."""
        where = f"{folder}/Dockerfile line {self.line}" if self.line else f"{folder}/{self.instruction}"
        return f"{where}: {self.reason}"


class Instruction(NamedTuple):
    """One logical line: continuations joined, comments removed, a here-document's body dropped."""

    line: int
    name: str
    """Upper case."""
    rest: str
    heredoc: bool


class Copy(NamedTuple):
    """One ``COPY`` or ``ADD``."""

    line: int
    sources: tuple[str, ...]
    """Paths or patterns inside the build context."""
    target: str
    """Absolute; with a trailing ``/`` where the Dockerfile has one."""
    mode: int | None
    """From ``--chmod``; None keeps the source's."""
    unpack: bool
    """``ADD`` unpacks a local tar archive."""


@dataclass
class Image:
    """What a Dockerfile comes to."""

    base: str = ""
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    user_line: int = 0
    """Where ``user`` is said; 0 for nowhere."""
    copies: list[Copy] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)


def check(environment_dir: Path) -> list[Unsupported]:
    """Tell what of the task's environment the sandbox cannot do; empty where it can do all of it."""
    return read(environment_dir).unsupported


def read(environment_dir: Path) -> Image:
    """Return the Dockerfile of ``environment_dir``; a compose file or a missing Dockerfile is reported as unsupported."""
    path = environment_dir / "Dockerfile"
    compose = environment_dir / "docker-compose.yaml"
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    image = parse(text)
    if compose.exists():
        image.unsupported.append(Unsupported(0, compose.name, f"services are {_NOT}"))
    elif not path.is_file():
        image.unsupported.append(Unsupported(0, "Dockerfile", f"there is none, and images are {_NOT}"))
    elif not image.base:
        image.unsupported.append(Unsupported(0, "Dockerfile", "has no FROM, so that it makes no image"))
    return image


def parse(text: str) -> Image:
    """Read the text of a Dockerfile. Never raises: what cannot be read is in ``unsupported``."""
    escape, instructions = _instructions(text)
    reader = _Reader(escape)
    for instruction in instructions:
        try:
            reason = reader.take(instruction)
        except ValueError as error:
            reason = str(error)
        if reason is not None:
            shown = f"{instruction.name} {instruction.rest}".strip()
            reader.image.unsupported.append(Unsupported(instruction.line, shown[:200], reason))
    return reader.image


class _Reader:
    """Takes instructions in order; ``image`` is what they come to so far."""

    def __init__(self, escape: str) -> None:
        self.escape = escape
        self.image = Image()
        self.stages = 0
        self.global_args: dict[str, str] = {}
        self.args: dict[str, str] = {}

    def take(self, instruction: Instruction) -> str | None:
        """Apply one instruction; the reason where it is not supported. Raises ValueError for bad text."""
        name, rest = instruction.name, instruction.rest
        if instruction.heredoc:
            return f"here-documents are {_NOT}"
        if name in _HARMLESS:
            return None
        method = getattr(self, f"_{name.lower()}", None) if name.isalpha() else None
        if method is not None and name in {"ARG", "ENV", "FROM", "USER", "VOLUME", "WORKDIR"}:
            result: str | None = method(rest)
            if name == "USER":
                self.image.user_line = instruction.line
            return result
        if name in {"COPY", "ADD"}:
            return self._copy(instruction)
        if name in {"RUN", "ONBUILD"}:
            return f"{name} is {_NOT}"
        return f"{name} is not an instruction that the sandbox environment knows"

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": PATH, **self.args, **self.image.env}

    def _from(self, rest: str) -> str | None:
        self.stages += 1
        if self.stages > 1:
            # The last stage is the image; what earlier ones built cannot be had.
            self.image = Image(unsupported=self.image.unsupported)
            self.args = {}
        parts = [p for p in split(rest, self.global_args) if not p.startswith("--")]
        self.image.base = parts[0] if parts else ""
        return f"several stages are {_NOT}" if self.stages > 1 else None

    def _arg(self, rest: str) -> None:
        for word in split(rest, self.variables, self.escape):
            name, equals, default = word.partition("=")
            if self.stages == 0:
                self.global_args[name] = default
            elif equals:
                self.args[name] = default
            elif name in self.global_args:
                self.args[name] = self.global_args[name]

    def _env(self, rest: str) -> None:
        variables = self.variables
        first, _, value = rest.strip().partition(" ")
        if "=" not in first:
            self.image.env[first] = expand(value.strip(), variables, self.escape)
            return
        for word in split(rest, variables, self.escape):
            name, equals, value = word.partition("=")
            if not equals or not name:
                raise ValueError(f"ENV needs NAME=VALUE, not {word!r}")
            self.image.env[name] = value

    def _user(self, rest: str) -> None:
        self.image.user = expand(rest.strip(), self.variables, self.escape) or None

    def _volume(self, rest: str) -> None:
        self.image.volumes += [self._absolute(path) for path in self._list(rest)]

    def _workdir(self, rest: str) -> None:
        self.image.workdir = self._absolute(expand(rest.strip(), self.variables, self.escape)).rstrip("/") or "/"

    def _copy(self, instruction: Instruction) -> str | None:
        rest = instruction.rest
        mode: int | None = None
        while flag := re.match(r"--([a-z]+)(?:=(\S*))?\s+", rest):
            rest = rest[flag.end() :]
            if flag[1] not in _COPY_FLAGS:
                return f"{instruction.name} --{flag[1]} is {_NOT}"
            if flag[1] == "chmod":
                mode = int(expand(flag[2] or "", self.variables, self.escape), 8)
        *sources, target = self._list(rest) or [""]
        if not sources:
            raise ValueError(f"{instruction.name} needs a source and a destination")
        if any(_REMOTE.match(source) for source in sources):
            return f"{instruction.name} of a URL is {_NOT}"
        unpack = instruction.name == "ADD"
        copy = Copy(instruction.line, tuple(sources), self._absolute(target), mode, unpack)
        self.image.copies.append(copy)
        return None

    def _list(self, rest: str) -> list[str]:
        """Return the arguments of an instruction in JSON or in shell form."""
        if rest.startswith("["):
            try:
                parts = json.loads(rest)
            except ValueError:
                parts = None
            if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
                return [expand(part, self.variables, self.escape) for part in parts]
        return split(rest, self.variables, self.escape)

    def _absolute(self, path: str) -> str:
        """Return ``path`` seen from WORKDIR, without ``.`` and ``..``; a trailing slash stays."""
        parts: list[str] = []
        for part in PurePosixPath(self.image.workdir, path).parts[1:]:
            if part == "..":
                del parts[-1:]
            else:
                parts.append(part)
        folder = parts and (path.endswith(("/", "/.")) or path in {".", ".."})
        return "/" + "/".join(parts) + ("/" if folder else "")


def _instructions(text: str) -> tuple[str, list[Instruction]]:
    """Return the escape character and the logical lines of a Dockerfile."""
    lines = text.split("\n")
    escape = "\\"
    for line in lines:
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None:
            break
        if directive[1].lower() == "escape":
            escape = directive[2]
    found: list[Instruction] = []
    at = 0
    while at < len(lines):
        start = at + 1
        logical, at = _logical(lines, at, escape)
        if not logical:
            continue
        name, *rest = logical.split(None, 1)
        ends = [] if rest and rest[0].startswith("[") else _HEREDOC.findall("".join(rest))
        heredoc = bool(ends) and name.upper() in {"RUN", "COPY", "ADD"}
        for dash, _, word in ends if heredoc else []:
            while at < len(lines) and (lines[at].lstrip("\t") if dash else lines[at]) != word:
                at += 1
            at += 1
        found.append(Instruction(start, name.upper(), "".join(rest).strip(), heredoc))
    return escape, found


def _logical(lines: list[str], at: int, escape: str) -> tuple[str, int]:
    """Return the logical line that starts at ``at``, without comments, and where the next one starts."""
    joined = ""
    while at < len(lines):
        line = lines[at].rstrip()
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            if joined:
                continue  # comments and empty lines inside a continuation are skipped
            return "", at
        if not line.endswith(escape):
            return (joined + line).strip(), at
        joined += line[: -len(escape)]
    return joined.strip(), at


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])(.*))?", re.DOTALL)


def split(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Return the words of ``text``. Raises ValueError for an open quote or a variable that cannot be read."""
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
    """Return ``text`` as one word: quotes removed, variables replaced, spaces kept."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        piece, at = _piece(text, at, variables, escape)
        pieces.append(piece)
    return "".join(pieces)


def _piece(text: str, at: int, variables: Mapping[str, str], escape: str) -> tuple[str, int]:
    """Tell what starts at ``at`` outside quotes, replaced, and where the text goes on after it."""
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
    """Tell what the variable that starts after ``$`` stands for."""
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
