"""Secrets are named in a table, never written into it: the table itself is kept in the store."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from parallelhassnes.tables.parse.located_errors import Problems, pointer

_TEMPLATE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-.*)?\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Harbor's own rule for what it redacts in its config.json, so that no such value could be replayed anyway.
_SENSITIVE_KEY = re.compile(r"KEY|SECRET|TOKEN(?!S)|PASSWORD|CREDENTIAL|AUTH", re.IGNORECASE)
_HARMLESS = re.compile(r"|\d+(\.\d+)?|true|false|yes|no|on|off|none|null", re.IGNORECASE)
_KNOWN_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,}"
    r"|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|xox[abprs]-[0-9A-Za-z-]{20,}|glpat-[0-9A-Za-z_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,})|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)


def check_env(env: Any, at: str, problems: Problems) -> None:
    """Refuse a literal value under a name such as ``API_KEY`` in an ``env`` or ``kwargs`` object.

    The value is never repeated in the message.
    """
    if not isinstance(env, Mapping):
        return
    for name, value in env.items():
        if not isinstance(value, str) or not _SENSITIVE_KEY.search(str(name)):
            continue
        if not _TEMPLATE.fullmatch(value) and not _HARMLESS.fullmatch(value):
            variable = str(name) if _NAME.fullmatch(str(name)) else "NAME"
            problems.add(
                at + pointer(str(name)),
                "a secret is written into the table, which is kept in the store",
                f"write ${{{variable.upper()}}} and name it in secrets",
            )


def check_shapes(document: Any, problems: Problems) -> None:
    """Refuse text anywhere that has the shape of a provider's key."""
    if not _KNOWN_SHAPES.search(json.dumps(document, ensure_ascii=False)):
        return
    for at, text in _texts(document):
        if _KNOWN_SHAPES.search(text):
            problems.add(pointer(*at), "holds what looks like a secret", "name its variable in secrets instead")


def check_names(names: list[Any], at: str, problems: Problems) -> tuple[str, ...]:
    """Return the names in ``secrets``; anything that is not the name of a variable may be a value, and is not repeated."""
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue  # reported by the model
        if not _NAME.fullmatch(name) or len(name) > 200:
            problems.add(
                at + pointer(index),
                "is not the name of an environment variable",
                "write the name only, such as OPENAI_API_KEY; its value comes from env_file",
            )
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def templates(env: Mapping[str, Any] | None) -> list[str]:
    """Return the variables that an ``env`` takes from outside, those with a default left out."""
    found = []
    for value in (env or {}).values():
        match = _TEMPLATE.fullmatch(value) if isinstance(value, str) else None
        if match and match[2] is None:
            found.append(match[1])
    return found


def _texts(document: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(document, ())]
    while stack:
        value, path = stack.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            stack.extend((child, (*path, key)) for key, child in value.items())
        elif isinstance(value, list):
            stack.extend((child, (*path, index)) for index, child in enumerate(value))


def without_secrets(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document that others wrote without what the checks here refuse: a literal under such a name in an ``env`` or ``kwargs``
    becomes ``${NAME}``, text with the shape of a provider's key ``[REDACTED]``.
    """
    made: dict[str, Any] = _blanked(document)
    return made


def _blanked(value: Any) -> Any:
    if isinstance(value, str):
        return _KNOWN_SHAPES.sub("[REDACTED]", value)
    if isinstance(value, list):
        return [_blanked(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {_KNOWN_SHAPES.sub("[REDACTED]", str(key)): _blanked(part) for key, part in value.items()}
    for name in ("env", "kwargs"):
        section = made.get(name)
        if isinstance(section, dict):
            made[name] = {key: _named(key, text) for key, text in section.items()}
    return made


def _named(name: str, value: Any) -> Any:
    """Return ``${NAME}`` in the place of a literal secret, and of what Harbor has blotted out."""
    if not isinstance(value, str) or not _SENSITIVE_KEY.search(name):
        return value
    if _TEMPLATE.fullmatch(value) or _HARMLESS.fullmatch(value):
        return value
    return f"${{{name.upper()}}}" if _NAME.fullmatch(name) else "[REDACTED]"
