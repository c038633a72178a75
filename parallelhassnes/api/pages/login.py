"""``/login`` and ``/logout``: a browser trades a token for a cookie.

The cookie goes with links from elsewhere (SameSite=Lax), so that an address in a chat opens without a new login; what is
changed needs the CSRF token of a page of ours besides.
"""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from parallelhassnes.admin.sessions import LASTS_SEC
from parallelhassnes.api.http.auth import Authenticator
from parallelhassnes.api.live.server_state import site_of
from parallelhassnes.api.pages.render import page

router = APIRouter()


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the address
    """Ask for a token."""
    return _form(request, next)


@router.post("/login")
def log_in(
    request: Request,
    token: Annotated[str, Form(max_length=200)],
    next_page: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """Set the cookie and go to the page that was asked for; ask again where it is no valid one."""
    gatekeeper: Authenticator = request.app.state.gatekeeper
    client = request.client.host if request.client else ""
    try:
        session = gatekeeper.log_in(token.strip(), client)
    except HTTPException as error:
        if "text/html" not in request.headers.get("accept", ""):
            raise
        return _form(request, next_page, f"{error.detail.partition(';')[0]}.", error.status_code)
    answer = RedirectResponse(own_page(next_page), 303)
    answer.set_cookie(
        gatekeeper.cookie,
        session,
        max_age=LASTS_SEC,
        httponly=True,
        samesite="lax",
        path=_path(request),
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session, on the server's side too, and forget the cookie."""
    gatekeeper: Authenticator = request.app.state.gatekeeper
    gatekeeper.log_out(request.headers.get("cookie", ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(gatekeeper.cookie, path=_path(request))
    return answer


def _path(request: Request) -> str:
    return site_of(request).settings.root_path or "/"


def _form(request: Request, next_page: str, trouble: str = "", code: int = 200) -> Response:
    return page(request, "login.html", code, next_page=own_page(next_page), trouble=trouble)


def own_page(target: str) -> str:
    """Return the target if it is a page of this server, else the first one."""
    parts = urlsplit(target.replace("\\", "/"))
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith("//"):
        return "/"
    return target
