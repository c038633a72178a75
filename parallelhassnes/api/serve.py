"""Running the server: where it listens, whom it lets in, what it says at the start."""

import ipaddress
import logging
import os
import shlex
import socket
from pathlib import Path
from typing import NamedTuple

import uvicorn

from parallelhassnes.admin import tokens
from parallelhassnes.api.app import create_app
from parallelhassnes.api.http.connection import patient_by
from parallelhassnes.api.http.peers import CAN_TELL
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.config import ApiConfig, Auth
from parallelhassnes.errors import UserError
from parallelhassnes.schedule import configuration
from parallelhassnes.store.layout import Layout
from parallelhassnes.version import __version__

FIRST_NAME = "first"
"""Name of the token that is made where there is none and nobody could get in without."""
_MOST_CONNECTIONS = 2000
_CLOSE_SEC = 3


class Serving(NamedTuple):
    """A server that listens and has not begun to answer."""

    site: ServerState
    socket: socket.socket
    token: str = ""
    """Made for this first start, since nobody could use the server without."""

    @property
    def url(self) -> str:
        if self.site.settings.unix_socket is not None:
            return "http://localhost"
        host = self.site.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.site.settings.port}"

    @property
    def login(self) -> str:
        """Where a browser logs in; with the token that was made, in the part of the address that is sent nowhere."""
        return f"{self.url}{self.site.settings.root_path}/login" + (f"#token={self.token}" if self.token else "")


def listen(
    root: Path, *, host: str | None, port: int | None, unix_socket: str | None, auth: Auth | None, ticking: bool
) -> Serving:
    """Check what the server would expose, and take its port or its socket. Where only holders of tokens are let in and
    there is no token, one is made.

    Args:
        root: the folder with ``runs/``.
        host: instead of the configured one; so with ``port`` (0 for any that is free) and ``auth``.
        unix_socket: path of a socket, relative to the current folder, instead of a port.
        ticking: keep a ticking process.

    Raises:
        UserError: it may not listen there like that, or cannot.
    """
    said = {"host": host, "port": port, "auth": auth}
    config = configuration.in_force(Layout(root)).config.api
    place = root / config.unix_socket if config.unix_socket else None
    if unix_socket is not None:
        place = Path(unix_socket).absolute()
    elif host is not None or port is not None:
        place = None
    update = {key: value for key, value in said.items() if value is not None}
    settings = config.model_copy(update={**update, "unix_socket": str(place) if place else None})
    who = settings.auth or _default(settings)
    if who == "none" and not (place or is_loopback(settings.host)):
        raise UserError(
            f"{settings.host} can be reached from other hosts, and anybody there could do anything",
            fix="use --auth token",
        )
    taken = _take_path(place) if place else _take(settings)
    if place is None:
        settings = settings.model_copy(update={"port": taken.getsockname()[1]})
    site = ServerState(root, settings, who, ticking=ticking)
    first = who == "token" and not tokens.every(site.layout)
    made = tokens.create(site.context(), FIRST_NAME, "operate").token if first else ""
    return Serving(site, taken, made)


def _default(settings: ApiConfig) -> Auth:
    """Tell whom to let in where nothing is said: this user, where the kernel tells that it is this user."""
    if settings.unix_socket is not None:
        return "user" if CAN_TELL else "token"
    near = CAN_TELL and is_loopback(settings.host) and not (settings.hosts or settings.root_path)
    return "user" if near else "token"


def is_loopback(host: str) -> bool:
    """Tell whether only this host can reach it."""
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
        raise UserError(f"--host {host}: {error.strerror}", fix="name an address of this host") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot listen on {host} port {port}: {why}", fix="choose another --port or --host") from None


def _take_path(place: Path) -> socket.socket:
    """Listen on a socket in the file system that only this user can connect to; one of a server that died is replaced."""
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if place.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                if not asking.connect_ex(str(place)):
                    raise UserError(f"{place}: another server listens there", fix="choose another --unix-socket")
            place.unlink()
        before = os.umask(0o177)
        try:
            taken.bind(str(place))
        finally:
            os.umask(before)
        taken.listen(1024)
    except OSError as error:
        taken.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot listen on {place}: {why}", fix="choose another --unix-socket") from None
    return taken


def start_message(serving: Serving) -> list[str]:
    """Tell what is exposed to whom, and how to log in."""
    site = serving.site
    path = site.settings.unix_socket
    names = ", ".join(f"{token.name} ({token.role})" for token in tokens.every(site.layout))
    who = {
        "none": "everybody on this host may do everything, without a login",
        "user": "your own processes, without a login; none of an attempt"
        + (f"; holders of a token: {names}" if names else ""),
        "token": f"holders of a token: {names}",
    }[site.auth]
    lines = [
        f"ParallelHassnes {__version__} at {path or serving.url}; Ctrl-C ends it, attempts go on",
        f"  root   {site.layout.root}",
        f"  who    {who}",
    ]
    if path:
        lines.append(f"  ask    curl --unix-socket {shlex.quote(path)} {serving.url}/health")
    if site.auth == "token":
        lines.append(f"  login  {serving.login}")
        if serving.token:
            lines.append(f"  token  {serving.token}: may do everything; it is shown only now, and kept as a hash")
        lines.append("  send   Authorization: Bearer TOKEN")
    if not (path or is_loopback(site.settings.host)):
        lines.append("  note   it speaks plain HTTP: put a proxy with TLS in front of it")
    every = f"every {site.settings.tick_sec:g} s and after each change"
    lines.append(f"  ticks  {every if site.ticker else 'none: it only shows; cron has to tick'}")
    return lines


def run(serving: Serving) -> None:
    """Answer until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    config = uvicorn.Config(
        create_app(serving.site),
        http=patient_by(serving.site.settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=_CLOSE_SEC,
        limit_concurrency=_MOST_CONNECTIONS,
    )
    uvicorn.Server(config).run(sockets=[serving.socket])
