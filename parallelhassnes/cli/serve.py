"""``api``."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption

if TYPE_CHECKING:
    from parallelhassnes.api.site import Auth


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(api)


def api(
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="0 for any that is free. [default: 8765]"),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            "--auth",
            metavar="none|token",
            help="Whom to let in; none only on a loopback address. [default: token, once there is one]",
        ),
    ] = None,
    no_tick: Annotated[
        bool, typer.Option("--no-tick", help="Only show: let cron or another server tick.")
    ] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Serve the pages and the HTTP interface, and tick at an interval and after each change.

    Example: parallelhassnes api --port 8765
    """
    from parallelhassnes.api import serve
    from parallelhassnes.cli.options import root_or_default
    from parallelhassnes.store.atomic import dumps

    place = root_or_default(root)
    serving = serve.listen(place, host=host, port=port, auth=_auth(auth), ticking=not no_tick)
    if json:
        site = serving.site
        document = {
            "ok": True,
            "url": serving.url,
            "root": str(place),
            "auth": site.auth,
            "ticking": not no_tick,
        }
        typer.echo(dumps(document), nl=False)
    else:
        for line in serve.start_message(serving):
            typer.echo(line)
    with contextlib.suppress(KeyboardInterrupt):
        serve.run(serving)


def _auth(text: str | None) -> "Auth | None":
    from parallelhassnes.errors import UserError

    if text is None:
        return None
    if text == "none":
        return "none"
    if text == "token":
        return "token"
    raise UserError(f"--auth {text}: is not known", fix="use none or token")
