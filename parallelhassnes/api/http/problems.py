"""Errors as ``application/problem+json`` (RFC 9457): one document for everything that can go wrong.

No traceback leaves the server: what a user can cause says what, where and what to do; what they cannot is logged on
the server's standard error under a number that the answer names.
"""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from parallelhassnes.errors import InvalidInput, StoreBusy, UnknownId, UserError
from parallelhassnes.store.atomic import CorruptFile
from parallelhassnes.store.space import is_full

log = logging.getLogger("parallelhassnes.api")


class ProblemLine(BaseModel):
    """One thing that is wrong with an input."""

    where: str
    """The table's name, or ``query``, ``path``, ``body``, ``header``."""
    pointer: str
    """JSON pointer, or ``line 3``; empty for the whole."""
    message: str
    fix: str
    """What to do about it; empty where that is plain."""
    line: str
    """All of it as one line."""


class ProblemDocument(BaseModel):
    """What is wrong with a request."""

    type: str = "about:blank"
    title: str
    """The status in words."""
    status: int
    detail: str
    """What is wrong, where, and what to do, in one line."""
    fix: str = ""
    """What to do, where that is known apart."""
    errors: list[ProblemLine] = []
    """Everything that is wrong with an input, at once."""


def problem(
    status: int,
    detail: str,
    *,
    fix: str = "",
    errors: list[ProblemLine] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer."""
    document = ProblemDocument(
        title=HTTPStatus(status).phrase, status=status, detail=detail, fix=fix, errors=errors or []
    )
    return Response(document.model_dump_json(), status, dict(headers or {}), "application/problem+json")


def of_user(error: UserError) -> Response:
    """Tell what the user can mend: an unknown id is 404, a bad input 422, a store that is locked 409, anything else 400."""
    lines = [
        ProblemLine(**found._asdict(), line=found.line())
        for found in (error.problems if isinstance(error, InvalidInput) else [])
    ]
    status = 422 if lines else 400
    for kind, its in ((UnknownId, 404), (StoreBusy, 409)):
        status = its if isinstance(error, kind) else status
    return problem(status, str(error), fix=error.fix, errors=lines)


def handle(app: FastAPI) -> None:
    """Have every error of the application answered so."""

    @app.exception_handler(UserError)
    def user(_: Request, error: UserError) -> Response:
        return of_user(error)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, OSError) and is_full(error.__cause__):  # a body put aside
            return _full()
        if error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
            where = f"there is nothing at {request.url.path[:200]}"
            return problem(404, where, fix="/openapi.json has all addresses")
        return problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        lines = [_line(found) for found in error.errors()]
        return problem(422, lines[0].line if lines else "the request is invalid", errors=lines)

    @app.exception_handler(FileNotFoundError)
    def gone(_: Request, error: FileNotFoundError) -> Response:
        log.info("gone while it was read: %s", error.filename)
        return problem(404, "it was there and is gone", fix="look again")

    @app.exception_handler(OSError)
    def host(_: Request, error: OSError) -> Response:
        if not is_full(error):
            raise error
        log.error("the disk is full: %s", error)
        return _full()

    @app.exception_handler(CorruptFile)
    def corrupt(_: Request, error: CorruptFile) -> Response:
        log.error("%s", error)
        return problem(409, str(error), fix="parallelhassnes audit verify says more")


def _full() -> Response:
    return problem(507, "the server's disk is full", fix="free some space there and ask again")


def _line(found: Mapping[str, object]) -> ProblemLine:
    place = [str(part) for part in found["loc"]]  # type: ignore[attr-defined]
    where, pointer = place[0] if place else "request", "".join(f"/{part}" for part in place[1:])
    message = str(found["msg"])
    return ProblemLine(where=where, pointer=pointer, message=message, fix="", line=f"{where} {pointer}: {message}")


class ErrorMiddleware:
    """The outermost layer: an error of ours becomes a 500 with a number, and its traceback a line of the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: object) -> None:
            nonlocal begun
            begun = True
            await send(message)  # type: ignore[arg-type]

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            said = incident(scope, error)
            if scope["type"] != "http" or begun:
                raise
            await problem(500, said)(scope, receive, send)


def incident(scope: Scope, error: Exception) -> str:
    """Log what was not foreseen under a number; return the line that names it."""
    number = secrets.token_hex(4)
    log.error("incident %s: %s %s", number, scope.get("method"), scope.get("path"), exc_info=error)
    return f"internal error; it is incident {number} in the server's log"
