"""An operator's words: for each action of ``actions.registry`` a route for each kind of target.

Those that are sent as a body are written out: limits in ``queue``, budgets in ``batches`` and ``budgets``.
"""

import re
from inspect import Parameter, Signature, get_annotations
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from parallelhassnes.actions.attribution import ActionResult
from parallelhassnes.actions.registry import ACTIONS, Action, Kind, Value, parameter
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Id, Reason, Why
from parallelhassnes.api.live.server_state import ServerState, SiteHere
from parallelhassnes.api.routes.jobs import place
from parallelhassnes.key_names import MAX_KEY

router = APIRouter(prefix="/v1", dependencies=[Depends(needs("read"))])

Key = Annotated[str, Query(min_length=1, max_length=MAX_KEY, description="A queue key, as `openai/gpt-5.2`.")]


_PATHS: dict[Kind, tuple[str, str]] = {
    "batch": ("batches", "/batches/{batch}"),
    "job": ("jobs", "/batches/{batch}/jobs/{job}"),
    "step": ("jobs", "/batches/{batch}/jobs/{job}/steps/{step}"),
    "key": ("queue", "/queue"),
    "runner": ("queue", "/runners/{runner}"),
}
"""What an action is about → the tag and the address of its routes."""


def _add(action: Action, kind: Kind) -> None:
    tag, path = _PATHS[kind]
    parts = dict.fromkeys(re.findall(r"{(\w+)}", path), Id) or {"key": Key}
    # A step that is named is meant whatever it came to, so nothing chooses among what ended.
    values = [value for value in action.values if kind != "step" or value.shape in ("number", "amount")]
    sets = any(value.shape in ("number", "amount") for value in values)

    def endpoint(*, site: ServerState, reason: str, **said: Any) -> ActionResult:
        named = [said.pop(part) for part in parts]
        text = str(place(site, *named)) if "batch" in parts else named[0]
        return action.do(site.context(), text, reason, **said)

    endpoint.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            parameter("site", SiteHere),
            *(parameter(name, annotation) for name, annotation in parts.items()),
            *map(_value, values),
            parameter("reason", Why) if action.needs_reason else parameter("reason", Reason, ""),
        ]
    )
    router.add_api_route(
        f"{path}/{action.name}",
        endpoint,
        methods=["PUT" if sets else "POST"],
        name=f"{'set_' if sets else ''}{action.name}{f'_{kind}' if kind in ('job', 'step', 'key') else ''}",
        description=action.help,
        tags=[tag],
        dependencies=[Depends(needs(action.role))],
        response_model=get_annotations(action.load(), eval_str=True)["return"],
    )


def _value(value: Value) -> Parameter:
    query: dict[str, Any] = {"alias": value.word, "description": value.help}
    if value.shape == "number":
        return parameter(value.name, Annotated[int, Query(ge=value.least, le=value.most, **query)])
    if value.shape == "amount":
        return parameter(value.name, Annotated[float | None, Query(ge=0, allow_inf_nan=False, **query)], None)
    if value.shape == "flag":
        return parameter(value.name, Annotated[bool, Query(**query)], default=False)
    return parameter(value.name, Annotated[list[str], Query(default_factory=list, **query)])


for _action in ACTIONS:
    for _kind in () if _action.by_hand else _action.targets:
        _add(_action, _kind)
