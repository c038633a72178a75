"""``/login``: the form that trades a token for a cookie; ``api.login`` takes what it sends."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from parallelhassnes.api.pages.render import PageRoute, page

router = APIRouter(route_class=PageRoute)


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the address
    """Ask for a token."""
    return page(request, "login.html", next_page=next, trouble="")
