"""Writing TOML, which the standard library only reads: what a settings file of tables, texts and numbers needs."""

import json
from collections.abc import Mapping
from typing import Any


def dumps(document: Mapping[str, Any]) -> str:
    """The document as TOML; None is left out.

    Raises:
        TypeError: a value that TOML has no form for.
    """
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in document.items() if value is not None)


def _key(name: str) -> str:
    return json.dumps(name)


def _value(value: Any) -> str:
    match value:
        case bool() | int() | float() | str():
            return json.dumps(value)  # a JSON string is a TOML basic string
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            inner = (f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
            return f"{{{', '.join(inner)}}}"
    raise TypeError(f"TOML has no form for {type(value).__name__}")
