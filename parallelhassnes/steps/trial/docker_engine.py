"""Whether the Docker engine that trials would use answers: one request to its socket, without the Docker command.

Only a socket on this host is asked. Of an engine elsewhere, and of one that a context names, the trials find out themselves.
"""

import socket
from collections.abc import Mapping

from parallelhassnes.store import atomic

NAMED_BY = frozenset({"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"})
"""Variables that say which engine it is."""
_SOCKET = "/var/run/docker.sock"
_PATIENCE_SEC = 2.0


def trouble(environ: Mapping[str, str]) -> str | None:
    """Why it does not answer, in one line; None where it does or where that cannot be told.

    Args:
        environ: what the Docker command would go by.
    """
    place = _socket(environ)
    if place is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(_PATIENCE_SEC)
            engine.connect(place)
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = engine.recv(256)
    except TimeoutError:
        return f"the Docker engine at {place} has said nothing for {_PATIENCE_SEC:g} s"
    except OSError as error:
        if error.errno is None:  # a path that is too long to ask
            return None
        return f"no Docker engine answers at {place}: {error.strerror}"
    status = answer.partition(b"\r\n")[0].decode("ascii", "replace")
    return None if " 200 " in f"{status} " else f"the Docker engine at {place} says {status!r}"


def _socket(environ: Mapping[str, str]) -> str | None:
    """The path of the engine's socket; None where it is another kind of place."""
    host = environ.get("DOCKER_HOST", "")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix://") else None
    context = environ.get("DOCKER_CONTEXT")
    if context is None:
        folder = environ.get("DOCKER_CONFIG") or f"{environ.get('HOME', '')}/.docker"
        context = str(atomic.read_derived(f"{folder}/config.json").get("currentContext", ""))
    return _SOCKET if context in ("", "default") else None
