"""Models' servers that a batch's table names on this machine or its network, and whether one answers now.

Agents take a server that is not there for one that is busy: they ask again until their time is over, and what ends them is their deadline.
So this asks itself. A name is not looked up, as that may take long; an address that is no loopback and no private one is left alone.
"""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from parallelhassnes.errors import UserError
from parallelhassnes.store.layout import Layout
from parallelhassnes.tables.parse.load import load

MOST = 5
"""Servers of one batch that are asked."""
_ASK_SEC = 1.0
_KEYS = ("api_base", "base_url", "endpoint")


def silent(layout: Layout, batch_id: str) -> list[str]:
    """Return ``nothing answers at URL (why)`` of each server that the batch's table names and that takes no connection."""
    try:
        (path,) = layout.batch(batch_id).glob("launch_table.*")
        document = load(path.read_bytes(), path.name)
    except (UserError, OSError, ValueError):  # an imported batch, or one that is just deleted
        return []
    lines = (_silence(address) for address in list(dict.fromkeys(named(document)))[:MOST])
    return [line for line in lines if line]


def named(document: Any) -> Iterator[str]:
    """Yield the addresses that a table gives agents and analyses for their models, as they are written."""
    left = [document]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += reversed(part)
        elif isinstance(part, dict):
            left += reversed(part.values())
            for name, value in part.items():
                own = name in _KEYS or str(name).endswith(("_BASE_URL", "_API_BASE"))
                if own and isinstance(value, str) and value.startswith(("http://", "https://")):
                    yield value


def _silence(address: str) -> str:
    """Tell that and why nothing answers; empty where something takes a connection, or nobody is to ask."""
    try:
        found = urlsplit(address)
        host, port = found.hostname or "", found.port or (443 if found.scheme == "https" else 80)
        place = "127.0.0.1" if host == "localhost" else host
        if not ipaddress.ip_address(place).is_private:  # loopback is private, too
            return ""
    except ValueError:
        return ""
    try:
        socket.create_connection((host, port), _ASK_SEC).close()
    except OSError as error:
        return f"nothing answers at {address} ({(error.strerror or 'it took too long').lower()})"
    return ""
