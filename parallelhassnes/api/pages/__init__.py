"""The pages that people look at, rendered by the server.

``router`` is mounted by ``create_app``. A route gets its root by ``site.SiteHere`` and who asks by ``auth.who_asks``; a
form that changes something carries ``who.csrf`` in a field ``auth.CSRF_FIELD``.
"""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

router = APIRouter(include_in_schema=False)

_LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ParallelHassnes: log in</title>
<main><h1>ParallelHassnes</h1><form method="post" action="/login">
<label>Token <input name="token" type="password" autocomplete="current-password" required autofocus></label>
<input type="hidden" name="next" value="/"><button>Log in</button></form>
<p>A token is made on the server by <code>parallelhassnes token create NAME --role operate</code>.</p></main></html>
"""


@router.get("/login")
def login_page() -> Response:
    """The form that trades a token for a cookie."""
    return HTMLResponse(_LOGIN)


@router.get("/")
def overview(request: Request) -> Response:
    """The first page."""
    return RedirectResponse(request.app.openapi_url or "/login", 303)
