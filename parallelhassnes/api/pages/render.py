"""From a template and its values to an answer: who looks, what they may, an ETag, and errors as pages.

Everything is escaped by the template engine; what is HTML already is ``Markup`` and made in this package only.
"""

import hashlib
import re
from collections.abc import Callable, Coroutine, Iterable
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from parallelhassnes import formatting, places
from parallelhassnes.actions.registry import BY_NAME
from parallelhassnes.admin import tokens
from parallelhassnes.api.http.auth import CSRF_FIELD, Who
from parallelhassnes.api.http.problems import incident
from parallelhassnes.api.live.server_state import site_of
from parallelhassnes.api.pages import action_list, charts, icons
from parallelhassnes.api.pages.ansi import line_html
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.store.atomic import CorruptFile
from parallelhassnes.store.space import is_full
from parallelhassnes.version import __version__

_ADDRESS = re.compile(r'((?:href|src|action|data-events|data-address)=")/(?!/)')
"""What leads to another page or part of the server; a quote that stands in a text is written otherwise."""


_FOLDS = re.compile(r"(?<=[-_./:,@])")


def page(request: Request, template: str, code: int = 200, **values: Any) -> Response:
    """Return the rendered page; 304 where the reader has the very same already."""
    body = _templates().get_template(template).render(_surroundings(request) | values)
    prefix = site_of(request).settings.root_path
    if prefix:
        body = _ADDRESS.sub(rf"\1{prefix}/", body)
    body = body.encode("utf-8", "replace").decode()  # names of files may be no text
    tag = f'W/"{hashlib.sha256(body.encode()).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Cookie"}
    if code == 200 and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(body, code, headers)


def _surroundings(request: Request) -> dict[str, Any]:
    """Tell what every page is given: who looks and what they may do, and how forms say that they are ours."""
    who: Who | None = request.scope.get("state", {}).get("who")
    return {
        "who": who,
        "may_submit": who is not None and tokens.may(who.role, "submit"),
        "may_operate": who is not None and tokens.may(who.role, "operate"),
        "csrf_input": Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, who.csrf if who else ""),
        "path": request.url.path,
        "back": action_list.address_of(request),
        "version": __version__,
        "root": str(site_of(request).layout.root),
    }


class PageRoute(APIRoute):
    """Answers what the reader can cause by a page that says what is wrong and what to do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except UserError as error:
                status = 404 if isinstance(error, UnknownId) else 422
                return refusal(request, status, error.message, error.fix)
            except HTTPException as error:
                return refusal(request, error.status_code, str(error.detail))
            except RequestValidationError as error:
                first = error.errors()[0]
                place = "/".join(str(part) for part in first["loc"])
                return refusal(request, 422, f"{place}: {first['msg']}")
            except FileNotFoundError:
                return refusal(request, 404, "it was there and is gone", "look again")
            except CorruptFile as error:
                return refusal(request, 409, str(error), "parallelhassnes audit verify says more")
            except Exception as error:  # noqa: BLE001 - logged under the number that the page names
                if isinstance(error, OSError) and is_full(error):
                    return refusal(request, 507, "the server's disk is full", "free some space there and ask again")
                return refusal(request, 500, incident(request.scope, error))

        return handled


def refusal(request: Request, status: int, message: str, fix: str = "") -> Response:
    """Return the page of an error."""
    return page(request, "error.html", status, status=status, message=message, fix=fix)


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("parallelhassnes.api.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        duration=formatting.duration,
        money=formatting.money,
        number=formatting.number,
        reward=formatting.reward,
        size=formatting.size,
        counted=formatting.counted,
        between=formatting.between,
        seconds=icons.seconds,
        when=icons.when,
        ago=icons.ago,
        url=link,
        folds=folds,
    )
    found.globals.update(
        bar=charts.bar,
        meter=charts.meter,
        interval=charts.interval,
        cost_chart=charts.cost,
        state_word=icons.state_word,
        query=query,
        pairs=pairs,
        attempt_url=attempt_url,
        line_html=line_html,
        actions=BY_NAME,
    )
    return found


def compile_all() -> None:
    """Have every template ready before somebody looks."""
    environment = _templates()
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


def link(identity: str) -> str:
    """Return an id (``BATCH/JOB``…) as a part of a path."""
    return quote(identity, errors="surrogateescape")


def folds(name: str) -> Markup:
    """Return a name that may be broken behind what separates its words, and nowhere else."""
    return Markup("<wbr>").join(part for part in _FOLDS.split(name) if part)


def pairs(values: Iterable[str]) -> list[tuple[str, str]]:
    """Return choices whose texts are their values."""
    return [(value, value) for value in values]


def attempt_url(folder: str) -> str:
    """Return the page of an attempt, from its folder relative to the root."""
    return link(f"/attempts/{places.named(folder)}")


def query(**values: object) -> str:
    """Return ``?a=b`` of the values that are not empty."""
    kept = {name: value for name, value in values.items() if value not in (None, "", 0)}
    return f"?{urlencode(kept, errors='surrogateescape')}" if kept else ""
