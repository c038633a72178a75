"""Proxies in front of the server: what those that are trusted say of a client's address and of TLS."""

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope


class Proxies:
    """Args:
    trusted: addresses or networks, as ``10.0.0.0/8``.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted]

    def correct(self, scope: Scope, headers: Headers) -> None:
        """Put into the scope what a trusted proxy says: who asks is the last address of which no such proxy speaks."""
        client = scope.get("client")
        if client and not self._are_trusted(client[0]):  # without an address: a socket in the file system
            return
        for text in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
            if not text.strip():
                break
            scope["client"] = (text.strip(), 0)
            if not self._are_trusted(text.strip()):
                break
        if headers.get("x-forwarded-proto", "").strip().lower() == "https":
            scope["scheme"] = "https"

    def _are_trusted(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)
