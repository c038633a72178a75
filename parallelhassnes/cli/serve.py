"""``api``, ``mcp``."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption

if TYPE_CHECKING:
    from parallelhassnes.config import Auth


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(api)
    app.command()(mcp)


def api(
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="0 for any that is free. [default: 8765]")
    ] = None,
    unix_socket: Annotated[
        str | None,
        typer.Option("--unix-socket", metavar="PATH", help="Listen on a socket that only you can use, not on a port."),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            "--auth",
            metavar="user|token|none",
            help="Whom to let in without a token: your own processes (the default on this host), nobody, or everybody.",
        ),
    ] = None,
    no_tick: Annotated[bool, typer.Option("--no-tick", help="Only show: let cron or another server tick.")] = False,
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
    serving = serve.listen(place, host=host, port=port, unix_socket=unix_socket, auth=_auth(auth), ticking=not no_tick)
    if json:
        site = serving.site
        document = {
            "ok": True,
            "url": serving.url,
            "root": str(place),
            "auth": site.auth,
            "ticking": not no_tick,
            "unix_socket": site.settings.unix_socket,
        }
        if serving.token:
            document |= {"token": serving.token, "login": serving.login}
        typer.echo(dumps(document), nl=False)
    else:
        for line in serve.start_message(serving):
            typer.echo(line)
    with contextlib.suppress(KeyboardInterrupt):
        serve.run(serving)


def _auth(text: str | None) -> "Auth | None":
    from typing import get_args

    from parallelhassnes.config import Auth
    from parallelhassnes.errors import UserError

    known: tuple[Auth, ...] = get_args(Auth.__value__)
    found = next((auth for auth in known if auth == text), None)
    if text is not None and found is None:
        raise UserError(f"--auth {text}: is not known", fix="use user, token or none")
    return found


def mcp(
    allow: Annotated[
        str,
        typer.Option(
            "--allow", metavar="read|submit|operate", help="What the client may do, as roles of tokens have it."
        ),
    ] = "read",
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD", min=0, help="What one submission may ask for at most.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Serve a coding agent by the Model Context Protocol, on standard input and output: list, explain, logs, results, and what --allow adds.

    Example: parallelhassnes mcp --allow submit --budget 5
    """
    from parallelhassnes.admin.tokens import ROLES
    from parallelhassnes.api import mcp_tools
    from parallelhassnes.cli.options import root_or_default
    from parallelhassnes.errors import UserError

    role = next((role for role in ROLES if role == allow), None)
    if role is None:
        raise UserError(f"--allow {allow}: is not known", fix=f"use {', '.join(ROLES)}")
    with contextlib.suppress(KeyboardInterrupt):
        mcp_tools.serve(root_or_default(root), role, budget)
