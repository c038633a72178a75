"""The OpenAPI document: what FastAPI derives, with our errors in the place of its own, roles and examples.

The examples are in ``examples.json``: what a real server was sent and answered, see ``tests/api_examples.py``.
"""

import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from parallelhassnes.admin.tokens import ROLES
from parallelhassnes.api.http.problems import ProblemDocument, ProblemLine
from parallelhassnes.version import __version__

_ABOUT = """The files of a ParallelHassnes root over HTTP: the same functions that the command line calls.

An id may be written as on the command line: whole, as a prefix of one thing only, or `latest`. Errors are
`application/problem+json`. What is polled has an `ETag`; send it back as `If-None-Match`. Lists that may be long come in
pages: ask again with `cursor` set to the `next` of the answer, until that is null."""

ERRORS = {
    "400": "The request cannot be done.",
    "401": "No token, or one that is none.",
    "403": "The token's role or scopes do not allow it, or it comes from another site's page.",
    "404": "An id that names nothing, or more than one thing.",
    "409": "The store does not allow it as it is now.",
    "412": "`If-Match` names another answer than the present one.",
    "413": "The body is too large.",
    "416": "The range lies outside of the file.",
    "421": "The Host header names another server.",
    "422": "The input is invalid; `errors` has everything that is wrong with it.",
    "429": "Too many failed logins from this address.",
    "503": "It cannot be done just now; `Retry-After` says when to ask again.",
    "507": "The server's disk is full.",
}
_OF_ALL = {"413", "421"}
_OF_THE_GUARDED = {"400", "401", "403", "404", "409", "429"}
_JSON, _PROBLEM = "application/json", "application/problem+json"


def describe(app: FastAPI) -> None:
    """Have the application make its document so, once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            prefix = app.state.site.settings.root_path
            app.openapi_schema = _complete(
                get_openapi(
                    title="ParallelHassnes",
                    version=__version__,
                    description=_ABOUT,
                    routes=app.routes,
                    servers=[{"url": prefix}] if prefix else None,
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def examples() -> dict[str, Any]:
    """Return ``METHOD /path`` → what was sent, as ``body`` or ``yaml``, and the ``answer``; below ``errors``, a problem of each status."""
    text = (files("parallelhassnes.api") / "examples.json").read_text("utf-8")
    return dict(json.loads(text))


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    known = examples()
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (ProblemLine, ProblemDocument):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    components["responses"] = {f"Problem{status}": _problem(status, known["errors"]) for status in ERRORS}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _state(operation, changes=method != "get")
            _show(operation, known.get(f"{method.upper()} {path}", {}))
    return document


def _problem(status: str, known: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    if status in known:
        shape["example"] = known[status]
    return {"description": ERRORS[status], "content": {_PROBLEM: shape}}


def _state(operation: dict[str, Any], *, changes: bool) -> None:
    """Say which role it needs, which errors it may answer with, and whether its answer has a tag."""
    answers = operation["responses"]
    headers = {p["name"].lower() for p in operation.get("parameters", []) if p["in"] == "header"}
    possible = _OF_ALL | (ERRORS.keys() & answers.keys())
    if "security" in operation:
        named = {role for way in operation["security"] for roles in way.values() for role in roles}
        role = max(named, key=ROLES.index)
        operation["security"] = [{key: [role] for key in way} for way in operation["security"][:1]]
        operation["description"] += f"\n\nNeeds the role `{role}`."
        possible |= _OF_THE_GUARDED | ({"507"} if changes else set())
    if operation.get("requestBody"):
        possible.add("422")
    if "range" in headers:
        possible.add("416")
    if "if-none-match" in headers:
        possible.add("412")
        answers["304"] = {"description": "As it was: `If-None-Match` has it."}
        tag = {"description": "Changes when the answer does.", "schema": {"type": "string"}}
        answers["200"]["headers"] = {"ETag": tag}
    for status in sorted(possible):
        answers[status] = {"$ref": f"#/components/responses/Problem{status}"}


def _show(operation: dict[str, Any], known: dict[str, Any]) -> None:
    """Put the examples where they belong."""
    sent = operation.get("requestBody", {}).get("content", {})
    for kind, shape in sent.items():
        name = "yaml" if kind == "application/yaml" else "body"
        if name in known:
            shape["example"] = known[name]
    for status in ("200", "201"):
        shape = operation["responses"].get(status, {}).get("content", {}).get(_JSON)
        if shape is not None and "answer" in known:
            shape["example"] = known["answer"]
