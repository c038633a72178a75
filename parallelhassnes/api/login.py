"""``/login`` and ``/logout``: a browser trades a token for a cookie."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.api.auth import SESSION_SEC, Gatekeeper

router = APIRouter(include_in_schema=False)


@router.post("/login")
def log_in(
    request: Request,
    token: Annotated[str, Form(max_length=200)],
    next_page: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """Set the cookie and go to the page that was asked for."""
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    client = request.client.host if request.client else ""
    _, value = gatekeeper.log_in(token.strip(), client)
    answer = RedirectResponse(own_page(next_page), 303)
    answer.set_cookie(
        gatekeeper.cookie, value, max_age=SESSION_SEC, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Forget the cookie."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(request.app.state.gatekeeper.cookie)
    return answer


def own_page(target: str) -> str:
    """The target if it is a page of this server, else the first one."""
    parts = urlsplit(target.replace("\\", "/"))
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith("//"):
        return "/"
    return target
