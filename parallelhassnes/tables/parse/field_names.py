"""Unknown keys, found at any depth of a document that a pydantic model describes.

Harbor's models ignore keys that they do not know, so a misspelt ``override_timeout`` would change
nothing and say nothing. Here the document is compared with the fields of the model, its aliases and
the older spellings that its validators still take; free objects (``kwargs``, ``env``) stay free.
"""

import types
import typing
from functools import cache
from typing import Annotated, Any, TypeAliasType, get_args, get_origin, is_typeddict

from pydantic import AliasChoices, BaseModel

from parallelhassnes.tables.parse.located_errors import Problems, pointer

OLDER_SPELLINGS: dict[str, frozenset[str]] = {
    "EnvironmentConfig": frozenset({"mounts_json", "suppress_override_warnings"}),
    "JobConfig": frozenset({"orchestrator"}),
    "DatasetConfig": frozenset({"registry"}),
}
"""Keys that a Harbor model takes in a ``before`` validator, so that they are not among its fields."""


def check_keys(problems: Problems, at: str, model: Any, data: object, *, also: frozenset[str] = frozenset()) -> None:
    """Report each key of ``data`` that ``model`` (a type, as in an annotation) does not know; ``also`` is known too."""
    if isinstance(data, list):
        item = _item_type(model)
        if item is not None:
            for index, value in enumerate(data):
                if isinstance(value, dict | list):
                    check_keys(problems, at + pointer(index), item, value)
        return
    if not isinstance(data, dict):
        return
    target, fields = _fields(model)
    if fields is None:
        value_type = _value_type(model)
        if value_type is not None:
            for key, value in data.items():
                if isinstance(value, dict | list):
                    check_keys(problems, at + pointer(str(key)), value_type, value)
        return
    older = OLDER_SPELLINGS.get(getattr(target, "__name__", ""), frozenset()) | also
    for key, value in data.items():
        if key in fields:
            if isinstance(value, dict | list):
                check_keys(problems, at + pointer(str(key)), fields[key], value)
        elif key not in older:
            problems.unknown_key(at, key, fields.keys() | also)


def known_keys(model: type[BaseModel]) -> frozenset[str]:
    """Return the keys that a model takes, aliases included."""
    _, fields = _fields(model)
    return frozenset(fields or ())


@cache
def _fields(annotation: Any) -> tuple[Any, dict[str, Any] | None]:
    """Return the one model or TypedDict in an annotation with its keys; (None, None) where there is none or several."""
    found = [part for part in _parts(annotation) if _is_model(part) or is_typeddict(part)]
    if len(found) != 1:
        return None, None
    target = found[0]
    if is_typeddict(target):
        return target, dict(typing.get_type_hints(target))
    fields: dict[str, Any] = {}
    for name, info in target.model_fields.items():
        fields[info.alias or name] = info.annotation
        if info.alias and target.model_config.get("populate_by_name"):
            fields[name] = info.annotation
        if isinstance(info.validation_alias, AliasChoices):
            fields |= {str(choice): info.annotation for choice in info.validation_alias.choices}
        elif isinstance(info.validation_alias, str):
            fields[info.validation_alias] = info.annotation
    return target, fields


@cache
def _item_type(annotation: Any) -> Any:
    for part in _parts(annotation):
        if get_origin(part) in (list, tuple) and get_args(part):
            return get_args(part)[0]
    return None


@cache
def _value_type(annotation: Any) -> Any:
    for part in _parts(annotation):
        if get_origin(part) is dict and len(get_args(part)) == 2:
            return get_args(part)[1]
    return None


def _parts(annotation: Any) -> list[Any]:
    """Return the members of a union, with aliases and ``Annotated`` taken off."""
    if isinstance(annotation, TypeAliasType):
        return _parts(annotation.__value__)
    origin = get_origin(annotation)
    if origin in (Annotated, typing.Required, typing.NotRequired):
        return _parts(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
