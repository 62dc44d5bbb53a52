"""Which requests on loopback come from web pages that have no business here.

A page of any site may send requests to 127.0.0.1, or point its own name there; its answers may be
closed to it, but the upstream's key would have been used.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from honestproxy.errors import Forbidden, HonestProxyError

_ORIGINS: Final = (b"origin", b"host")


class Guard:
    """Refuses what was meant for another host, or comes from another site's page.

    It stands only where the proxy listens on loopback; `allowed` names further hosts.
    """

    def __init__(self, host: str, allowed: tuple[str, ...]) -> None:
        self._stands = is_loopback(host)
        self._allowed = {name.lower() for name in allowed}

    def refusal(self, scope: Scope) -> HonestProxyError | None:
        """Why a request must not be answered; None where it may be."""
        if not self._stands or scope.get("client") is None:  # in process: no web page
            return None
        told = {name: value for name, value in scope["headers"] if name in _ORIGINS}
        host = _name(b"//" + told.get(b"host", b""))
        if "." in host and not self._is_ours(host):  # nobody else can own a name without a dot
            return Forbidden(
                f"requests for the host {host!r} are not answered here; name it in the setting "
                "allowed_hosts if it is this proxy's"
            )
        origin = told.get(b"origin", b"")
        if origin and not self._is_ours(_name(origin)):
            return Forbidden(
                "requests of other sites' pages are not answered here; a site of yours goes into "
                "the setting allowed_hosts"
            )
        return None

    def _is_ours(self, name: str) -> bool:
        return is_loopback(name) or name in self._allowed


def is_loopback(name: str) -> bool:
    """Whether a host's name or address can only be this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(name)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return False


def _name(url: bytes) -> str:
    with suppress(ValueError):
        return (urlsplit(url.decode("latin-1")).hostname or "").lower()
    return ""
