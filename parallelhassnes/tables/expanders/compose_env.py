"""What a task's Docker Compose files take from outside: ``$NAME``, ``${NAME}``, ``${NAME:?message}``, ``env_file``.

The rules are those of the Compose specification (Interpolation): ``$$`` is a dollar; ``:-``, ``-``, ``:+`` and ``+`` make a
variable optional; ``:?`` and ``?`` have Compose refuse the file where it is missing; a bare one that is missing becomes an
empty text, with which a service that needs it cannot work. Only values are interpolated, never keys.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

MOST_BYTES = 1 << 20
"""Of a file that is looked at; Compose files are small."""
MOST_DEPTH = 8
"""Of defaults inside of defaults."""
OF_HARBOR = frozenset(
    {
        "MAIN_IMAGE_NAME",
        "CONTEXT_DIR",
        "PREBUILT_IMAGE_NAME",
        "EGRESS_CONTROL_SIDECAR_IMAGE_NAME",
        "EGRESS_CONTROL_INITIAL_NETWORK_MODE",
        "EGRESS_CONTROL_INITIAL_ALLOWED_HOSTS",
        "CPUS",
        "MEMORY",
        "HARBOR_CONTAINER_NAME",
        *(f"{side}_{kind}_PATH" for side in ("ENV", "HOST") for kind in ("VERIFIER_LOGS", "AGENT_LOGS", "ARTIFACTS")),
    }
)
"""Variables that Harbor gives to Compose (its ``ComposeInfraEnvVars``, and the names of mounts that it keeps)."""
OF_COMPOSE = frozenset({"COMPOSE_PROJECT_NAME", "PWD", "HOSTNAME"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Used(NamedTuple):
    """One variable in a Compose file."""

    name: str
    needed: bool
    """Nothing stands in its place where it is missing."""
    refused: bool = False
    """Compose itself refuses the file where it is missing."""
    unless: tuple[str, ...] = ()
    """Variables in whose default it stands: where one of them is given, nobody asks for this one."""


def variables(text: str, depth: int = 0) -> Iterator[Used]:
    """Yield the variables of one value; those inside of defaults, too, to a depth that nobody writes."""
    at = 0
    while (at := text.find("$", at)) >= 0:
        at += 1
        if text.startswith("$", at):
            at += 1
        elif text.startswith("{", at):
            found = _NAME.match(text, at + 1)
            if found is None:
                continue
            sign = text[found.end() : found.end() + 2].removeprefix(":")[:1]
            yield Used(found[0], sign not in ("-", "+"), sign == "?")
            at = _closing(text, found.end())
            if sign == "-" and depth < MOST_DEPTH:
                for inner in variables(text[found.end() : at - 1].lstrip(":")[1:], depth + 1):
                    yield inner._replace(unless=(found[0], *inner.unless))
        elif (found := _NAME.match(text, at)) is not None:
            yield Used(found[0], needed=True)
            at = found.end()


def _closing(text: str, at: int) -> int:
    """Tell where the brace that is open closes; the end of the text where the brace is never closed."""
    depth = 1
    while depth and at < len(text):
        depth += (text[at] == "{") - (text[at] == "}")
        at += 1
    return at


class _ComposeLoader(yaml.SafeLoader):
    """Reads Compose's own tags (``!reset``, ``!override``) as what stands behind them."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_ComposeLoader.add_multi_constructor("!", _plain)


class ComposeFile(NamedTuple):
    """What one Compose file takes from outside."""

    used: tuple[Used, ...]
    missing_files: tuple[str, ...]
    """Those of its ``env_file`` that are missing and needed."""


def read(path: Path, project: Path) -> ComposeFile | None:
    """Tell what a Compose file takes; None where it is none that can be read, which Compose tells.

    Args:
        project: the folder of the first Compose file; the paths in every one of them begin there.
    """
    document = _document(path)
    if document is None:
        return None
    found: dict[Used, None] = {}
    for text in _texts(document):
        found |= dict.fromkeys(variables(text))
    return ComposeFile(tuple(found), tuple(_missing(document, project)))


def beside(folder: Path) -> frozenset[str]:
    """Return the variables of the ``.env`` that Compose reads beside its files."""
    from dotenv.parser import parse_stream

    text = _text(folder / ".env")
    if text is None:
        return frozenset()
    import io

    return frozenset(each.key for each in parse_stream(io.StringIO(text)) if each.key and each.value is not None)


def _text(path: Path) -> str | None:
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _document(path: Path) -> dict[str, Any] | None:
    text = _text(path)
    if text is None:
        return None
    try:
        document = yaml.load(text, _ComposeLoader)  # noqa: S506 - derived from SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _texts(document: dict[str, Any]) -> Iterator[str]:
    """Yield every text that is interpolated, each once, however often it is referred to."""
    stack: list[Any] = [document]
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(reversed([*(value.values() if isinstance(value, dict) else value)]))


def _missing(document: dict[str, Any], project: Path) -> Iterator[str]:
    services = document.get("services")
    for service in services.values() if isinstance(services, dict) else ():
        if not isinstance(service, dict) or service.get("profiles"):  # one that may never start
            continue
        named = service.get("env_file")
        for each in named if isinstance(named, list) else [named]:
            path = each.get("path") if isinstance(each, dict) else each
            optional = isinstance(each, dict) and each.get("required") is False
            if isinstance(path, str) and "$" not in path and not optional:
                place = os.path.join(project, os.path.expanduser(path))  # noqa: PTH118, PTH111 - knows an unknown ~user
                if not os.path.exists(place):  # noqa: PTH110 - of any shape, as Compose reads /dev/null
                    yield path
