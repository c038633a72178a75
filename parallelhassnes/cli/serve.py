"""``api``, ``mcp``, and ``view``, the page of a batch in a browser."""

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, LookArgument, RootOption, layout_of

if TYPE_CHECKING:
    from parallelhassnes.config import ApiConfig, Auth

_ASK_SEC = 2.0
_DRAWN_ON = ("DISPLAY", "WAYLAND_DISPLAY")


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(api)
    app.command()(mcp)
    app.command()(view)


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


def view(
    target: LookArgument = "latest",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open nothing.")] = False,
    no_tick: Annotated[bool, typer.Option("--no-tick", help="Of a server that is started: only show.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Show the page of a batch, job, step or attempt in the browser; a server is started if none runs, until Ctrl-C.

    Example: parallelhassnes view latest --no-browser
    """
    from urllib.parse import quote

    from parallelhassnes.refs import resolve
    from parallelhassnes.schedule import configuration
    from parallelhassnes.store.atomic import dumps

    layout = layout_of(root)
    found = resolve(layout, target)
    kind = "batches" if found.what == "batch" else "attempts"
    page = f"/{kind}/{quote(str(found))}"
    settings = configuration.in_force(layout).config.api
    serving, there = None, _running(settings, found.batch_id)
    if there is None:
        from parallelhassnes.api import serve

        port = None if _is_free(settings) else 0
        serving = serve.listen(layout.root, host=None, port=port, unix_socket=None, auth=None, ticking=not no_tick)
        there = f"{serving.url}{settings.root_path}"
    address = f"{there}{page}"
    typer.echo(dumps({"ok": True, "url": address}) if json else address, nl=not json)
    sys.stdout.flush()
    if not (no_browser or json) and _has_browser():
        import webbrowser

        webbrowser.open(address)  # the socket listens already: a browser waits for the server
    if serving is not None:
        print("a server was started for it; Ctrl-C ends it, attempts go on", file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):
            serve.run(serving)


def _running(settings: "ApiConfig", batch_id: str) -> str | None:
    """Return the address of a server that has this batch; None where there is none at the configured port."""
    import urllib.request
    from http import HTTPStatus

    if settings.unix_socket is not None:
        return None
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host  # noqa: S104 - compared
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.root_path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base}/v1/batches/{batch_id}", timeout=_ASK_SEC):
            return base
    except urllib.error.HTTPError as error:
        return base if error.code == HTTPStatus.UNAUTHORIZED else None  # its page asks for a login
    except OSError:
        return None


def _is_free(settings: "ApiConfig") -> bool:
    """Tell whether nobody listens at the configured port."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as asking:
        asking.settimeout(_ASK_SEC)
        return asking.connect_ex((settings.host, settings.port)) != 0


def _has_browser() -> bool:
    """Tell whether this is a desktop: over ssh, or without a display, the address is all there is."""
    if os.environ.get("SSH_CONNECTION") or not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or any(os.environ.get(name) for name in _DRAWN_ON)
