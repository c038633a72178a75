"""Running the server: where it listens, whom it lets in, what it says at the start."""

import ipaddress
import logging
import os
import socket
from pathlib import Path
from typing import NamedTuple

import uvicorn

from parallelhassnes import __version__
from parallelhassnes.api.app import create_app
from parallelhassnes.api.site import Auth, Site
from parallelhassnes.config import ApiConfig, load_config
from parallelhassnes.control import tokens
from parallelhassnes.errors import UserError
from parallelhassnes.store.layout import Layout

_MOST_CONNECTIONS = 2000
_CLOSE_SEC = 3


class Serving(NamedTuple):
    """A server that listens and has not begun to answer."""

    site: Site
    socket: socket.socket

    @property
    def url(self) -> str:
        host = self.site.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.site.settings.port}"


def listen(
    root: Path, *, host: str | None, port: int | None, auth: Auth | None, ticking: bool
) -> Serving:
    """Check what the server would expose, and take its port.

    Args:
        root: the folder with ``runs/``.
        host: instead of the configured one; so with ``port`` (0 for any that is free) and ``auth``.
        ticking: keep a ticking process.

    Raises:
        UserError: it may not listen there like that, or cannot.
    """
    said = {"host": host, "port": port, "auth": auth}
    config = load_config(root).api
    settings = config.model_copy(update={k: v for k, v in said.items() if v is not None})
    found = tokens.every(Layout(root))
    who: Auth = settings.auth or ("token" if found else "none")
    if who == "none" and not is_loopback(settings.host):
        raise UserError(
            f"{settings.host} can be reached from other hosts, and anybody there could do anything",
            fix="add --auth token",
        )
    if who == "token" and not found:
        raise UserError(
            "there is no token, so nobody could use it",
            fix="make one: parallelhassnes token create NAME --role operate",
        )
    taken = _take(settings)
    settings = settings.model_copy(update={"port": taken.getsockname()[1]})
    return Serving(Site(root, settings, who, ticking=ticking), taken)


def is_loopback(host: str) -> bool:
    """Whether only this host can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _take(settings: ApiConfig) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=1024)
    except socket.gaierror as error:
        raise UserError(
            f"--host {host}: {error.strerror}", fix="name an address of this host"
        ) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"cannot listen on {host} port {port}: {why}", fix="choose another --port or --host"
        ) from None


def start_message(serving: Serving) -> list[str]:
    """What is exposed to whom, and how to log in."""
    site = serving.site
    if site.auth == "none":
        who = "everybody on this host may do everything, without a login"
    else:
        names = ", ".join(f"{token.name} ({token.role})" for token in tokens.every(site.layout))
        who = f"holders of a token: {names}"
    lines = [
        f"ParallelHassnes {__version__} at {serving.url}; Ctrl-C ends it, attempts go on",
        f"  root   {site.layout.root}",
        f"  who    {who}",
    ]
    if site.auth == "token":
        lines.append(f"  login  {serving.url}/login; programs send `Authorization: Bearer TOKEN`")
        if not is_loopback(site.settings.host):
            lines.append("  note   it speaks plain HTTP: put a proxy with TLS in front of it")
    every = f"every {site.settings.tick_sec:g} s and after each change"
    lines.append(f"  ticks  {every if site.ticker else 'none: it only shows; cron has to tick'}")
    return lines


def run(serving: Serving) -> None:
    """Answer until SIGINT or SIGTERM."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    config = uvicorn.Config(
        create_app(serving.site), log_config=None, access_log=False, server_header=False, proxy_headers=False,
        lifespan="on", timeout_graceful_shutdown=_CLOSE_SEC, limit_concurrency=_MOST_CONNECTIONS,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[serving.socket])
