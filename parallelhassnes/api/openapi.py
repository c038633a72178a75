"""The OpenAPI document: what FastAPI derives, with our errors in the place of its own."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from parallelhassnes import __version__
from parallelhassnes.api.problems import ProblemDocument, ProblemLine

_ABOUT = """The files of a ParallelHassnes root over HTTP: the same functions that the command line calls.

An id may be written as on the command line: whole, as a prefix of one thing only, or `latest`. Errors are
`application/problem+json`. What is polled has an `ETag`; send it back as `If-None-Match`. Lists that may be long come in
pages: ask again with `cursor` set to the `next` of the answer, until that is null."""

ERRORS = {
    "400": "The request cannot be done.",
    "401": "No token, or one that is none.",
    "403": "The token's role does not allow it, or it comes from another site's page.",
    "404": "An id that names nothing, or more than one thing.",
    "409": "The store does not allow it as it is now.",
    "413": "The body is too large.",
    "421": "The Host header names another server.",
    "422": "The input is invalid; `errors` has everything that is wrong with it.",
    "429": "Too many failed logins from this address.",
    "503": "It cannot be done just now.",
}
_EXAMPLE = {
    "type": "about:blank", "title": "Not Found", "status": 404,
    "detail": "the store has no batch nightly; did you mean 20261121T013645Z-k3mzq7?",
    "fix": "did you mean 20261121T013645Z-k3mzq7?", "errors": [],
}  # fmt: skip
_PUBLIC = ("/health",)


def describe(app: FastAPI) -> None:
    """Have the application make its document so, once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title="ParallelHassnes", version=__version__, description=_ABOUT, routes=app.routes
                )
            )  # fmt: skip
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (ProblemLine, ProblemDocument):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    schemas["ProblemDocument"]["example"] = _EXAMPLE
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "get":
                operation["responses"]["304"] = {
                    "description": "As it was: `If-None-Match` has it."
                }
            for status, text in ERRORS.items():
                if path in _PUBLIC and status != "421":
                    continue
                operation["responses"][status] = {
                    "description": text,
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/ProblemDocument"}
                        }
                    },
                }
    return document
