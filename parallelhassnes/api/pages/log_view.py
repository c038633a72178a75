"""``…/lines``: a window of a log as HTML, for the script that follows, scrolls and searches; the pages show the same.

The window's place is in headers: ``X-Start`` and ``X-End`` are its bytes, ``X-Line`` the number of the line behind it,
``X-Size`` the file's bytes now, ``X-Ended`` whether the attempt is sealed, so that nothing more will come.
"""

from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages.ansi import line_html
from parallelhassnes.api.pages.render import PageRoute, link, page
from parallelhassnes.attempt_data import log_window
from parallelhassnes.attempt_data.log_window import Window
from parallelhassnes.refs import Found, resolve
from parallelhassnes.store import attempts

router = APIRouter(route_class=PageRoute)


class ShownWindow(NamedTuple):
    """A window of one file, ready to be shown."""

    file: str
    window: Window
    ended: bool
    marked: int
    """Line that is pointed at; 0 for none."""

    @property
    def html(self) -> Markup:
        one = Markup(
            '<div class="ln{}" id="L{}" data-at="{}" data-end="{}"><a href="#L{}" aria-label="line {}">{}</a>'
            "<code>{}</code></div>\n"
        )
        return Markup("").join(
            one.format(
                " at" if line.number == self.marked else "",
                line.number,
                line.at,
                line.end,
                line.number,
                line.number,
                line.number,
                line_html(line.text),
            )
            for line in self.window.lines
        )


def view(
    attempt_dir: Path, file: str, *, at: int | None = None, before: int | None = None, line: int = 0, number: int = 0
) -> ShownWindow:
    """Return a window of a file of an attempt: from byte ``at``, up to byte ``before``, around ``line``, or else its end.

    Raises:
        UnknownId: the attempt has no such file.
    """
    ended = attempts.is_sealed(attempt_dir)  # looked at first: what is read later is then the whole file
    with log_window.open_log(attempt_dir, file) as stream:
        if at is not None:
            window = log_window.from_byte(stream, at, whole=ended, number=number or None)
        elif before is not None:
            window = log_window.before_byte(stream, before, whole=ended)
        elif line > 0:
            window = log_window.at_line(stream, line, whole=ended)
        else:
            window = log_window.at_end(stream, whole=ended)
    return ShownWindow(file, window, ended, line)


def attempt_of(site: SiteHere, batch: str, job: str, step: str, attempt: str) -> Found:
    """Return the attempt that an address names."""
    return resolve(site.layout, f"{batch}/{job}/{step}/{attempt}")


@router.get("/attempts/{batch}/{job}/{step}/{attempt}/lines")
def lines(
    site: SiteHere,
    batch: str,
    job: str,
    step: str,
    attempt: str,
    file: str,
    at: int | None = None,
    before: int | None = None,
    line: int = 0,
    number: int = 0,
) -> Response:
    """One window."""
    found = attempt_of(site, batch, job, step, attempt)
    shown = view(found.folder(site.layout), file, at=at, before=before, line=line, number=number)
    headers = {
        "X-Start": str(shown.window.start),
        "X-End": str(shown.window.end),
        "X-Size": str(shown.window.size),
        "X-Line": str(shown.window.next_number),
        "X-Ended": str(int(shown.ended)),
        "Cache-Control": "no-store",
    }
    return HTMLResponse(str(shown.html), headers=headers)


@router.get("/attempts/{batch}/{job}/{step}/{attempt}/search")
def search(
    request: Request, site: SiteHere, batch: str, job: str, step: str, attempt: str, file: str, q: str
) -> Response:
    """The lines of a file in which a text stands."""
    found = attempt_of(site, batch, job, step, attempt)
    with log_window.open_log(found.folder(site.layout), file) as stream:
        hits = log_window.search(stream, q[:1000])
    address = f"/attempts/{link(str(found))}"
    return page(request, "search.html", hits=hits, file=file, q=q, address=address, found=found)
